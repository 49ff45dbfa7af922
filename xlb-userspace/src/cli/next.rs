//! `xlb explain --next`: the packets that come, each told as `xlb explain` tells of one.

use anyhow::{Result, ensure};

use super::explain::{Explanation, steps, text};
use super::output::{Format, OutputArgs, print};
use super::span::Span;
use super::watch::warn;
use crate::maps::pins::PinDirectory;
use crate::plan::Observed;
use crate::watch::event::{Direction, Event};
use crate::watch::filter::Filter;
use crate::watch::follow::{End, Next, Wanted, follow};

/// Prints the way of the next packets.
///
/// # Errors
/// When there is no dataplane, packets cannot be heard, or none came in time.
pub fn explain(pins: &PinDirectory, count: u64, duration: Span, output: OutputArgs) -> Result<()> {
    let duration = Some(duration.0).filter(|duration| !duration.is_zero());
    let wanted = Wanted { filter: Filter::default(), one_in: 1, duration };
    let mut explained = 0;
    let ended = follow(pins, &wanted, warn, |event, observed| {
        explained += 1;
        let is_read = print(&(shown(&explanation(event, observed), output.output)? + "\n"))?;
        Ok(if is_read && explained < count { Next::More } else { Next::Enough })
    })?;
    ensure!(
        ended.why != End::TimeIsOver || explained > 0,
        "no packet for an address that is served came in this time: do routers send them to this node? \
         `xlb doctor` looks for what may keep them away"
    );
    Ok(())
}

fn shown(explanation: &Explanation, format: Format) -> Result<String> {
    if format.is_for_people() { Ok(text(explanation)) } else { format.item(explanation) }
}

fn explanation(event: &Event, observed: &Observed) -> Explanation {
    let flags = event.flags.as_ref().map_or_else(String::new, |flags| format!(" [{flags}]"));
    let from = match event.direction {
        Direction::In => "from a client",
        Direction::Out => "from a pod",
    };
    let Event { protocol, source, destination, link, .. } = event;
    Explanation {
        packet: format!("{protocol} {source} > {destination}{flags}, {from} by {link}"),
        steps: steps(&event.stages, observed),
        becomes: event.becomes.map(|(source, destination)| format!("{source} > {destination}")),
        reason: event.reason.label(),
        verdict: event.reason.sentence(),
    }
}
