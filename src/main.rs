//! The `chronik` command: reads the command line, hands over to the library, sets the exit code.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match chronik::run(&chronik::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chronik: {error}");
            ExitCode::FAILURE
        }
    }
}
