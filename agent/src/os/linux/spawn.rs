//! How an instance comes to be, and a helper in it.

use std::{
    fs::File,
    io,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use rustix::process::{Resource, Rlimit as Limit, getrlimit};
use tracing::warn;

use super::{
    Linux,
    census::number_of,
    cgroup::{self, Cgroup},
    core_dumps, fds,
    pidfd::Pidfd,
    proc::{self, Stat},
    raw::{self, Entry, Step},
    reap,
    user::{User, environment},
    walked::{EXEC, ROUNDS},
};
use crate::{
    config::{Rlimit, RlimitName},
    os::{BoxFuture, Helper, Instance, Launch, Os, StartError, Started, Tracker, Tree},
    output::open_for_process,
    process::Exit,
    signal::Signal,
};

/// Starts an instance.
pub(super) fn start(linux: &Linux, launch: &Launch) -> Result<Started, StartError> {
    let group = make_group(linux, launch)?;
    let mut not_applied = limit(linux, launch, group.as_ref());
    match begin(linux, launch, group.as_ref(), &mut not_applied) {
        Ok((main, stat)) => {
            let (instance, tree) = identify(linux, launch, main, stat, group);
            Ok(Started { instance, tree, not_applied })
        }
        Err(error) => {
            match error {
                // It ran, for a moment.
                StartError::Unidentified { .. } | StartError::Lost { .. } => end(linux, launch, group),
                _ => group.into_iter().for_each(|group| drop(group.remove())),
            }
            Err(error)
        }
    }
}

/// Ends whatever a program has begun that could not be held.
fn end(linux: &Linux, launch: &Launch, group: Option<Cgroup>) {
    // Its pid means nothing any more: its members are known by the cgroup and the mark.
    let instance = instance_of(linux, launch, (i32::MAX, 0), group.as_ref());
    let tree: Arc<dyn Tree> = match group {
        Some(group) => Arc::new(linux.grouped(&instance, group, None, true)),
        None => Arc::new(linux.walked(&instance, None)),
    };
    for _ in 0..ROUNDS {
        let _ = tree.kill();
        if tree.is_empty() {
            return tree.release();
        }
        thread::sleep(EXEC);
    }
    warn!(alias = %launch.alias, "What is left of a process that could not be held is not gone.");
}

/// Runs a helper in the tree of an instance.
pub(super) fn run(
    linux: &Linux,
    instance: &Instance,
    launch: &Launch,
) -> Result<Box<dyn Helper>, StartError> {
    let group = linux.group_of(instance);
    let (helper, _) = begin(linux, launch, group.as_ref(), &mut Vec::new())?;
    Ok(Box::new(Running(helper)))
}

/// A helper that was started.
struct Running(Pidfd);

impl Helper for Running {
    fn ended(&self) -> BoxFuture<'_, Exit> {
        Box::pin(async { self.0.ending().await.exit })
    }

    fn kill(&self) {
        // It was gone, or nothing can be done about it that the stop of its instance does not do.
        let _ = self.0.send(Signal::KILL);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // From here on its status is the reaper's to take, if it is not there yet.
        self.0.collect();
    }
}

/// Starts a program as a member of this cgroup.
fn begin(
    linux: &Linux,
    launch: &Launch,
    group: Option<&Cgroup>,
    not_applied: &mut Vec<String>,
) -> Result<(Pidfd, Stat), StartError> {
    if let Some(free) = fds::too_few_are_free() {
        return Err(StartError::Descriptors { free });
    }
    let (user, ids) = User::of(launch)?;
    if !launch.cwd.is_dir() {
        return Err(StartError::Folder { path: launch.cwd.clone() });
    }
    let environment = environment(linux, launch, user.as_ref());
    let rlimits = rlimits(linux, launch);
    let (mut nice, mut oom_score_adj) = (Some(launch.nice), Some(launch.oom_score_adj.to_string()));
    loop {
        let log = open_log(launch)?;
        let mut command = Command::new(&launch.command);
        command
            .args(&launch.args)
            .current_dir(&launch.cwd)
            .env_clear()
            .envs(&environment)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|source| log_error(launch, source))?)
            .stderr(log);
        let cgroup = group.map(|group| group.procs_file().map_err(|source| cgroup_error(group, source)));
        let entry = Entry {
            cgroup: cgroup.transpose()?,
            umask: launch.umask,
            rlimits: rlimits.iter().map(|(_, resource, limit)| (*resource, *limit)).collect(),
            nice,
            oom_score_adj: oom_score_adj.clone(),
            user: ids.clone(),
        };
        raw::enter(&mut command, entry);
        let error = match spawn(&mut command)? {
            Ok(begun) => return Ok(begun),
            Err(error) => error,
        };
        let (step, source) = Step::of(error);
        match (step, group) {
            // It is run all the same, but a person is told.
            (Step::Nice, _) => {
                not_applied.extend(nice.take().map(|nice| refused(&format!("nice {nice}"), &source)))
            }
            (Step::OomScore, _) => {
                let told = |score| refused(&format!("oom_score_adj {score}"), &source);
                not_applied.extend(oom_score_adj.take().map(told));
            }
            (Step::Rlimit(place), _) => {
                let name = rlimits.get(place).map_or("", |(name, ..)| name);
                return Err(StartError::Rlimit { name, source });
            }
            (Step::Cgroup, Some(group)) => return Err(cgroup_error(group, source)),
            (Step::User, _) => return Err(StartError::Become { source }),
            (Step::Cgroup | Step::Session | Step::Exec, _) => {
                return Err(StartError::Exec { command: launch.command.clone(), source });
            }
        }
    }
}

