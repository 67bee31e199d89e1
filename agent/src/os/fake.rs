//! An operating system made of memory: it records signals, and its processes behave as a test says.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI32, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::Instant};

use super::{
    Accounts, Adoption, BoxFuture, Ending, Helper, Instance, Launch, Os, SignalError, StartError, Started,
    Tracker, Tree,
};
use crate::{
    process::{Alias, Exit, Leftover, Sight, Sockets},
    signal::Signal,
    stop::{Scope, Time},
};

/// How a process behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// It ends so long after the stop signal.
    EndsAfter(Duration),
    /// It ignores the stop signal.
    Ignores,
    /// Not even SIGKILL ends it.
    Undead,
    /// Nor any of its many children.
    Crowd,
    /// The system refuses to signal it.
    Foreign,
    /// It can not be started.
    Missing,
    /// It ends at once, with this code.
    EndsAtOnce(i32),
}

/// An operating system made of memory.
#[derive(Debug)]
pub(crate) struct FakeOs {
    began: Instant,
    boot_id: String,
    manners: Mutex<HashMap<Alias, Manners>>,
    helpers: Mutex<HashMap<PathBuf, (Duration, Exit)>>,
    helped: Mutex<Vec<PathBuf>>,
    open_ports: Mutex<BTreeSet<u16>>,
    memory: Arc<AtomicU64>,
    processes: Mutex<Vec<Arc<FakeTree>>>,
    signals: Signals,
    pids: AtomicI32,
}

type Signals = Arc<Mutex<Vec<(Time, i32, Signal)>>>;

/// A process of the fake.
#[derive(Debug)]
pub(crate) struct FakeTree {
    /// Its identity.
    pub instance: Instance,
    manners: Manners,
    exit: watch::Sender<Option<Exit>>,
    signals: Signals,
    memory: Arc<AtomicU64>,
    began: Instant,
}

impl FakeOs {
    /// A host that has just booted.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            boot_id: "boot-1".to_owned(),
            manners: Mutex::default(),
            helpers: Mutex::default(),
            helped: Mutex::default(),
            open_ports: Mutex::default(),
            memory: Arc::default(),
            processes: Mutex::default(),
            signals: Arc::default(),
            pids: AtomicI32::new(100),
        })
    }

    /// Says how the instances of a process behave that are started from now on.
    pub(crate) fn behave(&self, alias: &Alias, manners: Manners) {
        lock(&self.manners).insert(alias.clone(), manners);
    }

    /// Says how long a helper with this program runs, and how it ends.
    pub(crate) fn helper(&self, program: &str, takes: Duration, exit: Exit) {
        lock(&self.helpers).insert(program.into(), (takes, exit));
    }

    /// The programs of the helpers that were run.
    pub(crate) fn helped(&self) -> Vec<PathBuf> {
        lock(&self.helped).clone()
    }

    /// Says on which ports it is still listened when a process is gone.
    pub(crate) fn leave_open(&self, ports: &[u16]) {
        *lock(&self.open_ports) = ports.iter().copied().collect();
    }

    /// Says how much memory each process is seen to have.
    pub(crate) fn fill_memory(&self, bytes: u64) {
        self.memory.store(bytes, Ordering::Relaxed);
    }

    /// Every signal so far: when, to which pid, which.
    pub(crate) fn signals(&self) -> Vec<(Time, i32, Signal)> {
        lock(&self.signals).clone()
    }

    /// Every process ever started.
    pub(crate) fn processes(&self) -> Vec<Arc<FakeTree>> {
        lock(&self.processes).clone()
    }

    /// The last instance of a process.
    pub(crate) fn last(&self, alias: &Alias) -> Option<Arc<FakeTree>> {
        let all = self.processes();
        all.into_iter().rev().find(|tree| tree.instance.alias == *alias)
    }
}

impl FakeTree {
    /// Ends it.
    pub(crate) fn end(&self, exit: Exit) {
        self.exit.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(exit);
            first
        });
    }

    /// Whether it lives.
    pub(crate) fn is_alive(&self) -> bool {
        self.exit.borrow().is_none()
    }

    fn receive(&self, signal: Signal) -> Result<(), SignalError> {
        if self.manners == Manners::Foreign {
            return Err(SignalError {
                pid: self.instance.pid,
                signal,
                source: std::io::ErrorKind::PermissionDenied.into(),
            });
        }
        lock(&self.signals).push((self.began.elapsed(), self.instance.pid, signal));
        match (signal, self.manners) {
            (Signal::KILL, Manners::Undead | Manners::Crowd) => {}
            (Signal::KILL, _) => self.end(Exit::Signal(Signal::KILL)),
            (_, Manners::EndsAfter(Duration::ZERO)) => self.end(Exit::Signal(signal)),
            (_, Manners::EndsAfter(pause)) => {
                let exit = self.exit.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    exit.send_modify(|ended| {
                        ended.get_or_insert(Exit::Signal(signal));
                    });
                });
            }
            _ => {}
        }
        Ok(())
    }
}

impl Os for FakeOs {
    fn now(&self) -> Time {
        self.began.elapsed()
    }

