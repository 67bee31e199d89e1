//! The output of processes: kept within its bound, read and followed over everything that may happen to it.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use belay_proto::{
    Problem, Reason,
    agent::v1::{ReadLogRequest, ReadLogResponse, read_log_request::From},
};
use rustix::{
    fs::{FallocateFlags, fallocate},
    process::{Pid, Signal, kill_process},
};
use tokio::time::{sleep, timeout};
use tonic::{Status, Streaming};

use crate::host::{Host, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// The length of a line of [`COUNTER`], whose offset is therefore known by its number.
const LINE: u64 = 64;

/// Prints numbered lines for ever, some 200 KB a second.
const COUNTER: &str = r#"command = "/usr/bin/awk"
args = ["BEGIN { for (i = 0; ; i++) { printf \"%08d %054d\\n\", i, i; if (i % 50 == 49) { fflush(); system(\"sleep 0.01\") } } }"]
"#;

/// Follows a log, and holds each byte against what must be at its offset.
struct Follower {
    pieces: Streaming<ReadLogResponse>,
    at: u64,
    gaps: Vec<(u64, u64)>,
}

impl Follower {
    async fn from(host: &Host, alias: &str, at: u64) -> Self {
        let pieces = host.read_log(request(alias, Some(From::Offset(at)), true)).await.unwrap();
        Self { pieces, at, gaps: Vec::new() }
    }

    /// Goes on to this offset.
    async fn until(&mut self, end: u64) -> Result<(), Status> {
        while self.at < end {
            let next = timeout(PATIENCE, self.pieces.message()).await.expect("no more is told");
            let Some(ReadLogResponse { offset, data }) = next? else {
                return Err(Status::aborted("the stream has ended"));
            };
            assert!(!data.is_empty() && data.len() <= 64 << 10);
            if offset != self.at {
                self.gaps.push((self.at, offset));
            }
            for (at, byte) in (offset..).zip(&data) {
                let number = at / LINE;
                let line = format!("{number:08} {number:054}\n");
                assert_eq!(line.as_bytes()[(at % LINE) as usize], *byte, "at {at}, after {:?}", self.gaps);
            }
            self.at = offset + data.len() as u64;
        }
        Ok(())
    }
}

fn request(alias: &str, from: Option<From>, follow: bool) -> ReadLogRequest {
    ReadLogRequest { alias: alias.to_owned(), file: String::new(), from, follow }
}

/// All that a reader gets that does not follow.
async fn read(host: &Host, request: ReadLogRequest) -> Result<String, Status> {
    let mut pieces = host.read_log(request).await?;
    let mut text = Vec::new();
    while let Some(piece) = timeout(PATIENCE, pieces.message()).await.expect("it does not end")? {
        text.extend(piece.data);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads on until the text holds this.
async fn hear(pieces: &mut Streaming<ReadLogResponse>, text: &str) -> String {
    let mut heard = String::new();
    while !heard.contains(text) {
        let piece = timeout(PATIENCE, pieces.message()).await.unwrap_or_else(|_| panic!("only {heard:?}"));
        heard.push_str(&String::from_utf8(piece.unwrap().expect("more").data).unwrap());
    }
    heard
}

fn on_disk(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

/// Whether nothing at all is lost by a rotation here: elsewhere what is written in one microsecond of it is.
fn is_exact(folder: &Path) -> bool {
    let path = folder.join("probe");
    fs::write(&path, vec![0; 200_000]).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    let exact = fallocate(&file, FallocateFlags::COLLAPSE_RANGE, 0, 64 << 10).is_ok();
    fs::remove_file(path).unwrap();
    exact
}

#[tokio::test]
async fn a_follower_sees_every_line_over_many_rotations() {
    let counter = format!("{COUNTER}output = {{ max_size = \"64KiB\", files = 2 }}");
    let host = Host::start(&[("counter", &counter)]).await;
    if !is_exact(&host.log_folder()) {
        return;
    }
    let mut follower = Follower::from(&host, "counter", 0).await;
    follower.until(24 * (64 << 10)).await.unwrap();
    assert_eq!(follower.gaps, [], "no line is lost");
    // Two full files, the live one and the mark; and for a moment the one that is being made.
    let kept = || fs::read_dir(host.log_folder()).unwrap().count();
    assert!(kept() <= 5);
    eventually(|| kept() == 4).await;
    assert!(on_disk(&host.log_folder()) < 6 * (64 << 10));

    // Whoever comes later gets what is left, under the same offsets.
    let mut late = Follower::from(&host, "counter", 0).await;
    late.until(follower.at + 1000).await.unwrap();
    assert_eq!(late.gaps.len(), 1);
    assert_eq!(late.gaps[0].0, 0);
}

/// Hazard A02, for what the process prints: nothing is lost while no agent is there, and offsets go on.
#[tokio::test]
async fn a_follower_goes_on_after_the_agent_was_killed() {
    let counter = format!("{COUNTER}output = {{ max_size = \"512KiB\", files = 2 }}");
    let mut host = Host::start(&[("counter", &counter)]).await;
    if !is_exact(&host.log_folder()) {
        return;
    }
    let mut at = 0;
    for _ in 0..4 {
        let mut follower = Follower::from(&host, "counter", at).await;
        follower.until(at + (300 << 10)).await.unwrap();
        // What it printed for as long as a busy machine needs for another agent would be too much to keep.
        let pid = Pid::from_raw(host.process("counter").await.pid).unwrap();
        kill_process(pid, Signal::STOP).unwrap();
        host.crash().await;
        // What was under way may still come.
        let _ = follower.until(u64::MAX).await;
        assert_eq!(follower.gaps, []);
        at = follower.at;
        host.begin().await;
        kill_process(pid, Signal::CONT).unwrap();
    }
}

/// Hazard P28: at full speed the files stay within their bound, and the agent stays small.
#[tokio::test]
async fn a_flood_fills_neither_the_disk_nor_the_agent() {
    const BOUND: u64 = 1 << 20;
    // What a process can write in a quarter of a second: on a busy machine, the agent has its turn no sooner.
    const OVERSHOOT: u64 = 1 << 30;
    // Nice to the tests beside it, which have deadlines.
    let yes = "command = \"/usr/bin/nice\"\nargs = [\"-n\", \"19\", \"/usr/bin/yes\", \"a line of a flood\"]\noutput = { max_size = \"1MiB\", files = 2 }";
    let host = Host::start(&[("flood", yes)]).await;
    sleep(Duration::from_secs(1)).await;
    let (resident, cpu, began) = (host.resident(), cpu_time(host.pid()), Instant::now());
    let mut largest = 0;
    while began.elapsed() < Duration::from_secs(4) {
        largest = largest.max(on_disk(&host.log_folder()));
        sleep(Duration::from_millis(5)).await;
    }
    let grown = host.resident().saturating_sub(resident);
    let share = (cpu_time(host.pid()) - cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let end = loop {
        let mut last = host.read_log(request("flood", Some(From::LastLines(1)), false)).await.unwrap();
        // In a flood, the last line may be gone before it is read.
        if let Some(piece) = last.message().await.unwrap() {
            break piece.offset;
        }
    };
    eprintln!(
        "{} MiB written, at most {} MiB on the disk, the agent grew by {grown} KiB and took {:.0} % of a core",
        end >> 20,
        largest >> 20,
        share * 100.0
    );
    assert!(end > 10 * BOUND, "that was no flood");
    // Who does not follow comes to an end all the same.
    read(&host, request("flood", None, false)).await.unwrap();
    assert!(largest < 6 * BOUND + OVERSHOOT, "{largest} bytes on the disk");
    assert!(grown < 4 << 10, "the agent grew by {grown} KiB");
    host.stop("flood").await.unwrap();
    eventually(|| on_disk(&host.log_folder()) <= 6 * BOUND).await;
    assert!(host.log().contains("Output was dropped"));
    // A gap is told by its offsets.
    let mut pieces = host.read_log(request("flood", None, false)).await.unwrap();
    assert!(pieces.message().await.unwrap().unwrap().offset > 0);
}

fn cpu_time(pid: i32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::test]
async fn output_is_read_from_anywhere_and_followed_over_restarts() {
    let talker =
        "command = \"/bin/sh\"\nargs = [\"-c\", \"echo one; echo two; echo three; exec sleep 1000\"]";
    let mut host =
        Host::start(&[("talker", talker), ("quiet", "command = \"/bin/sleep\"\nargs = [\"1000\"]")]).await;
    let mut follower = host.read_log(request("talker", None, true)).await.unwrap();
    assert_eq!(hear(&mut follower, "three\n").await, "one\ntwo\nthree\n");
    assert_eq!(read(&host, request("talker", None, false)).await.unwrap(), "one\ntwo\nthree\n");
    let from = |from| request("talker", Some(from), false);
    assert_eq!(read(&host, from(From::Offset(4))).await.unwrap(), "two\nthree\n");
    assert_eq!(read(&host, from(From::LastLines(2))).await.unwrap(), "two\nthree\n");
    assert_eq!(read(&host, from(From::LastLines(0))).await.unwrap(), "");
    assert_eq!(read(&host, from(From::Offset(1 << 40))).await.unwrap(), "");
    assert_eq!(read(&host, request("quiet", None, false)).await.unwrap(), "");

    host.restart("talker").await.unwrap();
    assert_eq!(hear(&mut follower, "three\n").await, "one\ntwo\nthree\n");

    let unknown = read(&host, request("nobody", None, false)).await.unwrap_err();
    assert_eq!(Problem::from_status(&unknown).unwrap().reason, Reason::ProcessUnknown);

    // The end of the agent waits for nobody who follows.
    let took = host.end().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let ended = follower.message().await.unwrap_err();
    assert_eq!(Problem::from_status(&ended).unwrap().reason, Reason::ShuttingDown);
}

/// Hazard P29: somebody deletes the log. That is said, and reading goes on when the process has another.
#[tokio::test]
async fn a_deleted_log_is_told_of_and_followed_by_the_next() {
    let talker = "command = \"/bin/sh\"\nargs = [\"-c\", \"while :; do echo from $$; sleep 0.05; done\"]";
    let host = Host::start(&[("talker", talker)]).await;
    let mut follower = host.read_log(request("talker", None, true)).await.unwrap();
    let first = host.process("talker").await.pid;
    hear(&mut follower, &format!("from {first}\n")).await;
    fs::remove_file(host.log_folder().join("talker.log")).unwrap();
    eventually(|| host.log().contains("it was deleted")).await;
    hear(&mut follower, &format!("from {first}\n")).await;
    let restarted = host.restart("talker").await.unwrap();
    hear(&mut follower, &format!("from {}\n", restarted.processes[0].pid)).await;
}

/// A log that leads elsewhere takes no output.
#[tokio::test]
async fn a_log_that_is_a_link_is_refused_at_the_start() {
    let host = Host::start(&[("talker", "command = \"/bin/sleep\"\nargs = [\"1000\"]")]).await;
    host.stop("talker").await.unwrap();
    let log = host.log_folder().join("talker.log");
    fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink(host.log_folder().join("elsewhere"), &log).unwrap();
    let failed = host.start_process("talker").await.unwrap();
    assert_eq!(failed.reason, Reason::StartFailed.as_str());
    assert!(failed.message.contains("symbolic link"), "{}", failed.message);
    assert!(!host.log_folder().join("elsewhere").exists());
}

/// Hazard I08, at the whole agent: nothing but the files that the pattern matches, over their rotation too.
#[tokio::test]
async fn only_the_logs_that_a_process_offers_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    fs::write(path("app.log"), "one\ntwo\n").unwrap();
    fs::write(path("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(path("secret"), path("app.log.link")).unwrap();
    let config =
        format!("command = \"/bin/sleep\"\nargs = [\"1000\"]\nlog_file_pattern = \"{}*\"", path("app.log"));
    let host = Host::start(&[("app", &config)]).await;
    let from = |file: &str, from, follow| ReadLogRequest {
        alias: "app".to_owned(),
        file: file.to_owned(),
        from,
        follow,
    };
    assert_eq!(read(&host, from(&path("app.log"), None, false)).await.unwrap(), "one\ntwo\n");
    let last = from(&path("app.log"), Some(From::LastLines(1)), false);
    assert_eq!(read(&host, last).await.unwrap(), "two\n");
    for (file, reason) in [
        (path("secret"), Reason::LogNotOffered),
        (path("app.log/../secret"), Reason::LogNotOffered),
        (path("app.log.link"), Reason::LogNotOffered),
        ("/etc/shadow".to_owned(), Reason::LogNotOffered),
        ("app.log".to_owned(), Reason::LogNotOffered),
        (path("app.log.1"), Reason::LogUnknown),
    ] {
        let refused = read(&host, from(&file, None, false)).await.unwrap_err();
        let problem = Problem::from_status(&refused).unwrap();
        assert_eq!(problem.reason, reason, "{file}");
        assert!(!problem.hint.is_empty());
    }

    let mut follower = host.read_log(from(&path("app.log"), Some(From::LastLines(0)), true)).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let append = |text: &str| {
        use std::io::Write;
        let mut file = fs::File::options().append(true).create(true).open(path("app.log")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    append("three\n");
    assert_eq!(hear(&mut follower, "three\n").await, "three\n");
    fs::rename(path("app.log"), path("app.log.1")).unwrap();
    append("four\n");
    assert_eq!(hear(&mut follower, "four\n").await, "four\n");
    assert_eq!(read(&host, from(&path("app.log.1"), None, false)).await.unwrap(), "one\ntwo\nthree\n");
}

/// Design rule 10: followers are bounded, and one that has gone makes room.
#[tokio::test]
async fn too_many_followers_are_refused() {
    let host = Host::start(&[("quiet", "command = \"/bin/sleep\"\nargs = [\"1000\"]")]).await;
    let mut followers = Vec::new();
    for _ in 0..64 {
        followers.push(host.read_log(request("quiet", None, true)).await.unwrap());
    }
    let refused = host.read_log(request("quiet", None, true)).await.unwrap_err();
    assert_eq!(Problem::from_status(&refused).unwrap().reason, Reason::Overloaded);
    followers.pop();
    let again = async {
        while host.read_log(request("quiet", None, false)).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("a place is free again");
}
