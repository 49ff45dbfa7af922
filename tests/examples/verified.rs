//! How much the verifier walks through.
use aya::EbpfLoader;
use aya::programs::{ProgramError, SchedClassifier, Xdp};
fn main() {
    let mut object = EbpfLoader::new().load_file(std::env::args().nth(1).unwrap()).unwrap();
    for (name, program) in object.programs_mut() {
        let at = std::time::Instant::now();
        let loaded: Result<(), ProgramError> = match program {
            aya::programs::Program::Xdp(p) => {
                let p: &mut Xdp = p;
                p.load()
            }
            aya::programs::Program::SchedClassifier(p) => {
                let p: &mut SchedClassifier = p;
                p.load()
            }
            _ => continue,
        };
        let info = program.info().ok().and_then(|i| i.verified_instruction_count());
        println!(
            "{name} {:?} {:?} {:?}",
            at.elapsed(),
            info,
            loaded.err().map(|e| {
                let s = e.to_string();
                let l: Vec<_> = s.lines().collect();
                l[l.len().saturating_sub(6)..].join("|")
            })
        );
    }
}
