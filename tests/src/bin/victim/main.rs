//! A process of an awkward shape, which keeps a ledger: each process of it appends a line when it begins, with its pid
//! and the tick at which it was made, and one for each SIGTERM that it notices.
//!
//! `victim LEDGER SHAPE`. The shapes are those of `belay_tests::VICTIMS`, and the parts that the children of a shape play
//! (`shape.rs`). Every process of it shows the path of its ledger in its command line, so that it is found whatever else
//! it does, and ends by itself, if it can, once the folder of the ledger is gone.

mod raw;
mod shape;

use std::{
    cell::Cell,
    env,
    fs::File,
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use procfs::process::Process;

/// What a process does at SIGTERM.
#[derive(Debug)]
enum AtTerm {
    /// Ends.
    End,
    /// Ends a while later.
    EndAfter(Duration),
    /// Begins a child that plays this part, and ends.
    Begin(&'static str),
    /// Lives on.
    LiveOn,
}

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().collect();
    let [_, ledger, shape] = &arguments[..] else { panic!("usage: victim LEDGER SHAPE") };
    // Before the first line of the ledger: whoever reads that line may signal at once.
    raw::hold_sigterm_back();
    let victim = Victim { ledger: ledger.into(), shape: shape.clone(), begun: Cell::new(false) };
    let at_term = victim.take_shape()?;
    victim.note_begin()?;
    victim.live(&at_term)
}

/// One process of a victim.
#[derive(Debug, Clone)]
struct Victim {
    ledger: PathBuf,
    shape: String,
    /// Whether this was noted.
    begun: Cell<bool>,
}

impl Victim {
    /// Lives until SIGTERM, and does then what it is to do.
    fn live(&self, at_term: &AtTerm) -> io::Result<()> {
        loop {
            while !raw::wait_for_sigterm(PATIENCE) {
                self.end_without_ledger();
            }
            // It may be too late for a note.
            let _ = self.note("SIGTERM");
            match at_term {
                AtTerm::LiveOn => continue,
                AtTerm::End => {}
                AtTerm::EndAfter(pause) => std::thread::sleep(*pause),
                AtTerm::Begin(part) => drop(self.begin(part)?),
            }
            return Ok(());
        }
    }

    /// Lives, and has no ear for anything.
    fn sleep(&self) -> ! {
        loop {
            std::thread::sleep(PATIENCE);
            self.end_without_ledger();
        }
    }

    /// Ends where the folder of the ledger is gone: nobody looks any more.
    fn end_without_ledger(&self) {
        if !self.ledger.parent().is_some_and(Path::exists) {
            std::process::exit(0);
        }
    }

    /// Begins a child that plays this part, and does not wait for it.
    fn begin(&self, part: &str) -> io::Result<Child> {
        self.part(part)?.spawn()
    }

    fn part(&self, part: &str) -> io::Result<Command> {
        let mut command = Command::new(env::current_exe()?);
        command.arg(&self.ledger).arg(part);
        Ok(command)
    }

    /// Goes on as this part, in the same process, under this name.
    fn go_on_as(&self, part: &str, name: &str) -> io::Error {
        match self.part(part) {
            Ok(mut command) => command.arg0(name).exec(),
            Err(error) => error,
        }
    }

    /// Says that this process has begun, unless it did so before.
    fn note_begin(&self) -> io::Result<()> {
        if self.begun.replace(true) { Ok(()) } else { self.note("begin") }
    }

    /// One line in one write, so that lines of several processes do not mix. A process is named as `/proc` names it: in
    /// a pid namespace of its own, it has another number for itself.
    fn note(&self, what: &str) -> io::Result<()> {
        let own = Process::myself().and_then(|own| own.stat()).map_err(io::Error::other)?;
        let line = format!("{what} {} {} {}\n", own.pid, own.starttime, self.shape);
        File::options().append(true).create(true).open(&self.ledger)?.write_all(line.as_bytes())
    }
}

/// How often it is looked whether the ledger is still there.
const PATIENCE: Duration = Duration::from_secs(5);
