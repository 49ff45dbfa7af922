//! A copy of each packet that a link receives, before tc sees it (packet(7)). There is one while somebody watches, and nothing
//! before and after: nobody else's packets pay for it.

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

/// include/uapi/linux/if_packet.h.
const PACKET_STATISTICS: libc::c_int = 6;
const PACKET_AUXDATA: libc::c_int = 8;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const PACKET_OTHERHOST: u8 = 3;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
/// The type of a tag whose type the kernel does not tell (IEEE 802.1Q).
const TAG_TYPE: u16 = 0x8100;

/// A packet after segmentation offload is as long as an IP packet can be.
pub const PACKET_BYTES_MAX: usize = 65_536 + 64;
/// Bytes that wait at most; what comes then is lost, and counted.
const QUEUE_BYTES: libc::c_int = 16 << 20;
/// Room for the kernel's words about a packet.
const WORDS_BYTES: usize = 128;

/// An instruction of the classic packet filter, and a program of those (include/uapi/linux/filter.h).
#[repr(C)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    k: u32,
}

#[repr(C)]
struct Filter {
    length: u16,
    instructions: *const Instruction,
}

/// `struct tpacket_auxdata`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Auxiliary {
    status: u32,
    length: u32,
    captured: u32,
    mac: u16,
    net: u16,
    vlan_control: u16,
    vlan_type: u16,
}

/// `struct tpacket_stats`.
#[repr(C)]
#[derive(Default)]
struct Statistics {
    packets: u32,
    drops: u32,
}

/// What the kernel says of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// When it came.
    pub at: SystemTime,
    /// Whether its frame is addressed to another host.
    pub is_for_other_host: bool,
    /// The VLAN tag that was taken out of it: type and control, as they were on the wire.
    pub tag: Option<[u8; 4]>,
}

