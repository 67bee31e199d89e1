//! How a process takes its shape on.

use std::{
    fs,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::{Command, exit},
    thread,
    time::Duration,
};

use belay_tests::{GRACE, cgroup_mount};
use procfs::process::{ProcState, Process};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Gid, Pid, PidfdFlags, Signal, Uid, WaitId, WaitIdOptions, getpid, getppid, kill_process, pidfd_open,
        set_child_subreaper, setsid, waitid,
    },
    thread::{set_name, set_thread_res_gid, set_thread_res_uid},
};

use crate::{
    AtTerm::{self, Begin, End, EndAfter, LiveOn},
    Victim, raw,
};

impl Victim {
    /// Takes the shape on, and says what to do at SIGTERM; or is of that shape to the end, and never returns.
    pub(crate) fn take_shape(&self) -> io::Result<AtTerm> {
        // A part may say more, after a colon.
        let (shape, more) = self.shape.split_once(':').unwrap_or((&self.shape, ""));
        match shape {
            // One process.
            "plain" => Ok(End),
            "deaf" => Ok(LiveOn),
            "slow" => Ok(EndAfter(Duration::from_secs(2))),
            "last-moment" => Ok(EndAfter(GRACE.saturating_sub(Duration::from_millis(1)))),
            "blocked" => {
                raw::block_all();
                self.begin_and_sleep()
            }
            "ignoring" => {
                raw::ignore_all();
                self.begin_and_sleep()
            }
            "closes-all" => {
                raw::close_all();
                Ok(LiveOn)
            }
            "crash-loop" => self.begin_and_exit(1),
            "brief" => self.begin_and_exit(0),
            "flood" => self.flood(),
            "talker" => self.talk(),
            "main-thread-gone" => self.end_main_thread(),

            // One process that is called by other names.
            "renamed" => Err(self.go_on_as("misnamed", "belay) Z 1 1 (\n\t) R 1")),
            "misnamed" => {
                set_name(c"a) Z 1 (b\nc) R")?;
                Ok(End)
            }
            "exec-chain" => Err(self.go_on_as("link:5", "another")),
            "link" if more == "0" => Ok(End),
            "link" => Err(self.go_on_as(&format!("link:{}", number(more)? - 1), "another")),

            // Processes that are held.
            "stopped" => {
                self.begin("watcher")?;
                self.stop_itself()
            }
            "watcher" => wait_until_stopped(getppid()),
            "stopped-child" => {
                let child = Pid::from_child(&self.begin("stops-itself")?);
                waitid(WaitId::Pid(child), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT)?;
                Ok(End)
            }
            "stops-itself" => self.stop_itself(),
            "traced-child" => self.trace_child(),
            "vfork" => {
                self.note_begin()?;
                raw::begin_in_same_memory(|| self.note("begin").map_or(1, |()| self.sleep()))?;
                Ok(End)
            }

            // Families.
            "children" => self.with_many(20, "plain"),
            "zombies" => self.with_many(20, "brief"),
            "deep" => self.with("below:5"),
            "below" if more == "1" => Ok(LiveOn),
            "below" => self.with(&format!("below:{}", number(more)? - 1)).and(Ok(LiveOn)),
            "own-group" => self.with_changed("deaf", |child| child.process_group(0)),
            "setsid-child" => self.with("leader"),
            "leader" => {
                setsid()?;
                Ok(LiveOn)
            }
            "wiped-environment" => self.with_changed("leader", Command::env_clear),
            "leader-gone" => {
                self.begin("deaf")?;
                self.begin_and_exit(0)
            }
            "other-user" => {
                self.begin("deaf")?;
                self.note_begin()?;
                become_nobody()?;
                Ok(End)
            }
            "pid-namespace" => {
                raw::begin_children_in_new_pid_namespace()?;
                self.with("its-init")
            }
            "its-init" => self.with("deaf").and(Ok(LiveOn)),
            "defector" => self.with("defecting"),
            "defecting" => {
                setsid()?;
                leave_cgroup()?;
                Ok(LiveOn)
            }

            // Families with orphans.
            "double-fork" => self.with_orphan("fork:leader"),
            "daemon" => self.with_orphan("setsid-fork:deaf"),
            "holds-output" => self.with_orphan("setsid-fork:writer"),
            "ghost" => {
                self.part("setsid-fork:deaf")?.env_clear().status()?;
                Ok(End)
            }
            "subreaper" => {
                set_child_subreaper(Some(getpid()))?;
                (0..3).try_for_each(|_| self.with_orphan("setsid-fork:deaf").map(drop))?;
                Ok(End)
            }
            "fork" => {
                self.begin(more)?;
                exit(0)
            }
            "setsid-fork" => {
                setsid()?;
                self.begin(more)?;
                exit(0)
            }
            "writer" => self.write_for_ever(),

            // Families that grow while they are killed.
            "forks-at-term" => Ok(Begin("leader")),
            "fork-race" => self.fork_for_ever(),
            "runner" => self.run_away(),
            "hydra" => {
                let head = self.begin(&format!("head:{}", getpid()))?;
                self.begin_again_for_ever(Pid::from_child(&head))
            }
            "head" => {
                setsid()?;
                let other = Pid::from_raw(number(more)?).ok_or(io::ErrorKind::InvalidInput)?;
                self.begin_again_for_ever(other)
            }
            _ => Err(io::Error::other(format!("there is no shape `{shape}`"))),
        }
    }

    fn begin_and_exit(&self, code: i32) -> ! {
        // Where nothing can be noted, nobody looks any more.
        let _ = self.note_begin();
        exit(code)
    }

    fn begin_and_sleep(&self) -> io::Result<AtTerm> {
        self.note_begin()?;
        self.sleep()
    }

