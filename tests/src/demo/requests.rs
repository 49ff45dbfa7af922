//! Requests by curl and dig, and whether pods saw who made them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::interrupt;
use super::servers::{DNS_NAME, Servers};
use super::stage::{CLIENTS, Stage, VIP, pod_name};
use super::telling::{say, table};
use crate::lab::{Namespace, wait_for};

/// Requests of each kind, by all clients together.
pub const REQUESTS: usize = 24;

/// The first source port of dig. It is below the ephemeral ports, which curl uses.
const DIG_FIRST_PORT: u16 = 30_000;
/// A server may write its log after the client has its answer.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// Who answered, and the client's own end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The pod's name.
    pub pod: String,
    /// The address and port that the client's socket had.
    pub client: SocketAddrV4,
}

/// Asks over HTTP and DNS, shows who answered whom, and requires that every pod saw the clients' own addresses.
pub fn show_client_addresses(stage: &Stage) -> Result<()> {
    let http = ask_over_http(stage, REQUESTS)?;
    let dns = ask_over_dns(stage, REQUESTS)?;
    let views: Vec<View> = stage.servers.iter().map(|(&pod, servers)| view(pod, servers, &http, &dns)).collect();
    let heading = ["pod", "HTTP answers", "DNS answers", "clients in the pod's logs", "equal to the client's socket"];
    let rows: Vec<[String; 5]> = views.iter().map(View::row).collect();
    table(heading, &rows);
    let complete = views.iter().map(|view| view.http + view.dns).sum::<usize>();
    ensure!(complete == 2 * REQUESTS, "{complete} of {} answers came from living pods", 2 * REQUESTS);
    ensure!(views.iter().all(|view| view.http > 0 && view.dns > 0), "a pod got no request of a kind");
    ensure!(views.iter().all(View::is_right), "a pod saw another address than the client's own");
    say("  Every pod saw the client's own address.");
    Ok(())
}

/// Requests of `/`, by the clients in turn.
pub fn ask_over_http(stage: &Stage, requests: usize) -> Result<Vec<Answer>> {
    let url = format!("http://{VIP}/");
    (0..requests).map(|number| curl(stage.lab.client(number % CLIENTS), &url)).collect()
}

/// How many answers came from each pod.
pub fn by_pod(answers: &[Answer]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer.pod.as_str()).or_default() += 1;
    }
    counts
}

/// The page begins with the pod's name, and curl adds its own end of the connection.
fn curl(client: &Namespace, url: &str) -> Result<Answer> {
    interrupt::check()?;
    let own_end = "%{local_ip}:%{local_port}";
    let text = client.output("curl", &["--silent", "--show-error", "--max-time", "3", "--write-out", own_end, url])?;
    let words: Vec<&str> = text.split_whitespace().collect();
    let [pod, _, own] = words[..] else { bail!("curl {url} printed {text:?}") };
    Ok(Answer { pod: pod.to_owned(), client: own.parse().with_context(|| format!("reading {own:?}"))? })
}

fn ask_over_dns(stage: &Stage, requests: usize) -> Result<Vec<Answer>> {
    (DIG_FIRST_PORT..)
        .take(requests)
        .map(|port| {
            let number = usize::from(port) % CLIENTS;
            dig(stage.lab.client(number), SocketAddrV4::new(stage.lab.client_address(number), port), VIP)
        })
        .collect()
}

/// dig is told its own port, which it would not print.
fn dig(client: &Namespace, own: SocketAddrV4, server: Ipv4Addr) -> Result<Answer> {
    interrupt::check()?;
    let (at, from) = (format!("@{server}"), format!("{}#{}", own.ip(), own.port()));
    let text = client.output("dig", &[&at, "-b", &from, DNS_NAME, "TXT", "+short", "+tries=1", "+time=3"])?;
    let pod = text.trim().strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let pod = pod.with_context(|| format!("dig {at} {DNS_NAME} printed {text:?}"))?;
    Ok(Answer { pod: pod.to_owned(), client: own })
}

/// One pod's row: what clients know about it, and what it knows about clients.
struct View {
    pod: String,
    http: usize,
    dns: usize,
    logged: BTreeSet<SocketAddrV4>,
    equal: usize,
}

fn view(pod: usize, servers: &Servers, http: &[Answer], dns: &[Answer]) -> View {
    let pod = pod_name(pod);
    let of_pod = |answers: &[Answer]| -> BTreeSet<SocketAddrV4> {
        answers.iter().filter(|answer| answer.pod == pod).map(|answer| answer.client).collect()
    };
    let (http, dns) = (of_pod(http), of_pod(dns));
    let http_log = logged(http.len(), || servers.http_clients());
    let dns_log = logged(dns.len(), || servers.dns_clients());
    let equal = http.intersection(&http_log).count() + dns.intersection(&dns_log).count();
    View { pod, http: http.len(), dns: dns.len(), logged: &http_log | &dns_log, equal }
}

fn logged(expected: usize, read: impl Fn() -> Vec<SocketAddrV4>) -> BTreeSet<SocketAddrV4> {
    let read = || -> BTreeSet<SocketAddrV4> { read().into_iter().collect() };
    wait_for(LOG_TIMEOUT, || Some(read()).filter(|clients| clients.len() >= expected)).unwrap_or_else(read)
}

impl View {
    fn is_right(&self) -> bool {
        self.equal == self.http + self.dns && self.equal == self.logged.len()
    }

    fn row(&self) -> [String; 5] {
        let addresses: BTreeSet<&Ipv4Addr> = self.logged.iter().map(SocketAddrV4::ip).collect();
        let clients: Vec<String> = addresses.into_iter().map(Ipv4Addr::to_string).collect();
        let equal = format!("{} of {}", self.equal, self.http + self.dns);
        [self.pod.clone(), self.http.to_string(), self.dns.to_string(), clients.join(", "), equal]
    }
}
