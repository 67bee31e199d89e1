//! The bugs that are planted in the programs, as `tests/PLANTED.md` lists them, and the runs that find them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

/// How long one test may take. A bug that lets it hang for longer is not found by it.
const LIMIT: Duration = Duration::from_secs(300);

/// A bug that `BELAY_PLANT=NAME` switches on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planted {
    /// How it is called, everywhere.
    pub name: String,
    /// The file that it is in, from the workspace on.
    pub file: String,
    /// What goes wrong with it.
    pub wrong: String,
    /// Which suite finds it.
    pub suite: Suite,
    /// The full name of the test of it that does.
    pub test: String,
}

/// A suite of tests that can be run by their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// The unit tests of the server.
    Server,
    /// The unit tests of the agent.
    Agent,
    /// The end-to-end tests.
    It,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It ran and passed.
    Passed,
    /// It ran and failed.
    Failed,
    /// It proves nothing: it is not there, or it has not ended in time. What was printed.
    Not(String),
}

/// Every planted bug, in the order of the table.
///
/// # Panics
/// Where the table can not be read, or a row of it is no row.
pub fn planted_bugs() -> Vec<Planted> {
    let table = fs::read_to_string(workspace().join("tests/PLANTED.md")).expect("the table");
    table.lines().filter(|line| line.starts_with("| `")).map(read_row).collect()
}

fn read_row(line: &str) -> Planted {
    let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
    let [name, file, wrong, suite, test] = cells[..] else { panic!("not five cells: {line}") };
    let suite = match suite {
        "server" => Suite::Server,
        "agent" => Suite::Agent,
        "it" => Suite::It,
        _ => panic!("no suite: {line}"),
    };
    let [name, file, wrong, test] = [name, file, wrong, test].map(str::to_owned);
    Planted { name, file, wrong, suite, test }
}

/// The suites as they were built, each when it is needed first: while they run, nothing is built anew.
#[derive(Debug, Default)]
pub struct Suites(BTreeMap<Suite, PathBuf>);

impl Suites {
    /// Runs the test of a bug, with the bug or without. Nothing of a failure is kept for later runs.
    ///
    /// # Panics
    /// Where the suite can not be built or run.
    pub fn run(&mut self, bug: &Planted, with_bug: bool) -> Ended {
        let program = self.0.entry(bug.suite).or_insert_with(|| bug.suite.build());
        let folder = tempfile::tempdir().expect("a folder");
        let printed = folder.path().join("printed");
        let file = File::create(&printed).expect("a file");
        let mut test = Command::new(program);
        test.current_dir(workspace().join(bug.suite.package())).args(["--exact", &bug.test]);
        test.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true").env("PROPTEST_MAX_SHRINK_ITERS", "0");
        test.env("BELAY_CASES", CASES).env("INSTA_UPDATE", "no").env_remove("BELAY_PLANT");
        if with_bug {
            test.env("BELAY_PLANT", &bug.name);
        }
        test.process_group(0).stdin(Stdio::null());
        test.stdout(file.try_clone().expect("a second handle")).stderr(file);
        let mut child = test.spawn().expect("it runs");
        let start = Instant::now();
        while child.try_wait().expect("waited").is_none() {
            if start.elapsed() > LIMIT {
                let group = Pid::from_raw(child.id().cast_signed()).expect("a pid");
                // It may have ended just now.
                let _ = kill_process_group(group, Signal::KILL);
                child.wait().expect("reaped");
            }
            sleep(Duration::from_millis(20));
        }
        ended(&fs::read_to_string(&printed).expect("what it printed"))
    }
}

/// How many random cases each test has that knows random cases: enough to meet what is rare.
const CASES: &str = "1000";

fn ended(printed: &str) -> Ended {
    let result = printed.lines().find_map(|line| line.strip_prefix("test result: "));
    match result {
        Some(result) if result.contains(" 1 passed; 0 failed;") => Ended::Passed,
        Some(result) if result.contains(" 0 passed; 1 failed;") => Ended::Failed,
        _ => Ended::Not(printed.to_owned()),
    }
}

impl Suite {
    /// Builds it. Gives the program that runs its tests.
    fn build(self) -> PathBuf {
        let which: &[&str] = match self {
            Self::Server => &["--features", "failpoints", "--lib"],
            Self::Agent => &["--lib"],
            Self::It => &["--test", "it"],
        };
        let package = format!("belay-{}", self.package());
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(workspace()).args([
            "test",
            "--no-run",
            "--message-format=json",
            "--package",
            &package,
        ]);
        let built = cargo.args(which).stderr(Stdio::inherit()).output().expect("cargo runs");
        assert!(built.status.success(), "the tests of `{package}` can not be built");
        let told = String::from_utf8(built.stdout).expect("text");
        let messages = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut tests = messages.filter(|message| message["profile"]["test"] == true);
        let program = tests.find_map(|message| Some(message["executable"].as_str()?.to_owned()));
        program.expect("a program").into()
    }

    fn package(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::It => "tests",
        }
    }

    /// Where its tests are, from the workspace on.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Server => "server/src",
            Self::Agent => "agent/src",
            Self::It => "tests/it",
        }
    }
}

/// The folder of the workspace.
fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that did not run finds nothing.
    #[test]
    fn only_a_test_that_ran_proves_something() {
        let line =
            |passed, failed| format!("x\ntest result: y. {passed} passed; {failed} failed; 0 ignored;");
        assert_eq!(ended(&line(1, 0)), Ended::Passed);
        assert_eq!(ended(&line(0, 1)), Ended::Failed);
        assert!(matches!(ended(&line(0, 0)), Ended::Not(_)), "no such test");
        assert!(matches!(ended("it died"), Ended::Not(_)));
    }
}
