//! The front door: the arguments, the process's own terminal and network, an exit code.

use std::process::ExitCode;

use picketctl::{World, run};

fn main() -> ExitCode {
    run(std::env::args_os(), World::of_process()).into()
}
