//! `DIR/up.json`: how other programs find and call what `belay up --data DIR` runs.

use std::{
    fs::{self, File},
    io::ErrorKind,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use belay_proto::{Exit, open_private, replace_private};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::{credentials::Credentials, failure::Failure};

/// What `belay up` tells other programs.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UpFile {
    /// The address of the REST API: `http://HOST:PORT`.
    pub(crate) rest: String,
    /// The address of the gRPC API: `HOST:PORT`.
    pub(crate) grpc: String,
    /// The name of the first user.
    pub(crate) user: String,
    /// The password of that user.
    #[serde(deserialize_with = "secret")]
    pub(crate) password: SecretString,
    /// The id of this machine.
    pub(crate) host_id: i64,
    /// The authorities to believe, in PEM. `None` in what was written before TLS was spoken.
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
}

impl UpFile {
    /// Where it is.
    pub(crate) fn path(data: &Path) -> PathBuf {
        data.join("up.json")
    }

    /// Reads it, whether its writer still runs or not.
    pub(crate) fn load(data: &Path) -> Result<Self, Failure> {
        let path = Self::path(data);
        let text = fs::read_to_string(&path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => not_running(data),
            _ => Failure::caused(format!("cannot read `{}`", path.display()), &error),
        })?;
        serde_json::from_str(&text).map_err(|error| {
            Failure::caused(format!("`{}` is not what `belay up` writes", path.display()), &error)
        })
    }

    /// Reads it where its writer still runs. The port of one that does not may be anyone's by now, and would be sent the
    /// password.
    pub(crate) fn of_running(data: &Path) -> Result<Self, Failure> {
        let up = Self::load(data)?;
        match Lock::is_held(data) {
            true => Ok(up),
            false => Err(not_running(data)),
        }
    }

    /// Writes it, readable for its owner alone: whole or not at all.
    pub(crate) fn store(&self, data: &Path) -> Result<(), Failure> {
        let path = Self::path(data);
        let Self { rest, grpc, user, password, host_id, ca_file } = self;
        let password = password.expose_secret();
        let told = json!({
            "rest": rest, "grpc": grpc, "user": user, "password": password, "hostId": host_id, "caFile": ca_file
        });
        replace(&path, &format!("{told:#}\n"))
    }

    /// The first user's credentials.
    pub(crate) fn credentials(&self) -> Credentials {
        Credentials::Basic { user: self.user.clone(), password: self.password.clone() }
    }
}

/// Writes a file that is readable for its owner alone: whole or not at all.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    replace_private(path, text.as_bytes())
        .map_err(|error| Failure::caused(format!("cannot write `{}`", path.display()), &error))
}

/// Held by the one `belay up` of a folder for as long as it lives. The kernel lets go of it with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// How often taking it is tried, each 10 ms: a command that looks at it holds it for a moment.
    const ATTEMPTS: u32 = 20;

    /// Takes it, or says that another one has it.
    pub(crate) fn take(data: &Path) -> Result<Self, Failure> {
        let path = Self::path(data);
        let cannot = |error: &(dyn std::error::Error + 'static)| {
            Failure::caused(format!("cannot lock `{}`", path.display()), error)
        };
        let file = open_private(&path).map_err(|error| cannot(&error))?;
        for _ in 0..Self::ATTEMPTS {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _file: file }),
                Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(10)),
                Err(error) => return Err(cannot(&error)),
            }
        }
        let shown = data.display();
        Err(Failure::new(Exit::Conflict, format!("another `belay up` runs on `{shown}`")).hint(format!(
            "talk to it with `belay --data {shown} host list`, or take another folder with `--data DIR`"
        )))
    }

    /// Whether someone holds it.
    fn is_held(data: &Path) -> bool {
        let Ok(file) = File::open(Self::path(data)) else {
            return false;
        };
        matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::WOULDBLOCK))
    }

    fn path(data: &Path) -> PathBuf {
        data.join("up.lock")
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

fn not_running(data: &Path) -> Failure {
    let shown = data.display();
    Failure::unknown(format!("`belay up --data {shown}` is not running")).hint(format!(
        "start it with `belay up --data {shown}`, or name another server with `--server HOST:PORT`"
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sample() -> UpFile {
        UpFile {
            rest: "http://127.0.0.1:8080".to_owned(),
            grpc: "127.0.0.1:9440".to_owned(),
            user: "admin".to_owned(),
            password: "secret".to_owned().into(),
            host_id: 7,
            ca_file: Some("/data/server/pki/ca.pem".into()),
        }
    }

    #[test]
    fn only_its_owner_reads_it() {
        let dir = tempfile::tempdir().expect("a folder");
        sample().store(dir.path()).expect("stored");
        sample().store(dir.path()).expect("stored over the older one");
        let meta = fs::metadata(UpFile::path(dir.path())).expect("there");
        assert_eq!(meta.permissions().mode() & 0o777, 0o600);
        let read: serde_json::Value =
            serde_json::from_slice(&fs::read(UpFile::path(dir.path())).expect("read")).expect("JSON");
        assert_eq!(
            read,
            json!({"rest": "http://127.0.0.1:8080", "grpc": "127.0.0.1:9440", "user": "admin",
                   "password": "secret", "hostId": 7, "caFile": "/data/server/pki/ca.pem"})
        );
    }

    #[test]
    fn is_used_only_while_its_writer_lives() {
        let dir = tempfile::tempdir().expect("a folder");
        let told = |dir: &Path| UpFile::of_running(dir).map(|up| up.host_id).map_err(|failure| failure.exit);
        assert_eq!(told(dir.path()), Err(Exit::Unknown));
        let lock = Lock::take(dir.path()).expect("taken");
        sample().store(dir.path()).expect("stored");
        assert_eq!(told(dir.path()), Ok(7));
        drop(lock);
        assert_eq!(told(dir.path()), Err(Exit::Unknown));
    }

    #[test]
    fn a_second_one_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let _lock = Lock::take(dir.path()).expect("taken");
        let failure = Lock::take(dir.path()).expect_err("held");
        assert_eq!(failure.exit, Exit::Conflict);
        assert!(failure.message.contains("another `belay up` runs"), "{}", failure.message);
    }
}
