//! What clients do, and how much of it they get done.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};

use super::servers::{CHUNK_BYTES, MESSAGE_BYTES, Servers, Wish};
use crate::bench::ways::Site;
use crate::lab::{Lab, Version, connect, forget_connections};

/// A number that is measured on each way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// What.
    pub name: &'static str,
    /// In what.
    pub unit: &'static str,
}

/// A kind of traffic: it lasts for a time, and leads to figures.
pub type Kind = fn(&Site, &Servers, Duration) -> Result<Vec<(Figure, f64)>>;

/// All kinds.
pub const KINDS: [Kind; 6] = [to_pod, to_client, requests, requests_v6, latency, datagrams];

pub const TO_POD: Figure = Figure { name: "TCP to the pod", unit: "Gbit/s" };
pub const TO_CLIENT: Figure = Figure { name: "TCP to the client", unit: "Gbit/s" };
pub const REQUESTS: Figure = Figure { name: "connect, ask, close", unit: "1/s" };
pub const REQUESTS_V6: Figure = Figure { name: "connect, ask, close, IPv6", unit: "1/s" };
pub const DATAGRAMS: Figure = Figure { name: "UDP received", unit: "1/s" };
const BUSY_PER_REQUEST: Figure = Figure { name: "CPU for each connection", unit: "us" };
const LATENCIES: [(Figure, f64); 3] = [
    (Figure { name: "ask, p50", unit: "us" }, 0.5),
    (Figure { name: "ask, p99", unit: "us" }, 0.99),
    (Figure { name: "ask, p99.9", unit: "us" }, 0.999),
];
const LOST: Figure = Figure { name: "UDP lost", unit: "%" };
const BUSY_PER_DATAGRAM: Figure = Figure { name: "CPU for each datagram", unit: "us" };

const STREAMS: usize = 4;
const ASKING: usize = 8;
/// A part of the time for which streams have grown before bytes are counted.
const WARM_UP_PART: u32 = 4;
/// Datagrams between two looks at the clock.
const BURST: usize = 64;
/// A client that waits longer for its answer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// A last datagram is received within this time.
const SETTLING: Duration = Duration::from_millis(50);

/// Leaves clients enough ports for connections that are soon over.
pub fn prepare(lab: &Lab) -> Result<()> {
    lab.client(0).sysctl(&[("net.ipv4.ip_local_port_range", "1024 65535")])
}

/// That the pod answers.
pub fn check(site: &Site, version: Version) -> Result<()> {
    let mut connection = connect(site.lab.client(0), site.target(version))?;
    connection.write_all(&question(Wish::Answer))?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    ensure!(answer.len() == MESSAGE_BYTES, "an answer of {} bytes", answer.len());
    Ok(())
}

fn to_pod(site: &Site, servers: &Servers, time: Duration) -> Result<Vec<(Figure, f64)>> {
    let write = |stream: &mut TcpStream, chunk: &mut [u8]| stream.write_all(chunk);
    let per_s = streams(site, Wish::Take, time, &|| servers.taken_bytes(), &write)?;
    Ok(vec![(TO_POD, gbit(per_s))])
}

fn to_client(site: &Site, _: &Servers, time: Duration) -> Result<Vec<(Figure, f64)>> {
    let received = AtomicU64::new(0);
    let read = |stream: &mut TcpStream, chunk: &mut [u8]| {
        let length = stream.read(chunk)?;
        received.fetch_add(length as u64, Ordering::Relaxed);
        if length == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    };
    let per_s = streams(site, Wish::Give, time, &|| received.load(Ordering::Relaxed), &read)?;
    Ok(vec![(TO_CLIENT, gbit(per_s))])
}

/// Bytes a second over some connections, each of which does the same again and again.
fn streams(
    site: &Site,
    wish: Wish,
    time: Duration,
    bytes: &(dyn Fn() -> u64 + Sync),
    step: &(dyn Fn(&mut TcpStream, &mut [u8]) -> std::io::Result<()> + Sync),
) -> Result<f64> {
    let open = |_| {
        let mut stream = connect(site.lab.client(0), site.target(Version::V4))?;
        stream.write_all(&question(wish))?;
        Ok(stream)
    };
    let mut connections = (0..STREAMS).map(open).collect::<Result<Vec<TcpStream>>>()?;
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let run = |stream: &mut TcpStream| {
            let mut chunk = vec![0; CHUNK_BYTES];
            while !is_over.load(Ordering::Relaxed) {
                step(stream, &mut chunk)?;
            }
            Ok::<_, std::io::Error>(())
        };
        let threads: Vec<_> = connections.iter_mut().map(|stream| scope.spawn(move || run(stream))).collect();
        sleep(time / WARM_UP_PART);
        let (begun, before) = (Instant::now(), bytes());
        sleep(time);
        let per_s = (bytes() - before) as f64 / begun.elapsed().as_secs_f64();
        is_over.store(true, Ordering::Relaxed);
        for thread in threads {
            joined(thread)?.context("a stream broke")?;
        }
        Ok(per_s)
    })
}

