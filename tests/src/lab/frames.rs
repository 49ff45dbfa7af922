//! Raw frames in a namespace: sending them, and capturing what passes a device.
//!
//! A capture sees frames before tc ingress and after tc egress; native XDP acts before it.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::{LinkAddr, recvfrom, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::namespace::Namespace;

/// Frames that one capture keeps; more are an error of the capture.
const FRAMES_MAX: usize = 100_000;
/// A frame after segmentation offload is as long as an IP packet can be.
const FRAME_BYTES_MAX: usize = 65_536 + 64;
const POLL_INTERVAL_MS: i64 = 20;

/// Sends one frame, link header included, out of a device.
pub fn send_frame(namespace: &Namespace, device: &str, frame: &[u8]) -> Result<()> {
    send_frames(namespace, device, &[frame])
}

/// Sends many frames by one socket: closing a packet socket takes some milliseconds.
pub fn send_frames(namespace: &Namespace, device: &str, frames: &[impl AsRef<[u8]> + Sync]) -> Result<()> {
    let sent = namespace.run(|| {
        let mut socket = File::from(packet_socket(device, 0)?);
        frames.iter().try_for_each(|frame| socket.write_all(frame.as_ref()))
    });
    sent.with_context(|| format!("sending frames on {device} in {}", namespace.name()))
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether the device sent the frame; otherwise it received it.
    pub is_outgoing: bool,
    /// The frame with its link header, but without a VLAN tag that the kernel took out.
    pub bytes: Vec<u8>,
}

/// A running capture on one device.
pub struct Capture {
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Vec<Frame>>>>,
}

impl Capture {
    /// Starts capturing; when this returns, no frame is missed.
    pub fn start(namespace: &Namespace, device: &str) -> Result<Capture> {
        namespace
            .run(|| Ok(Self::here(device)))
            .and_then(|capture| capture)
            .with_context(|| format!("capturing on {device} in {}", namespace.name()))
    }

    /// The same in the namespace that the caller is in.
    pub fn here(device: &str) -> Result<Capture> {
        let socket = packet_socket(device, libc::ETH_P_ALL as u16).with_context(|| format!("opening {device}"))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(POLL_INTERVAL_MS))?;
        // Buffers that the default limit would cut short; a full buffer loses frames silently.
        setsockopt(&socket, sockopt::RcvBufForce, &(64 << 20))?;
        let is_stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&is_stopping);
        let thread = std::thread::spawn(move || collect(&socket, &stop));
        Ok(Capture { is_stopping, thread: Some(thread) })
    }

    /// Ends the capture and returns what was seen until now.
    pub fn stop(mut self) -> Result<Vec<Frame>> {
        self.is_stopping.store(true, Ordering::SeqCst);
        let thread = self.thread.take().expect("only stop and drop take the thread");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads until a stop was asked for and the socket's queue is empty.
fn collect(socket: &OwnedFd, is_stopping: &AtomicBool) -> Result<Vec<Frame>> {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut frames = Vec::new();
    loop {
        let is_last_round = is_stopping.load(Ordering::SeqCst);
        match recvfrom::<LinkAddr>(socket.as_raw_fd(), &mut buffer) {
            Ok((length, Some(address))) => {
                ensure!(frames.len() < FRAMES_MAX, "captured more than {FRAMES_MAX} frames");
                let is_outgoing = address.pkttype() == libc::PACKET_OUTGOING;
                frames.push(Frame { is_outgoing, bytes: buffer[..length].to_vec() });
            }
            Ok((_, None)) | Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if is_last_round => return Ok(frames),
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error).context("receiving a frame"),
        }
    }
}

/// A packet socket bound to a device. Protocol 0 receives nothing.
fn packet_socket(device: &str, protocol: u16) -> io::Result<OwnedFd> {
    let index = nix::net::if_::if_nametoindex(device)?;
    // SAFETY: socket(2) takes no pointer, and its result is checked before it is used.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing else owns it: socket(2) has just made it.
    let socket = unsafe { OwnedFd::from_raw_fd(descriptor) };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: protocol.to_be(),
        sll_ifindex: index as i32,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer is to a live sockaddr_ll, whose size is the length that is passed with it.
    let bound = unsafe { libc::bind(descriptor, (&raw const address).cast(), length) };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}
