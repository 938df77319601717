//! `pinfold`: the program around the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    pinfold::cli::main().into()
}
