//! What a run of a program is compared by, whoever ran it.

use std::fmt;

use crate::Reason;
pub use crate::hook::Hook;

/// What the hook does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To the next program or the stack.
    Pass,
    /// To another interface, or back by the one it came from.
    Redirect,
    /// Nowhere.
    Drop,
}

/// All that a run leaves behind, except for the flow maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What becomes of the packet.
    pub verdict: Verdict,
    /// What was counted; none: the program had nothing to do.
    pub reason: Option<Reason>,
    /// The packet afterwards.
    pub frame: Vec<u8>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Some(reason) => write!(f, "{:?} ({reason:?}) ", self.verdict)?,
            None => write!(f, "{:?} ", self.verdict)?,
        }
        self.frame.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
