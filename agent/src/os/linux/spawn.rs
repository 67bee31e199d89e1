//! How an instance comes to be.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use rustix::process::{Gid, Uid, geteuid};
use uzers::os::unix::UserExt;

use super::{
    Linux,
    cgroup::Cgroup,
    grouped::Grouped,
    pidfd::Pidfd,
    proc::{self, Stat},
    raw::{self, Entry, UserIds},
    reap,
};
use crate::{
    os::{Instance, Launch, Os, StartError, Started, Tree},
    output::open_for_process,
};

/// Variables of the agent's own environment that its processes get too. Nothing else of it does.
const INHERITED: &[&str] = &["PATH", "LANG", "LC_ALL", "TZ"];

/// What `PATH` is where the agent has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts an instance.
pub(super) fn start(linux: &Linux, launch: &Launch) -> Result<Started, StartError> {
    let user = launch.user.as_deref().map(User::find).transpose()?;
    if !launch.cwd.is_dir() {
        return Err(StartError::Folder { path: launch.cwd.clone() });
    }
    let mut command = Command::new(&launch.command);
    command.args(&launch.args).current_dir(&launch.cwd).env_clear().envs(environment(
        linux,
        launch,
        user.as_ref(),
    ));
    let log = open_log(launch)?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(|source| log_error(launch, source))?)
        .stderr(log);
    let group = make_group(linux, launch)?;
    match run(command, user, group.as_ref(), launch) {
        Ok((main, stat)) => {
            let (instance, tree) = identify(linux, launch, main, stat, group);
            Ok(Started { instance, tree, not_applied: Vec::new() })
        }
        Err(error) => {
            if let Some(group) = group {
                let _ = group.kill();
                let _ = group.remove();
            }
            Err(error)
        }
    }
}

fn run(
    mut command: Command,
    user: Option<User>,
    group: Option<&Cgroup>,
    launch: &Launch,
) -> Result<(Pidfd, Stat), StartError> {
    let cgroup =
        group.map(|group| group.procs_file().map_err(|source| cgroup_error(group, source))).transpose()?;
    let user = user.and_then(|user| user.ids);
    raw::enter(&mut command, Entry { cgroup, user });
    let pid_of = |child: &Child| i32::try_from(child.id()).unwrap_or_default();
    let mut child = reap::making(|| command.spawn(), pid_of)
        .map_err(|source| StartError::Exec { command: launch.command.clone(), source })?;
    let pid = pid_of(&child);
    // Nobody else waits for it, so its pid is its own until it is held.
    match (Pidfd::open(pid), Stat::read(pid)) {
        (Ok(Some(main)), Ok(Some(stat))) => Ok((main, stat)),
        _ => {
            let _ = child.kill();
            let _ = child.wait();
            reap::release(pid);
            Err(StartError::Lost { pid })
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
    let instance = Instance {
        alias: launch.alias.clone(),
        generation: launch.generation,
        boot_id: linux.boot_id().to_owned(),
        pid: stat.pid,
        ticks: stat.ticks,
        started: proc::start_date(stat.ticks, linux.now(), linux.date()),
        cgroup: group.as_ref().map(|group| group.path().to_owned()),
    };
    let tree: Arc<dyn Tree> = match group {
        Some(group) => Arc::new(Grouped::new(group, Some(main), instance.started)),
        None => Arc::new(linux.walked(&instance, Some(main))),
    };
    (instance, tree)
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

/// The user that a process becomes.
struct User {
    name: OsString,
    home: PathBuf,
    shell: PathBuf,
    /// `None` where it is the agent's own.
    ids: Option<UserIds>,
}

impl User {
    fn find(name: &str) -> Result<Self, StartError> {
        let unknown = || StartError::UserUnknown { user: name.to_owned() };
        let user = uzers::get_user_by_name(name).ok_or_else(unknown)?;
        let own = geteuid();
        let ids = if own.as_raw() == user.uid() {
            None
        } else if own.is_root() {
            let gid = user.primary_group_id();
            let groups = uzers::get_user_groups(name, gid).ok_or_else(unknown)?;
            Some(UserIds {
                uid: Uid::from_raw(user.uid()),
                gid: Gid::from_raw(gid),
                groups: groups.iter().map(|group| Gid::from_raw(group.gid())).collect(),
            })
        } else {
            return Err(StartError::NotRoot { user: name.to_owned() });
        };
        Ok(Self {
            name: user.name().to_owned(),
            home: user.home_dir().to_owned(),
            shell: user.shell().to_owned(),
            ids,
        })
    }
}

/// Hazard P34: what a process gets is listed here, and nothing of the agent's own leaks into it.
fn environment(linux: &Linux, launch: &Launch, user: Option<&User>) -> BTreeMap<OsString, OsString> {
    let mut environment = BTreeMap::from([("PATH".into(), PATH.into())]);
    for name in INHERITED {
        environment.extend(std::env::var_os(name).map(|value| (name.into(), value)));
    }
    let own = uzers::get_user_by_uid(geteuid().as_raw());
    let (name, home, shell) = match (user, &own) {
        (Some(user), _) => (Some(user.name.clone()), Some(&*user.home), Some(&*user.shell)),
        (None, Some(own)) => (Some(own.name().to_owned()), Some(own.home_dir()), Some(own.shell())),
        (None, None) => (None, None, None),
    };
    environment.extend(name.clone().map(|name| ("USER".into(), name)));
    environment.extend(name.map(|name| ("LOGNAME".into(), name)));
    environment.extend(home.map(|home| ("HOME".into(), home.into())));
    environment.extend(shell.map(|shell| ("SHELL".into(), shell.into())));
    environment.extend(launch.environment.iter().map(|(k, v)| (k.into(), v.into())));
    let (name, value) = linux.mark(&launch.alias, launch.generation);
    environment.insert(name.into(), value.into());
    environment
}
