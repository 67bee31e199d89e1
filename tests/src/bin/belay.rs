//! The program under test: the same as `belay`.

use std::process::ExitCode;

fn main() -> ExitCode {
    belay::main()
}
