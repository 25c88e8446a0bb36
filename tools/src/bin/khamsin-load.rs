//! `khamsin-load`: open- and closed-loop load with a latency histogram.

use std::process::ExitCode;

fn main() -> ExitCode {
    khamsin_tools::load::main()
}
