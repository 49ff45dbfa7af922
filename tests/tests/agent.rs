//! The agent and the command line as an operator meets them: starting, stopping, mistakes, and a node that changes.
//! Whatever happens, nothing that is served already is lost.

#[path = "agent/stage.rs"]
mod stage;
#[path = "agent/command.rs"]
mod command;

#[path = "agent/start.rs"]
mod start;
#[path = "agent/bpffs.rs"]
mod bpffs;
#[path = "agent/deployed.rs"]
mod deployed;
#[path = "agent/image.rs"]
mod image;
#[path = "agent/pins.rs"]
mod pins;
#[path = "agent/end.rs"]
mod end;
#[path = "agent/refused.rs"]
mod refused;
#[path = "agent/upgrade.rs"]
mod upgrade;
#[path = "agent/faults.rs"]
mod faults;
#[path = "agent/edits.rs"]
mod edits;
#[path = "agent/mistakes.rs"]
mod mistakes;
#[path = "agent/services.rs"]
mod services;
#[path = "agent/cluster.rs"]
mod cluster;
#[path = "agent/bad_input.rs"]
mod bad_input;
#[path = "agent/ask.rs"]
mod ask;
#[path = "agent/health.rs"]
mod health;
#[path = "agent/health_ports.rs"]
mod health_ports;
#[path = "agent/metrics.rs"]
mod metrics;
#[path = "agent/service_metrics.rs"]
mod service_metrics;
#[path = "agent/alerts.rs"]
mod alerts;
#[path = "agent/page.rs"]
mod page;
#[path = "agent/events.rs"]
mod events;
#[path = "agent/limits.rs"]
mod limits;
#[path = "agent/delivery.rs"]
mod delivery;
#[path = "agent/inside.rs"]
mod inside;
#[path = "agent/links.rs"]
mod links;
#[path = "agent/hiding.rs"]
mod hiding;
#[path = "agent/node.rs"]
mod node;
#[path = "agent/snapshot.rs"]
mod snapshot;
#[path = "agent/views.rs"]
mod views;
#[path = "agent/status.rs"]
mod status;
#[path = "agent/config.rs"]
mod config;
#[path = "agent/reload.rs"]
mod reload;
#[path = "agent/explain.rs"]
mod explain;
#[path = "agent/doctor.rs"]
mod doctor;
#[path = "agent/top.rs"]
mod top;
#[path = "agent/pcapng.rs"]
mod pcapng;
#[path = "agent/watch.rs"]
mod watch;
#[path = "agent/watch_xdp.rs"]
mod watch_xdp;
