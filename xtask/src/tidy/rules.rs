//! The conventions, each as a function from a text to its faults.

use std::path::Path;

use super::source::{self, Parts};

/// Where `unsafe` may be: the kernel programs, and the adapters to kernel memory and system calls. A name that ends
/// in `/` is a folder.
const UNSAFE_FILES: [&str; 4] =
    ["xlb-ebpf/src/", "xlb-userspace/src/maps/", "xlb-userspace/src/node/", "tests/src/lab/"];

/// A longer Rust file does more than one thing.
const FILE_LINES_MAX: usize = 400;

/// Code that says it is not finished, or a test that does not run.
const UNFINISHED_CODE: [&str; 3] = ["todo!", "unimplemented!", "#[ignore"];

/// Comments that say the same.
const UNFINISHED_COMMENTS: [&str; 2] = ["TODO", "FIXME"];

/// Folders that are the same on every machine, so that naming them gives nothing away.
const COMMON_FOLDERS: [&str; 8] = ["/", "/tmp", "/var/tmp", "/home", "/opt", "/srv", "/mnt", "/usr/src"];

/// All faults of one file, as `path:line: what is wrong`.
pub fn check(path: &str, text: &str, machine_paths: &MachinePaths) -> Vec<String> {
    let mut faults = machine_paths.check(text);
    if path.ends_with(".rs") {
        let parts = source::split(text);
        faults.extend(check_length(text));
        faults.extend(check_unsafe(path, text, &parts));
        faults.extend(check_finished(&parts));
    }
    faults.sort();
    faults.into_iter().map(|fault| format!("{path}:{}: {}", fault.line, fault.what)).collect()
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fault {
    line: usize,
    what: String,
}

/// Folders that exist on the machine of whoever wrote the text, and on no other.
pub struct MachinePaths(Vec<String>);

impl MachinePaths {
    /// The checkout, its parent and the home folder.
    pub fn of(checkout: &Path, home: Option<String>) -> Self {
        let parent = checkout.parent().map(|parent| parent.to_string_lossy().into_owned());
        let folders = [Some(checkout.to_string_lossy().into_owned()), parent, home];
        Self(folders.into_iter().flatten().filter(|folder| !COMMON_FOLDERS.contains(&folder.as_str())).collect())
    }

    fn check(&self, text: &str) -> Vec<Fault> {
        let lines = numbered(text).filter_map(|(line, content)| {
            let folder = self.0.iter().find(|folder| names_folder(content, folder))?;
            Some(Fault { line, what: format!("names {folder}, which is on one machine only") })
        });
        lines.collect()
    }
}

/// Whether the line names something in the folder, and not only a longer path that ends like it.
fn names_folder(line: &str, folder: &str) -> bool {
    let inside = format!("{}/", folder.trim_end_matches('/'));
    line.match_indices(&inside).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || "._-/}*~".contains(character))
    })
}

fn check_length(text: &str) -> Option<Fault> {
    let lines = text.lines().count();
    (lines > FILE_LINES_MAX)
        .then(|| Fault { line: lines, what: format!("has {lines} lines: {FILE_LINES_MAX} is the limit") })
}

fn check_unsafe(path: &str, text: &str, parts: &Parts) -> Vec<Fault> {
    let is_listed = UNSAFE_FILES.iter().any(|listed| match listed.strip_suffix('/') {
        Some(_) => path.starts_with(listed),
        None => path == *listed,
    });
    let lines: Vec<&str> = text.lines().collect();
    let code: Vec<&str> = parts.code.lines().collect();
    let with_unsafe = code.iter().enumerate().filter(|(_, content)| has_word(content, "unsafe"));
    with_unsafe
        .filter_map(|(index, content)| {
            let what = match () {
                () if !is_listed => "has `unsafe`, and its file is not in UNSAFE_FILES of xtask/src/tidy/rules.rs",
                () if needs_reason(content) && !has_reason(&lines, &code, index) => {
                    "has `unsafe` without a SAFETY comment right above"
                }
                () => return None,
            };
            Some(Fault { line: index + 1, what: what.to_owned() })
        })
        .collect()
}

/// Blocks and implementations claim that a rule was kept. An `unsafe fn` or attribute only states the rule.
fn needs_reason(code: &str) -> bool {
    code.split("unsafe").skip(1).any(|behind| {
        let behind = behind.trim_start();
        behind.is_empty() || behind.starts_with('{') || behind.starts_with("impl")
    })
}

/// Walks up through the statement that holds the line, and through the comment above it.
fn has_reason(lines: &[&str], code: &[&str], index: usize) -> bool {
    if lines[index].contains("SAFETY:") {
        return true;
    }
    for above in (0..index).rev() {
        if lines[above].contains("SAFETY:") {
            return true;
        }
        let is_comment = code[above].trim().is_empty() && !lines[above].trim().is_empty();
        if !is_comment && (lines[above].trim().is_empty() || ends_a_statement(code[above])) {
            return false;
        }
    }
    false
}

fn ends_a_statement(code: &str) -> bool {
    code.trim_end().ends_with([';', '{', '}', ','])
}

fn check_finished(parts: &Parts) -> Vec<Fault> {
    let code = unfinished(&parts.code, &UNFINISHED_CODE);
    let comments = unfinished(&parts.comments, &UNFINISHED_COMMENTS);
    code.chain(comments).collect()
}

fn unfinished(text: &str, marks: &[&'static str]) -> impl Iterator<Item = Fault> {
    numbered(text).filter_map(|(line, content)| {
        let mark = marks.iter().find(|mark| content.contains(**mark))?;
        Some(Fault { line, what: format!("has `{mark}`: finish it, or write an issue") })
    })
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|character: char| !character.is_alphanumeric() && character != '_').any(|part| part == word)
}

fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line))
}

#[cfg(test)]
mod tests;
