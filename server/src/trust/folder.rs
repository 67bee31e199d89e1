//! The authorities on disk, and how far the replacement of one by another is. Each step is in force with one rename, so a
//! crash leaves the step before or after it.
//!
//! `standing.json` says which authorities there are; each is in `authority-FINGERPRINT.pem` with its key; `ca.pem` has the
//! certificates of those that are believed, for users, and is made again at each start.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use belay_proto::{
    fail_io, fail_point, replace_private,
    tls::{CertificateDer, Fingerprint, TrustDomain, pem_of, standing},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::authority::Authority;
use crate::error::Error;

/// How far the replacement of the authority is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// There is one.
    One,
    /// A new one is believed beside the one that vouches.
    Introduced,
    /// The new one vouches, and the old one is still believed.
    Switched,
}

impl Phase {
    /// In a word.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Introduced => "introduced",
            Self::Switched => "switched",
        }
    }
}

/// How the authorities stand.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) phase: Phase,
    pub(crate) domain: String,
    /// The oldest first, each with whether it vouches for new certificates.
    pub(crate) authorities: Vec<SeenAuthority>,
    /// The parts that the next step would cut off.
    pub(crate) behind: Vec<String>,
}

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct SeenAuthority {
    pub(crate) fingerprint: String,
    pub(crate) signs: bool,
    pub(crate) begin: Timestamp,
    pub(crate) end: Timestamp,
    pub(crate) pem: String,
}

/// What is in `standing.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    domain: String,
    phase: Phase,
    /// Fingerprints, the oldest first.
    authorities: Vec<String>,
}

/// The folder of the authorities.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    domain: TrustDomain,
    phase: Phase,
    /// The oldest first: one, or two while one is replaced.
    authorities: Vec<Authority>,
}

