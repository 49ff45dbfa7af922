//! Pods that leave while downloads run: one that shuts down, one that dies, and one that takes its place.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::downloads::{self, Download, Outcome};
use super::requests::{self, Answer};
use super::stage::{CONTENT_BYTES, SLICE_FILE, Stage, pod_name};
use super::telling::{count, fact, megabytes, table};

/// Requests that show where new connections go.
const NEW_REQUESTS: usize = 12;
/// The numbers of the first downloads of the two departures.
const FIRST_TO_COMPLETE: usize = 0;
const FIRST_TO_BREAK: usize = 100;
/// How long downloads run before their pod dies, so that they are in their midst.
const HEAD_START: Duration = Duration::from_millis(600);
/// Requests after which a new pod without one is no accident any more.
const REQUESTS_MAX: usize = 60;

/// A pod is terminating: its downloads complete, and new requests avoid it. Afterwards it is ready again.
pub fn shut_down_gently(stage: &Stage, leaving: usize) -> Result<()> {
    let pods: Vec<usize> = stage.lab.pods().collect();
    let others = without(&pods, leaving);
    let mut running = downloads::start_for_each(stage, &pods, FIRST_TO_COMPLETE)?;
    tell_downloads(&running);
    stage.publish(&others, &[leaving])?;
    fact("change", &format!("{SLICE_FILE} says of {}: terminating", pod_name(leaving)));
    let answers = requests::ask_over_http(stage, NEW_REQUESTS)?;
    fact("requests", &format!("{NEW_REQUESTS} new ones went to {}", in_words(&requests::by_pod(&answers))));
    ensure_avoided(&answers, leaving)?;
    let is_running = running.iter_mut().filter(|it| it.pod == pod_name(leaving)).all(Download::is_running);
    ensure!(is_running, "the downloads from {} ended too early to show anything", pod_name(leaving));
    let outcomes = downloads::finish(running)?;
    tell_outcomes(&outcomes);
    ensure!(outcomes.iter().all(Outcome::is_complete), "a download did not complete");
    stage.publish(&pods, &[])
}

/// A pod leaves the slice and is killed at once: only its own downloads break.
pub fn die(stage: &mut Stage, dying: usize) -> Result<()> {
    let pods: Vec<usize> = stage.lab.pods().collect();
    let running = downloads::start_for_each(stage, &pods, FIRST_TO_BREAK)?;
    tell_downloads(&running);
    sleep(HEAD_START);
    stage.publish(&without(&pods, dying), &[])?;
    stage.kill_pod(dying)?;
    let name = pod_name(dying);
    fact("change", &format!("{name} is gone from {SLICE_FILE}, and its servers and its link are killed"));
    let answers = requests::ask_over_http(stage, NEW_REQUESTS)?;
    fact("requests", &format!("{NEW_REQUESTS} new ones went to {}", in_words(&requests::by_pod(&answers))));
    ensure_avoided(&answers, dying)?;
    let outcomes = downloads::finish(running)?;
    tell_outcomes(&outcomes);
    let is_as_expected = |outcome: &Outcome| outcome.is_complete() == (outcome.pod != name);
    ensure!(outcomes.iter().all(is_as_expected), "downloads other than those of {name} broke, or its own did not");
    Ok(())
}

/// A new pod comes, as a Deployment would bring it, and gets its part.
pub fn replace(stage: &mut Stage) -> Result<()> {
    let new = stage.add_pod()?;
    let name = pod_name(new);
    stage.publish(&stage.lab.pods().collect::<Vec<_>>(), &[])?;
    fact("change", &format!("{name} at {} comes in its place", stage.lab.pod_address(new)));
    let mut answers = Vec::new();
    while !answers.iter().any(|answer: &Answer| answer.pod == name) {
        ensure!(answers.len() < REQUESTS_MAX, "none of {REQUESTS_MAX} requests came to {name}");
        answers.extend(requests::ask_over_http(stage, NEW_REQUESTS)?);
    }
    fact("requests", &format!("{} new ones went to {}", answers.len(), in_words(&requests::by_pod(&answers))));
    Ok(())
}

fn tell_downloads(running: &[Download]) {
    let all = count(running.len(), "download");
    let size = megabytes(CONTENT_BYTES);
    fact("downloads", &format!("{all} of {size} run: {}", in_words(&downloads::by_pod(running))));
}

fn tell_outcomes(outcomes: &[Outcome]) {
    fact("downloads", "came to this:");
    let row = |outcome: &Outcome| {
        let words = match outcome.exit_code {
            Some(0) | None => outcome.in_words().to_owned(),
            Some(code) => format!("{} (curl exit code {code})", outcome.in_words()),
        };
        [outcome.pod.clone(), outcome.client.to_string(), megabytes(outcome.right_bytes), words]
    };
    let mut rows: Vec<[String; 4]> = outcomes.iter().map(row).collect();
    rows.sort();
    table(["pod", "client", "received", "what the client saw"], &rows);
}

fn ensure_avoided(answers: &[Answer], pod: usize) -> Result<()> {
    let name = pod_name(pod);
    ensure!(answers.iter().all(|answer| answer.pod != name), "a new request came to {name}");
    Ok(())
}

/// `pod-0 (3), pod-2 (9)`.
fn in_words(counts: &BTreeMap<&str, usize>) -> String {
    let parts: Vec<String> = counts.iter().map(|(pod, count)| format!("{pod} ({count})")).collect();
    parts.join(", ")
}

fn without(pods: &[usize], leaving: usize) -> Vec<usize> {
    pods.iter().copied().filter(|&pod| pod != leaving).collect()
}
