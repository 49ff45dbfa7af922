//! `cargo xtask verify`: loads every program, and compares what the verifier had to do with its budget.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use xlb_tests::verify::budgets::{self, Budgets};
use xlb_tests::verify::programs::{Loaded, load_each};

/// Loads every program and compares it with its budget. Run it by `cargo xtask verify`, which builds the object first.
#[derive(Parser)]
#[command(name = "xlb-verify")]
struct Arguments {
    /// The file of the budgets
    #[arg(long)]
    budgets: PathBuf,
    /// Write what is measured into the file, instead of comparing
    #[arg(long)]
    write: bool,
}

fn main() -> Result<()> {
    let Arguments { budgets: path, write } = Arguments::parse();
    let loaded = load_each()?;
    let measured: Budgets = loaded.iter().map(|program| (program.name.clone(), program.figures)).collect();
    if write {
        print!("{}", table(&loaded, &Budgets::new()));
        let text = budgets::text(&measured, &machine());
        return std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()));
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {}; `cargo xtask verify --write` makes it", path.display()))?;
    let budgets = budgets::parse(&text).with_context(|| format!("reading {}", path.display()))?;
    print!("{}", table(&loaded, &budgets));
    let faults = budgets::faults(&budgets, &measured)?;
    if !faults.is_empty() {
        bail!("{}\n  on {}; if that is as it has to be: cargo xtask verify --write", faults.join("\n  "), machine());
    }
    Ok(())
}

fn table(loaded: &[Loaded], budgets: &Budgets) -> String {
    let mut lines = vec![format!(
        "{:<20} {:>12} {:>8} {:>13} {:>8} {:>8}",
        "program", "instructions", "budget", "machine bytes", "budget", "load ms"
    )];
    for Loaded { name, figures, time } in loaded {
        let [instructions, bytes] = budgets.get(name).map_or([String::new(), String::new()], |budget| {
            [budget.instructions.to_string(), budget.machine_bytes.to_string()]
        });
        lines.push(format!(
            "{name:<20} {:>12} {instructions:>8} {:>13} {bytes:>8} {:>8.1}",
            figures.instructions,
            figures.machine_bytes,
            time.as_secs_f64() * 1_000.0
        ));
    }
    lines.join("\n") + "\n"
}

/// Kernel and processor, which the figures depend on.
fn machine() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = release.trim().split('-').next().unwrap_or_default();
    format!("Linux {version}, {}", std::env::consts::ARCH)
}
