//! A systemd unit: its settings, and what they allow.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A unit's text.
pub struct Unit(String);

impl Unit {
    /// A unit.
    #[must_use]
    pub fn new(text: String) -> Unit {
        Unit(text)
    }

    /// All values of a setting, in their order.
    #[must_use]
    pub fn values(&self, name: &str) -> Vec<&str> {
        let settings = self.0.lines().filter_map(|line| line.split_once('='));
        settings.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
    }

    /// The one value of a setting.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn value(&self, name: &str) -> Result<&str> {
        match self.values(name)[..] {
            [value] => Ok(value),
            ref other => anyhow::bail!("{name} has {} values", other.len()),
        }
    }

    /// The words of `ExecStart`, with variables as an environment file sets them.
    ///
    /// # Errors
    /// When a variable has no value.
    pub fn command(&self, environment: &str) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for word in self.value("ExecStart")?.split(' ') {
            match word.strip_prefix('$').filter(|name| !name.starts_with('{')) {
                Some(name) => words.extend(variable(environment, name)?.split(' ').map(String::from)),
                None => words.push(filled(word, environment)?),
            }
        }
        Ok(words.into_iter().filter(|word| !word.is_empty()).collect())
    }

    /// The system calls that the filters allow.
    ///
    /// # Errors
    /// When systemd does not say what its sets are.
    pub fn system_calls(&self) -> Result<BTreeSet<String>> {
        let mut allowed = BTreeSet::new();
        for line in self.values("SystemCallFilter") {
            let (denies, names) = line.strip_prefix('~').map_or((false, line), |names| (true, names));
            for name in names.split(' ') {
                let calls = if name.starts_with('@') { members(name)? } else { BTreeSet::from([name.to_owned()]) };
                match denies {
                    true => allowed.retain(|call| !calls.contains(call)),
                    false => allowed.extend(calls),
                }
            }
        }
        Ok(allowed)
    }
}

/// `${NAME}` inside a word.
fn filled(word: &str, environment: &str) -> Result<String> {
    let Some((before, rest)) = word.split_once("${") else { return Ok(word.to_owned()) };
    let (name, behind) = rest.split_once('}').with_context(|| format!("{word} does not end its variable"))?;
    Ok(format!("{before}{}{behind}", variable(environment, name)?))
}

fn variable<'a>(environment: &'a str, name: &str) -> Result<&'a str> {
    let lines = environment.lines().filter_map(|line| line.split_once('='));
    let found = lines.filter(|(key, _)| *key == name).map(|(_, value)| value).next_back();
    found.with_context(|| format!("the environment has no {name}"))
}

/// The calls of a set, and of the sets in it.
fn members(set: &str) -> Result<BTreeSet<String>> {
    let output = Command::new("systemd-analyze").args(["--no-pager", "syscall-filter", set]).output();
    let output = output.context("starting systemd-analyze (package systemd)")?;
    ensure!(output.status.success(), "systemd-analyze syscall-filter {set}: {}", output.status);
    let mut calls = BTreeSet::new();
    for line in String::from_utf8(output.stdout)?.lines().map(str::trim).skip(1) {
        match line.chars().next() {
            None | Some('#') => {}
            Some('@') => calls.extend(members(line)?),
            Some(_) => drop(calls.insert(line.to_owned())),
        }
    }
    Ok(calls)
}
