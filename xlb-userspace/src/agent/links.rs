//! Pods' links: clients whose sockets nobody sees are served there.

use std::collections::BTreeSet;

use nix::net::if_::if_nametoindex;

use crate::agent::sync::Agent;
use crate::plan::desired::Refusal;

impl Agent {
    /// Attaches to the links of pods that came, and lets go those that went. Answers which cannot be served.
    pub(super) fn follow_links(&mut self) -> Vec<Refusal> {
        if !self.options.clients_inside.are_served() {
            return Vec::new();
        }
        let uplinks: BTreeSet<u32> = self.uplinks.iter().map(|served| served.uplink.ifindex).collect();
        let links: Vec<_> = self.snapshot.pod_links().filter(|link| !uplinks.contains(&link.index)).collect();
        let mut refusals = Vec::new();
        for link in &links {
            // One that went meanwhile will be told of.
            if let Err(error) = self.hooks.attach_link(&link.name, link.index)
                && if_nametoindex(link.name.as_str()).is_ok_and(|index| index == link.index)
            {
                let why = format!("clients behind it are served only where their sockets are seen: {error:#}");
                refusals.push(Refusal { object: format!("link {}", link.name), why });
            }
        }
        self.hooks.retain_links(&links.iter().map(|link| link.index).collect());
        refusals
    }
}