    fn date(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::try_from(self.now()).unwrap()
    }

    fn boot_id(&self) -> &str {
        &self.boot_id
    }

    fn tracker(&self) -> Tracker {
        Tracker::Cgroup
    }

    fn start(&self, launch: &Launch) -> Result<Started, StartError> {
        let known = lock(&self.manners).get(&launch.alias).copied();
        let manners = known.unwrap_or(Manners::EndsAfter(Duration::ZERO));
        if manners == Manners::Missing {
            return Err(StartError::Exec {
                command: launch.command.clone(),
                source: std::io::ErrorKind::NotFound.into(),
            });
        }
        let pid = self.pids.fetch_add(1, Ordering::Relaxed);
        let instance = Instance {
            alias: launch.alias.clone(),
            generation: launch.generation,
            boot_id: self.boot_id.clone(),
            pid,
            ticks: 0,
            number: None,
            started: self.date(),
            cgroup: None,
        };
        let tree = Arc::new(FakeTree {
            instance: instance.clone(),
            manners,
            exit: watch::Sender::new(None),
            signals: self.signals.clone(),
            memory: self.memory.clone(),
            began: self.began,
        });
        if let Manners::EndsAtOnce(code) = manners {
            tree.end(Exit::Code(code));
        }
        lock(&self.processes).push(tree.clone());
        Ok(Started { instance, tree, not_applied: Vec::new() })
    }

    fn run(&self, _: &Instance, launch: &Launch) -> Result<Box<dyn Helper>, StartError> {
        let missing = || StartError::Exec {
            command: launch.command.clone(),
            source: std::io::ErrorKind::NotFound.into(),
        };
        let (takes, exit) = lock(&self.helpers).get(&launch.command).copied().ok_or_else(missing)?;
        lock(&self.helped).push(launch.command.clone());
        Ok(Box::new(FakeHelper { takes, exit }))
    }

    fn adopt(&self, instance: &Instance) -> Adoption {
        let known = self.processes().into_iter().find(|tree| tree.instance == *instance);
        match known {
            Some(tree) if tree.is_alive() => Adoption::Alive(tree),
            Some(_) | None => Adoption::Gone(Exit::Unknown),
        }
    }

    fn survey(&self) -> Vec<(Instance, Arc<dyn Tree>)> {
        let living = self.processes().into_iter().filter(|tree| tree.is_alive());
        living.map(|tree| (tree.instance.clone(), tree as Arc<dyn Tree>)).collect()
    }

    fn taken_back(&self) {}

    fn owner_of(&self, pid: i32) -> Option<(Alias, u64)> {
        let all = self.processes();
        let tree = all.iter().find(|tree| tree.instance.pid == pid)?;
        Some((tree.instance.alias.clone(), tree.instance.generation))
    }

    fn still_listening(&self, sockets: &Sockets) -> BTreeSet<u16> {
        let open = lock(&self.open_ports);
        sockets.values().copied().filter(|port| open.contains(port)).collect()
    }
}

/// A helper of the fake.
struct FakeHelper {
    takes: Duration,
    exit: Exit,
}

impl Helper for FakeHelper {
    fn ended(&self) -> BoxFuture<'_, Exit> {
        Box::pin(async {
            tokio::time::sleep(self.takes).await;
            self.exit
        })
    }

    fn kill(&self) {}
}

impl Tree for FakeTree {
    fn ask(&self, signal: Signal, _: Scope) -> Result<(), SignalError> {
        self.receive(signal)
    }

    fn kill(&self) -> Result<bool, SignalError> {
        let is_there = self.is_alive();
        self.receive(Signal::KILL).map(|()| is_there)
    }

    fn walks(&self) -> bool {
        false
    }

    fn is_empty(&self) -> bool {
        !self.is_alive()
    }

    fn main_ended(&self) -> BoxFuture<'_, Ending> {
        Box::pin(async {
            let mut exit = self.exit.subscribe();
            let ended = exit.wait_for(Option::is_some).await;
            let exit = ended.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown);
            Ending { exit, core_dumped: false, accounts: Accounts::default() }
        })
    }

    fn emptied(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            self.main_ended().await;
        })
    }

    fn look(&self) -> Option<Sight> {
        self.is_alive().then(|| Sight {
            pid: self.instance.pid,
            user: "fake".to_owned(),
            command: self.instance.alias.to_string(),
            ports: "8080".to_owned(),
            start_time: self.instance.started,
            sockets: Sockets::from([(1, 8080)]),
            memory: self.memory.load(Ordering::Relaxed),
        })
    }

    fn accounts(&self) -> Accounts {
        Accounts::default()
    }

    fn notes(&self) -> Vec<String> {
        Vec::new()
    }

    fn members(&self) -> Vec<Leftover> {
        let told = self.look().map(|sight| Leftover { pid: sight.pid, command: sight.command });
        let number = if self.manners == Manners::Crowd { 60 } else { 1 };
        told.into_iter().flat_map(|told| std::iter::repeat_n(told, number)).collect()
    }

    fn release(&self) {}
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
