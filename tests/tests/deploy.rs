//! What `deploy/` holds: every object that comes of it, what the chart's values may be, and the unit of a plain host. Whether the
//! agent serves as they run it is shown in the lab (`agent/deployed.rs`).

#[path = "deploy/objects.rs"]
mod objects;
#[path = "deploy/container.rs"]
mod container;
#[path = "deploy/kustomize.rs"]
mod kustomize;
#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/helm.rs"]
mod helm;
#[path = "deploy/values.rs"]
mod values;
#[path = "deploy/flags.rs"]
mod flags;
#[path = "deploy/unit.rs"]
mod unit;
#[path = "deploy/examples.rs"]
mod examples;
