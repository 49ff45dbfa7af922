//! `xlb watch` and `xlb capture`: packets as they come, as lines or in a file for Wireshark.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use xlb_common::Reason;

use super::PinArgs;
use super::output::{OutputArgs, print};
use super::span::Span;
use crate::maps::pins::PinDirectory;
use crate::model::IpNet;
use crate::source::address::parse_range;
use crate::watch::file::{CaptureFile, Room};
use crate::watch::filter::{Filter, reason};
use crate::watch::follow::{End, Ended, Next, Wanted, follow};

/// Which packets.
#[derive(Debug, Args)]
struct WhichArgs {
    /// Only those of this service: web, default/web, or default/web:http
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only those from or to these clients
    #[arg(long = "client", value_delimiter = ',', value_name = "A|CIDR[,...]", value_parser = parse_range)]
    clients: Vec<IpNet>,
    /// Only those with these reasons
    #[arg(long = "reason", value_delimiter = ',', value_name = "REASON[,...]", value_parser = reason)]
    reasons: Vec<Reason>,
    /// Look at one packet of N, chosen by chance, so that a busy node is not held up
    #[arg(long, value_name = "1/N", default_value = "1", value_parser = sample)]
    sample: u32,
}

/// What to print.
#[derive(Debug, Args)]
pub struct WatchArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// End after so many packets
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after this time
    #[arg(long = "for", value_name = "TIME")]
    duration: Option<Span>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    pins: PinArgs,
}

/// What to write.
#[derive(Debug, Args)]
pub struct CaptureArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Where to: a pcapng file; - is the standard output
    #[arg(short, long, value_name = "FILE")]
    write: PathBuf,
    /// Replace the file, if it is there
    #[arg(long)]
    force: bool,
    /// End after this time
    #[arg(long = "for", value_name = "TIME", default_value = "1m")]
    duration: Span,
    /// End before the file is larger; with a unit: K, M or G
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes)]
    max_size: u64,
    /// End after so many packets
    #[arg(short = 'n', long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Keep so many bytes of each packet
    #[arg(long, value_name = "BYTES", default_value = "65535", value_parser = clap::value_parser!(u32).range(64..))]
    snap: u32,
    #[command(flatten)]
    pins: PinArgs,
}

impl WhichArgs {
    fn wanted(self, duration: Option<Span>) -> Wanted {
        let filter = Filter { service: self.service, clients: self.clients, reasons: self.reasons };
        let duration = duration.map(|span| span.0).filter(|duration| !duration.is_zero());
        Wanted { filter, one_in: self.sample, duration }
    }
}

/// Prints packets as they come.
///
/// # Errors
/// When there is no dataplane, or packets cannot be heard.
pub fn watch(args: WatchArgs) -> Result<()> {
    let (output, count) = (args.output.output, args.count);
    let mut printed = 0;
    let ended =
        follow(&PinDirectory::new(args.pins.bpffs_dir), &args.which.wanted(args.duration), warn, |event, _| {
            let line = if output.is_for_people() { event.line() } else { output.item(event)? };
            printed += 1;
            let is_read = print(&(line + "\n"))?;
            Ok(if is_read && count != Some(printed) { Next::More } else { Next::Enough })
        })?;
    tell_lost(ended);
    Ok(())
}

/// Writes packets to a file.
///
/// # Errors
/// When there is no dataplane, packets cannot be heard, or the file cannot be written.
pub fn capture(args: CaptureArgs) -> Result<()> {
    let pins = PinDirectory::new(args.pins.bpffs_dir);
    let mut file = CaptureFile::make(&args.write, args.force, args.max_size, args.snap)?;
    let mut is_full = false;
    let ended = follow(&pins, &args.which.wanted(Some(args.duration)), warn, |event, _| {
        is_full = file.add(event)? == Room::Full;
        let is_enough = is_full || args.count.is_some_and(|count| file.packets() >= count);
        Ok(if is_enough { Next::Enough } else { Next::More })
    })?;
    let why = match ended.why {
        End::Enough if is_full => "it is as large as --max-size says",
        End::Enough => "that was enough",
        End::TimeIsOver => "the time is over (--for)",
        End::Interrupted => "interrupted",
    };
    eprintln!("{} packets, {} bytes in {}: {why}", file.packets(), file.written(), args.write.display());
    tell_lost(ended);
    Ok(())
}

pub(super) fn warn(sentence: String) {
    eprintln!("{sentence}");
}

fn tell_lost(ended: Ended) {
    if ended.lost > 0 {
        eprintln!("{} packets are missing: they came faster than they were looked at", ended.lost);
    }
}

/// `1/100`, or `100`.
fn sample(text: &str) -> Result<u32, String> {
    let number = text.strip_prefix("1/").unwrap_or(text).parse().ok().filter(|number| *number > 0);
    number.ok_or_else(|| format!("found {text:?}, expected one packet of how many, such as 1/100"))
}

/// `64M`.
fn bytes(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" => Some(1),
        "K" => Some(1 << 10),
        "M" => Some(1 << 20),
        "G" => Some(1_u64 << 30),
        _ => None,
    };
    let bytes = unit.and_then(|unit| digits.parse::<u64>().ok()?.checked_mul(unit)).filter(|bytes| *bytes >= 1 << 10);
    bytes.ok_or_else(|| format!("found {text:?}, expected a size such as 64M, with K, M or G, and at least 1K"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_samples_and_clients_are_read_and_what_is_none_is_refused() {
        for (text, expected) in
            [("1K", Some(1024)), ("64M", Some(64 << 20)), ("2000", Some(2000)), ("1", None), ("1T", None), ("", None)]
        {
            assert_eq!(bytes(text).ok(), expected, "{text}");
        }
        for (text, expected) in [("1", Some(1)), ("1/100", Some(100)), ("100", Some(100)), ("0", None), ("2/3", None)] {
            assert_eq!(sample(text).ok(), expected, "{text}");
        }
        for (text, expected) in
            [("198.51.100.10", Some("198.51.100.10/32")), ("fd00::/8", Some("fd00::/8")), ("x", None)]
        {
            assert_eq!(parse_range(text).ok().map(|range| range.to_string()).as_deref(), expected, "{text}");
        }
    }
}
