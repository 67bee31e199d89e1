//! `belay demo-worker`: a small process to look after. It listens on a port, writes a log, has a child, and ends at
//! SIGTERM.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{self, Child},
    time::Duration,
};

use clap::Args as ClapArgs;
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{net::TcpListener, time::interval};

use crate::{failure::Failure, signals::Signals};

/// How often it writes to its log.
const BEAT: Duration = Duration::from_secs(5);

/// How to behave.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Listen on this port of the loopback address; on any free one for 0.
    #[arg(long)]
    port: Option<u16>,
    /// Where to log.
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Have a child.
    #[arg(long)]
    child: bool,
}

/// Does nothing in particular until SIGTERM.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let mut log = Log::open(&args.log)?;
    let listener = match args.port {
        Some(port) => Some(
            TcpListener::bind(("127.0.0.1", port))
                .await
                .map_err(|error| Failure::caused(format!("cannot listen on port {port}"), &error))?,
        ),
        None => None,
    };
    let mut child = if args.child { Some(spawn_child(&args.log)?) } else { None };
    log.line("begins")?;

    let mut beat = interval(BEAT);
    let signal = loop {
        tokio::select! {
            signal = signals.next() => break signal,
            _ = beat.tick() => log.line("is alive")?,
            () = greet(listener.as_ref()) => {}
        }
    };
    if let Some(child) = &mut child {
        end(child);
    }
    log.line(&format!("ends at {signal}"))
}

/// Takes one connection and closes it; waits for ever without a port.
async fn greet(listener: Option<&TcpListener>) {
    match listener {
        Some(listener) => drop(listener.accept().await),
        None => std::future::pending().await,
    }
}

fn spawn_child(log: &Path) -> Result<Child, Failure> {
    std::env::current_exe()
        .and_then(|program| process::Command::new(program).arg("demo-worker").arg("--log").arg(log).spawn())
        .map_err(|error| Failure::caused("cannot start a child", &error))
}

/// Ends the child as a good parent does: asks, and waits. It is not reaped yet, so its pid is still its own.
fn end(child: &mut Child) {
    if let Ok(None) = child.try_wait() {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        // Both fail only where the child is gone, which is what is wanted.
        let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
        let _ = child.wait();
    }
}

struct Log {
    file: File,
}

impl Log {
    fn open(path: &Path) -> Result<Self, Failure> {
        let open = OpenOptions::new().create(true).append(true).open(path);
        let file =
            open.map_err(|error| Failure::caused(format!("cannot open `{}`", path.display()), &error))?;
        Ok(Self { file })
    }

    fn line(&mut self, what: &str) -> Result<(), Failure> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
        writeln!(self.file, "{now} {} {what}", process::id())
            .map_err(|error| Failure::caused("cannot write the log", &error))
    }
}
