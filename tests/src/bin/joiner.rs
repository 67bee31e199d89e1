//! Joins a fleet as `belay-agent join` and `belay-gateway join` do, which are no programs of this package, and dies where
//! `BELAY_FAIL` says: `joiner agent|gateway CONFIG TOKEN`.

use std::{env, io::Write, path::Path, process::ExitCode};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [part, config, token] = &arguments[..] else { panic!("joiner agent|gateway CONFIG TOKEN") };
    let config = Path::new(config);
    let joined = match part.as_str() {
        "agent" => belay_agent::join(config, None, token).await.map_err(|error| told(&error)),
        "gateway" => belay_gateway::join(config, None, token).await.map_err(|error| told(&error)),
        _ => panic!("`{part}` is no part that joins"),
    };
    match joined {
        Ok(name) => {
            let _ = writeln!(std::io::stdout(), "joined as {name}");
            ExitCode::SUCCESS
        }
        Err(told) => {
            let _ = writeln!(std::io::stderr(), "error: {told}");
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes.
fn told(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |told, cause| format!("{told}: {cause}"))
}
