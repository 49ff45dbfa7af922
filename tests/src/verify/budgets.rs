//! The committed figures of each program, and how far above them is too far.
//!
//! A line of the file is a program's name, the instructions that the verifier walked through, and the bytes of machine
//! code; what begins with `#` is said to readers.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// Compilers and kernels differ by less.
const SLACK_PERCENT: u32 = 10;
/// By so many a small program may exceed its budget: a branch or two.
const SLACK_MIN: u32 = 500;

/// What has a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Instructions that the verifier walked through, of at most 1 000 000.
    pub instructions: u32,
    /// Bytes of machine code.
    pub machine_bytes: u32,
}

/// The figures by name of the program.
pub type Budgets = BTreeMap<String, Figures>;

/// The budgets of a file.
///
/// # Errors
/// When a line is not a name and two numbers.
pub fn parse(text: &str) -> Result<Budgets> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| parse_line(line).with_context(|| format!("reading the line `{line}`"))).collect()
}

fn parse_line(line: &str) -> Result<(String, Figures)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, instructions, machine_bytes] = words[..] else {
        bail!("a line is a program, its instructions and its bytes of machine code");
    };
    Ok((name.to_owned(), Figures { instructions: instructions.parse()?, machine_bytes: machine_bytes.parse()? }))
}

/// The file of these figures, measured on that machine.
#[must_use]
pub fn text(measured: &Budgets, machine: &str) -> String {
    let mut lines = vec![
        "# What the verifier walks through, and the machine code that comes of it: program, instructions, bytes."
            .into(),
        format!(
            "# `cargo xtask verify` allows {SLACK_PERCENT} % more, or {SLACK_MIN}; `cargo xtask verify --write` measures anew."
        ),
        format!("# Written on {machine}."),
    ];
    for (name, Figures { instructions, machine_bytes }) in measured {
        lines.push(format!("{name:<20} {instructions:>8} {machine_bytes:>8}"));
    }
    lines.join("\n") + "\n"
}

/// What is above its budget, has none, or is gone: a sentence each.
///
/// # Errors
/// When there are no budgets at all.
pub fn faults(budgets: &Budgets, measured: &Budgets) -> Result<Vec<String>> {
    ensure!(!budgets.is_empty(), "there is no budget for any program");
    let names: BTreeSet<&String> = budgets.keys().chain(measured.keys()).collect();
    Ok(names.into_iter().flat_map(|name| faults_of(name, budgets.get(name), measured.get(name))).collect())
}

fn faults_of(name: &str, budget: Option<&Figures>, measured: Option<&Figures>) -> Vec<String> {
    match (budget, measured) {
        (Some(budget), Some(measured)) => [
            fault(name, "instructions to verify", budget.instructions, measured.instructions),
            fault(name, "bytes of machine code", budget.machine_bytes, measured.machine_bytes),
        ]
        .into_iter()
        .flatten()
        .collect(),
        (None, _) => vec![format!("{name} has no budget")],
        (_, None) => vec![format!("{name} has a budget, but is no program of the object")],
    }
}

fn fault(name: &str, what: &str, budget: u32, measured: u32) -> Option<String> {
    let most = budget + (budget / 100 * SLACK_PERCENT).max(SLACK_MIN);
    (measured > most).then(|| format!("{name} has {measured} {what}; its budget is {budget}, and {most} is the most"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_what_was_measured() {
        let measured = budgets(&[("ingress_tc", 100_000, 60_000), ("pod", 26_801, 38_251)]);
        assert_eq!(parse(&text(&measured, "a machine")).unwrap(), measured);
    }

    #[test]
    fn a_line_without_its_numbers_is_named() {
        for line in ["pod", "pod 1", "pod 1 two", "pod 1 2 3"] {
            let error = parse(line).unwrap_err();
            assert!(format!("{error:#}").contains(&format!("`{line}`")), "{error:#}");
        }
    }

    #[test]
    fn a_tenth_more_is_within_the_budget_and_more_is_not() {
        let budget = budgets(&[("pod", 20_000, 40_000)]);
        let at = |instructions, bytes| faults(&budget, &budgets(&[("pod", instructions, bytes)])).unwrap();
        assert_eq!(at(22_000, 44_000), Vec::<String>::new());
        assert_eq!(at(1, 1), Vec::<String>::new());
        assert_eq!(
            at(22_001, 44_000),
            ["pod has 22001 instructions to verify; its budget is 20000, and 22000 is the most"]
        );
        assert_eq!(
            at(22_000, 44_001),
            ["pod has 44001 bytes of machine code; its budget is 40000, and 44000 is the most"]
        );
    }

    #[test]
    fn a_small_program_may_grow_by_a_branch() {
        let budget = budgets(&[("prove", 153, 490)]);
        assert!(faults(&budget, &budgets(&[("prove", 653, 990)])).unwrap().is_empty());
        assert_eq!(faults(&budget, &budgets(&[("prove", 654, 991)])).unwrap().len(), 2);
    }

    #[test]
    fn a_program_without_budget_and_a_budget_without_program_are_named() {
        let (old, new) = (budgets(&[("pod", 1, 1)]), budgets(&[("pod2", 1, 1)]));
        let expected = ["pod has a budget, but is no program of the object", "pod2 has no budget"];
        assert_eq!(faults(&old, &new).unwrap(), expected);
        assert!(faults(&Budgets::new(), &new).is_err());
    }

    fn budgets(rows: &[(&str, u32, u32)]) -> Budgets {
        let figures = |&(name, instructions, machine_bytes): &(&str, u32, u32)| {
            (name.to_owned(), Figures { instructions, machine_bytes })
        };
        rows.iter().map(figures).collect()
    }
}
