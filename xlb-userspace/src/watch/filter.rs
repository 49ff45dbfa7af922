//! Which packets are wanted.

use std::net::IpAddr;

use xlb_common::Reason;

use super::event::{Direction, Event};
use crate::model::IpNet;
use crate::model::called::is_called;

/// What an event has to be. What is not said is no condition.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Its Service, as people call it: [`is_called`].
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
        self.service.as_ref().is_none_or(|wanted| is_called(name, wanted))
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
    fn a_reason_that_is_none_names_those_that_sound_alike() {
        assert_eq!(reason("slot_owner"), Ok(Reason::SlotOwner));
        assert!(reason("slot_ownr").unwrap_err().contains("slot_owner"));
        assert!(reason("x").unwrap_err().starts_with("there is no reason x; all are in"));
    }
}
