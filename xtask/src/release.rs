//! Whether this commit is ready to be released, and what a release of it would be. Nothing is published from here.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::checkout::Checkout;
use crate::image::{Arch, Made, Stamp, Toolchain, Wanted, git};
use crate::supply::{self, advisories, lock};
use crate::{build_ebpf, command, image};

/// An older snapshot says too little about what is released.
const SNAPSHOT_DAYS_MAX: u64 = 30;

/// What has to have passed on the commit, and takes too long to be run here.
const TESTS: [&str; 3] = ["cargo xtask test", "cargo xtask test scenarios", "cargo xtask verify"];

/// A check, and what it found: a note, or what keeps the release.
struct Check {
    name: &'static str,
    found: Result<String, String>,
}

/// Checks everything, prints a line for each check and what a release would do, and fails when something is missing.
pub fn rehearse(checkout: &Checkout) -> Result<()> {
    let stamp = Stamp::of(checkout)?;
    let mut checks = of_the_commit(checkout, &stamp)?;
    checks.extend(of_others(checkout)?);
    let (made, of_image) = images(checkout)?;
    checks.extend(of_image);
    for check in &checks {
        match &check.found {
            Ok(note) => println!("ready    {}: {note}", check.name),
            Err(what) => println!("missing  {}: {what}", check.name),
        }
    }
    println!("\n{}", plan(&stamp, &made));
    match checks.iter().filter(|check| check.found.is_err()).count() {
        0 => Ok(()),
        count => bail!("{count} checks say that {} is not ready to be released", stamp.version),
    }
}

/// What this command says instead of releasing.
pub fn refuse() -> Result<()> {
    bail!(
        "nothing is published from here: run `cargo xtask release --dry-run`, and do by hand what it prints at its end \
         (docs/RELEASING.md)"
    )
}

fn of_the_commit(checkout: &Checkout, stamp: &Stamp) -> Result<Vec<Check>> {
    let changelog = fs::read_to_string(checkout.root().join("CHANGELOG.md")).ok();
    let tag = tag(stamp);
    let tags = git(checkout, &["tag", "--list", &tag])?;
    Ok(vec![
        Check {
            name: "clean tree",
            found: match stamp.is_dirty() {
                false => Ok(stamp.revision.clone()),
                true => Err("files differ from the commit: commit or stash them, as the image names its commit".into()),
            },
        },
        Check { name: "changelog", found: section(changelog.as_deref(), &stamp.version) },
        Check {
            name: "tag",
            found: match tags.is_empty() {
                true => Ok(format!("{tag} is free")),
                false => Err(format!("{tag} is there already: raise `version` in Cargo.toml")),
            },
        },
    ])
}

/// The changelog has a section for the version, and something in it.
fn section(changelog: Option<&str>, version: &str) -> Result<String, String> {
    let Some(changelog) = changelog else {
        return Err("there is no CHANGELOG.md: write what changes for an operator".into());
    };
    let mut lines = changelog.lines().skip_while(|line| !is_heading_of(line, version));
    let Some(heading) = lines.next() else {
        return Err(format!("CHANGELOG.md has no section `## {version}`"));
    };
    if heading.to_lowercase().contains("not released") {
        return Err(format!(
            "the section `{heading}` of CHANGELOG.md is of no release yet: write the day in its place"
        ));
    }
    let body = lines.take_while(|line| !line.starts_with("## "));
    match body.filter(|line| !line.trim().is_empty()).count() {
        0 => Err(format!("the section `{heading}` of CHANGELOG.md is empty")),
        count => Ok(format!("`{heading}`, {count} lines")),
    }
}

/// Such as `## 0.1.0`, `## v0.1.0` or `## [0.1.0] - 2026-11-29`.
fn is_heading_of(line: &str, version: &str) -> bool {
    let Some(title) = line.strip_prefix("## ") else { return false };
    let first = title.split_whitespace().next().unwrap_or_default();
    first.trim_matches(['[', ']']).trim_start_matches('v') == version
}

fn of_others(checkout: &Checkout) -> Result<Vec<Check>> {
    let findings = supply::findings(checkout)?;
    let found = match findings.faults.is_empty() {
        true => Ok(findings.looked_at.join("; ")),
        false => Err(findings.faults.join("; ")),
    };
    let snapshot = advisories::read(checkout)?;
    let uncovered: Vec<String> = snapshot.uncovered(&lock::read(checkout)?).into_iter().map(str::to_owned).collect();
    let days = days_since(snapshot.taken()).context("reading the day of the advisories' snapshot")?;
    Ok(vec![
        Check { name: "licences, sources, advisories", found },
        Check { name: "advisories' snapshot", found: freshness(snapshot.taken(), days, &uncovered) },
    ])
}

