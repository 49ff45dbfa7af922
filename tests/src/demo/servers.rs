//! What runs in a pod: nginx and dnsmasq, each with its own files, and what their logs say about clients.

use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::lab::{Namespace, Program};
use crate::servers::{self, ACCESS_LOG};

/// The name that clients ask for; its TXT record is the pod's name.
pub const DNS_NAME: &str = "whoami.xlb.test";

/// The servers of one pod. Dropping them ends them.
pub struct Servers {
    directory: PathBuf,
    nginx: Program,
    dnsmasq: Program,
}

impl Servers {
    /// Starts both and waits until they serve. `content` is the file that nginx has for downloads.
    pub fn start(pod: &Namespace, name: &str, directory: PathBuf, content: &Path) -> Result<Servers> {
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        let nginx = servers::nginx(pod, name, &directory, &locations(content))?;
        let dnsmasq = servers::dnsmasq(pod, name, &directory, &[(DNS_NAME, name)])?;
        Ok(Servers { directory, nginx, dnsmasq })
    }

    /// The clients whose requests nginx has logged.
    pub fn http_clients(&self) -> Vec<SocketAddrV4> {
        self.access_log().lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
    }

    /// The clients whose queries dnsmasq has logged, as in
    /// `dnsmasq: 7 198.51.100.10/30001 query[TXT] whoami.xlb.test from 198.51.100.10`.
    pub fn dns_clients(&self) -> Vec<SocketAddrV4> {
        let log = self.dnsmasq.log();
        let queries = log.lines().filter_map(|line| line.split_once(" query[")?.0.rsplit(' ').next());
        queries.filter_map(|client| client.replace('/', ":").parse().ok()).collect()
    }

    fn access_log(&self) -> String {
        fs::read_to_string(self.directory.join(ACCESS_LOG)).unwrap_or_default()
    }

    /// Leaves them running.
    pub fn keep(self) {
        self.nginx.keep();
        self.dnsmasq.keep();
    }
}

fn locations(content: &Path) -> String {
    let content = content.display();
    format!(
        "location = /big {{ alias {content}; }}\n\
         location = /slow {{ alias {content}; limit_rate 2m; }}"
    )
}
