//! Where packets are heard.

use std::os::fd::{AsFd, BorrowedFd};

use crate::maps::watching::Watching;
use crate::node::packet_socket::{Arrived, PacketSocket};

/// Hears what a link receives.
pub enum Ear {
    /// What reaches the host's stack, before tc sees it.
    Socket(PacketSocket),
    /// All that arrives, before XDP sees it.
    Xdp(Box<Watching>),
}

impl Ear {
    /// What to wait for.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        match self {
            Self::Socket(socket) => vec![socket.as_fd()],
            Self::Xdp(watching) => watching.descriptors().collect(),
        }
    }

    /// Takes packets that wait, of each queue at most so many.
    pub fn receive(&mut self, at_most: usize, mut take: impl FnMut(Arrived, Vec<u8>)) {
        match self {
            Self::Socket(socket) => {
                let mut packet = Vec::new();
                for _ in 0..at_most {
                    let Ok(Some(arrived)) = socket.receive(&mut packet) else { break };
                    take(arrived, packet.clone());
                }
            }
            // XDP meets a frame as it was on the wire, with its tag.
            Self::Xdp(watching) => watching.receive(at_most, |at, packet| {
                take(Arrived { at, is_for_other_host: false, tag: None }, packet);
            }),
        }
    }

    /// How many packets came faster than they were taken, since the last time.
    pub fn lost(&self) -> u64 {
        match self {
            Self::Socket(socket) => u64::from(socket.lost()),
            Self::Xdp(watching) => watching.lost(),
        }
    }

    /// Whether it still hears all that it was opened for.
    pub fn is_in_place(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Xdp(watching) => watching.is_in_place(),
        }
    }
}