/// Makes the process, and takes hold of it. The inner error is that of a step on its way to the program.
fn spawn(command: &mut Command) -> Result<io::Result<(Pidfd, Stat)>, StartError> {
    let pid_of = |child: &Child| i32::try_from(child.id()).unwrap_or_default();
    let mut child = match reap::making(|| command.spawn(), pid_of) {
        Ok(child) => child,
        Err(error) => return Ok(Err(error)),
    };
    let pid = pid_of(&child);
    // Nobody else waits for it, so its pid is its own until it is held.
    let held = Pidfd::open(pid).and_then(|main| Ok(main.zip(fds::reserved(|| Stat::read(pid))?)));
    match held {
        Ok(Some((main, stat))) => Ok(Ok((main.holding(), stat))),
        held => {
            let _ = child.kill();
            let _ = child.wait();
            reap::release(pid);
            Err(match held {
                Err(source) => StartError::Unidentified { pid, source },
                Ok(_) => StartError::Lost { pid },
            })
        }
    }
}

fn identify(
    linux: &Linux,
    launch: &Launch,
    main: Pidfd,
    stat: Stat,
    group: Option<Cgroup>,
) -> (Instance, Arc<dyn Tree>) {
    let number = main.number();
    let instance = Instance { number, ..instance_of(linux, launch, (stat.pid, stat.ticks), group.as_ref()) };
    let tree: Arc<dyn Tree> = match group {
        Some(group) => Arc::new(linux.grouped(&instance, group, Some(main), false)),
        None => Arc::new(linux.walked(&instance, Some(main))),
    };
    (instance, tree)
}

/// The instance with this main process, by its pid and the tick in which it began.
fn instance_of(linux: &Linux, launch: &Launch, (pid, ticks): (i32, u64), group: Option<&Cgroup>) -> Instance {
    Instance {
        alias: launch.alias.clone(),
        generation: launch.generation,
        boot_id: linux.boot_id().to_owned(),
        pid,
        ticks,
        number: None,
        started: proc::start_date(ticks, linux.now(), linux.date()),
        cgroup: group.map(|group| group.path().to_owned()),
    }
}

fn open_log(launch: &Launch) -> Result<File, StartError> {
    open_for_process(&launch.log).map_err(|source| log_error(launch, source))
}

fn log_error(launch: &Launch, source: io::Error) -> StartError {
    StartError::Log { path: launch.log.clone(), source }
}

fn make_group(linux: &Linux, launch: &Launch) -> Result<Option<Cgroup>, StartError> {
    let Some(cgroups) = &linux.cgroups else {
        return Ok(None);
    };
    let name = format!("{}.{}", launch.alias, launch.generation);
    let group = cgroups.instance(&name);
    if let Some(group) = &group {
        group.make().map_err(|source| cgroup_error(group, source))?;
    }
    Ok(group)
}

fn cgroup_error(group: &Cgroup, source: io::Error) -> StartError {
    StartError::Cgroup { path: group.dir().to_owned(), source }
}

/// Limits all processes of an instance together. Tells what could not be applied.
fn limit(linux: &Linux, launch: &Launch, group: Option<&Cgroup>) -> Vec<String> {
    match (&linux.cgroups, group, linux.tracker()) {
        (Some(cgroups), Some(group), _) => cgroups.limit(group, &launch.limits),
        (.., Tracker::Walk { why }) => cgroup::unlimited(&launch.limits, &why),
        (.., Tracker::Cgroup) => Vec::new(),
    }
}

fn refused(what: &str, source: &io::Error) -> String {
    match source.kind() {
        io::ErrorKind::PermissionDenied => format!("{what}: needs root"),
        _ => format!("{what}: {source}"),
    }
}

/// Hazard P36: the limits of each process, with their names. What this program raised for itself is not handed on.
fn rlimits(linux: &Linux, launch: &Launch) -> Vec<(&'static str, Resource, Limit)> {
    let mut limits = vec![
        ("nofile", Resource::Nofile, fds::original_limit()),
        ("core", Resource::Core, core_dumps::original_limit()),
    ];
    // Where this program has one itself, it can not give another one away for sure.
    if getrlimit(Resource::Locks).maximum.is_none() {
        let number = Some(number_of(&linux.entry(&launch.alias, launch.generation)));
        limits.push(("locks", Resource::Locks, Limit { current: number, maximum: number }));
    }
    let says = |limit| launch.rlimits.contains_key(&limit);
    limits.retain(|(name, ..)| match *name {
        "nofile" => !says(RlimitName::Nofile),
        "core" => !says(RlimitName::Core),
        _ => true,
    });
    limits.extend(launch.rlimits.iter().map(|(name, limit)| {
        let (name, resource) = match name {
            RlimitName::As => ("as", Resource::As),
            RlimitName::Core => ("core", Resource::Core),
            RlimitName::Cpu => ("cpu", Resource::Cpu),
            RlimitName::Data => ("data", Resource::Data),
            RlimitName::Fsize => ("fsize", Resource::Fsize),
            RlimitName::Memlock => ("memlock", Resource::Memlock),
            RlimitName::Nofile => ("nofile", Resource::Nofile),
            RlimitName::Nproc => ("nproc", Resource::Nproc),
            RlimitName::Stack => ("stack", Resource::Stack),
        };
        let limit = match limit {
            Rlimit::At(limit) => Some(*limit),
            Rlimit::Unlimited => None,
        };
        (name, resource, Limit { current: limit, maximum: limit })
    }));
    limits
}