    fn with(&self, part: &str) -> io::Result<AtTerm> {
        self.with_many(1, part)
    }

    fn with_many(&self, count: usize, part: &str) -> io::Result<AtTerm> {
        (0..count).try_for_each(|_| self.begin(part).map(drop))?;
        Ok(End)
    }

    fn with_changed(
        &self,
        part: &str,
        change: impl FnOnce(&mut Command) -> &mut Command,
    ) -> io::Result<AtTerm> {
        change(&mut self.part(part)?).spawn()?;
        Ok(End)
    }

    /// Waits for the child that begins the orphan.
    fn with_orphan(&self, part: &str) -> io::Result<AtTerm> {
        self.part(part)?.status()?;
        Ok(End)
    }

    fn stop_itself(&self) -> io::Result<AtTerm> {
        self.note_begin()?;
        kill_process(getpid(), Signal::STOP)?;
        Ok(End)
    }

    /// The thread that is left can tell when the main thread has ended, which is shown as a zombie then.
    fn end_main_thread(&self) -> ! {
        let victim = self.clone();
        thread::spawn(move || {
            let alive = || matches!(state_of(getpid()), Ok(state) if state != ProcState::Zombie);
            while alive() {
                thread::sleep(MOMENT);
            }
            let _ = victim.note_begin().and_then(|()| victim.live(&LiveOn));
            exit(0)
        });
        raw::end_thread()
    }

    fn trace_child(&self) -> io::Result<AtTerm> {
        let child = Pid::from_child(&self.begin("deaf")?);
        let begun = format!("begin {} ", child.as_raw_nonzero());
        while !fs::read_to_string(&self.ledger).is_ok_and(|text| text.contains(&begun)) {
            self.pause(MOMENT);
        }
        raw::trace_and_hold(child)?;
        Ok(LiveOn)
    }

    fn flood(&self) -> io::Result<AtTerm> {
        self.note_begin()?;
        let mut burst = BURST;
        while !raw::wait_for_sigterm(if burst > 0 { Duration::ZERO } else { 5 * MOMENT }) {
            self.end_without_ledger();
            io::stdout().write_all(&[b'\n'; BLOCK])?;
            burst = burst.saturating_sub(BLOCK);
        }
        self.note("SIGTERM")?;
        exit(0)
    }

    /// Prints a numbered line every 10 milliseconds.
    fn talk(&self) -> io::Result<AtTerm> {
        self.note_begin()?;
        for number in 0_u64.. {
            if raw::wait_for_sigterm(Duration::from_millis(10)) {
                break;
            }
            self.end_without_ledger();
            writeln!(io::stdout(), "line {number}")?;
        }
        self.note("SIGTERM")?;
        exit(0)
    }

    fn write_for_ever(&self) -> ! {
        let _ = self.note_begin();
        loop {
            // Whoever read it may be gone.
            let _ = io::stdout().write_all(b"still here\n");
            self.pause(20 * MOMENT);
        }
    }

    /// As fast as a machine bears that has others to serve.
    fn fork_for_ever(&self) -> io::Result<AtTerm> {
        raw::forget_children();
        self.note_begin()?;
        for count in 0_u32.. {
            if raw::fork()? == raw::Copy::Child {
                if count % 8 != 0 || count > 256 {
                    self.pause(5 * MOMENT);
                    exit(0);
                }
                if count % 16 == 0 {
                    setsid()?;
                }
                self.note("begin")?;
                self.sleep();
            }
            self.pause(2 * MOMENT);
        }
        Ok(LiveOn)
    }

    fn run_away(&self) -> io::Result<AtTerm> {
        self.note_begin()?;
        loop {
            self.pause(5 * MOMENT);
            if raw::fork()? == raw::Copy::Parent {
                exit(0);
            }
        }
    }

    fn begin_again_for_ever(&self, mut other: Pid) -> io::Result<AtTerm> {
        raw::forget_children();
        self.note_begin()?;
        loop {
            if let Ok(held) = pidfd_open(other, PidfdFlags::empty()) {
                let mut ended = [PollFd::new(&held, PollFlags::IN)];
                while poll(&mut ended, Some(&Timespec { tv_sec: 5, tv_nsec: 0 }))? == 0 {
                    self.end_without_ledger();
                }
            }
            self.end_without_ledger();
            other = Pid::from_child(&self.begin(&format!("head:{}", getpid()))?);
        }
    }

    fn pause(&self, pause: Duration) {
        thread::sleep(pause);
        self.end_without_ledger();
    }
}

fn number(text: &str) -> io::Result<i32> {
    text.parse().map_err(io::Error::other)
}

fn state_of(pid: Pid) -> io::Result<ProcState> {
    let stat = Process::new(pid.as_raw_nonzero().get()).and_then(|process| process.stat());
    stat.and_then(|stat| stat.state()).map_err(io::Error::other)
}

fn wait_until_stopped(pid: Option<Pid>) -> io::Result<AtTerm> {
    while state_of(pid.ok_or(io::ErrorKind::NotFound)?)? != ProcState::Stopped {
        thread::sleep(MOMENT);
    }
    Ok(End)
}

fn become_nobody() -> io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_res_gid(group, group, group)?;
    Ok(set_thread_res_uid(user, user, user)?)
}

fn leave_cgroup() -> io::Result<()> {
    let mount = cgroup_mount().ok_or(io::ErrorKind::NotFound)?;
    fs::write(mount.join("cgroup.procs"), "0")
}

const MOMENT: Duration = Duration::from_millis(1);
const BLOCK: usize = 4096;
const BURST: usize = 2 << 20;
const NOBODY: u32 = 65534;
