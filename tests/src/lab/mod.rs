//! A small network on one machine: clients, a router, a node and its pods, each a network namespace.
//!
//! ```text
//! client0 ─┐  198.51.100.0/24         192.0.2.0/29
//! client1 ─┴─ bridge in router ────── eth0  node ──── veth0 ── eth0  pod0  10.<100+id>.0.2
//!                     │               eth1       └─── veth1 ── eth0  pod1  10.<100+id>.0.3
//!                     └── 192.0.2.8/29 ┘ (two uplinks)
//! ```
//!
//! The router sends the VIP range 203.0.113.0/24 to the node; it knows no pod address unless a test asks for it.
//! Everything a [`Lab`] makes goes away with it, also when a test panics; what a killed run left behind is swept by
//! the next one. Labs of several processes run side by side: only their pod networks must differ, and their
//! [`Lab::id`] sees to that.

mod topology;
pub use topology::{Lab, LabSpec};
mod pods;
mod addresses;
pub use crate::kernel::sample::Version;
pub use addresses::{PodShape, Uplink, client_address, vip};
mod wiring;
pub mod kube_proxy;
mod conntrack;
pub use conntrack::forget_connections;
mod course;
pub use course::{Course, course, course_by_uplink};
mod namespace;
pub use namespace::Namespace;
mod cgroup;
pub use cgroup::Cgroup;
mod lease;
mod leftovers;

mod links;
pub use links::programs_of_links;
mod agent;
pub use agent::{Agent, without_traffic, xlb_binary};
mod bent;
pub use bent::{Bend, bent_binary, bent_object};
mod watcher;
pub use watcher::Watch;
mod sandbox;
pub use sandbox::Sandbox;
mod image;
pub use image::UnpackedImage;
mod manifests;
pub use manifests::{EndpointSpec, Manifests, ServiceSpec, SliceSpec, service_yaml, slice_yaml};

mod server;
pub use server::{Greeting, TcpServer, UdpServer};
mod client;
pub use client::{Identity, LineClient, UdpClient, ask, connect, udp_ask, udp_ask_unconnected};
mod sctp;
pub use sctp::{Association, SctpServer};
mod options;
mod program;
pub use program::Program;
mod pattern;
pub use pattern::Pattern;
mod frames;
pub use frames::{Capture, Frame, send_frame, send_frames};
mod limits;
pub use limits::allow_open_files;
mod wait;
pub use wait::wait_for;
