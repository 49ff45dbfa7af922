//! What is tried: flows, and packets at a hook one after the other.

use std::fmt;

use crate::kernel::describe::flow_words;
use crate::kernel::flows::Flows;
use crate::kernel::frame::as_bytes;
use crate::kernel::outcome::Hook;

/// A row, but for what is expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Where the packets are.
    pub hook: Hook,
    /// The flows before.
    pub given: Flows,
    /// The packets. The last one is a row's own, the others are its `before`.
    pub frames: Vec<Vec<u8>>,
}

/// As a row says it.
impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((frame, before)) = self.frames.split_last() else { return Ok(()) };
        writeln!(f, "found by the fuzzer\n  only v4")?;
        for ((table, key), entry) in &self.given {
            writeln!(f, "  given {}", flow_words(*table, key, entry))?;
        }
        for frame in before {
            writeln!(f, "  before {}", as_bytes(frame))?;
        }
        writeln!(f, "  {} {}", hook_name(self.hook), as_bytes(frame))
    }
}

const fn hook_name(hook: Hook) -> &'static str {
    match hook {
        Hook::Xdp => "xdp",
        Hook::XdpAlone => "xdp-alone",
        Hook::Tc => "tc",
        Hook::Pod => "pod",
        Hook::Egress => "egress",
    }
}
