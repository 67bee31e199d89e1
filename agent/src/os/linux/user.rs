//! Who a process becomes, and the environment that it gets.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use rustix::process::{Gid, Uid, getegid, geteuid};
use uzers::os::unix::UserExt;

use super::{Linux, raw::UserIds};
use crate::os::{Launch, StartError};

/// Variables of the agent's own environment that its processes get too. Nothing else of it does.
const INHERITED: &[&str] = &["PATH", "LANG", "LC_ALL", "TZ"];

/// What `PATH` is where the agent has none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The user that a process becomes.
pub(super) struct User {
    name: OsString,
    home: PathBuf,
    shell: PathBuf,
}

impl User {
    /// The user of an instance, and the numbers to become where they are not the agent's own.
    pub(super) fn of(launch: &Launch) -> Result<(Option<Self>, Option<UserIds>), StartError> {
        let own = geteuid();
        let user = match &launch.user {
            Some(name) => {
                let unknown = || StartError::UserUnknown { user: name.clone() };
                Some(uzers::get_user_by_name(name).ok_or_else(unknown)?)
            }
            None => uzers::get_user_by_uid(own.as_raw()),
        };
        let group = match &launch.group {
            Some(name) => {
                let unknown = || StartError::GroupUnknown { group: name.clone() };
                Some(uzers::get_group_by_name(name).ok_or_else(unknown)?.gid())
            }
            None => None,
        };
        let uid = user.as_ref().map_or(own.as_raw(), uzers::User::uid);
        let told = user.as_ref().map(|user| Self {
            name: user.name().to_owned(),
            home: user.home_dir().to_owned(),
            shell: user.shell().to_owned(),
        });
        let is_own_group = group.is_none_or(|group| group == getegid().as_raw());
        if uid == own.as_raw() && is_own_group {
            return Ok((told, None));
        }
        if !own.is_root() {
            let other = launch.user.clone().filter(|_| uid != own.as_raw());
            let group = launch.group.clone().unwrap_or_default();
            return Err(match other {
                Some(user) => StartError::NotRoot { user },
                None => StartError::NotRootForGroup { group },
            });
        }
        let gid = group.or(user.as_ref().map(uzers::User::primary_group_id)).unwrap_or(getegid().as_raw());
        let groups = user.and_then(|user| uzers::get_user_groups(user.name(), gid)).unwrap_or_default();
        let groups = groups.iter().map(|group| Gid::from_raw(group.gid())).collect();
        Ok((told, Some(UserIds { uid: Uid::from_raw(uid), gid: Gid::from_raw(gid), groups })))
    }
}

/// Hazard P34: what a process gets is listed here, and nothing of the agent's own leaks into it.
pub(super) fn environment(
    linux: &Linux,
    launch: &Launch,
    user: Option<&User>,
) -> BTreeMap<OsString, OsString> {
    let mut environment = BTreeMap::from([("PATH".into(), PATH.into())]);
    let inherit = |environment: &mut BTreeMap<OsString, OsString>, name: &str| {
        environment.extend(std::env::var_os(name).map(|value| (name.into(), value)));
    };
    INHERITED.iter().for_each(|name| inherit(&mut environment, name));
    if let Some(User { name, home, shell }) = user {
        environment.extend([
            ("USER".into(), name.clone()),
            ("LOGNAME".into(), name.clone()),
            ("HOME".into(), home.into()),
            ("SHELL".into(), shell.into()),
        ]);
    }
    launch.inherit.iter().for_each(|name| inherit(&mut environment, name));
    environment.extend(launch.environment.iter().map(|(k, v)| (k.into(), v.into())));
    environment.extend(launch.notify.iter().map(|socket| ("NOTIFY_SOCKET".into(), socket.into())));
    let (name, value) = linux.mark(&launch.alias, launch.generation);
    environment.insert(name.into(), value.into());
    environment
}
