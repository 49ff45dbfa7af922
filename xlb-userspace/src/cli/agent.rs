//! The agent as the command line sees it: whether it has the dataplane, and what it said last.

use anyhow::Result;
use serde::Serialize;

use crate::agent::report::{Report, now_s};
use crate::maps::pins::PinDirectory;

/// The agent's last word.
#[derive(Clone, Debug, Serialize)]
pub struct AgentView {
    /// Whether it has the dataplane now. Another one that has not reported yet may have it.
    pub is_running: bool,
    /// Its process, as it numbers itself: in a container, the container's.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Name of its node.
    pub node_name: String,
    /// Uplinks with their front doors.
    pub uplinks: Vec<String>,
    /// When the maps were last equal to what is asked for, in seconds since 1970; zero: never.
    pub in_sync_at_s: u64,
    /// How long ago that is, in seconds; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_sync_ago_s: Option<u64>,
    /// The version whose programs are in the kernel; absent: nobody said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub programs_version: Option<String>,
}

/// Whether an agent has the dataplane, something that is read, and the last report. In this order: an agent that has the dataplane marks
/// the report of the one before at once, so that this is not taken for its own; and it reports after it has changed the maps.
///
/// # Errors
/// Those of reading.
pub fn look<T>(pins: &PinDirectory, read: impl FnOnce() -> Result<T>) -> Result<(bool, T, Option<Report>)> {
    let has_agent = pins.has_agent();
    let value = read()?;
    Ok((has_agent, value, Report::read(pins.root())))
}

/// What is known of the agent; none: none ever reported.
#[must_use]
pub fn view(has_agent: bool, report: Option<&Report>) -> Option<AgentView> {
    report.map(|report| AgentView {
        is_running: has_agent && !report.is_over,
        pid: report.pid,
        version: report.version.clone(),
        node_name: report.node_name.clone(),
        uplinks: report.uplinks.clone(),
        in_sync_at_s: report.in_sync_at_s,
        in_sync_ago_s: (report.in_sync_at_s > 0).then(|| now_s().saturating_sub(report.in_sync_at_s)),
        programs_version: report.programs_version.clone(),
    })
}
