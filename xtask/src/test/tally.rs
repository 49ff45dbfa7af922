//! Adds up the results that test binaries print.

use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::iter::Sum;
use std::ops::Add;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Error, Result};

/// How long output may still come when the tests have ended. A daemon that a test left behind holds the pipe open.
const LATE_OUTPUT_MAX: Duration = Duration::from_secs(5);

/// How many tests passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed, and steps that failed before they could count their tests.
    pub failed: u64,
}

impl Tally {
    /// Shows why a step could not be done, and counts it as a failure.
    pub fn of_error(error: &Error) -> Self {
        eprintln!("error: {error:#}");
        Self { passed: 0, failed: 1 }
    }

    /// A step without tests of its own is one test.
    pub fn of_step(result: Result<()>) -> Self {
        result.map_or_else(|error| Self::of_error(&error), |()| Self { passed: 1, failed: 0 })
    }
}

/// Runs `cargo test`, shows its output as it comes, and adds up its results. The screen is an argument because the
/// results that these tests print on it must not count as results of these tests.
pub fn of_run(command: &mut Command, screen: impl Write + Send + 'static) -> Result<Tally> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let stdout = child.stdout.take().context("no pipe to the tests")?;
    let (sender, results) = mpsc::channel();
    thread::spawn(move || show(stdout, screen, &sender));

    let status = child.wait().context("waiting for the tests")?;
    let counted = until_closed(&results);
    Ok(with_status(counted, status.success()))
}

/// Shows the output line by line, and sends its results.
fn show(output: impl Read, mut screen: impl Write, results: &Sender<Tally>) {
    let mut lines = BufReader::new(output).split(b'\n');
    while let Some(Ok(line)) = lines.next() {
        let _ = screen.write_all(&line).and_then(|()| screen.write_all(b"\n"));
        if let Some(tally) = of_line(&String::from_utf8_lossy(&line)) {
            let _ = results.send(tally);
        }
    }
}

fn until_closed(results: &Receiver<Tally>) -> Tally {
    let mut sum = Tally::default();
    loop {
        match results.recv_timeout(LATE_OUTPUT_MAX) {
            Ok(tally) => sum = sum + tally,
            Err(RecvTimeoutError::Disconnected) => return sum,
            Err(RecvTimeoutError::Timeout) => {
                eprintln!("warning: a process that the tests started still holds their output open");
                return sum;
            }
        }
    }
}

/// A binary that crashes or does not compile reports no failed test, yet something failed.
fn with_status(counted: Tally, is_success: bool) -> Tally {
    let failed = if is_success { counted.failed } else { counted.failed.max(1) };
    Tally { failed, ..counted }
}

/// Reads a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; …`, coloured or not.
fn of_line(line: &str) -> Option<Tally> {
    let (_, result) = line.split_once("test result: ")?;
    let count_before = |word: &str| {
        let (before, _) = result.split_once(word)?;
        before.split_whitespace().next_back()?.parse().ok()
    };
    Some(Tally { passed: count_before(" passed;")?, failed: count_before(" failed;")? })
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tests: {} passed, {} failed", self.passed, self.failed)
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { passed: self.passed + other.passed, failed: self.failed + other.failed }
    }
}

impl Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), Self::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_count_and_other_lines_do_not() {
        let rows = [
            (
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0s",
                Some((3, 0)),
            ),
            ("test result: FAILED. 12 passed; 2 failed; 0 ignored", Some((12, 2))),
            ("test result: \u{1b}[32mok\u{1b}[0m. 5 passed; 0 failed; 0 ignored", Some((5, 0))),
            ("partial output test result: ok. 1 passed; 0 failed;", Some((1, 0))),
            ("test result_lines ... ok", None),
            ("test result: nonsense", None),
        ];
        for (line, expected) in rows {
            let expected = expected.map(|(passed, failed)| Tally { passed, failed });
            assert_eq!(of_line(line), expected, "{line}");
        }
    }

    #[test]
    fn the_sum_over_binaries_has_the_agreed_form() {
        let sum: Tally = [Tally { passed: 2, failed: 0 }, Tally { passed: 3, failed: 1 }].into_iter().sum();
        assert_eq!(sum.to_string(), "tests: 5 passed, 1 failed");
    }

    #[test]
    fn a_run_that_fails_without_a_count_is_one_failure() {
        let rows = [("exit 1", (0, 1)), ("echo 'test result: FAILED. 1 passed; 2 failed;'; exit 101", (1, 2))];
        for (script, (passed, failed)) in rows {
            let tally = of_run(Command::new("sh").args(["-c", script]), std::io::sink()).unwrap();
            assert_eq!(tally, Tally { passed, failed }, "{script}");
        }
    }

    #[test]
    fn a_step_is_one_test() {
        assert_eq!(Tally::of_step(Ok(())), Tally { passed: 1, failed: 0 });
        assert_eq!(Tally::of_step(Err(Error::msg("for a test"))), Tally { passed: 0, failed: 1 });
    }

    #[test]
    fn a_last_line_without_an_end_counts() {
        let tally =
            of_run(Command::new("printf").arg("test result: ok. 4 passed; 0 failed;"), std::io::sink()).unwrap();
        assert_eq!(tally, Tally { passed: 4, failed: 0 });
    }
}
