//! Processes that are known by an entry of their environment: those who write no ledger.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::PATIENCE;

/// Ends every process with an entry that begins so. Whoever would start them again must be gone.
pub(crate) fn end_marked(mark: &str) {
    let start = Instant::now();
    loop {
        let all = fs::read_dir("/proc").expect("processes").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let marked: Vec<i32> = pids.filter(|pid| is_marked(*pid, mark)).collect();
        if marked.is_empty() || start.elapsed() > PATIENCE {
            return;
        }
        for pid in marked {
            let held = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
            // It is held, so that it is the same that is signalled; it may end in between.
            if let Some(held) = held.filter(|_| is_marked(pid, mark)) {
                let _ = pidfd_send_signal(&held, Signal::KILL);
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn is_marked(pid: i32, mark: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(mark.as_bytes()))
}
