//! dig and dnsmasq: answers over UDP that are longer than a packet.

use anyhow::{Context, Result, ensure};
use xlb_common::Reason;
use xlb_tests::lab::Version;

use crate::counts::{Counts, check_sums};
use crate::http::SERVICE;
use crate::run::run;
use crate::stage::Stage;

const NAME: &str = "long.xlb.test";
/// With its names it fits into the 4 096 bytes that both sides agree on, and into three fragments.
const TEXT_BYTES: usize = 3_900;
const TRIES: u64 = 12;

/// The flags keep dig from asking once more over TCP, which would hide a loss.
const OVER_UDP: [&str; 5] = ["+notcp", "+ignore", "+bufsize=4096", "+tries=1", "+time=20"];
const OVER_TCP: [&str; 3] = ["+tcp", "+tries=1", "+time=20"];

/// What dnsmasq tells.
pub fn records() -> [(&'static str, String); 1] {
    [(NAME, text())]
}

/// Long answers over UDP, in fragments, and over TCP.
pub fn check(stage: &Stage, version: Version) -> Result<()> {
    let reassembled = if version == Version::V4 { "IpReasmOKs" } else { "Ip6ReasmOKs" };
    let (client, fragments) = (stage.lab.client(0), stage.count(Reason::ReplyFragment)?);
    let before = Counts::of(client)?.get(reassembled)?;
    for _ in 0..TRIES {
        ask(stage, version, &OVER_UDP)?;
    }
    ask(stage, version, &OVER_TCP).context("over TCP")?;
    let whole = Counts::of(client)?.get(reassembled)? - before;
    ensure!(whole == TRIES, "{whole} of {TRIES} answers came in fragments");
    ensure!(stage.count(Reason::ReplyFragment)? > fragments, "xlb met no fragment of an answer");
    check_sums(client)
}

fn ask(stage: &Stage, version: Version, flags: &[&str]) -> Result<()> {
    let at = format!("@{}", stage.vip(version, SERVICE));
    let answer = run(stage.lab.client(0), "dig", &[&[&at, NAME, "TXT", "+short"], flags].concat())?;
    let answer = answer.trim().trim_matches('"').replace("\" \"", "");
    ensure!(answer == text(), "dig got {} bytes: {answer}", answer.len());
    Ok(())
}

/// Text that shows its own position.
fn text() -> String {
    (0..TEXT_BYTES / 10).map(|number| format!("{number:09}.")).collect()
}
