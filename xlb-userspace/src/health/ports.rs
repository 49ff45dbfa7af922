//! The open health ports: after each round they and their counts follow the wanted ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::info;

use super::answer::{not_found, of_service};
use super::service::HealthPort;
use crate::http::{Answer, Respond, Servers, Serving, is_family_absent, listen_at};
use crate::model::ObjectName;
use crate::plan::desired::{Family, Refusal};

/// Who answers at health ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PortChoice {
    /// xlb, unless something else has the port: kube-proxy may answer already.
    Auto,
    /// xlb; a port that something else has is told of.
    On,
    /// Not xlb.
    Off,
}

/// Whether the agent is healthy now.
pub type IsHealthy = Arc<dyn Fn() -> bool + Send + Sync>;

type Table = Arc<Mutex<BTreeMap<u16, HealthPort>>>;

/// The health ports of this node.
pub struct HealthPorts {
    choice: PortChoice,
    is_healthy: IsHealthy,
    table: Table,
    open: BTreeMap<(u16, Family), Serving>,
    /// Ports that something else has, and are left to it.
    left: BTreeSet<(u16, Family)>,
    refusals: Vec<Refusal>,
}

impl HealthPorts {
    /// No port is open before the first round.
    pub fn new(choice: PortChoice, is_healthy: IsHealthy) -> Self {
        let (table, open) = (Table::default(), BTreeMap::new());
        Self { choice, is_healthy, table, open, left: BTreeSet::new(), refusals: Vec::new() }
    }

    /// Closes ports, takes the counts, and opens ports, so that no port answers without its count. A port that cannot be
    /// opened is tried again the next time, and no other port waits for it.
    pub fn follow(&mut self, wanted: BTreeMap<u16, HealthPort>, conflicts: Vec<Refusal>, servers: &Servers) {
        self.refusals.clear();
        if self.choice == PortChoice::Off {
            return;
        }
        self.refusals = conflicts;
        self.open.retain(|(port, _), _| wanted.contains_key(port));
        self.left.retain(|(port, _)| wanted.contains_key(port));
        self.table.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&wanted);
        for (&port, of) in &wanted {
            for family in Family::ALL {
                self.open(port, family, of, servers);
            }
        }
    }

    /// From now on somebody else answers, or this does. Ports close at once, and open after the next round.
    pub fn choose(&mut self, choice: PortChoice) {
        if choice != self.choice {
            self.left.clear();
        }
        if choice == PortChoice::Off {
            self.open.clear();
        }
        self.choice = choice;
    }

    /// What could not be opened.
    pub fn refusals(&self) -> &[Refusal] {
        &self.refusals
    }

    /// Whether one of these Services has a port.
    pub fn are_of_any(&self, services: &BTreeSet<ObjectName>) -> bool {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        !services.is_empty() && table.values().any(|port| services.contains(&port.service))
    }

    /// How many ports are open, for either family.
    pub fn open_ports(&self) -> usize {
        self.open.keys().map(|(port, _)| port).collect::<BTreeSet<_>>().len()
    }

    fn open(&mut self, port: u16, family: Family, of: &HealthPort, servers: &Servers) {
        if self.open.contains_key(&(port, family)) {
            return;
        }
        let address = any_address(family, port);
        match listen_at(address) {
            Ok(listener) => {
                self.left.remove(&(port, family));
                self.open.insert((port, family), servers.serve(listener, self.respond(port, family)));
            }
            Err(error) if is_family_absent(&error, address) => {}
            Err(error) if self.choice == PortChoice::Auto && error.kind() == ErrorKind::AddrInUse => {
                if self.left.insert((port, family)) {
                    info!("health check port {port} ({family}) of {}: left to what has it already", of.service);
                }
            }
            Err(error) => {
                let why = format!(
                    "health check port {port} ({family}) cannot be opened: {error}; stop what has it, or leave these \
                     ports to kube-proxy with --health-check-node-ports off; it is tried again with every round"
                );
                self.refusals.push(Refusal { object: format!("Service {}", of.service), why });
            }
        }
    }

    fn respond(&self, port: u16, family: Family) -> Respond {
        let (table, is_healthy) = (self.table.clone(), self.is_healthy.clone());
        Arc::new(move |_| answer(&table, port, family, is_healthy()))
    }
}

/// A port that is about to close has no count any longer.
fn answer(table: &Table, port: u16, family: Family, is_healthy: bool) -> Answer {
    let table = table.lock().unwrap_or_else(PoisonError::into_inner);
    table.get(&port).map_or_else(unknown, |of| of_service(of, family, is_healthy))
}

fn unknown() -> Answer {
    Answer { status: 503, ..not_found("no Service with this port") }
}

fn any_address(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, port).into(),
        Family::V6 => (Ipv6Addr::UNSPECIFIED, port).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::model::ObjectName;

    #[test]
    fn a_port_that_is_taken_is_refused_or_left_and_holds_up_no_other() {
        let (servers, taken) = (Servers::start().unwrap(), listen_at(any_address(Family::V4, 0)).unwrap());
        let (busy, free) = (taken.local_addr().unwrap().port(), free_port());
        for (choice, refused, opened) in
            [(PortChoice::On, true, true), (PortChoice::Auto, false, true), (PortChoice::Off, false, false)]
        {
            let mut ports = HealthPorts::new(choice, Arc::new(|| true));
            ports.follow([(busy, port("a", 1)), (free, port("b", 2))].into(), Vec::new(), &servers);
            let refusals: Vec<_> = ports.refusals().iter().map(|refusal| refusal.object.as_str()).collect();
            assert_eq!(refusals, if refused { vec!["Service default/a"] } else { vec![] }, "{choice:?}");
            assert_eq!(ask(free).is_some(), opened, "{choice:?}");
            drop(ports);
            while TcpStream::connect((Ipv4Addr::LOCALHOST, free)).is_ok() {}
        }
    }

    #[test]
    fn counts_follow_and_a_port_that_is_not_wanted_any_longer_closes() {
        let (servers, number) = (Servers::start().unwrap(), free_port());
        let mut ports = HealthPorts::new(PortChoice::On, Arc::new(|| true));
        for (count, status) in [(1, "200"), (0, "503"), (3, "200")] {
            ports.follow([(number, port("a", count))].into(), Vec::new(), &servers);
            let answer = ask(number).expect("an answer");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
            assert!(answer.contains(&format!("\"localEndpoints\":{count}")), "{answer}");
        }
        ports.follow(BTreeMap::new(), Vec::new(), &servers);
        while ask(number).is_some() {}
    }

    fn port(name: &str, count: usize) -> HealthPort {
        let service = ObjectName { namespace: "default".into(), name: name.into() };
        HealthPort { service, ready: [(Family::V4, count)].into() }
    }

    fn free_port() -> u16 {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port()
    }

    fn ask(port: u16) -> Option<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
        stream.write_all(b"GET /any HTTP/1.1\r\nHost: x\r\n\r\n").ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        (!answer.is_empty()).then_some(answer)
    }
}