impl Folder {
    /// Opens it. Made at the first start, with an authority and a name for the fleet.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        make(path)?;
        let file = path.join("standing.json");
        let folder = match fs::read(&file) {
            Ok(text) => Self::read(path, &file, &text)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let domain = TrustDomain::random()?;
                let first = Authority::new(&domain)?;
                let folder =
                    Self { path: path.to_owned(), domain, phase: Phase::One, authorities: vec![first] };
                folder
                    .authorities
                    .iter()
                    .try_for_each(|new| new.store(&folder.file_of(&new.fingerprint())))?;
                folder.write()?;
                folder
            }
            Err(source) => return Err(Error::File { path: file, source }),
        };
        folder.publish()?;
        folder.tidy()?;
        Ok(folder)
    }

    fn read(path: &Path, file: &Path, text: &[u8]) -> Result<Self, Error> {
        let damaged = |what: String| {
            let source = std::io::Error::new(std::io::ErrorKind::InvalidData, what);
            Error::File { path: file.to_owned(), source }
        };
        let Written { domain, phase, authorities } =
            serde_json::from_slice(text).map_err(|error| damaged(error.to_string()))?;
        let domain = TrustDomain::parse(&domain).map_err(|error| damaged(error.to_string()))?;
        let wanted = if phase == Phase::One { 1 } else { 2 };
        let fingerprints: Option<Vec<_>> = authorities.iter().map(|text| Fingerprint::parse(text)).collect();
        let Some(fingerprints) = fingerprints.filter(|all| all.len() == wanted) else {
            return Err(damaged("it does not name the authorities of its phase".into()));
        };
        let mut folder = Self { path: path.to_owned(), domain, phase, authorities: Vec::new() };
        for fingerprint in fingerprints {
            let authority = Authority::load(&folder.file_of(&fingerprint))?;
            if authority.fingerprint() != fingerprint {
                return Err(damaged(format!("the authority {fingerprint} is another one")));
            }
            folder.authorities.push(authority);
        }
        Ok(folder)
    }

    /// How far the replacement is.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// The fleet.
    pub(super) fn domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// The one that vouches for new certificates.
    pub(super) fn signs(&self) -> &Authority {
        match self.phase {
            Phase::One | Phase::Introduced => &self.authorities[0],
            Phase::Switched => &self.authorities[1],
        }
    }

    /// Those that are believed.
    pub(super) fn believed(&self) -> Vec<CertificateDer<'static>> {
        self.authorities.iter().map(|authority| authority.certificate().clone()).collect()
    }

    /// A digest of both.
    pub(super) fn standing(&self) -> String {
        standing(self.authorities.iter().map(Authority::fingerprint), self.signs().fingerprint())
    }

    /// For those who may see it.
    pub(super) fn seen(&self, behind: Vec<String>) -> Seen {
        let signs = self.signs().fingerprint();
        let seen = |authority: &Authority| {
            let (begin, end) = authority.validity();
            let fingerprint = authority.fingerprint();
            SeenAuthority {
                signs: fingerprint == signs,
                fingerprint: fingerprint.to_string(),
                begin,
                end,
                pem: pem_of(std::slice::from_ref(authority.certificate())),
            }
        };
        let authorities = self.authorities.iter().map(seen).collect();
        Seen { phase: self.phase, domain: self.domain.to_string(), authorities, behind }
    }

    /// Takes the next step.
    ///
    /// # Errors
    /// Where it is not taken; or where it is, and something of before is left: that goes at the next start, or with the next step.
    pub(super) fn step(&mut self) -> Result<(), Error> {
        match self.phase {
            Phase::One => {
                let new = Authority::new(&self.domain)?;
                new.store(&self.file_of(&new.fingerprint()))?;
                fail_point(|| "authority.stored");
                self.authorities.push(new);
                if let Err(error) = self.enter(Phase::Introduced) {
                    self.authorities.truncate(1);
                    return Err(error);
                }
            }
            Phase::Introduced => self.enter(Phase::Switched)?,
            Phase::Switched => {
                let old = self.authorities.remove(0);
                if let Err(error) = self.enter(Phase::One) {
                    self.authorities.insert(0, old);
                    return Err(error);
                }
            }
        }
        let fails = fail_io(|| "authority.changed");
        fails.map_err(|source| Error::File { path: self.path.clone(), source })?;
        self.tidy()
    }

    /// Is in this phase from now on, or stays in the one of before.
    fn enter(&mut self, phase: Phase) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.phase, phase);
        // Users believe whoever vouches from before it does.
        let entered = self.publish().and_then(|()| self.write());
        if entered.is_err() {
            self.phase = before;
        }
        entered
    }

    fn write(&self) -> Result<(), Error> {
        let written = Written {
            domain: self.domain.to_string(),
            phase: self.phase,
            authorities: self.authorities.iter().map(|one| one.fingerprint().to_string()).collect(),
        };
        let text = serde_json::to_vec_pretty(&written).map_err(|error| Error::Internal(error.to_string()))?;
        let path = self.path.join("standing.json");
        replace_private(&path, &text).map_err(|source| Error::File { path, source })
    }

    /// Writes what users are to believe.
    fn publish(&self) -> Result<(), Error> {
        let path = self.path.join("ca.pem");
        let text = pem_of(&self.believed());
        let fails = fail_io(|| "authority.published");
        let written = replace_private(&path, text.as_bytes()).and(fails);
        written.map_err(|source| Error::File { path, source })
    }

    /// Removes the keys of authorities that are none any more.
    fn tidy(&self) -> Result<(), Error> {
        let cannot = |source| Error::File { path: self.path.clone(), source };
        let kept: Vec<_> = self.authorities.iter().map(|one| self.file_of(&one.fingerprint())).collect();
        for entry in fs::read_dir(&self.path).map_err(cannot)? {
            let path = entry.map_err(cannot)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with("authority-") && !kept.contains(&path) {
                fs::remove_file(&path).map_err(|source| Error::File { path, source })?;
            }
        }
        Ok(())
    }

    fn file_of(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.path.join(format!("authority-{fingerprint}.pem"))
    }
}

