//! The binary: see src/cli/.

use std::process::ExitCode;

fn main() -> ExitCode {
    wgrad::cli::main()
}
