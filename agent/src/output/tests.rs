//! The outputs as the supervisor uses them.

use std::{fs, fs::File, io::Write};

use tempfile::TempDir;
use tokio::time::{Instant, sleep, timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    dir: TempDir,
    outputs: Outputs,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let outputs = Outputs::spawn(dir.path().to_owned());
        Self { dir, outputs }
    }

    /// Watches the output of a process, and gives back what that process writes to.
    fn watch(&self, name: &str) -> (Alias, File) {
        let alias = Alias::try_from(name.to_owned()).unwrap();
        let mut config = ProcessConfig::new(alias.clone(), "/bin/true", &[]);
        config.output.max_size = bytesize::ByteSize::kib(64);
        self.outputs.watch(&config);
        let process = open_for_process(&self.dir.path().join(files::name(&alias))).unwrap();
        (alias, process)
    }
}

#[tokio::test]
async fn a_text_is_waited_for_from_an_offset_on() {
    let bench = Bench::new();
    let (alias, mut process) = bench.watch("talker");
    process.write_all(b"ready to serve, said the last one\n").unwrap();
    let from = bench.outputs.end(&alias);
    let outputs = bench.outputs.clone();
    let waiting = {
        let alias = alias.clone();
        tokio::spawn(async move { outputs.wait_for_text(&alias, from, "ready to serve").await })
    };
    process.write_all(b"not rea").unwrap();
    // Long enough for it to have been read alone.
    sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    process.write_all(b"dy to serve\n").unwrap();
    assert!(timeout(PATIENCE, waiting).await.unwrap().unwrap());
    assert_eq!(bench.outputs.tail(&alias, from, 5, 1000), ["not ready to serve"]);
    assert_eq!(bench.outputs.tail(&alias, 0, 1, 1000), ["not ready to serve"]);
    assert_eq!(bench.outputs.tail(&alias, 0, 5, 9), ["to serve"]);

    let outputs = bench.outputs.clone();
    let end = outputs.end(&alias);
    let waiting = tokio::spawn(async move { outputs.wait_for_text(&alias, end, "never").await });
    sleep(Duration::from_millis(50)).await;
    bench.outputs.forget(&Alias::try_from("talker".to_owned()).unwrap());
    assert!(!timeout(PATIENCE, waiting).await.unwrap().unwrap(), "it is not declared any more");
}

/// A text is found across a rotation, and by whoever waits while the agent ends the wait is over.
#[tokio::test]
async fn a_text_is_found_among_much_output() {
    let bench = Bench::new();
    let (alias, mut process) = bench.watch("talker");
    let (outputs, waited) = (bench.outputs.clone(), alias.clone());
    let waiting = tokio::spawn(async move { outputs.wait_for_text(&waited, 0, "the needle").await });
    for _ in 0..100 {
        process.write_all(&b"hay hay hay hay\n".repeat(256)).unwrap();
        sleep(Duration::from_millis(2)).await;
    }
    process.write_all(b"the needle\n").unwrap();
    assert!(timeout(PATIENCE, waiting).await.unwrap().unwrap());
    assert!(fs::read_dir(bench.dir.path()).unwrap().count() > 2, "it was rotated");

    let outputs = bench.outputs.clone();
    let waiting = tokio::spawn(async move { outputs.wait_for_text(&alias, 1 << 40, "never").await });
    sleep(Duration::from_millis(20)).await;
    bench.outputs.close();
    assert!(!timeout(PATIENCE, waiting).await.unwrap().unwrap());
}

/// What is not written to costs nothing at all, and a line a second next to nothing.
#[test]
fn quiet_logs_wake_nobody() {
    const NAME: &str = "quiet-logs";
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(NAME)
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(async { Bench::new() });
    let mut processes: Vec<_> = {
        let _entered = runtime.enter();
        (0..100).map(|number| bench.watch(&format!("p{number}")).1).collect()
    };
    let measure = |write: &mut dyn FnMut()| {
        std::thread::sleep(Duration::from_millis(500));
        let (before, began) = (switches(NAME), Instant::now());
        write();
        let rest = Duration::from_secs(2).saturating_sub(began.elapsed());
        std::thread::sleep(rest);
        switches(NAME) - before
    };
    let quiet = measure(&mut || {});
    let chatty = measure(&mut || {
        for process in &mut processes[..10] {
            process.write_all(b"a line\n").unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    eprintln!("100 quiet logs: {quiet} wake-ups in 2 s; a line in each of 10: {chatty}");
    assert!(quiet < 5, "{quiet}");
    assert!(chatty < 10 * 6, "{chatty}");
}

/// How often threads of this name have slept.
fn switches(name: &str) -> u64 {
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let status = threads.filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok());
    let named = status.filter(|status| status.starts_with(&format!("Name:\t{name}\n")));
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    named.map(count).sum()
}
