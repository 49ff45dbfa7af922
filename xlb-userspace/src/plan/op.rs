//! One change to the maps. Each is a single map operation, so that a crash between two of them is a state like any other.

use std::fmt;
use std::net::Ipv4Addr;

use xlb_common::abi::{Backend, EndpointKeyV4, Frontend, Member, TCP};
use xlb_common::slot::SlotWord;

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
    /// Writes `BACKEND_IDS_V4[key]`.
    PutBackendId {
        /// The pod's address and port.
        key: EndpointKeyV4,
        /// Id of the backend.
        id: u32,
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
    /// Writes `FRONTENDS_V4[key]`.
    PutFrontend {
        /// VIP, protocol and port.
        key: EndpointKeyV4,
        /// Where they lead.
        frontend: Frontend,
    },
    /// Deletes `FRONTENDS_V4[key]`.
    RemoveFrontend {
        /// VIP, protocol and port.
        key: EndpointKeyV4,
    },
    /// Deletes `SERVICES[id]`; its slots and members rest before they are used again.
    RemoveService {
        /// Id of the service.
        id: u32,
    },
    /// Deletes `BACKEND_IDS_V4[key]`.
    RemoveBackendId {
        /// The pod's address and port.
        key: EndpointKeyV4,
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
            Self::PutBackendId { key, id } => write!(f, "put backend id {} = {id}", endpoint(key)),
            Self::PutMember { index, member } => {
                write!(f, "put member {index} = backend {} generation {}", member.backend, member.generation)
            }
            Self::PutSlot { index, word } => write!(f, "put slot {index} = {}", owners(*word)),
            Self::PutService { id, name, slots_base, slots, members_base, members } => {
                write!(f, "put service {id} {name} slots {slots_base}+{slots} members {members_base}+{members}")
            }
            Self::PutFrontend { key, frontend } => write!(f, "put frontend {} = {}", endpoint(key), target(frontend)),
            Self::RemoveFrontend { key } => write!(f, "remove frontend {}", endpoint(key)),
            Self::RemoveService { id } => write!(f, "remove service {id}"),
            Self::RemoveBackendId { key } => write!(f, "remove backend id {}", endpoint(key)),
            Self::PutConfig { stack_in_use, generation } => {
                write!(f, "put config generation {generation} stack in use {stack_in_use}")
            }
        }
    }
}

/// An endpoint as people write it: `192.0.2.10:80/tcp`.
pub(super) fn endpoint(key: &EndpointKeyV4) -> String {
    let protocol = if key.protocol == TCP { "tcp" } else { "udp" };
    format!("{}:{}/{protocol}", Ipv4Addr::from(key.address), u16::from_be_bytes(key.port))
}

fn describe(backend: &Backend) -> String {
    if !backend.is_in_use() {
        return "free".into();
    }
    let [a, b, c, d, ..] = backend.address;
    let key = EndpointKeyV4 { address: [a, b, c, d], port: backend.port, protocol: backend.protocol, zero: 0 };
    let mode = if backend.is_direct() { "direct" } else { "stack" };
    let hidden = if backend.is_hidden() { " hidden" } else { "" };
    let takes_xdp = if backend.takes_xdp() { " takes-xdp" } else { "" };
    let (ifindex, netns_id) = (backend.ifindex, backend.netns_id);
    format!("{} {mode}{hidden}{takes_xdp} ifindex {ifindex} netns {netns_id}", endpoint(&key))
}

fn target(frontend: &Frontend) -> String {
    let (service, flags) = (frontend.service, frontend.flags);
    if frontend.slots == 0 {
        let sole = frontend.sole;
        return format!("service {service} flags {flags} backend {} generation {}", sole.backend, sole.generation);
    }
    let (slots_base, slots, members_base) = (frontend.slots_base, frontend.slots, frontend.members_base);
    format!("service {service} flags {flags} slots {slots_base}+{slots} members {members_base}")
}

fn owners(word: SlotWord) -> String {
    let current = word.current().map_or("none".into(), |owner| owner.to_string());
    let previous = word.previous().map(|owner| format!(" < {owner}"));
    previous.fold(current, |text, owner| text + &owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_written_in_words() {
        let key = EndpointKeyV4 { address: [192, 0, 2, 10], port: [0, 80], protocol: TCP, zero: 0 };
        let frontend = Frontend { service: 3, slots_base: 251, slots: 251, members_base: 16, ..Frontend::default() };
        let word = SlotWord::owned_by(4).handed_to(Some(7)).handed_to(None);
        let rows = [
            (
                Op::PutFrontend { key, frontend },
                "put frontend 192.0.2.10:80/tcp = service 3 flags 0 slots 251+251 members 16",
            ),
            (Op::PutSlot { index: 9, word }, "put slot 9 = none < 7 < 4"),
            (Op::PutBackend { id: 2, backend: Backend::default() }, "put backend 2 generation 0 free"),
            (Op::PutConfig { stack_in_use: true, generation: 8 }, "put config generation 8 stack in use true"),
        ];
        for (op, text) in rows {
            assert_eq!(op.to_string(), text);
        }
    }
}
