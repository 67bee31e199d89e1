//! What a program costs its host: memory, and processor time and wake-ups while nothing happens.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    fs,
    time::{Duration, Instant},
};

/// What a program holds in memory, in MiB, and with how many threads.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// All that is resident.
    pub resident: f64,
    /// The same, where what it shares with others counts for its part only.
    pub proportional: f64,
    /// What only it has.
    pub private: f64,
    /// Its threads: each has a stack, and mostly a heap of its own.
    pub threads: usize,
}

impl Memory {
    /// What this program holds now.
    pub fn of(pid: i32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
        let mib = |name: &str| -> f64 {
            let values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_suffix("kB"));
            values.map(|value| value.trim().parse::<f64>().expect("a number") / 1024.0).sum()
        };
        let private = mib("Private_Clean:") + mib("Private_Dirty:");
        let threads = threads(pid).len();
        Self { resident: mib("Rss:"), proportional: mib("Pss:"), private, threads }
    }
}

impl Display for Memory {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { resident, proportional, private, threads } = self;
        write!(f, "RSS {resident:>5.1} MiB, PSS {proportional:.1}, private {private:.1}, {threads} threads")
    }
}

/// What a program did in a time.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// The share of one processor, in percent.
    pub processor: f64,
    /// How often a second any of its threads was woken.
    pub wakeups: f64,
}

impl Effort {
    /// What this program does in that time.
    pub async fn of(pid: i32, time: Duration) -> Self {
        let start = Instant::now();
        let mut last = threads(pid);
        let (mut nanoseconds, mut wakeups) = (0, 0);
        while start.elapsed() < time {
            // A thread that ends takes its count along: what it did since the last look is lost.
            tokio::time::sleep(BETWEEN_LOOKS).await;
            let now = threads(pid);
            for (thread, seen) in &now {
                let before = last.get(thread).copied().unwrap_or_default();
                nanoseconds += seen.0.saturating_sub(before.0);
                wakeups += seen.1.saturating_sub(before.1);
            }
            last = now;
        }
        let spent = start.elapsed().as_secs_f64();
        Self { processor: nanoseconds as f64 / 1e7 / spent, wakeups: wakeups as f64 / spent }
    }
}

impl Display for Effort {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { processor, wakeups } = self;
        write!(f, "CPU {processor:>8.3} %    wake-ups {wakeups:>5.1} /s")
    }
}

const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// Of each thread, the nanoseconds that it ran and how often it gave the processor up of its own: each time, it was woken
/// afterwards. `/proc/PID/stat` counts in hundredths of a second, which is too coarse for who hardly does anything.
fn threads(pid: i32) -> BTreeMap<String, (u64, u64)> {
    let all = fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let threads = all.filter_map(|thread| {
        // It may have ended.
        let ran = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let slept = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        let nanoseconds = ran.split(' ').next()?.parse().ok()?;
        Some((thread.file_name().to_str()?.to_owned(), (nanoseconds, slept.trim().parse().ok()?)))
    });
    threads.collect()
}
