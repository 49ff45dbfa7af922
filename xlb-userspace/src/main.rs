//! The xlb command.

use std::process::ExitCode;

fn main() -> ExitCode {
    match xlb_userspace::cli::main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xlb: {error:#}");
            ExitCode::FAILURE
        }
    }
}
