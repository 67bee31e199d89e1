//! The processes of awkward shapes that agents are given to stop. What each shape is is told here; the program `victim`
//! takes the shape on.

use std::time::Duration;

/// How long a victim has to end by itself, where tests are in a hurry.
pub const GRACE: Duration = Duration::from_millis(300);

/// A victim of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// The name of the shape.
    pub shape: &'static str,
    /// How many processes have begun, at the least, when it is complete.
    pub family: usize,
    /// How it ends when it is stopped.
    pub end: End,
    /// Whether it needs the rights of root.
    pub root: bool,
}

/// How a victim ends when it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, soon after SIGTERM.
    Asked,
    /// By SIGKILL alone.
    Killed,
    /// One or the other: this is a matter of moments.
    Either,
}

impl Victim {
    const fn new(shape: &'static str, family: usize, end: End) -> Self {
        Self { shape, family, end, root: false }
    }

    const fn of_root(self) -> Self {
        Self { root: true, ..self }
    }

    /// The victim of this shape.
    ///
    /// # Panics
    /// Where there is no such shape.
    pub fn of(shape: &str) -> Self {
        let all = VICTIMS.iter().chain(&[DEFECTOR, GHOST]);
        *all.into_iter()
            .find(|victim| victim.shape == shape)
            .unwrap_or_else(|| panic!("no victim has the shape `{shape}`"))
    }

    /// Whether it ends only when it is stopped.
    pub fn lasts(&self) -> bool {
        self.shape != "crash-loop"
    }

    /// Whether this user may have it.
    pub fn may_run(&self) -> bool {
        !self.root || rustix::process::geteuid().is_root()
    }
}

/// Every victim that must be proven gone, whatever finds its processes.
pub const VICTIMS: &[Victim] = &[
    // Ends at SIGTERM.
    Victim::new("plain", 1, End::Asked),
    // Notes SIGTERM, and lives on.
    Victim::new("deaf", 1, End::Killed),
    // Ends two seconds after SIGTERM.
    Victim::new("slow", 1, End::Killed),
    // Ends in the last moment of its grace.
    Victim::new("last-moment", 1, End::Either),
    // Has every signal blocked.
    Victim::new("blocked", 1, End::Killed),
    // Ignores every signal that can be ignored.
    Victim::new("ignoring", 1, End::Killed),
    // Has stopped itself by SIGSTOP. A child tells when.
    Victim::new("stopped", 2, End::Asked),
    // Has a child that has stopped itself.
    Victim::new("stopped-child", 2, End::Asked),
    // Has twenty children.
    Victim::new("children", 21, End::Asked),
    // Has descendants five deep, all but itself deaf.
    Victim::new("deep", 6, End::Killed),
    // Has a deaf child in a process group of its own.
    Victim::new("own-group", 2, End::Killed),
    // Has a deaf child in a session of its own.
    Victim::new("setsid-child", 2, End::Killed),
    // Its child begins a deaf grandchild in a session of its own and ends at once, so that it is nobody's.
    Victim::new("double-fork", 2, End::Killed),
    // The same by the book: first the session, then the second fork.
    Victim::new("daemon", 2, End::Killed),
    // Adopts its deaf grandchildren itself, as a subreaper.
    Victim::new("subreaper", 4, End::Killed),
    // Ends at once, its deaf child lives on.
    Victim::new("leader-gone", 2, End::Killed),
    // Its main thread has ended, another one lives on and is deaf.
    Victim::new("main-thread-gone", 1, End::Killed),
    // Begins a deaf child in a session of its own at SIGTERM, and ends.
    Victim::new("forks-at-term", 1, End::Killed),
    // Forks without end: short lives, and some long ones.
    Victim::new("fork-race", 8, End::Killed),
    // Forks and ends, and so does its child, without end: never long at one pid.
    Victim::new("runner", 1, End::Killed),
    // Two deaf processes in sessions of their own: each begins the other again when it ends.
    Victim::new("hydra", 2, End::Killed),
    // Writes a numbered line every ten milliseconds.
    Victim::new("talker", 1, End::Asked),
    // Writes without end.
    Victim::new("flood", 1, End::Asked),
    // A deaf grandchild in a session of its own holds its output, and writes to it.
    Victim::new("holds-output", 2, End::Killed),
    // Has closed all its descriptors.
    Victim::new("closes-all", 1, End::Killed),
    // Has a name and a command line that mislead whoever reads them from `/proc`.
    Victim::new("renamed", 1, End::Asked),
    // Has become another program several times.
    Victim::new("exec-chain", 1, End::Asked),
    // Has a deaf child in a session of its own, with an empty environment.
    Victim::new("wiped-environment", 2, End::Killed),
    // Has twenty children that have ended and for which nobody waits.
    Victim::new("zombies", 21, End::Asked),
    // Fails as soon as it runs: mostly it waits to be started again.
    Victim::new("crash-loop", 2, End::Either),
    // Waits in the kernel for a child that shares its memory and never becomes a program.
    Victim::new("vfork", 2, End::Killed),
    // Traces a child, which is held in the middle of its work; both are deaf.
    Victim::new("traced-child", 2, End::Killed),
    // Has become the user `nobody`, its deaf child has not.
    Victim::new("other-user", 2, End::Killed).of_root(),
    // Has a child that is the init of another pid namespace, which has a child of its own; both are deaf.
    Victim::new("pid-namespace", 3, End::Killed).of_root(),
];

/// Has a deaf child that moves itself to the root cgroup, where this may be done (hazard P07). No other supervisor is known
/// to hold it, so it is not one of [`VICTIMS`].
pub const DEFECTOR: Victim = Victim::new("defector", 2, End::Killed);

/// Has a deaf grandchild in a session of its own, an orphan with an empty environment: only the kernel knows whose it is.
pub const GHOST: Victim = Victim::new("ghost", 2, End::Killed);
