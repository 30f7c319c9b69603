//! The `chronik` command: reads the command line, hands over to the library, sets the exit code.

use std::process::ExitCode;

use chronik_io::log_queue::{flush_log, write_line};
use clap::Parser;

/// Frames come and go in the tens of thousands a second, and glibc gives memory back to the kernel
/// only to ask for it again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match chronik::run(&chronik::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be what is broken, or a pipe that nobody reads.
            write_line(&format!("chronik: {error}"));
            flush_log();
            ExitCode::FAILURE
        }
    }
}
