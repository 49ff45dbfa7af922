//! One change to the maps. Each is a single map operation, so that a crash between two of them is a state like any other;
//! but for one that fills a part of an array to which nothing leads yet.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use xlb_common::abi::{Backend, Frontend, Inside, Member, SoleFrontend, inside_flags};
use xlb_common::slot::SlotWord;

use super::desired::Protocol;
use super::endpoint::Endpoint;

/// A change to the maps.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Writes `BACKENDS[id]`; without `IN_USE` the id becomes free and keeps its generation.
    PutBackend {
        /// Id of the backend.
        id: u32,
        /// What it is.
        backend: Backend,
    },
    /// Writes `BACKEND_IDS_V4[key]` or `BACKEND_IDS_V6[key]`.
    PutBackendId {
        /// The pod's address and port.
        key: Endpoint,
        /// Id of the backend.
        id: u32,
    },
    /// Writes `SOLE_FRONTENDS_V4[pod]` or `SOLE_FRONTENDS_V6[pod]`.
    PutSoleFrontend {
        /// The pod's address and port.
        pod: Endpoint,
        /// The only frontend that ever led there.
        sole: SoleFrontend,
    },
    /// Deletes `SOLE_FRONTENDS_V4[pod]` or `SOLE_FRONTENDS_V6[pod]`: another frontend is about to lead there.
    RemoveSoleFrontend {
        /// The pod's address and port.
        pod: Endpoint,
    },
    /// Writes `MEMBERS[index]`.
    PutMember {
        /// The service's first member plus the local index.
        index: u32,
        /// What the local index stands for.
        member: Member,
    },
    /// Writes `SLOTS[index]`.
    PutSlot {
        /// The service's first slot plus the number of the slot.
        index: u32,
        /// Its owners.
        word: SlotWord,
    },
    /// Writes `SERVICES[id]`.
    PutService {
        /// Id of the service.
        id: u32,
        /// `namespace/name:port/protocol`.
        name: String,
        /// First of its words in `SLOTS`.
        slots_base: u32,
        /// How many; zero: none.
        slots: u32,
        /// First of its entries in `MEMBERS`.
        members_base: u32,
        /// How many.
        members: u32,
    },
    /// Adds to `SOURCE_RANGES_V4` or `SOURCE_RANGES_V6`.
    PutSourceRange {
        /// Id of the service.
        service: u32,
        /// Clients that it is open to.
        range: IpNet,
    },
    /// Deletes from `SOURCE_RANGES_V4` or `SOURCE_RANGES_V6`.
    RemoveSourceRange {
        /// Id of the service.
        service: u32,
        /// Clients that it was open to.
        range: IpNet,
    },
    /// Writes `FRONTENDS_V4[key]` or `FRONTENDS_V6[key]`.
    PutFrontend {
        /// VIP, protocol and port.
        key: Endpoint,
        /// Where they lead.
        frontend: Frontend,
    },
    /// Deletes `FRONTENDS_V4[key]` or `FRONTENDS_V6[key]`.
    RemoveFrontend {
        /// VIP, protocol and port.
        key: Endpoint,
    },
    /// Writes `VIPS_V4[address]` or `VIPS_V6[address]`.
    PutVip {
        /// The VIP.
        address: IpAddr,
        /// [`vip_flags`](xlb_common::abi::vip_flags).
        flags: u32,
    },
    /// Deletes `VIPS_V4[address]` or `VIPS_V6[address]`.
    RemoveVip {
        /// What is no VIP any more.
        address: IpAddr,
    },
    /// Fills a part of `ENDPOINTS_V4` or `ENDPOINTS_V6`, as the addresses' family is.
    PutEndpoints {
        /// First index.
        base: u32,
        /// The service's protocol.
        protocol: Protocol,
        /// The endpoints: usable ones, then lingering ones, then those for clients in pods.
        endpoints: Vec<SocketAddr>,
    },
    /// Writes `INSIDE_V4[key]` or `INSIDE_V6[key]`.
    PutInside {
        /// VIP, protocol and port.
        key: Endpoint,
        /// Where they lead clients inside.
        inside: Inside,
    },
    /// Deletes `INSIDE_V4[key]` or `INSIDE_V6[key]`; the endpoints rest before their part is used again.
    RemoveInside {
        /// VIP, protocol and port.
        key: Endpoint,
    },
    /// Deletes `SERVICES[id]`; its slots and members rest before they are used again.
    RemoveService {
        /// Id of the service.
        id: u32,
    },
    /// Deletes `BACKEND_IDS_V4[key]` or `BACKEND_IDS_V6[key]`.
    RemoveBackendId {
        /// The pod's address and port.
        key: Endpoint,
    },
    /// Writes `CONFIG`.
    PutConfig {
        /// Whether a backend is served through the stack.
        stack_in_use: bool,
        /// Number of the update; it counts up with the last operation of a plan.
        generation: u64,
    },
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutBackend { id, backend } => {
                write!(f, "put backend {id} generation {} {}", backend.generation, describe(backend))
            }
            Self::PutBackendId { key, id } => write!(f, "put backend id {} = {id}", key),
            Self::PutSoleFrontend { pod, sole } => {
                let (service, backend) = (sole.service, sole.backend.backend);
                write!(f, "put sole frontend of {pod} = service {service} backend {backend}")
            }
            Self::RemoveSoleFrontend { pod } => write!(f, "remove sole frontend of {pod}"),
            Self::PutMember { index, member } => {
                let takes_new = if member.takes_new() { "" } else { " takes no new" };
                write!(f, "put member {index} = backend {} generation {}{takes_new}", member.backend, member.generation)
            }
            Self::PutSlot { index, word } => write!(f, "put slot {index} = {}", owners(*word)),
            Self::PutService { id, name, slots_base, slots, members_base, members } => {
                write!(f, "put service {id} {name} slots {slots_base}+{slots} members {members_base}+{members}")
            }
            Self::PutSourceRange { service, range } => write!(f, "put source range {range} of service {service}"),
            Self::RemoveSourceRange { service, range } => {
                write!(f, "remove source range {range} of service {service}")
            }
            Self::PutFrontend { key, frontend } => write!(f, "put frontend {} = {}", key, target(frontend)),
            Self::RemoveFrontend { key } => write!(f, "remove frontend {}", key),
            Self::PutEndpoints { base, endpoints, .. } => write!(f, "put endpoints {base}+{}", endpoints.len()),
            Self::PutInside { key, inside } => write!(f, "put inside {key} = {}", inside_target(inside)),
            Self::RemoveInside { key } => write!(f, "remove inside {key}"),
            Self::RemoveService { id } => write!(f, "remove service {id}"),
            Self::RemoveBackendId { key } => write!(f, "remove backend id {}", key),
            Self::PutVip { address, flags } => write!(f, "put vip {address} flags {flags}"),
            Self::RemoveVip { address } => write!(f, "remove vip {address}"),
            Self::PutConfig { stack_in_use, generation } => {
                write!(f, "put config generation {generation} stack in use {stack_in_use}")
            }
        }
    }
}

