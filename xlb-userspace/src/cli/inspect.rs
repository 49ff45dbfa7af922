//! `xlb inspect`: the maps, for people and programs.

use anyhow::Result;

use crate::cli::inspection::Inspection;
use crate::cli::{Output, Section, metrics, show};
use crate::maps::live::LiveMaps;
use crate::maps::pins::PinDirectory;

/// Prints a section.
///
/// # Errors
/// When there is no dataplane, or the kernel refuses to read.
pub fn inspect(pins: &PinDirectory, section: Section, output: Output) -> Result<()> {
    let maps = LiveMaps::open(pins)?;
    if section == Section::Metrics {
        print!("{}", metrics::text(&maps, pins.root())?);
        return Ok(());
    }
    let inspection = Inspection::take(&maps, pins.root())?;
    let text = match output {
        Output::Text => show::text(&inspection, section),
        Output::Json => json(&inspection, section)? + "\n",
    };
    print!("{text}");
    Ok(())
}

fn json(inspection: &Inspection, section: Section) -> Result<String> {
    let text = match section {
        Section::Services => serde_json::to_string_pretty(&inspection.services),
        Section::Backends => serde_json::to_string_pretty(&inspection.backends),
        Section::Flows => serde_json::to_string_pretty(&inspection.flows),
        Section::All | Section::Metrics => serde_json::to_string_pretty(inspection),
    };
    Ok(text?)
}
