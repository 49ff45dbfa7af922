//! The documentation says what is there: links lead somewhere, commands are taken, and everything an operator meets is explained.

#[path = "docs/page.rs"]
mod page;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use xlb_common::Reason;
use xlb_userspace::cli;

use page::{Link, Page, pages, repository};

/// Shown to the operator, so each is explained there.
const MANUAL: &str = "docs/OPERATING.md";

#[test]
fn every_link_leads_to_a_file_and_to_a_heading_in_it() -> Result<()> {
    let pages = pages()?;
    let mut faults = Vec::new();
    for page in &pages {
        for link in &page.links {
            let Link::Inside { file, heading } = link else { continue };
            if !file.exists() {
                faults.push(format!("{}: {} is not there", page.name, file.display()));
                continue;
            }
            let target = pages.iter().find(|other| repository().join(&other.name) == *file);
            let has = |heading: &String| target.is_some_and(|target| target.anchors.contains(heading));
            if let Some(heading) = heading.as_ref().filter(|heading| !has(heading)) {
                faults.push(format!("{}: {} has no heading #{heading}", page.name, file.display()));
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn every_command_of_xlb_is_one_that_it_takes() -> Result<()> {
    let mut seen = 0;
    for page in pages()? {
        for words in page.commands("xlb") {
            let taken = cli::command().try_get_matches_from(&words);
            let is_help = |error: &clap::Error| error.exit_code() == 0;
            let fault = taken.err().filter(|error| !is_help(error));
            ensure!(fault.is_none(), "{}: {words:?}: {}", page.name, fault.expect("there is one"));
            seen += 1;
        }
    }
    ensure!(seen > 5, "only {seen} commands were found: are they still read?");
    Ok(())
}

#[test]
fn every_command_of_xtask_is_one_that_it_takes() -> Result<()> {
    let (mut seen, all) = (0, xtask_help(&[])?);
    for page in pages()? {
        for words in page.commands("cargo") {
            let Some(("xtask", [command, arguments @ ..])) =
                words.get(1).map(String::as_str).zip(words.get(2..).filter(|rest| !rest.is_empty()))
            else {
                continue;
            };
            ensure!(all.contains(&format!("\n  {command} ")), "{}: there is no cargo xtask {command}", page.name);
            let help = xtask_help(&[command])?;
            for argument in arguments.iter().take_while(|argument| *argument != "--") {
                let is_told = help.contains(argument.as_str()) || argument.contains(['/', '.']) || *command == "bench";
                ensure!(is_told, "{}: cargo xtask {command} --help does not tell of {argument}", page.name);
            }
            seen += 1;
        }
    }
    ensure!(seen > 5, "only {seen} commands were found: are they still read?");
    Ok(())
}

/// The program by which tests are run, or one that was built beside this test.
fn xtask_help(command: &[&String]) -> Result<String> {
    let own = std::env::current_exe()?;
    let built = own.parent().and_then(|deps| deps.parent()).map(|debug| debug.join("xtask"));
    let program =
        built.filter(|path| path.exists()).context("target/debug/xtask is not built: cargo build -p xtask")?;
    let output = Command::new(program).args(command).arg("--help").output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn every_reason_is_in_the_manual_and_every_row_there_is_a_reason() -> Result<()> {
    let manual = Page::read(MANUAL)?;
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.label()).collect();
    let told: BTreeSet<&str> = manual.first_cells("Reasons").collect();
    let (missing, unknown): (Vec<_>, Vec<_>) =
        (reasons.difference(&told).collect(), told.difference(&reasons).collect());
    ensure!(missing.is_empty() && unknown.is_empty(), "not in the manual: {missing:?}; not in xlb: {unknown:?}");
    Ok(())
}

#[test]
fn every_flag_of_run_is_in_the_manual() -> Result<()> {
    let manual = Page::read(MANUAL)?;
    let command = cli::command();
    let run = command.find_subcommand("run").context("there is no xlb run")?;
    let flags = run.get_arguments().filter_map(|argument| argument.get_long()).filter(|flag| *flag != "help");
    let missing: Vec<_> = flags.filter(|flag| !manual.has_code(&format!("--{flag}"))).collect();
    ensure!(missing.is_empty(), "not in the manual: {missing:?}");
    Ok(())
}

#[test]
fn every_decision_is_in_the_list() -> Result<()> {
    let list = Page::read("docs/decisions/README.md")?;
    let listed: BTreeSet<PathBuf> = list.links.iter().filter_map(Link::file).cloned().collect();
    for page in pages()?.iter().filter(|page| page.name.starts_with("docs/decisions/0")) {
        ensure!(listed.contains(&repository().join(&page.name)), "{} is not in docs/decisions/README.md", page.name);
    }
    Ok(())
}
