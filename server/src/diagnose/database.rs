//! Whether what is acknowledged stays.

use std::{path::Path, sync::Arc};

use rustix::fs::{statfs, statvfs};

use super::Finding;
use crate::{app::App, error::Error};

const SYNCHRONOUS: &str = "database.synchronous";
const JOURNAL: &str = "database.journal";
const FILE_SYSTEM: &str = "database.file_system";
const SPACE: &str = "database.space";

/// What SQLite calls a commit that is on the disk before it is acknowledged.
const FULL: i64 = 2;
/// Below this there is hardly room for the day's orders, and below the other for none, in bytes.
const LITTLE: u64 = 1 << 30;
const NONE: u64 = 64 << 20;

/// What the kernel calls file systems on which SQLite's locks or syncs may not hold, by the number of `statfs(2)`.
const REMOTE: &[(u64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
    (0x6573_5546, "FUSE"),
];
/// Those that are gone with the power.
const PASSING: &[(u64, &str)] = &[(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

pub(super) async fn look(app: &Arc<App>) -> Result<Vec<Finding>, Error> {
    let (synchronous, journal) = app.store.durability().await?;
    let mut findings = vec![on_synchronous(synchronous), on_journal(&journal)];
    findings.extend(on_file_system(&app.config.data));
    findings.extend(on_space(&app.config.data));
    Ok(findings)
}

fn on_synchronous(synchronous: i64) -> Finding {
    match synchronous >= FULL {
        true => Finding::ok(SYNCHRONOUS, "", "a commit is on the disk before it is acknowledged"),
        false => Finding::fail(
            SYNCHRONOUS,
            "",
            format!("`synchronous` is {synchronous}: commits are acknowledged before they are on the disk"),
            "after a loss of power an order may have had its effect, and nobody knows of it",
            "run the server without BELAY_TEST_SYNCHRONOUS",
        ),
    }
}

fn on_journal(journal: &str) -> Finding {
    match journal.eq_ignore_ascii_case("wal") {
        true => Finding::ok(JOURNAL, "", "reads and the one writer do not wait for each other"),
        false => Finding::warn(
            JOURNAL,
            "",
            format!("the journal mode is `{journal}`, and not `wal`"),
            "each order waits for every list that is being read",
            "see whether the file system of the data folder has shared memory for its files, and move the folder",
        ),
    }
}

fn on_file_system(folder: &Path) -> Option<Finding> {
    let kind = statfs(folder).ok()?.f_type;
    // The number has 32 bits, whatever the type that the system keeps it in.
    let number = u64::from(kind as u32);
    Some(told_of_file_system(number, folder.display().to_string()))
}

fn told_of_file_system(number: u64, folder: String) -> Finding {
    let named = |list: &[(u64, &'static str)]| list.iter().find(|(known, _)| *known == number).map(|it| it.1);
    if let Some(name) = named(REMOTE) {
        let what = format!("it is on {name}");
        return Finding::warn(
            FILE_SYSTEM,
            folder,
            what,
            "SQLite needs locks and syncs that hold, which file systems over a network often do not have: two servers may \
             write at once, and commits may be lost",
            "move the data folder to a disk of this machine",
        );
    }
    if let Some(name) = named(PASSING) {
        let what = format!("it is on {name}, in memory");
        return Finding::warn(
            FILE_SYSTEM,
            folder,
            what,
            "all of it is gone when this machine starts again: hosts, users, tasks and the audit trail",
            "move the data folder to a disk of this machine",
        );
    }
    Finding::ok(FILE_SYSTEM, folder, "it is on a file system of this machine")
}

fn on_space(folder: &Path) -> Option<Finding> {
    let space = statvfs(folder).ok()?;
    Some(told_of_space(space.f_bavail.saturating_mul(space.f_frsize), folder.display().to_string()))
}

fn told_of_space(free: u64, folder: String) -> Finding {
    const WHY: &str = "an order that can not be written down is refused, and so is everything else";
    let what = format!("{} MiB are free", free >> 20);
    let remedy = "make room, or let less be remembered: `[retention]` in the server's settings";
    match free {
        ..NONE => Finding::fail(SPACE, folder, what, WHY, remedy),
        NONE..LITTLE => Finding::warn(SPACE, folder, what, WHY, remedy),
        LITTLE.. => Finding::ok(SPACE, folder, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::Level;

    #[test]
    fn what_may_lose_commits_is_told() {
        assert_eq!(on_synchronous(2).level, Level::Ok);
        assert_eq!(on_synchronous(3).level, Level::Ok);
        assert_eq!(on_synchronous(1).level, Level::Fail);
        assert_eq!((on_journal("wal").level, on_journal("delete").level), (Level::Ok, Level::Warn));
        let level = |number| told_of_file_system(number, "/data".into()).level;
        // ext4, XFS and Btrfs; NFS; tmpfs.
        assert_eq!([0xef53, 0x5846_5342, 0x9123_683e].map(level), [Level::Ok; 3]);
        assert_eq!([0x6969, 0x0102_1994].map(level), [Level::Warn; 2]);
        assert!(told_of_file_system(0x6969, "/data".into()).what.contains("NFS"));
        let level = |free| told_of_space(free, "/data".into()).level;
        assert_eq!([0, 100 << 20, 2 << 30].map(level), [Level::Fail, Level::Warn, Level::Ok]);
    }

    #[test]
    fn a_folder_of_this_machine_is_looked_at() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(on_file_system(folder.path()).is_some() && on_space(folder.path()).is_some());
    }
}
