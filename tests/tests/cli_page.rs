//! `docs/CLI.md` beside the commands themselves: nothing is missing, and examples, README's as well, are what the lab's snapshots
//! say. `XLB_SNAPSHOTS=write` takes the examples over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use serde_json::Value;
use xlb_userspace::cli::command;

/// Before the name of a snapshot, above the example that shows it.
const MARK: &str = "<!-- tests/tests/snapshots/";

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    let path = checkout().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("reading {}: {error}", path.display()))
}

#[test]
fn every_command_has_a_chapter() {
    let page = read("docs/CLI.md");
    for command in command().get_subcommands() {
        let named = [format!("`xlb {}`", command.get_name()), format!("`xlb {} ", command.get_name())];
        let mut titles = page.lines().filter(|line| line.starts_with("## "));
        assert!(titles.any(|title| named.iter().any(|named| title.contains(named))), "{}", command.get_name());
    }
}

#[test]
fn examples_are_what_the_lab_saw() {
    for (path, at_least) in [("docs/CLI.md", 7), ("README.md", 1)] {
        let page = read(path);
        let (written, examples) = with_examples(&page);
        assert!(examples >= at_least, "{path} has {examples} examples");
        if env::var_os("XLB_SNAPSHOTS").is_some_and(|word| word == "write") {
            fs::write(checkout().join(path), written).expect(path);
        } else {
            assert!(
                page == written,
                "examples of {path} are not what commands print: XLB_SNAPSHOTS=write takes them over"
            );
        }
    }
}

/// The page with its examples as they should be, and how many these are.
fn with_examples(page: &str) -> (String, usize) {
    let mut parts = page.split(MARK);
    let mut written = parts.next().unwrap_or_default().to_owned();
    let mut examples = 0;
    for part in parts {
        let (name, rest) = part.split_once(" -->\n").expect("a mark ends");
        let body = rest.strip_prefix("```console\n").expect("an example follows its mark");
        let (prompt, body) = body.split_once('\n').expect("a command");
        assert!(prompt.starts_with("$ xlb "), "{prompt}");
        let (_, after) = body.split_once("```\n").expect("an example ends");
        let snapshot = read(&format!("tests/tests/snapshots/{name}"));
        written += &format!("{MARK}{name} -->\n```console\n{prompt}\n{snapshot}```\n{after}");
        examples += 1;
    }
    (written, examples)
}

#[test]
fn every_field_of_a_document_is_explained() {
    let page = read("docs/CLI.md");
    for name in ["status", "services", "backends", "flows", "explain"] {
        let document: Value = serde_json::from_str(&read(&format!("tests/tests/snapshots/{name}.json"))).expect(name);
        let mut fields = BTreeSet::new();
        collect(&document, &mut fields);
        for field in fields {
            assert!(page.contains(&format!("`{field}`")), "{field} of {name} is not explained");
        }
    }
}

/// Names of fields. What is below `packets` are reasons.
fn collect(value: &Value, fields: &mut BTreeSet<String>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, fields)),
        Value::Object(entries) => {
            for (name, value) in entries {
                fields.insert(name.clone());
                if name != "packets" {
                    collect(value, fields);
                }
            }
        }
        _ => {}
    }
}
