//! One declared process: its life, its living instance, and who waits for what.

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;
use tracing::Span;
use uuid::Uuid;

use super::vigil::Remains;
use crate::{
    config::{ProcessConfig, ReadyWhen},
    life::{Life, Rules},
    os::{Instance, Launch, Tree},
    process::{ExitReport, Leftover, Observed, Sight, Sockets},
    stop,
};

/// One declared process.
pub(super) struct Slot {
    /// How it is declared.
    pub config: ProcessConfig,
    /// Where it is in its life.
    pub life: Life,
    /// How many instances of it were ever started.
    pub generation: u64,
    /// Its living instance.
    pub alive: Option<Alive>,
    /// When it was last alive.
    pub last_active: Option<Timestamp>,
    /// How its last instance ended.
    pub last_exit: Option<ExitReport>,
    /// What outlived its last stop.
    pub leftovers: Vec<Leftover>,
    /// How many more did.
    pub unnamed: usize,
    /// Operations that wait for it to be gone.
    pub stops: Vec<Uuid>,
    /// Operations that wait for it to run.
    pub starts: Vec<Uuid>,
    /// The number of the last order that named it.
    pub latest: u64,
    /// The trace of the order on whose behalf something is done to it.
    pub span: Span,
    /// What a person should know of the instance when it has ended.
    pub notes: Vec<String>,
    /// What remains of the instance that has just ended.
    pub remains: Remains,
    /// When it is started again, where it is in back-off.
    pub next_start: Option<Timestamp>,
    /// Settings that could not be applied to the living instance.
    pub not_applied: Vec<String>,
    /// How it was last shown.
    pub shown: Option<Observed>,
    /// Whether the instance that is being made was begun with settings that differ by now.
    pub outdated: bool,
    log_file_pattern: String,
}

/// A living instance.
pub(super) struct Alive {
    /// Its identity.
    pub instance: Instance,
    /// All its processes.
    pub tree: Arc<dyn Tree>,
    /// How it was last seen.
    pub sight: Sight,
    /// On which it was last seen to listen, for the task that waits for its end.
    pub sockets: Arc<Mutex<Sockets>>,
    /// Where its output begins, as far as that is known.
    pub output_from: u64,
    /// The task that waits for its end, and ends with it.
    pub _vigil: AbortOnDropHandle<()>,
    /// It has said that it is ready.
    pub said_ready: Arc<Notify>,
    /// The task that finds out whether it is ready, or works.
    pub probe: Option<AbortOnDropHandle<()>>,
}

impl Slot {
    /// A process of which nothing is known to be alive.
    pub(super) fn new(config: ProcessConfig, log: &Path, desired: bool) -> Self {
        let rules = Rules::from(&config);
        Self {
            log_file_pattern: log_file_pattern(&config, log),
            life: Life::stopped(rules, desired),
            config,
            generation: 0,
            alive: None,
            last_active: None,
            last_exit: None,
            leftovers: Vec::new(),
            unnamed: 0,
            stops: Vec::new(),
            starts: Vec::new(),
            latest: 0,
            span: Span::none(),
            notes: Vec::new(),
            remains: Remains::default(),
            next_start: None,
            not_applied: Vec::new(),
            shown: None,
            outdated: false,
        }
    }

    /// Declares it anew, whatever it does now.
    pub(super) fn reconfigure(&mut self, config: ProcessConfig, log: &Path) {
        self.log_file_pattern = log_file_pattern(&config, log);
        self.life.follow(Rules::from(&config));
        self.config = config;
    }

    /// The longest that a stop of it takes.
    pub(super) fn stop_budget(&self) -> Duration {
        self.life.rules().stop_budget() + stop::MARGIN
    }

    /// The longest that a start of it takes.
    pub(super) fn start_budget(&self) -> Duration {
        self.life.rules().start_budget() + stop::MARGIN
    }

    /// How its next instance is started.
    pub(super) fn launch(&self, generation: u64, log: &Path, notify: Option<&Path>) -> Launch {
        let says_ready = matches!(&self.config.ready, Some(ready) if ready.when == ReadyWhen::Notify);
        let config = &self.config;
        Launch {
            alias: config.alias.clone(),
            generation,
            command: config.command.clone(),
            args: config.args.clone(),
            cwd: config.cwd.clone(),
            user: config.user.clone(),
            group: config.group.clone(),
            umask: config.umask.bits(),
            nice: config.nice.get(),
            oom_score_adj: config.oom_score_adj.get(),
            rlimits: config.rlimits.clone(),
            limits: config.cgroup,
            environment: config.environment.clone(),
            inherit: config.inherit.clone(),
            notify: notify.filter(|_| says_ready).map(Path::to_owned),
            log: log.join(format!("{}.log", config.alias)),
        }
    }

    /// How it is now.
    pub(super) fn observe(&self, revision: u64, date: Timestamp) -> Observed {
        Observed {
            alias: self.config.alias.clone(),
            revision,
            phase: self.life.phase(),
            desired_running: self.life.desired(),
            sight: self.alive.as_ref().map(|alive| alive.sight.clone()),
            last_active: match self.alive {
                Some(_) => Some(date),
                None => self.last_active,
            },
            operable: self.config.operable,
            log_file_pattern: self.log_file_pattern.clone(),
            generation: self.generation,
            last_exit: self.last_exit.clone(),
            leftovers: self.leftovers.clone(),
            stop_budget: self.stop_budget(),
            start_budget: self.start_budget(),
            trouble: self.life.trouble().to_owned(),
            next_start: self.next_start.filter(|_| self.life.next_start().is_some()),
            endings: self.life.endings(),
            grouped: self.alive.as_ref().is_some_and(|alive| alive.instance.cgroup.is_some()),
            not_applied: self.not_applied.clone(),
        }
    }

    /// Notes why the journal could not be written, once.
    pub(super) fn note_fault(&mut self, fault: Option<&str>) {
        if let Some(fault) = fault
            && !self.notes.iter().any(|note| note == fault)
        {
            self.notes.push(fault.to_owned());
        }
    }
}

fn log_file_pattern(config: &ProcessConfig, log: &Path) -> String {
    let output = || log.join(format!("{}.log*", config.alias)).display().to_string();
    config.log_file_pattern.clone().unwrap_or_else(output)
}

/// What is known of an instance before anybody has looked at it.
pub(super) fn unseen(instance: &Instance) -> Sight {
    Sight {
        pid: instance.pid,
        user: String::new(),
        command: String::new(),
        ports: String::new(),
        start_time: instance.started,
        sockets: Sockets::new(),
        memory: 0,
    }
}
