//! Which packets are wanted.

use std::net::IpAddr;

use xlb_common::Reason;

use super::event::{Direction, Event};
use crate::model::IpNet;

/// What an event has to be. What is not said is no condition.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Its Service: `namespace/name`, or one port of it as `xlb services` names it.
    pub service: Option<String>,
    /// Its client.
    pub clients: Vec<IpNet>,
    /// Its reason is one of these.
    pub reasons: Vec<Reason>,
}

impl Filter {
    /// Whether an event is wanted.
    #[must_use]
    pub fn takes(&self, event: &Event) -> bool {
        let client = match event.direction {
            Direction::In => event.source.ip(),
            Direction::Out => event.destination.ip(),
        };
        self.takes_client(client)
            && (self.reasons.is_empty() || self.reasons.contains(&event.reason))
            && (self.service.is_none() || event.service.as_deref().is_some_and(|name| self.takes_service(name)))
    }

    /// Whether a Service port is wanted, by its name.
    #[must_use]
    pub fn takes_service(&self, name: &str) -> bool {
        let Some(wanted) = &self.service else { return true };
        // `namespace/name:port/protocol/family`, of which the wanted name has any first part.
        name.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    }

    fn takes_client(&self, client: IpAddr) -> bool {
        self.clients.is_empty() || self.clients.iter().any(|range| range.contains(&client))
    }
}

/// A reason, by its label.
///
/// # Errors
/// When there is none of this label, with those that sound alike.
pub fn reason(label: &str) -> Result<Reason, String> {
    let found = Reason::ALL.iter().copied().find(|reason| reason.label() == label);
    found.ok_or_else(|| {
        let words: Vec<&str> = label.split('_').filter(|word| word.len() > 2).collect();
        let sounds_alike = |reason: &&Reason| words.iter().any(|word| reason.label().contains(word));
        let alike: Vec<&str> = Reason::ALL.iter().filter(sounds_alike).map(|reason| reason.label()).take(6).collect();
        let alike = if alike.is_empty() { String::new() } else { format!("; there are {}", alike.join(", ")) };
        format!("there is no reason {label}{alike}; all are in docs/OPERATING.md")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_named_by_any_first_part_of_its_name() {
        let takes =
            |wanted: &str, name: &str| Filter { service: Some(wanted.into()), ..Filter::default() }.takes_service(name);
        for (wanted, name, expected) in [
            ("default/web", "default/web:http", true),
            ("default/web:http", "default/web:http", true),
            ("default/web:http", "default/web:http/udp", true),
            ("default/web", "default/web/ipv6", true),
            ("default/web", "default/web-2:http", false),
            ("default/web:h", "default/web:http", false),
            ("web", "default/web:http", false),
            ("default", "default/web", true),
        ] {
            assert_eq!(takes(wanted, name), expected, "{wanted} and {name}");
        }
    }

    #[test]
    fn a_reason_that_is_none_names_those_that_sound_alike() {
        assert_eq!(reason("slot_owner"), Ok(Reason::SlotOwner));
        assert!(reason("slot_ownr").unwrap_err().contains("slot_owner"));
        assert!(reason("x").unwrap_err().starts_with("there is no reason x; all are in"));
    }
}