fn freshness(taken: &str, days: u64, uncovered: &[String]) -> Result<String, String> {
    const REMEDY: &str = "`cargo xtask advisories --update CLONE`, with a clone of RustSec's advisory-db of today";
    match (days > SNAPSHOT_DAYS_MAX, uncovered) {
        (true, _) => Err(format!("it was taken on {taken}, {days} days ago: {REMEDY}")),
        (false, []) => Ok(format!("taken on {taken}")),
        (false, names) => Err(format!("the database was not asked for {}: {REMEDY}", names.join(", "))),
    }
}

fn days_since(day: &str) -> Option<u64> {
    let seconds = |date: &str| command::stdout_of("date", &["-u", "-d", date, "+%s"])?.trim().parse::<u64>().ok();
    Some(seconds("now")?.saturating_sub(seconds(day)?) / 86_400)
}

/// Makes the images that can be made here, and shows that they are the same when made again.
fn images(checkout: &Checkout) -> Result<(Made, Vec<Check>)> {
    build_ebpf::build(checkout)?;
    let (mut arches, mut checks) = (Vec::new(), Vec::new());
    for arch in [Arch::Amd64, Arch::Arm64] {
        match Toolchain::find(arch) {
            Ok(_) => arches.push(arch),
            Err(error) => checks.push(Check { name: arch.name(), found: Err(format!("{error:#}")) }),
        }
    }
    let wanted = Wanted { arches: arches.clone(), profile: "release".to_owned(), name: None, output: None };
    let made = image::make(checkout, &wanted)?;
    for arch in arches {
        let found = image::prove(checkout, arch, "release", true);
        let found = found.map(|()| "static, and the same when built twice".to_owned());
        checks.push(Check { name: arch.name(), found: found.map_err(|error| format!("{error:#}")) });
    }
    Ok((made, checks))
}

fn tag(stamp: &Stamp) -> String {
    format!("v{}", stamp.version)
}

/// What a person does, in order.
fn plan(stamp: &Stamp, made: &Made) -> String {
    let (tag, version) = (tag(stamp), &stamp.version);
    let digests: Vec<String> =
        made.images.iter().map(|image| format!("   {} {}", image.arch().name(), image.digest())).collect();
    let tarball = shown(&made.path);
    let tests: Vec<String> = TESTS.iter().map(|test| format!("   {test}")).collect();
    format!(
        "A release of xlb {version} would be, by hand:\n\
         1. these pass on {} (not run here):\n{}\n\
         2. git tag --sign {tag} --message 'xlb {version}' {}\n\
         3. skopeo copy --all oci-archive:{tarball} docker://REGISTRY/xlb:{version}\n\
         4. the digests, with the section of CHANGELOG.md, where the release is announced:\n{}\n\
         5. the bill of materials beside them: tar -xOf of the layer, usr/share/xlb/sbom.cdx.json",
        stamp.short(),
        tests.join("\n"),
        stamp.revision,
        digests.join("\n")
    )
}

fn shown(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| format!("target/image/{}", name.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_changelog_has_a_section_of_the_version_with_something_in_it() {
        let text = "# Changelog\n\n## 2.0.0 (not released)\n\n- all new\n\n## [1.1.0] - 2026-11-29\n\n- faster\n- smaller\n\n## 1.0.0\n\n## v0.9.0\nfirst\n";
        let rows = [
            ("1.1.0", Ok("2 lines")),
            ("0.9.0", Ok("1 lines")),
            ("1.0.0", Err("is empty")),
            ("2.0.0", Err("of no release yet")),
            ("1.1", Err("no section `## 1.1`")),
        ];
        for (version, expected) in rows {
            let found = section(Some(text), version);
            match expected {
                Ok(part) => assert!(found.as_ref().is_ok_and(|note| note.contains(part)), "{version}: {found:?}"),
                Err(part) => assert!(found.as_ref().is_err_and(|what| what.contains(part)), "{version}: {found:?}"),
            }
        }
        assert!(section(None, "1.0.0").unwrap_err().contains("no CHANGELOG.md"));
    }

    #[test]
    fn an_old_or_partial_snapshot_keeps_a_release() {
        assert!(freshness("2026-11-29", 3, &[]).is_ok());
        let old = freshness("2026-01-01", 31, &[]).unwrap_err();
        assert!(old.contains("31 days") && old.contains("--update"), "{old}");
        let partial = freshness("2026-11-29", 0, &["tokio".to_owned()]).unwrap_err();
        assert!(partial.contains("tokio") && partial.contains("--update"), "{partial}");
    }

    #[test]
    fn a_day_of_long_ago_is_many_days_ago() {
        assert!(days_since("2020-01-01").unwrap() > 2_000);
        assert_eq!(days_since("no day"), None);
    }

    #[test]
    fn without_a_rehearsal_it_says_what_to_do() {
        let said = refuse().unwrap_err().to_string();
        assert!(said.contains("--dry-run") && said.contains("docs/RELEASING.md"), "{said}");
    }
}