fn describe(backend: &Backend) -> String {
    if !backend.is_in_use() {
        return "free".into();
    }
    let mode = if backend.is_direct() { "direct" } else { "stack" };
    let hidden = if backend.is_hidden() { " hidden" } else { "" };
    let takes_xdp = if backend.takes_xdp() { " takes-xdp" } else { "" };
    let (ifindex, netns_id) = (backend.ifindex, backend.netns_id);
    format!("{} {mode}{hidden}{takes_xdp} ifindex {ifindex} netns {netns_id}", Endpoint::of(backend))
}

fn target(frontend: &Frontend) -> String {
    let Frontend { service, flags, affinity_s, slots_base, slots, members_base, members, sole } = frontend;
    let affinity = if *affinity_s == 0 { String::new() } else { format!(" affinity {affinity_s} s") };
    let target = match slots {
        0 => format!("backend {} generation {}", sole.backend, sole.generation),
        slots => format!("slots {slots_base}+{slots} members {members_base}+{members}"),
    };
    format!("service {service} flags {flags}{affinity} {target}")
}

fn inside_target(inside: &Inside) -> String {
    let Inside { service, endpoints_base, endpoints, lingering, affinity_s, flags, local } = inside;
    let affinity = if *affinity_s == 0 { String::new() } else { format!(" affinity {affinity_s} s") };
    let local =
        if flags & inside_flags::LOCAL_FOR_PODS == 0 { String::new() } else { format!(", then {local} for pods") };
    format!(
        "service {service} flags {flags}{affinity} endpoints {endpoints_base}+{endpoints}, then {lingering} lingering{local}"
    )
}

