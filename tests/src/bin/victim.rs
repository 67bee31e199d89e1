//! A process of an awkward shape, which keeps a ledger: each process of it appends a line when it begins, and one for
//! each SIGTERM that it gets.
//!
//! `victim LEDGER SHAPE`, where a shape is one of:
//! - `plain`: ends at SIGTERM
//! - `deaf`: notes SIGTERM, and lives on
//! - `slow`: ends two seconds after SIGTERM
//! - `talker`: as `plain`, and prints a numbered line every 10 milliseconds
//! - `setsid-child`: has a child in a session of its own, deaf
//! - `double-fork`: its child begins a deaf grandchild and ends at once, so that the grandchild is nobody's

use std::{env, fs::File, io::Write, path::Path, process::Command, time::Duration};

use tokio::signal::unix::{SignalKind, signal};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments: Vec<_> = env::args().collect();
    let [_, ledger, shape] = &arguments[..] else { panic!("usage: victim LEDGER SHAPE") };
    // Before the first line of the ledger: whoever reads that line may signal at once.
    let mut terminate = signal(SignalKind::terminate())?;
    match &shape[..] {
        "setsid-child" => begin(ledger, "leader")?,
        "double-fork" => begin(ledger, "middle")?,
        "talker" => talk(),
        "leader" => drop(rustix::process::setsid()?),
        "middle" => return begin(ledger, "leader"),
        _ => {}
    }
    note(ledger, "begin", shape)?;
    loop {
        terminate.recv().await;
        note(ledger, "SIGTERM", shape)?;
        match &shape[..] {
            "deaf" | "leader" => {}
            "slow" => {
                tokio::time::sleep(Duration::from_secs(2)).await;
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
}

/// Prints numbered lines beside everything else.
fn talk() {
    std::thread::spawn(|| {
        for number in 0.. {
            println!("line {number}");
            std::thread::sleep(Duration::from_millis(10));
        }
    });
}

/// Begins another process of this program, and does not wait for it.
fn begin(ledger: &str, shape: &str) -> std::io::Result<()> {
    Command::new(env::current_exe()?).args([ledger, shape]).spawn().map(drop)
}

/// One line in one write, so that lines of several processes do not mix.
fn note(ledger: impl AsRef<Path>, what: &str, shape: &str) -> std::io::Result<()> {
    let line = format!("{what} {} {shape}\n", std::process::id());
    File::options().append(true).create(true).open(ledger)?.write_all(line.as_bytes())
}