/// A socket that gets what a link receives.
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens it in the calling thread's network namespace. Of `one_in` packets it gets about one, chosen by chance.
    ///
    /// # Errors
    /// When the kernel refuses: it takes CAP_NET_RAW.
    pub fn open(ifindex: u32, one_in: u32) -> Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: socket(2) takes no pointer, and its result is checked before it is used.
        let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        ensure!(descriptor >= 0, "opening a packet socket, which takes CAP_NET_RAW: {}", io::Error::last_os_error());
        // SAFETY: the descriptor is open, and nothing else owns it: socket(2) has just made it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(descriptor) });
        socket.set(libc::SOL_PACKET, PACKET_AUXDATA, &1_i32).context("asking for VLAN tags")?;
        socket.set(libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1_i32).context("leaving out what is sent")?;
        socket.set(libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32).context("asking for times")?;
        // Without CAP_NET_ADMIN the queue is as long as anybody's.
        let _ = socket.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &QUEUE_BYTES);
        if one_in > 1 {
            socket.sample(one_in).context("sampling")?;
        }
        socket.bind(ifindex).context("binding it")?;
        Ok(socket)
    }

    /// A random number decides in the kernel, before a packet is copied.
    fn sample(&self, one_in: u32) -> Result<()> {
        let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
        let step = |code, if_false, k| Instruction { code, if_true: 0, if_false, k };
        let instructions = [
            step(0x20, 0, random),   // ld #random
            step(0x94, 0, one_in),   // mod #one_in
            step(0x15, 1, 0),        // jeq #0, else drop
            step(0x06, 0, u32::MAX), // ret #all
            step(0x06, 0, 0),        // ret #0
        ];
        let filter = Filter { length: instructions.len() as u16, instructions: instructions.as_ptr() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }

    fn bind(&self, ifindex: u32) -> Result<()> {
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: i32::try_from(ifindex)?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer is to a live sockaddr_ll, whose size is the length that is passed with it.
        let result = unsafe { libc::bind(self.0.as_raw_fd(), (&raw const address).cast(), length) };
        ensure!(result == 0, "{}", io::Error::last_os_error());
        Ok(())
    }

    fn set<T>(&self, level: libc::c_int, option: libc::c_int, value: &T) -> Result<()> {
        let length = size_of::<T>() as libc::socklen_t;
        // SAFETY: the kernel reads `length` bytes of the value, and a filter's instructions behind its pointer; both outlive
        // the call.
        let result = unsafe { libc::setsockopt(self.0.as_raw_fd(), level, option, (&raw const *value).cast(), length) };
        ensure!(result == 0, "{}", io::Error::last_os_error());
        Ok(())
    }

    /// Takes the next packet, of which `packet` then has the bytes; none: there is none now.
    ///
    /// # Errors
    /// When the link is gone or down.
    pub fn receive(&self, packet: &mut Vec<u8>) -> io::Result<Option<Arrived>> {
        packet.resize(PACKET_BYTES_MAX, 0);
        // SAFETY: all bytes zero are a valid address, and a valid empty message.
        let (mut from, mut message) = unsafe { (zeroed::<libc::sockaddr_ll>(), zeroed::<libc::msghdr>()) };
        let mut words = [0_u64; WORDS_BYTES / 8];
        let mut bytes = libc::iovec { iov_base: packet.as_mut_ptr().cast(), iov_len: packet.len() };
        message.msg_name = (&raw mut from).cast();
        message.msg_namelen = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        (message.msg_iov, message.msg_iovlen) = (&raw mut bytes, 1);
        (message.msg_control, message.msg_controllen) = (words.as_mut_ptr().cast(), WORDS_BYTES as _);
        // SAFETY: the message names buffers with their lengths, all of which outlive the call.
        let length = unsafe { libc::recvmsg(self.0.as_raw_fd(), &raw mut message, 0) };
        let Ok(length) = usize::try_from(length) else {
            packet.clear();
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                _ => Err(error),
            };
        };
        packet.truncate(length);
        let (at, tag) = told(&message);
        let at = at.unwrap_or_else(SystemTime::now);
        Ok(Some(Arrived { at, is_for_other_host: from.sll_pkttype == PACKET_OTHERHOST, tag }))
    }

    /// How many packets were lost since the last time, as nobody took them from the queue soon enough.
    #[must_use]
    pub fn lost(&self) -> u32 {
        let mut statistics = Statistics::default();
        let mut length = size_of::<Statistics>() as libc::socklen_t;
        // SAFETY: `statistics` has the bytes that `length` says, and both outlive the call.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &raw mut length,
            )
        };
        if result == 0 { statistics.drops } else { 0 }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// When a packet came, and its tag, as the kernel's words beside it tell.
fn told(message: &libc::msghdr) -> (Option<SystemTime>, Option<[u8; 4]>) {
    let (mut at, mut tag) = (None, None);
    // SAFETY: the message was filled by recvmsg, and its buffer lives as long as the borrow.
    let mut word = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !word.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers inside the message's buffer, or null.
        let (header, data) = unsafe { (*word, libc::CMSG_DATA(word)) };
        match (header.cmsg_level, header.cmsg_type) {
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: the kernel put a timespec there; it need not be aligned.
                let time = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                at = Some(UNIX_EPOCH + Duration::new(time.tv_sec as u64, time.tv_nsec as u32));
            }
            (libc::SOL_PACKET, PACKET_AUXDATA) => {
                // SAFETY: the kernel put a tpacket_auxdata there; it need not be aligned.
                tag = tag_of(unsafe { data.cast::<Auxiliary>().read_unaligned() });
            }
            _ => {}
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        word = unsafe { libc::CMSG_NXTHDR(message, word) };
    }
    (at, tag)
}

fn tag_of(auxiliary: Auxiliary) -> Option<[u8; 4]> {
    let has_type = auxiliary.status & TP_STATUS_VLAN_TPID_VALID != 0;
    let [a, b] = if has_type { auxiliary.vlan_type.to_be_bytes() } else { TAG_TYPE.to_be_bytes() };
    let [c, d] = auxiliary.vlan_control.to_be_bytes();
    (auxiliary.status & TP_STATUS_VLAN_VALID != 0).then_some([a, b, c, d])
}
