//! The configuration file: YAML, one key for each flag.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_yaml_ng::Value;

use super::Given;
use crate::agent::settings::Origin;

/// What a file says of these settings, and which of its lines say nothing: a key that is none of these, or a value that is
/// neither one nor a list of them.
///
/// # Errors
/// When it cannot be read, or is no list of settings at all.
pub fn read(path: &Path, names: &[&str]) -> Result<(Vec<Given>, Vec<String>)> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("reading the configuration {shown}"))?;
    parse(&shown.to_string(), &text, names)
}

/// The same of a file's text.
fn parse(path: &str, text: &str, names: &[&str]) -> Result<(Vec<Given>, Vec<String>)> {
    let document: Value =
        serde_yaml_ng::from_str(text).with_context(|| format!("reading the configuration {path} as YAML"))?;
    let entries = match document {
        Value::Null => return Ok((Vec::new(), Vec::new())),
        Value::Mapping(entries) => entries,
        _ => bail!("{path}: a configuration has a line for each setting; for example `max-flows: 1048576`"),
    };
    let (mut given, mut mistakes) = (Vec::new(), Vec::new());
    for (key, value) in entries {
        let name = scalar(&key).unwrap_or_default();
        let place = line_of(text, &name).map_or_else(|| path.to_owned(), |line| format!("{path}:{line}"));
        match text_of(&value) {
            // An empty list says nothing.
            Some(text) if text.is_empty() && value.is_sequence() && names.contains(&name.as_str()) => {}
            _ if !names.contains(&name.as_str()) => mistakes.push(format!("{place}: {}", no_such(&name, names))),
            Some(text) => given.push(Given { name, text, origin: Origin::File, place }),
            None => mistakes.push(format!(
                "{place}: {name}: expected a value, or a list of values, such as `{name}: [first, second]`"
            )),
        }
    }
    Ok((given, mistakes))
}

/// What to say of a key that is no setting.
fn no_such(key: &str, names: &[&str]) -> String {
    let nearest = names.iter().max_by_key(|name| (strsim::jaro_winkler(name, &key.replace('_', "-")) * 1000.0) as u32);
    let nearest = nearest.map_or_else(String::new, |nearest| format!(" did you mean `{nearest}`?"));
    format!("there is no setting {key:?}:{nearest} `xlb config show` lists all")
}

/// One value, or several as a flag takes them.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Sequence(values) => Some(values.iter().map(scalar).collect::<Option<Vec<_>>>()?.join(",")),
        value => scalar(value),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is_on) => Some(is_on.to_string()),
        _ => None,
    }
}

/// The line on which a key of the document itself stands: such keys begin their lines.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let is_its = |line: &str| {
        let quoted = [key.to_owned(), format!("\"{key}\""), format!("'{key}'")];
        quoted.iter().any(|key| line.strip_prefix(key.as_str()).is_some_and(|rest| rest.trim_start().starts_with(':')))
    };
    text.lines().position(is_its).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = ["uplink", "max-flows", "handover", "keep-dataplane"];

    #[test]
    fn values_are_what_a_flag_would_be_given() {
        let text = "# a comment\nuplink: [eth0, eth1]\n\"max-flows\": 2048\nhandover: 15m\n\nkeep-dataplane: true\n";
        let (given, mistakes) = parse("f.yaml", text, &NAMES).unwrap();
        let seen: Vec<(&str, &str, &str)> =
            given.iter().map(|it| (it.name.as_str(), it.text.as_str(), it.place.as_str())).collect();
        let expected = [
            ("uplink", "eth0,eth1", "f.yaml:2"),
            ("max-flows", "2048", "f.yaml:3"),
            ("handover", "15m", "f.yaml:4"),
            ("keep-dataplane", "true", "f.yaml:6"),
        ];
        assert_eq!((seen, mistakes), (expected.to_vec(), vec![]));
        for nothing in ["", "---\n", "# max-flows: 1\n", "uplink: []\n"] {
            assert_eq!(parse("f.yaml", nothing, &NAMES).unwrap(), (vec![], vec![]), "{nothing:?}");
        }
    }

    #[test]
    fn what_is_no_setting_is_refused_with_its_line_and_what_helps() {
        for (text, parts) in [
            ("uplink: eth0\nmax-flow: 1\n", &["f.yaml:2: ", "\"max-flow\"", "did you mean `max-flows`?"][..]),
            ("max_flows: 1\n", &["f.yaml:1: ", "did you mean `max-flows`?"]),
            ("keepdataplane: true\n", &["did you mean `keep-dataplane`?"]),
            ("handover: {hours: 1}\n", &["f.yaml:1: handover: expected a value"]),
            ("handover:\n", &["f.yaml:1: handover: expected a value"]),
            ("- uplink\n", &["f.yaml: a configuration has a line for each setting"]),
            ("uplink: eth0\nuplink: eth1\n", &["f.yaml as YAML", "duplicate"]),
            ("uplink: [eth0\n", &["f.yaml as YAML", "line 2"]),
        ] {
            let said = match parse("f.yaml", text, &NAMES) {
                Ok((_, mistakes)) => mistakes.join("\n"),
                Err(error) => format!("{error:#}"),
            };
            assert!(parts.iter().all(|part| said.contains(part)), "{text:?}: {said}");
        }
    }
}
