//! The `shaftlog` program; everything is in the library, this only names the entry.

use std::process::ExitCode;

fn main() -> ExitCode {
    shaftlog::cli::main()
}
