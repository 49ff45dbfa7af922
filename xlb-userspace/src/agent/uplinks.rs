//! Uplinks: which front door each one gets, and its attachment.

use anyhow::{Context, Result};
use tracing::{info, warn};

use crate::agent::options::XdpChoice;
use crate::maps::attach::{FrontDoor, Hooks};
use crate::maps::live::LiveMaps;
use crate::maps::wanted::Wanted;
use crate::node::{Netlink, Snapshot, Uplink};
use crate::plan::desired::Refusal;

/// Drivers of devices that exist only in software: native XDP there costs GRO and segmentation offload, and wins nothing
/// (docs/decisions/0003).
const VIRTUAL_DRIVERS: &[&str] =
    &["veth", "bridge", "tun", "macvlan", "ipvlan", "vxlan", "geneve", "bonding", "bond", "team", "dummy", "netkit"];

/// An uplink that the agent serves.
#[derive(Clone, Debug)]
pub struct ServedUplink {
    /// Name of the interface.
    pub name: String,
    /// What netlink said of it when it was attached.
    pub uplink: Uplink,
    /// The front door it has.
    pub door: FrontDoor,
}

/// The front doors to try for a driver, in order.
#[must_use]
pub fn doors(choice: XdpChoice, driver: &str) -> &'static [FrontDoor] {
    match choice {
        XdpChoice::Off => &[FrontDoor::Tc],
        XdpChoice::Native => &[FrontDoor::XdpNative],
        XdpChoice::Generic => &[FrontDoor::XdpGeneric],
        XdpChoice::Auto if VIRTUAL_DRIVERS.contains(&driver) => &[FrontDoor::Tc],
        XdpChoice::Auto => &[FrontDoor::XdpNative, FrontDoor::Tc],
    }
}

/// The programs that the agent will attach, for uplinks with these drivers.
#[must_use]
pub fn wanted(choice: XdpChoice, drivers: &[String], serves_inside: bool) -> Wanted {
    Wanted::of(drivers.iter().flat_map(|driver| doors(choice, driver)).copied(), serves_inside)
}

/// Attaches to every uplink whose interface is not the one attached before (none yet, or made anew), and follows their
/// MACs and addresses. Answers what is wrong with an uplink that was served before: that must not hold up the others.
///
/// # Errors
/// When an uplink that was never served does not exist, or the kernel refuses every front door.
pub fn serve(
    names: &[String],
    choice: XdpChoice,
    served: &mut Vec<ServedUplink>,
    (netlink, snapshot): (&Netlink, &Snapshot),
    (hooks, maps): (&mut Hooks, &mut LiveMaps),
) -> Result<Vec<Refusal>> {
    let mut refusals = Vec::new();
    for name in names {
        let known = served.iter().position(|known| known.name == *name);
        let node = (netlink, snapshot);
        match serve_one(name, choice, known.map(|at| &served[at]), node, (&mut *hooks, &mut *maps)) {
            Ok(now) => match known {
                Some(at) => served[at] = now,
                None => served.push(now),
            },
            Err(error) if known.is_some() => {
                let why = format!("gets no traffic until it is there again: {error:#}");
                refusals.push(Refusal { object: format!("uplink {name}"), why });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refusals)
}

fn serve_one(
    name: &str,
    choice: XdpChoice,
    known: Option<&ServedUplink>,
    (netlink, snapshot): (&Netlink, &Snapshot),
    (hooks, maps): (&mut Hooks, &mut LiveMaps),
) -> Result<ServedUplink> {
    let uplink = netlink.uplink_in(snapshot, name).with_context(|| format!("looking for the uplink {name}"))?;
    if known.is_none_or(|known| known.uplink != uplink) {
        maps.put_uplink(&uplink)?;
    }
    if let Some(known) = known.filter(|known| known.uplink.ifindex == uplink.ifindex) {
        return Ok(ServedUplink { uplink, ..known.clone() });
    }
    let door = attach(name, &uplink, doors(choice, &uplink.driver), hooks)?;
    if let Some(known) = known {
        hooks.forget_uplink(known.uplink.ifindex);
    }
    info!("serving uplink {name} (driver {}) by {door}", uplink.driver);
    Ok(ServedUplink { name: name.into(), uplink, door })
}

fn attach(name: &str, uplink: &Uplink, doors: &[FrontDoor], hooks: &mut Hooks) -> Result<FrontDoor> {
    let mut refusal = None;
    for &door in doors {
        match hooks.attach_uplink(name, uplink.ifindex, door) {
            Ok(()) => return Ok(door),
            Err(error) => {
                warn!("{name} does not take {door}: {error:#}");
                refusal = Some(error);
            }
        }
    }
    Err(refusal.unwrap_or_else(|| anyhow::anyhow!("no front door to try")))
        .with_context(|| format!("serving uplink {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_veth_gets_tc_and_a_network_card_gets_xdp_first() {
        assert_eq!(doors(XdpChoice::Auto, "veth"), [FrontDoor::Tc]);
        assert_eq!(doors(XdpChoice::Auto, "mlx5_core"), [FrontDoor::XdpNative, FrontDoor::Tc]);
        assert_eq!(doors(XdpChoice::Native, "veth"), [FrontDoor::XdpNative]);
        assert_eq!(doors(XdpChoice::Off, "mlx5_core"), [FrontDoor::Tc]);
    }
}
