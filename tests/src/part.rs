//! One program of a fleet, which can be killed and started again.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

/// How long a program that was asked to end may take.
const END: Duration = Duration::from_secs(20);

/// A server, a gateway or an agent, as a process of its own.
#[derive(Debug)]
pub struct Part {
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    filter: &'static str,
    /// Where it ends or panics by itself.
    fail: String,
    environment: Vec<(&'static str, &'static str)>,
    /// How many files it may have open at first.
    files: Option<u32>,
    child: Option<Child>,
}

impl Part {
    /// A part that is not running yet. What it logs goes to `log`.
    pub fn new(program: &Path, arguments: &[&str], log: PathBuf) -> Self {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let filter = "info,belay_server=debug,belay_agent=debug";
        Self {
            program: program.to_owned(),
            arguments,
            log,
            filter,
            fail: String::new(),
            environment: Vec::new(),
            files: None,
            child: None,
        }
    }

    /// Logs what this filter lets through, instead of all that helps with a failing test.
    #[must_use]
    pub fn logging(mut self, filter: &'static str) -> Self {
        self.filter = filter;
        self
    }

    /// From its next start on, it fails at these places: `NAME=kill` or `NAME=panic`, joined by commas. Empty for none.
    pub fn fail_at(&mut self, places: &str) {
        places.clone_into(&mut self.fail);
    }

    /// From its next start on, it has this variable in its environment.
    pub fn set(&mut self, name: &'static str, value: &'static str) {
        self.environment.push((name, value));
    }

    /// From its next start on, it may have only so many files open, unless it takes more: its hard limit stays.
    pub fn limit_files(&mut self, files: u32) {
        self.files = Some(files);
    }

    /// Waits until it has ended by itself, as at a place of [`Self::fail_at`].
    ///
    /// # Panics
    /// Where it does not end.
    pub async fn wait_until_dead(&mut self) {
        let start = Instant::now();
        while self.is_running() {
            assert!(start.elapsed() < crate::PATIENCE, "it does not end:\n{}", self.log_text());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.child = None;
    }

    /// Starts it, once more where it ended.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.log.display());
        let log = File::options().append(true).create(true).open(&self.log).expect("a log");
        let mut command = match self.files {
            None => Command::new(&self.program),
            Some(files) => {
                let mut limited = Command::new("/bin/sh");
                let script = format!("ulimit -S -n {files} && exec \"$0\" \"$@\"");
                limited.arg("-c").arg(script).arg(&self.program);
                limited
            }
        };
        let child = command
            .args(&self.arguments)
            .env("RUST_LOG", self.filter)
            .env("BELAY_FAIL", &self.fail)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("started");
        self.child = Some(child);
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().expect("it runs").id().cast_signed()
    }

    /// Ends it as a crash would: SIGKILL, without a chance to do anything.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("killed");
        child.wait().expect("reaped");
    }

    /// Asks it to end, and waits for that. Gives its exit code.
    pub fn end(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        let mut child = self.child.take().expect("it runs");
        let start = Instant::now();
        while start.elapsed() < END {
            if child.try_wait().expect("waited").is_some() {
                return child.wait().expect("waited").code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child.kill().expect("killed");
        child.wait().expect("reaped");
        panic!("it did not end within {END:?} of SIGTERM:\n{}", self.log_text());
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).expect("a pid"), signal).expect("signalled");
    }

    /// All that it logged so far.
    pub fn log_text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; and a stopped one is ended by SIGKILL too.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
