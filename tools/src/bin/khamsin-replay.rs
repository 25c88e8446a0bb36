//! `khamsin-replay`: recorded clients against the stack, in virtual time.

use std::process::ExitCode;

fn main() -> ExitCode {
    khamsin_tools::replay::main()
}
