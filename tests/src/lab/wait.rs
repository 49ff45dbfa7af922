//! Waiting for something to become true, with a limit.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// The rests between two questions, from the first on and after a while.
const REST: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(100));
/// A rest is this part of the time that has passed: who asks often does not learn much earlier, and a question may be a
/// process, which takes the processor from what is waited for.
const REST_PART: u32 = 8;

/// Asks until there is an answer or the time is over.
pub fn wait_for<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        let passed = begun.elapsed();
        if passed >= limit {
            return None;
        }
        sleep((passed / REST_PART).clamp(REST.0, REST.1));
    }
}
