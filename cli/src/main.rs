//! The program `belay`. All of it is in the library, so that other packages can build the same program.
//!
//! It uses the system's allocator: the demonstration workers are this program too, and are to be small.

fn main() -> std::process::ExitCode {
    belay::main()
}