fn requests(site: &Site, _: &Servers, time: Duration) -> Result<Vec<(Figure, f64)>> {
    let (count, took, busy) = ask_in_parallel(site, Version::V4, time)?;
    Ok(vec![(REQUESTS, count as f64 / took.as_secs_f64()), (BUSY_PER_REQUEST, us(busy) / count as f64)])
}

fn requests_v6(site: &Site, _: &Servers, time: Duration) -> Result<Vec<(Figure, f64)>> {
    let (count, took, _) = ask_in_parallel(site, Version::V6, time)?;
    Ok(vec![(REQUESTS_V6, count as f64 / took.as_secs_f64())])
}

/// How many connections got their answer, in which time, and for how long processors were busy.
fn ask_in_parallel(site: &Site, version: Version, time: Duration) -> Result<(u64, Duration, Duration)> {
    let target = site.target(version);
    // What is closed stays in conntrack for two minutes, and its table would be full.
    forget_connections(site.lab.node())?;
    let (begun, busy_before) = (Instant::now(), busy()?);
    // Threads are where the thread is that starts them.
    let counts: Result<Vec<u64>> = site.lab.client(0).run(|| {
        thread::scope(|scope| {
            let threads: Vec<_> =
                (0..ASKING).map(|_| scope.spawn(move || ask_again_and_again(target, begun + time))).collect();
            threads.into_iter().map(|thread| joined(thread)?).collect()
        })
    });
    let count = counts?.iter().sum();
    ensure!(count > 0, "no connection got an answer in {time:?}");
    Ok((count, begun.elapsed(), busy()? - busy_before))
}

fn ask_again_and_again(target: SocketAddr, end: Instant) -> Result<u64> {
    let mut count = 0;
    while Instant::now() < end {
        let mut connection = TcpStream::connect(target).with_context(|| format!("connecting to {target}"))?;
        connection.set_read_timeout(Some(PATIENCE))?;
        connection.write_all(&question(Wish::Answer))?;
        let mut answer = [0; MESSAGE_BYTES];
        connection.read_exact(&mut answer).context("waiting for an answer")?;
        // The pod closes first: it is the one that keeps the port for a while.
        ensure!(connection.read(&mut answer)? == 0, "more than an answer");
        count += 1;
    }
    Ok(count)
}

fn latency(site: &Site, _: &Servers, time: Duration) -> Result<Vec<(Figure, f64)>> {
    let mut connection = connect(site.lab.client(0), site.target(Version::V4))?;
    let (mut times, end) = (Vec::new(), Instant::now() + time);
    let mut now = Instant::now();
    while now < end {
        connection.write_all(&question(Wish::Answers))?;
        connection.read_exact(&mut [0; MESSAGE_BYTES]).context("waiting for an answer")?;
        let begun = now;
        now = Instant::now();
        times.push(now - begun);
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() as f64 * part) as usize).min(times.len() - 1)];
    Ok(LATENCIES.map(|(figure, part)| (figure, us(at(part)))).to_vec())
}

fn datagrams(site: &Site, servers: &Servers, time: Duration) -> Result<Vec<(Figure, f64)>> {
    let target = site.target(Version::V4);
    let socket = site.lab.client(0).run(|| UdpSocket::bind("0.0.0.0:0")).context("binding a socket")?;
    socket.connect(target).with_context(|| format!("connecting to {target}"))?;
    let (begun, busy_before, before) = (Instant::now(), busy()?, servers.datagrams());
    let mut sent = 0_u64;
    while begun.elapsed() < time {
        for _ in 0..BURST {
            socket.send(&[0; MESSAGE_BYTES]).context("sending a datagram")?;
        }
        sent += BURST as u64;
    }
    let (took, busy) = (begun.elapsed(), busy()? - busy_before);
    sleep(SETTLING);
    let received = servers.datagrams() - before;
    ensure!(received > 0, "no datagram of {sent} arrived");
    let lost = 100.0 * (sent.saturating_sub(received)) as f64 / sent as f64;
    let per_s = received as f64 / took.as_secs_f64();
    Ok(vec![(DATAGRAMS, per_s), (LOST, lost), (BUSY_PER_DATAGRAM, us(busy) / received as f64)])
}

/// For how long processors worked for this process: for clients and servers, and for the softirqs that carried their packets. What
/// others do at the same time does not count.
fn busy() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

fn question(wish: Wish) -> [u8; MESSAGE_BYTES] {
    [wish as u8; MESSAGE_BYTES]
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> Result<T> {
    Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
}

fn gbit(bytes: f64) -> f64 {
    bytes * 8.0 / 1e9
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
