//! Processes that write down when they begin and what they are asked.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::host::alive;

/// What a victim is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It ends when it is asked to.
    Polite,
    /// It does not.
    Deaf,
    /// It has a child in its group.
    Family,
    /// It has a child that left its group.
    Daemon,
}

pub(crate) const KINDS: [Kind; 4] = [Kind::Polite, Kind::Deaf, Kind::Family, Kind::Daemon];

const SCRIPT: &str = r#"
ledger=$1 kind=$2
note() { echo "$1 $$ $kind" >> "$ledger"; }
trap 'note TERM; [ $kind = Deaf ] || exit 0' TERM
case $kind in
  Family) sh "$0" "$ledger" child & ;;
  Daemon) setsid sh "$0" "$ledger" child & ;;
esac
note begin
while :; do sleep 1000 & wait; done
"#;

/// A declared process.
#[derive(Debug)]
pub(crate) struct Victim {
    pub alias: &'static str,
    pub kind: Kind,
    pub ledger: PathBuf,
}

impl Victim {
    /// A victim that writes into this folder.
    pub(crate) fn new(alias: &'static str, kind: Kind, folder: &Path) -> Self {
        fs::write(folder.join("victim.sh"), SCRIPT).unwrap();
        Self { alias, kind, ledger: folder.join(alias) }
    }

    /// How it is declared.
    pub(crate) fn declaration(&self, grace: &str, hook: bool) -> String {
        let script = self.ledger.with_file_name("victim.sh");
        let ledger = self.ledger.display();
        let before = match hook {
            true => format!(
                "before = {{ command = \"/bin/sh\", args = [\"-c\", \"echo hook $$ >> {ledger}\"] }}, "
            ),
            false => String::new(),
        };
        format!(
            "command = \"/bin/sh\"\nargs = [\"{}\", \"{ledger}\", \"{:?}\"]\nstop = {{ {before}grace = \"{grace}\" }}\n",
            script.display(),
            self.kind,
        )
    }

    /// All that was written.
    pub(crate) fn told(&self) -> String {
        fs::read_to_string(&self.ledger).unwrap_or_default()
    }

    /// The pids of such lines.
    fn pids(&self, what: &str, child: bool) -> Vec<i32> {
        let told = self.told();
        let lines = told.lines().filter_map(|line| line.split_once(' ')).filter(|(word, _)| *word == what);
        let lines = lines.filter_map(|(_, rest)| rest.split_once(' '));
        lines.filter(|(_, kind)| (*kind == "child") == child).map(|(pid, _)| pid.parse().unwrap()).collect()
    }

    /// Main processes that began.
    pub(crate) fn begun(&self) -> Vec<i32> {
        self.pids("begin", false)
    }

    /// Whether all of an instance has begun, for the time that this is.
    pub(crate) fn has_begun(&self, times: usize) -> bool {
        let children = match self.kind {
            Kind::Family | Kind::Daemon => times,
            Kind::Polite | Kind::Deaf => 0,
        };
        self.begun().len() >= times && self.pids("begin", true).len() >= children
    }

    /// How often each of its processes was asked to end.
    pub(crate) fn asked(&self) -> BTreeMap<i32, usize> {
        let mut asked = BTreeMap::new();
        for pid in [false, true].into_iter().flat_map(|child| self.pids("TERM", child)) {
            *asked.entry(pid).or_default() += 1;
        }
        asked
    }

    /// How often its hook was run.
    pub(crate) fn hooks(&self) -> usize {
        self.told().lines().filter(|line| line.starts_with("hook ")).count()
    }

    /// Its main processes that live.
    pub(crate) fn living(&self) -> Vec<i32> {
        self.begun().into_iter().filter(|pid| alive(*pid)).collect()
    }
}
