//! Checks a BPF object before anyone loads it: the verifier's message for these faults names no cause.

use anyhow::Result;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

/// The hooks at which packets are seen, by the name of their usual program.
const HOOKS: [&str; 5] = ["ingress_xdp", "ingress_xdp_alone", "ingress_tc", "pod", "uplink_egress"];

/// What is behind a hook's name in those of its programs: the usual one, and those for each kind of packet.
const KINDS: [&str; 5] = ["", "_icmp", "_fragment", "_sctp", "_shape"];

/// The same, of packets from outside alone.
const INGRESS_KINDS: [&str; 1] = ["_twin"];

/// The same, of what pods send alone.
const EGRESS_KINDS: [&str; 1] = ["_sole"];

/// The other programs that the agent loads.
const OTHERS: [&str; 18] = [
    "accepted",
    "prove",
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "link_ingress",
    "link_egress",
    "link_serve",
    "link_serve_error",
    "link_serve_fragment",
    "link_restore",
    "link_restore_error",
    "link_restore_fragment",
];

/// The programs that the agent loads. Each is a function of this name in a section named after its type.
fn programs() -> impl Iterator<Item = String> {
    let of_hook = |hook| KINDS.iter().map(move |kind| format!("{hook}{kind}"));
    let (ingress, egress): (Vec<&str>, Vec<&str>) = HOOKS.iter().partition(|hook| hook.starts_with("ingress"));
    let of_ingress = |hook| INGRESS_KINDS.iter().map(move |kind| format!("{hook}{kind}"));
    let of_egress = |hook| EGRESS_KINDS.iter().map(move |kind| format!("{hook}{kind}"));
    let of_one_way = ingress.into_iter().flat_map(of_ingress).chain(egress.into_iter().flat_map(of_egress));
    HOOKS.iter().flat_map(of_hook).chain(of_one_way).chain(OTHERS.map(str::to_owned))
}

/// What a way into `core::panicking` or the panic handler is called, mangled or not.
const PANIC_MARKS: [&str; 2] = ["panic", "rust_begin_unwind"];

/// What is wrong with the object, a sentence each.
pub fn faults(object: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(object)?;
    let symbols: Vec<Symbol> = file
        .symbols()
        .skip_while(|symbol| symbol.index().0 == 0)
        .map(|symbol| {
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            Symbol {
                name: symbol.name().unwrap_or_default().to_owned(),
                section: section.and_then(|section| section.name().ok().map(str::to_owned)),
                is_function: symbol.kind() == SymbolKind::Text,
                is_undefined: symbol.is_undefined(),
            }
        })
        .collect();
    Ok(faults_of(&symbols))
}

/// What the rules need to know of an ELF symbol.
struct Symbol {
    name: String,
    section: Option<String>,
    is_function: bool,
    is_undefined: bool,
}

impl Symbol {
    /// Functions that programs call are in `.text`; programs are in sections such as `xdp` and `classifier`.
    fn is_program(&self) -> bool {
        self.is_function && self.section.as_deref().is_some_and(|section| !section.starts_with('.'))
    }
}

fn faults_of(symbols: &[Symbol]) -> Vec<String> {
    let panics =
        symbols.iter().filter(|symbol| PANIC_MARKS.iter().any(|mark| symbol.name.contains(mark))).map(|symbol| {
            format!("it contains a panic path: `{}` is reachable, and a kernel program cannot panic", symbol.name)
        });
    let undefined = symbols
        .iter()
        .filter(|symbol| symbol.is_undefined)
        .map(|symbol| format!("it calls `{}`, which is defined nowhere", symbol.name));
    let missing = programs()
        .filter(|program| !symbols.iter().any(|symbol| symbol.is_program() && symbol.name == *program))
        .map(|program| format!("it lacks the program `{program}`, which the agent loads"));
    panics.chain(undefined).chain(missing).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_all_programs_and_no_panic_path_is_good() {
        let mut symbols = all_programs();
        symbols.push(function("memcpy", ".text"));
        assert_eq!(faults_of(&symbols), Vec::<String>::new());
    }

    #[test]
    fn a_panic_path_is_refused_by_name() {
        for name in ["rust_begin_unwind", "_RNvNtCs1NpfdXmxSul_4core9panicking9panic_fmt"] {
            let mut symbols = all_programs();
            symbols.push(function(name, ".text.unlikely."));
            let faults = faults_of(&symbols);
            assert_eq!(faults.len(), 1, "{faults:?}");
            assert!(faults[0].contains(name), "{faults:?}");
        }
    }

    #[test]
    fn an_undefined_function_is_refused_by_name() {
        let mut symbols = all_programs();
        symbols.push(Symbol { section: None, is_function: false, is_undefined: true, ..function("other", "") });
        assert_eq!(faults_of(&symbols), ["it calls `other`, which is defined nowhere"]);
    }

    #[test]
    fn each_missing_program_is_named() {
        for missing in programs() {
            let mut symbols = all_programs();
            symbols.retain(|symbol| symbol.name != missing);
            symbols.push(function(&missing, ".text"));
            assert_eq!(faults_of(&symbols), [format!("it lacks the program `{missing}`, which the agent loads")]);
        }
    }

    #[test]
    fn bytes_that_are_no_object_are_an_error() {
        assert!(faults(b"not an ELF file").is_err());
    }

    fn all_programs() -> Vec<Symbol> {
        programs().map(|program| function(&program, "classifier")).collect()
    }

    fn function(name: &str, section: &str) -> Symbol {
        Symbol { name: name.to_owned(), section: Some(section.to_owned()), is_function: true, is_undefined: false }
    }
}
