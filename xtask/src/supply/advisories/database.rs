//! Reads a clone of RustSec's advisory database: `crates/NAME/RUSTSEC-YEAR-NUMBER.md`, each with its data as TOML at the top.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use toml_edit::{DocumentMut, Item, Table};

use super::{Advisory, Snapshot};

const SOURCE: &str = "RustSec advisory database, CC0-1.0 (advisories of GitHub in it: CC-BY-4.0)";

/// All advisories that were not withdrawn.
pub fn read(clone: &Path, taken: &str) -> Result<Snapshot> {
    let crates = clone.join("crates");
    ensure!(
        crates.is_dir(),
        "{} has no folder `crates`: name a clone of RustSec's repository advisory-db",
        clone.display()
    );
    let mut advisories = Vec::new();
    for path in files(&crates)? {
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        advisories.extend(parse(&text).with_context(|| format!("reading {}", path.display()))?);
    }
    ensure!(!advisories.is_empty(), "{} holds no advisory RUSTSEC-*.md", crates.display());
    advisories.sort_by(|one, other| one.id.cmp(&other.id));
    Ok(Snapshot { source: SOURCE.to_owned(), taken: taken.to_owned(), covers: None, advisories })
}

fn files(crates: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(crates).with_context(|| format!("reading {}", crates.display()))? {
        let Ok(files) = fs::read_dir(folder?.path()) else { continue };
        found.extend(files.flatten().map(|file| file.path()).filter(|path| is_advisory(path)));
    }
    Ok(found)
}

fn is_advisory(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.starts_with("RUSTSEC-") && name.ends_with(".md") && !name.contains("0000-0000")
}

/// None: it was withdrawn.
fn parse(text: &str) -> Result<Option<Advisory>> {
    let (_, behind) = text.split_once("```toml").context("it does not begin with its data")?;
    let (data, words) = behind.split_once("```").context("its data do not end")?;
    let document: DocumentMut = data.parse()?;
    let advisory = document.get("advisory").and_then(Item::as_table).context("it has no [advisory]")?;
    if advisory.contains_key("withdrawn") {
        return Ok(None);
    }
    let field = |name: &str| advisory.get(name).and_then(Item::as_str).map(str::to_owned);
    let title = words.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or_default();
    let versions = document.get("versions").and_then(Item::as_table);
    Ok(Some(Advisory {
        id: field("id").context("it has no id")?,
        package: field("package").context("it names no package")?,
        date: field("date").context("it has no date")?,
        kind: field("informational").unwrap_or_else(|| "vulnerability".to_owned()),
        title: title.trim().to_owned(),
        patched: ranges(versions, "patched"),
        unaffected: ranges(versions, "unaffected"),
    }))
}

fn ranges(versions: Option<&Table>, name: &str) -> Vec<String> {
    let list = versions.and_then(|versions| versions.get(name)).and_then(Item::as_array);
    list.into_iter().flatten().filter_map(|range| range.as_str()).map(str::to_owned).collect()
}
