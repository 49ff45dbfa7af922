//! What commands print, compared with files: the only place that knows what differs from run to run.
//!
//! `XLB_SNAPSHOTS=write` writes the files anew. `docs/CLI.md` shows some of them: `tests/cli_page.rs` compares.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use xlb_tests::lab::Lab;
use xlb_userspace::cli::table::Table;

/// Columns of tables, and fields of documents, whose numbers differ from run to run, and what stands for them.
const VARYING: [(&str, &str); 22] = [
    ("PACKETS-IN", "5"),
    ("PACKETS-OUT", "4"),
    ("BYTES-IN", "276"),
    ("BYTES-OUT", "238"),
    ("NETNS", "3"),
    ("pid", "4242"),
    ("in_sync_at_s", "1764320400"),
    ("in_sync_ago_s", "2"),
    ("seconds", "62"),
    ("packets_to_pods", "5"),
    ("bytes_to_pods", "276"),
    ("packets_to_clients", "4"),
    ("bytes_to_clients", "238"),
    ("netns_id", "3"),
    ("not_a_reply", "1"),
    ("not_ip", "1"),
    ("not_ours", "1"),
    ("icmp", "1"),
    ("other_host", "1"),
    ("generation", "7"),
    ("replied", "3"),
    ("slot_owner", "5"),
];

/// What stands before numbers in sentences, and what stands for them.
const SENTENCES: [(&str, &str); 7] = [
    ("pid ", "4242"),
    ("in sync ", "2"),
    ("in the last ", "62"),
    ("traffic  ", "5"),
    ("packets (", "276"),
    ("to pods, ", "4"),
    ("to pods, 4 (", "238"),
];

/// Maps that hold now more, now less, and what stands for it: one learns of sockets of the whole machine, and so of other labs.
const VARYING_MAPS: [(&str, &str); 2] = [("NETNS_ADDRESSES", "3"), ("PENDING_V4", "1")];

/// Compares what was printed on this lab with the file of this name.
pub fn check(lab: &Lab, name: &str, printed: &str) -> Result<()> {
    let path = file(name);
    let printed = normal(lab, printed);
    if env::var_os("XLB_SNAPSHOTS").is_some_and(|word| word == "write") {
        return fs::write(&path, &printed).with_context(|| format!("writing {}", path.display()));
    }
    let expected = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(printed == expected, "{name} is\n{printed}\nand should be\n{expected}");
    Ok(())
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots").join(name)
}

/// The same for every lab and run: names, addresses, numbers, and then columns as wide as these.
fn normal(lab: &Lab, printed: &str) -> String {
    let mut text = printed.replace(&lab.pin_directory().display().to_string(), "/sys/fs/bpf/xlb");
    for pod in lab.pods() {
        // Longer addresses first would matter only beyond nine pods.
        text = text.replace(&format!("{}:", lab.pod_address(pod)), &format!("10.1.0.{}:", pod + 1));
    }
    let mut lines: Vec<String> = text.lines().map(sentence).map(|line| field(&line)).collect();
    for at in 0..lines.len() {
        let names =
            |line: &String, map: &str| line.contains(&format!(" {map}")) || line.contains(&format!("\"{map}\""));
        // Of documents the map's name stands on the line before.
        let is_of_document = at > 0 && lines[at].contains("entries");
        let is_its = |map: &str| names(&lines[at], map) || is_of_document && names(&lines[at - 1], map);
        let stands = VARYING_MAPS.iter().find(|(map, _)| is_its(map)).map(|(_, stands)| *stands);
        let number = ["(", "entries\": ", "entries: "].iter().find_map(|before| number_behind(&lines[at], before));
        if let (Some(stands), Some(number)) = (stands, number) {
            lines[at].replace_range(number, stands);
        }
    }
    let (mut text, mut at) = (String::new(), 0);
    while at < lines.len() {
        let rows = rows_of_table(&lines[at..]);
        match rows {
            0 => text += &(lines[at].clone() + "\n"),
            rows => text += &table(&lines[at..at + rows]),
        }
        at += rows.max(1);
    }
    text
}

fn sentence(line: &str) -> String {
    SENTENCES.iter().fold(line.to_owned(), |mut line, (before, number)| {
        if let Some(digits) = number_behind(&line, before) {
            line.replace_range(digits, number);
        }
        line
    })
}

/// Where the number is that stands behind this text.
fn number_behind(line: &str, before: &str) -> Option<Range<usize>> {
    let at = line.find(before)? + before.len();
    let digits = line[at..].bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0).then_some(at..at + digits)
}

/// `"key": 123,` of JSON and `key: 123` of YAML.
fn field(line: &str) -> String {
    let Some((key, value)) = line.split_once(": ") else { return line.to_owned() };
    let name = key.trim().trim_start_matches("- ").trim_matches('"');
    let number = value.trim_end_matches(',');
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let known = VARYING.iter().find(|(varying, _)| is_number && *varying == name);
    known.map_or_else(|| line.to_owned(), |(_, stands)| format!("{key}: {stands}{}", &value[number.len()..]))
}

/// How many of the first lines are a table: its header is in capitals.
fn rows_of_table(lines: &[String]) -> usize {
    let cells = cells(&lines[0]);
    let is_header = cells.len() > 2
        && cells.iter().all(|cell| cell.chars().all(|letter| letter.is_ascii_uppercase() || "-/".contains(letter)));
    if is_header { lines.iter().take_while(|line| !line.is_empty()).count() } else { 0 }
}

fn cells(line: &str) -> Vec<String> {
    line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(String::from).collect()
}

fn table(lines: &[String]) -> String {
    let header = cells(&lines[0]);
    let columns: Vec<&str> = header.iter().map(String::as_str).collect();
    let mut table = Table::new(&columns);
    for line in &lines[1..] {
        let stands = |(column, cell): (&&str, String)| {
            let known = VARYING.iter().find(|(varying, _)| varying == column && cell != "-");
            known.map_or(cell, |(_, stands)| (*stands).to_owned())
        };
        table.add(columns.iter().zip(cells(line)).map(stands));
    }
    table.text()
}
