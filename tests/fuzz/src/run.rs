//! Plays a case over the sample's tables, and panics if a property does not hold. libFuzzer takes a panic for a crash.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use xlb_common::abi::{AffinityEntry, SourceKeyV4, SourceKeyV6};
use xlb_common::memory::MemoryTables;

use crate::case::Case;
use crate::kernel::outcome::{Hook, Outcome};
use crate::kernel::properties::{Properties, check_answer};
use crate::kernel::{describe, flows, host, sample};

thread_local! {
    static STAGE: Stage = Stage::new();
    /// The case, up to the packet that is under way.
    static CURRENT: RefCell<Option<Case>> = const { RefCell::new(None) };
}

/// The tables as they are at the start of each case.
struct Stage {
    tables: MemoryTables,
    properties: Properties,
    affinity: (BTreeMap<SourceKeyV4, AffinityEntry>, BTreeMap<SourceKeyV6, AffinityEntry>),
}

/// Plays the case that an input stands for.
pub fn run(case_of: impl FnOnce(&MemoryTables) -> Case) {
    let result = STAGE.with(|stage| stage.check(&case_of(&stage.tables)));
    if let Err(error) = result {
        panic!("{error:#}");
    }
}

/// Lets every panic, also one inside the path, say what was under way. Called before the first case.
pub fn show_cases_on_panic() {
    let of_before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = CURRENT.try_with(|current| current.try_borrow().ok()?.as_ref().map(Case::to_string));
        if let Ok(Some(text)) = text {
            eprintln!("\n{text}");
        }
        of_before(panic);
    }));
}

impl Stage {
    fn new() -> Self {
        let tables = sample::tables();
        let affinity = (tables.v4.affinity.borrow().clone(), tables.v6.affinity.borrow().clone());
        Self { properties: Properties::of(&tables), affinity, tables }
    }

    fn check(&self, case: &Case) -> Result<()> {
        let first = self.play(case)?;
        let second = self.play(case)?;
        ensure!(first == second, "the second time it came out otherwise: {second:02x?}, not {first:02x?}");
        Ok(())
    }

    /// The outcome of each packet, all of which are checked.
    fn play(&self, case: &Case) -> Result<Vec<Outcome>> {
        self.begin(case);
        case.frames.iter().map(|frame| self.send(case.hook, frame)).collect()
    }

    fn begin(&self, case: &Case) {
        CURRENT.with_borrow_mut(|current| *current = Some(Case { frames: Vec::new(), ..case.clone() }));
        flows::set(&self.tables, &case.given);
        self.tables.v4.affinity.borrow_mut().clone_from(&self.affinity.0);
        self.tables.v6.affinity.borrow_mut().clone_from(&self.affinity.1);
        self.tables.stages.borrow_mut().clear();
        self.tables.service_stats.borrow_mut().clear();
    }

    fn send(&self, hook: Hook, frame: &[u8]) -> Result<Outcome> {
        CURRENT.with_borrow_mut(|current| current.iter_mut().for_each(|case| case.frames.push(frame.to_vec())));
        let outcome = host::run(&self.tables, hook, frame);
        let properties = self.properties.check(&self.tables, hook, frame, &outcome);
        let answer = properties.and_then(|()| check_answer(&self.tables, hook, frame, &outcome));
        answer.with_context(|| explained(hook, frame, &outcome))?;
        Ok(outcome)
    }
}

fn explained(hook: Hook, frame: &[u8], outcome: &Outcome) -> String {
    let mut text = format!("at {hook:?} {}\n", describe::describe(frame));
    let _ = write!(text, "came out as {:?} {:?} ", outcome.verdict, outcome.reason);
    text + &describe::describe(&outcome.frame)
}