fn owners(word: SlotWord) -> String {
    let current = word.current().map_or("none".into(), |owner| owner.to_string());
    let previous = word.previous().map(|owner| format!(" < {owner}"));
    let named = previous.fold(current, |text, owner| text + &owner);
    if word.has_forgotten() { named + " < others" } else { named }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_written_in_words() {
        let key = |text: &str| Endpoint { socket: text.parse().unwrap(), protocol: Protocol::Tcp };
        let frontend =
            Frontend { service: 3, slots_base: 251, slots: 251, members_base: 16, members: 16, ..Frontend::default() };
        let word = SlotWord::owned_by(4).handed_to(Some(7)).handed_to(None);
        let rows = [
            (
                Op::PutFrontend { key: key("192.0.2.10:80"), frontend },
                "put frontend 192.0.2.10:80/tcp = service 3 flags 0 slots 251+251 members 16+16",
            ),
            (
                Op::PutFrontend {
                    key: key("[2001:db8::10]:80"),
                    frontend: Frontend { flags: 4, affinity_s: 90, ..Frontend::default() },
                },
                "put frontend [2001:db8::10]:80/tcp = service 0 flags 4 affinity 90 s backend 0 generation 0",
            ),
            (
                Op::PutSourceRange { service: 3, range: "192.0.2.0/24".parse().unwrap() },
                "put source range 192.0.2.0/24 of service 3",
            ),
            (
                Op::PutEndpoints {
                    base: 5,
                    protocol: Protocol::Tcp,
                    endpoints: vec!["192.0.2.1:8080".parse().unwrap()],
                },
                "put endpoints 5+1",
            ),
            (
                Op::PutInside {
                    key: key("192.0.2.10:80"),
                    inside: Inside { service: 3, endpoints_base: 5, endpoints: 1, ..Inside::default() },
                },
                "put inside 192.0.2.10:80/tcp = service 3 flags 0 endpoints 5+1, then 0 lingering",
            ),
            (
                Op::PutInside {
                    key: key("192.0.2.10:80"),
                    inside: Inside { flags: inside_flags::LOCAL_FOR_PODS, local: 1, ..Inside::default() },
                },
                "put inside 192.0.2.10:80/tcp = service 0 flags 2 endpoints 0+0, then 0 lingering, then 1 for pods",
            ),
            (Op::PutVip { address: "192.0.2.10".parse().unwrap(), flags: 1 }, "put vip 192.0.2.10 flags 1"),
            (Op::RemoveVip { address: "2001:db8::10".parse().unwrap() }, "remove vip 2001:db8::10"),
            (Op::PutSlot { index: 9, word }, "put slot 9 = none < 7 < 4"),
            (
                Op::PutSlot { index: 9, word: (1..10).fold(word, |word, owner| word.handed_to(Some(owner))) },
                "put slot 9 = 9 < 8 < 7 < 6 < 5 < 4 < 3 < others",
            ),
            (Op::PutBackend { id: 2, backend: Backend::default() }, "put backend 2 generation 0 free"),
            (Op::PutConfig { stack_in_use: true, generation: 8 }, "put config generation 8 stack in use true"),
        ];
        for (op, text) in rows {
            assert_eq!(op.to_string(), text);
        }
    }
}
