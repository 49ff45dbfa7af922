//! Clients in pods whose sockets the agent's programs do not see, as those of VMs: threads outside of the cgroup that it
//! follows. They are served at the host's end of their pod's link.

#[path = "links/stage.rs"]
mod stage;

#[path = "links/served.rs"]
mod served;
#[path = "links/refused.rs"]
mod refused;
#[path = "links/packets.rs"]
mod packets;
#[path = "links/changes.rs"]
mod changes;
