//! The floor that the kernel sets: the same work with nobody who watches, records or proves anything.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

/// Processes that do nothing: `sleep infinity`. They end when they are dropped.
#[derive(Debug)]
pub struct Sleepers(Vec<Child>);

impl Sleepers {
    /// So many, and how long it took until each of them ran its program.
    pub fn start(count: usize) -> (Self, Duration) {
        let mut all = Self(Vec::with_capacity(count));
        let start = Instant::now();
        for _ in 0..count {
            let mut command = Command::new("/bin/sleep");
            command.arg("infinity").stdin(Stdio::null()).stdout(Stdio::null());
            all.0.push(command.spawn().expect("started"));
        }
        // The program mostly runs when `spawn` returns, but that is nowhere promised.
        all.0.iter().for_each(wait_for_exec);
        (all, start.elapsed())
    }

    /// Signals each, then waits for each. Says how long that took.
    pub fn stop(mut self) -> Duration {
        let start = Instant::now();
        let open = |child: &Child| pidfd_open(pid(child), PidfdFlags::empty()).expect("opened");
        let pidfds: Vec<_> = self.0.iter().map(open).collect();
        for pidfd in &pidfds {
            pidfd_send_signal(pidfd, Signal::TERM).expect("signalled");
        }
        for pidfd in &pidfds {
            poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None).expect("awaited");
        }
        let spent = start.elapsed();
        for child in &mut self.0 {
            child.wait().expect("reaped");
        }
        spent
    }
}

impl Drop for Sleepers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have been reaped already, and then this does nothing.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What it takes to have a line on the disk below this folder.
pub fn write_down(folder: &Path, count: usize) -> Vec<Duration> {
    let mut file = File::create(folder.join("floor")).expect("a file");
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        file.write_all(&[b'x'; 200]).and_then(|()| file.sync_data()).expect("written");
        times.push(start.elapsed());
    }
    times
}

/// A process that was forked and has not yet become `sleep` dies another death.
fn wait_for_exec(child: &Child) {
    let path = format!("/proc/{}/comm", child.id());
    while fs::read_to_string(&path).is_ok_and(|name| name.trim() != "sleep") {
        std::hint::spin_loop();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed()).expect("a pid")
}
