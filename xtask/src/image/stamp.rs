//! Which commit an image is of, and which time its files have.

use anyhow::{Context as _, Result, bail};

use crate::checkout::Checkout;
use crate::command;

/// Says another time than the commit's, in seconds since 1970.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Characters of a commit's name where people read it.
const SHORT: usize = 12;

/// What tells one image from another of the same version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The version of xlb.
    pub version: String,
    /// The commit, with `-dirty` where files differ from it.
    pub revision: String,
    /// Seconds since 1970.
    pub epoch: u64,
    /// The same in RFC 3339.
    pub created: String,
}

impl Stamp {
    /// That of the checkout.
    pub fn of(checkout: &Checkout) -> Result<Self> {
        let commit = git(checkout, &["rev-parse", "HEAD"])?;
        let is_dirty = !git(checkout, &["status", "--porcelain"])?.is_empty();
        let epoch = match std::env::var(EPOCH) {
            Ok(text) => epoch_of(&text)?,
            Err(_) => epoch_of(&git(checkout, &["log", "-1", "--format=%ct"])?)?,
        };
        let created = command::stdout_of("date", &["-u", "-d", &format!("@{epoch}"), "+%Y-%m-%dT%H:%M:%SZ"]);
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: if is_dirty { format!("{commit}-dirty") } else { commit },
            epoch,
            created: created.context("writing the time of the image with `date`")?.trim().to_owned(),
        })
    }

    /// Whether files differ from the commit.
    pub fn is_dirty(&self) -> bool {
        self.revision.ends_with("-dirty")
    }

    /// The commit for people: what `xlb --version` says.
    pub fn short(&self) -> String {
        let commit: String = self.revision.chars().take(SHORT).collect();
        if self.is_dirty() { format!("{commit}-dirty") } else { commit }
    }
}

/// What git says of the checkout, without the line's end.
pub fn git(checkout: &Checkout, args: &[&str]) -> Result<String> {
    let root = checkout.root().to_string_lossy();
    let said = command::stdout_of("git", &[&["-C", &root], args].concat());
    let said =
        said.with_context(|| format!("asking git in {root} (`git {}`): an image names its commit", args.join(" ")))?;
    Ok(said.trim_end().to_owned())
}

fn epoch_of(text: &str) -> Result<u64> {
    match text.trim().parse() {
        Ok(epoch) => Ok(epoch),
        Err(_) => bail!("{EPOCH}={text} is no number of seconds since 1970: unset it, and the commit's time is taken"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_is_no_number_is_refused() {
        assert_eq!(epoch_of("1700000000\n").unwrap(), 1_700_000_000);
        let said = epoch_of("yesterday").unwrap_err().to_string();
        assert!(said.contains("SOURCE_DATE_EPOCH=yesterday") && said.contains("unset it"), "{said}");
    }

    #[test]
    fn people_read_the_beginning_of_a_commit_and_whether_files_differ() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let stamp = |revision: String| Stamp { version: "1.0.0".into(), revision, epoch: 0, created: String::new() };
        assert_eq!(stamp(commit.into()).short(), "0123456789ab");
        assert_eq!(stamp(format!("{commit}-dirty")).short(), "0123456789ab-dirty");
    }
}
