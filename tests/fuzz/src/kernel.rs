//! The tables, packets and properties of the tests, without what they need a kernel for: one copy, compiled again with the
//! instrumentation that libFuzzer needs.

#[path = "../../src/kernel/outcome.rs"]
pub mod outcome;
#[path = "../../src/kernel/host.rs"]
pub mod host;
#[path = "../../src/kernel/sample.rs"]
pub mod sample;
#[path = "../../src/kernel/surroundings.rs"]
mod surroundings;
#[path = "../../src/kernel/sctp.rs"]
pub mod sctp;
#[path = "../../src/kernel/addresses.rs"]
mod addresses;
#[path = "../../src/kernel/flows.rs"]
pub mod flows;
#[path = "../../src/kernel/twins.rs"]
pub mod twins;
#[path = "../../src/kernel/frame.rs"]
pub mod frame;
#[path = "../../src/kernel/headers.rs"]
pub mod headers;
#[path = "../../src/kernel/icmp.rs"]
pub mod icmp;
#[path = "../../src/kernel/describe.rs"]
pub mod describe;
#[path = "../../src/kernel/refusal.rs"]
pub mod refusal;
#[path = "../../src/kernel/rows.rs"]
pub mod rows;
#[path = "../../src/kernel/pieces.rs"]
pub mod pieces;
#[path = "../../src/kernel/lies.rs"]
pub mod lies;
#[path = "../../src/kernel/generate.rs"]
pub mod generate;
#[path = "../../src/kernel/random.rs"]
pub mod random;
#[path = "../../src/kernel/rewritten.rs"]
pub mod rewritten;
#[path = "../../src/kernel/sound.rs"]
pub mod sound;
#[path = "../../src/kernel/properties.rs"]
pub mod properties;