/// Only the owner may look into the folder.
fn make(path: &Path) -> Result<(), Error> {
    let cannot = |source| Error::File { path: path.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot)?;
    let mode = fs::metadata(path).map_err(cannot)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let what = format!("others can look into it (mode {mode:04o}); run `chmod 700 {}`", path.display());
        return Err(cannot(std::io::Error::new(std::io::ErrorKind::PermissionDenied, what)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(folder: &Folder) -> (Phase, Vec<String>, String, usize) {
        let all = folder.authorities.iter().map(|one| one.fingerprint().to_string()).collect();
        let files = fs::read_dir(&folder.path).expect("read").count();
        (folder.phase, all, folder.standing(), files)
    }

    /// Hazard S20: each step is on disk when it is in force, and what was forgotten is gone.
    #[test]
    fn every_step_survives_a_restart() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("pki");
        let mut folder = Folder::open(&path).expect("made");
        let first = folder.signs().fingerprint();
        for (phase, files) in [(Phase::Introduced, 4), (Phase::Switched, 4), (Phase::One, 3)] {
            folder.step().expect("taken");
            assert_eq!((folder.phase(), told(&folder).3), (phase, files));
            assert_eq!(told(&Folder::open(&path).expect("opened")), told(&folder));
        }
        assert_ne!(folder.signs().fingerprint(), first);
        assert!(!path.join(format!("authority-{first}.pem")).exists(), "its key is gone");
    }

    /// Where the step was not taken, its authority was never one.
    #[test]
    fn a_crash_before_a_step_leaves_nothing_of_it() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("pki");
        let folder = Folder::open(&path).expect("made");
        let stray = Authority::new(folder.domain()).expect("made");
        stray.store(&folder.file_of(&stray.fingerprint())).expect("written");
        let again = Folder::open(&path).expect("opened");
        assert_eq!(again.standing(), folder.standing());
        assert!(!folder.file_of(&stray.fingerprint()).exists());
    }

    /// A first start that died before it had an authority is one all the same.
    #[test]
    fn a_crash_in_the_first_start_leaves_nothing_of_it() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("pki");
        let folder = Folder::open(&path).expect("made");
        fs::remove_file(path.join("standing.json")).expect("not written yet");
        let again = Folder::open(&path).expect("made again");
        assert_ne!(again.standing(), folder.standing());
        assert_eq!(told(&again).3, 3, "the first one's key is gone");
    }

    /// Hazard S20: where users can not be told of an authority before it vouches, it does not.
    #[test]
    fn no_step_is_taken_that_users_would_not_believe() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("pki");
        let mut folder = Folder::open(&path).expect("made");
        let before = folder.standing();
        // Nothing can be written in the place of `ca.pem`.
        fs::create_dir(path.join("ca.new")).expect("made");
        folder.step().expect_err("refused");
        assert_eq!((folder.phase(), folder.standing()), (Phase::One, before));
        fs::remove_dir(path.join("ca.new")).expect("removed");
        assert_eq!(Folder::open(&path).expect("opened").standing(), folder.standing());
        folder.step().expect("taken");
        let users = fs::read_to_string(path.join("ca.pem")).expect("written");
        assert_eq!(users, pem_of(&folder.believed()));
    }

    /// Hazard S20: what is in force on disk is so in memory, also where the old one's key could not be removed.
    #[test]
    fn a_step_whose_rest_fails_is_in_force() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("pki");
        let mut folder = Folder::open(&path).expect("made");
        for _ in 0..2 {
            folder.step().expect("taken");
        }
        let new = folder.signs().fingerprint();
        // What is none can not be removed like one.
        fs::create_dir(path.join("authority-x")).expect("made");
        folder.step().expect_err("something is left");
        assert_eq!((folder.phase(), folder.signs().fingerprint()), (Phase::One, new));
        fs::remove_dir(path.join("authority-x")).expect("removed");
        assert_eq!(Folder::open(&path).expect("opened").standing(), folder.standing());
        folder.step().expect("the next one begins");
        assert_eq!(told(&Folder::open(&path).expect("opened")), told(&folder));
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let scratch = tempfile::tempdir().expect("a folder");
        let path = scratch.path().join("pki");
        let folder = Folder::open(&path).expect("made");
        let key = folder.file_of(&folder.signs().fingerprint());
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("set");
        if fs::metadata(&key).is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) != 0) {
            assert!(Folder::open(&path).is_err());
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o604)).expect("set");
        let told = Folder::open(&path).map(drop).expect_err("refused");
        assert!(crate::error::Chain(&told).to_string().contains("chmod 600"), "{told}");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("set");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        let told = Folder::open(&path).map(drop).expect_err("refused");
        assert!(crate::error::Chain(&told).to_string().contains("chmod 700"), "{told}");
    }
}
