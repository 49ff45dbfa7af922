//! What serves, and what its agent says.

use super::facts::{AgentFacts, Facts};
use super::{Finding, NODE};

/// What each of these comes to.
pub(super) fn check(facts: &Facts) -> Vec<Finding> {
    let dataplane = &facts.dataplane;
    let mut findings = vec![serving(facts)];
    if let Some(Err(why)) = &dataplane.maps {
        let remedy = "start the agent: it makes what is missing anew";
        findings.push(Finding::problem("dataplane", "maps", format!("they cannot be read: {why}"), remedy));
    }
    match &dataplane.agent {
        Some(agent) => findings.extend(words_of(agent)),
        None if dataplane.is_there => {
            let evidence = "no agent has reported from this pin directory: nothing follows the cluster";
            findings.push(Finding::problem("agent", NODE, evidence, "start xlb run"));
        }
        None => {}
    }
    findings
}

fn serving(facts: &Facts) -> Finding {
    let dataplane = &facts.dataplane;
    match (&dataplane.complaint, dataplane.is_there) {
        (Some(why), _) => Finding::problem("dataplane", NODE, why.clone(), "see Upgrading in docs/OPERATING.md"),
        (None, true) => Finding::ok("dataplane", NODE, format!("pinned at {}", facts.machine.pins.display())),
        (None, false) => {
            let evidence = format!("nothing is pinned at {}: xlb serves nothing here", facts.machine.pins.display());
            Finding::warning("dataplane", NODE, evidence, "start xlb run, or name its --bpffs-dir")
        }
    }
}

/// What the agent refuses is its own sentence, with what to do in it.
fn words_of(agent: &AgentFacts) -> Vec<Finding> {
    let first = match agent.is_running {
        true => Finding::ok("agent", NODE, format!("it runs, pid {}", agent.pid)),
        false => {
            let evidence =
                format!("the agent (pid {}) does not run: what is pinned serves on, and follows nothing", agent.pid);
            Finding::problem(
                "agent",
                NODE,
                evidence,
                "start xlb run: it takes over what is there, connections included",
            )
        }
    };
    let told = agent.refusals.iter().map(|refusal| {
        let remedy = quoted(&refusal.why).unwrap_or("as the sentence says");
        Finding::warning("agent", &refusal.object, refusal.why.clone(), remedy)
    });
    std::iter::once(first).chain(told).collect()
}

/// The command that a sentence quotes.
pub(super) fn quoted(sentence: &str) -> Option<&str> {
    sentence.split('`').nth(1)
}
