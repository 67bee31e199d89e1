//! Who may read and change what lies on the disk.

use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt, path::Path};

use rustix::process::geteuid;

use super::Finding;
use crate::config::Config;

const FOLDER: &str = "files.folder";
const SECRET: &str = "files.secret";
const CA: &str = "files.authorities";

/// Whom users of the server believe, in the folder of the authorities.
const CA_FILE: &str = "ca.pem";

const WHY_FOLDER: &str = "whoever can change the folder can replace what is in it: the database, the secret of the fleet, passwords";
const WHY_CA: &str = "whoever changes it decides whom users take for the server";
const WHY_SECRET: &str = "whoever reads it can act in its name, and whoever changes it decides who may act";

/// Looks at the folder of the data and at what lies in it: all that is secret, or that nobody else may change. Nothing is said
/// of what is not there.
pub fn check_server_files(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<_> = check_private_folder(&config.data).into_iter().collect();
    let database = config.database();
    let beside = |ending: &str| database.with_extension(ending);
    let secrets = [
        config.fleet_token(),
        config.access_key_seal(),
        config.audit_key(),
        config.audit_head(),
        config.admin_password(),
        database.clone(),
        beside("db-wal"),
        beside("db-shm"),
    ];
    let pki = config.pki();
    findings.extend(secrets.iter().filter_map(|secret| check_private_file(secret)));
    findings.extend(check_private_folder(&pki));
    let mut authorities: Vec<_> =
        fs::read_dir(&pki).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    authorities.sort_unstable();
    findings.extend(authorities.iter().filter_map(|file| match file == &pki.join(CA_FILE) {
        // Anybody may read whom to believe.
        true => check(file, CA, WHY_CA, |check, shown, _, _, _| {
            Finding::ok(check, shown, "nobody else can change it")
        }),
        false => check_private_file(file),
    }));
    findings.extend(config.tls.key.iter().filter_map(|key| check_private_file(key)));
    findings
}

/// Looks at a folder that only its owner may enter. Nothing is said of one that is not there.
pub fn check_private_folder(path: &Path) -> Option<Finding> {
    check(path, FOLDER, WHY_FOLDER, |check, shown, what, why, remedy| {
        Finding::warn(check, shown, what, why, remedy)
    })
}

/// Looks at a file that only its owner may read. Nothing is said of one that is not there.
pub fn check_private_file(path: &Path) -> Option<Finding> {
    check(path, SECRET, WHY_SECRET, |check, shown, what, why, remedy| {
        Finding::fail(check, shown, what, why, remedy)
    })
}

/// Makes the finding that others can read something.
type Readable = fn(&'static str, String, String, &'static str, String) -> Finding;

fn check(path: &Path, name: &'static str, why: &'static str, readable: Readable) -> Option<Finding> {
    let shown = path.display().to_string();
    let meta = match fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => {
            let what = format!("it can not be looked at: {error}");
            return Some(Finding::warn(name, shown, what, why, "look as its owner, or as root"));
        }
    };
    let (mode, owner, own) = (meta.mode() & 0o777, meta.uid(), geteuid().as_raw());
    let remedy = format!("chmod go-rwx {shown}");
    Some(if mode & 0o022 != 0 {
        Finding::fail(name, shown, format!("others can change it (mode {mode:03o})"), why, remedy)
    } else if mode & 0o055 != 0 {
        readable(name, shown, format!("others can read it (mode {mode:03o})"), why, remedy)
    } else if owner != own && owner != 0 && own != 0 {
        let remedy = format!("chown it to the user who runs it, or to root: {shown}");
        Finding::fail(name, shown, format!("it belongs to another user ({owner})"), why, remedy)
    } else {
        Finding::ok(name, shown, format!("only its owner gets at it (mode {mode:03o})"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::diagnose::Level;

    /// Hazard X04.
    #[test]
    fn who_gets_at_a_secret_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fleet.token");
        assert_eq!(check_private_file(&path), None);
        fs::write(&path, "secret").expect("written");
        for (mode, level, what) in [
            (0o600, Level::Ok, "only its owner"),
            (0o400, Level::Ok, "only its owner"),
            (0o640, Level::Fail, "others can read it (mode 640)"),
            (0o604, Level::Fail, "others can read it"),
            (0o620, Level::Fail, "others can change it"),
            (0o666, Level::Fail, "others can change it (mode 666)"),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            let found = check_private_file(&path).expect("it is there");
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.what.contains(what), "{found:?}");
            assert_eq!(found.remedy.is_empty(), level == Level::Ok, "{found:?}");
        }
        for (mode, level) in [(0o700, Level::Ok), (0o755, Level::Warn), (0o770, Level::Fail)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(check_private_folder(folder.path()).map(|found| found.level), Some(level));
        }
    }

    /// Hazard X04: nothing that is secret in the data folder is forgotten.
    #[test]
    fn every_secret_of_a_server_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data");
        let config = Config { data: data.clone(), ..Config::default() };
        assert_eq!(check_server_files(&config), []);
        fs::create_dir_all(config.pki()).expect("made");
        for private in [&data, &config.pki()] {
            fs::set_permissions(private, fs::Permissions::from_mode(0o700)).expect("set");
        }
        let secrets = [
            "fleet.token",
            "access-keys.seal",
            "audit.key",
            "audit.head",
            "admin.password",
            "belay.db",
            "belay.db-wal",
            "belay.db-shm",
            "pki/authority-1.pem",
            "pki/standing.json",
        ];
        let set = |name: &str, mode| {
            fs::write(data.join(name), "secret").expect("written");
            fs::set_permissions(data.join(name), fs::Permissions::from_mode(mode)).expect("set");
        };
        secrets.iter().for_each(|secret| set(secret, 0o600));
        // A copy of it is given to everybody.
        set("pki/ca.pem", 0o644);
        let bad = || {
            let found = check_server_files(&config).into_iter().filter(|found| found.level != Level::Ok);
            found.map(|found| found.subject).collect::<Vec<_>>()
        };
        assert_eq!(bad(), Vec::<String>::new());
        for secret in secrets {
            set(secret, 0o604);
            assert_eq!(bad(), [data.join(secret).display().to_string()]);
            set(secret, 0o600);
        }
        set("pki/ca.pem", 0o666);
        assert_eq!(bad(), [data.join("pki/ca.pem").display().to_string()]);
    }
}
