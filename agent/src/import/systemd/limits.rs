//! Whom a service runs as, and what it may have.

use toml::{Table, Value};

use super::{Reader, time};
use crate::import::draft::size;

impl Reader<'_> {
    /// User, group, umask, priority.
    pub(super) fn account(&mut self) {
        for (key, ours) in [("User", "user"), ("Group", "group")] {
            if let Some(name) = self.take(key) {
                self.draft.set_account(ours, &name);
            }
        }
        if let Some(umask) = self.take("UMask") {
            self.draft.set_umask(&umask);
        }
        for (key, ours) in [("Nice", "nice"), ("OOMScoreAdjust", "oom_score_adj")] {
            match self.take(key).map(|text| (text.parse::<i64>(), text)) {
                None => {}
                Some((Ok(number), _)) => self.draft.set(ours, number),
                Some((Err(_), text)) => self.draft.note(format!("{key}={text}: this is not understood")),
            }
        }
    }

    /// Limits on each process, and on all together.
    pub(super) fn limits(&mut self) {
        let mut rlimits = Table::new();
        for (key, ours, unit) in RLIMITS {
            let Some(text) = self.take(key) else {
                continue;
            };
            let hard = text.split_once(':').map_or(&*text, |(_, hard)| hard);
            if hard != text {
                self.draft.note(format!("{key}={text}: here there is one limit, not a soft and a hard one"));
            }
            let limit = match (hard, unit) {
                ("infinity", _) => Some(Value::from("unlimited")),
                (hard, CountedIn::Bytes) => {
                    bytes(hard).and_then(|bytes| i64::try_from(bytes).ok()).map(Value::from)
                }
                (hard, CountedIn::Seconds) => {
                    time(hard).flatten().and_then(|time| i64::try_from(time.as_secs()).ok()).map(Value::from)
                }
                (hard, CountedIn::Count) => {
                    hard.parse::<i64>().ok().filter(|count| *count >= 0).map(Value::from)
                }
            };
            match limit {
                Some(limit) => _ = rlimits.insert((*ours).to_owned(), limit),
                None => self.draft.note(format!("{key}={text}: this is not understood")),
            }
        }
        if !rlimits.is_empty() {
            self.draft.set("rlimits", rlimits);
        }
        let mut cgroup = Table::new();
        if let Some(text) = self.take("CPUQuota") {
            match text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok()) {
                Some(percent) if percent >= 1.0 => {
                    cgroup.insert("cpus".to_owned(), Value::Float(percent / 100.0));
                }
                _ => self.draft.note(format!("CPUQuota={text}: this is not understood")),
            }
        }
        if let Some(text) = self.take("MemoryMax").or_else(|| self.take("MemoryLimit")) {
            match bytes(&text) {
                Some(bytes) if bytes >= 1 << 20 => _ = cgroup.insert("memory".to_owned(), size(bytes).into()),
                _ if text == "infinity" => {}
                _ => self.draft.note(format!("MemoryMax={text}: write a size in `cgroup.memory`")),
            }
        }
        if let Some(text) = self.take("TasksMax") {
            match text.parse::<u32>() {
                Ok(tasks) if tasks > 0 => _ = cgroup.insert("pids".to_owned(), i64::from(tasks).into()),
                _ if text == "infinity" => {}
                _ => self.draft.note(format!("TasksMax={text}: write a number in `cgroup.pids`")),
            }
        }
        if !cgroup.is_empty() {
            self.draft.set("cgroup", cgroup);
        }
    }
}

/// What a limit is counted in.
enum CountedIn {
    Bytes,
    Seconds,
    Count,
}

const RLIMITS: &[(&str, &str, CountedIn)] = &[
    ("LimitAS", "as", CountedIn::Bytes),
    ("LimitCORE", "core", CountedIn::Bytes),
    ("LimitCPU", "cpu", CountedIn::Seconds),
    ("LimitDATA", "data", CountedIn::Bytes),
    ("LimitFSIZE", "fsize", CountedIn::Bytes),
    ("LimitMEMLOCK", "memlock", CountedIn::Bytes),
    ("LimitNOFILE", "nofile", CountedIn::Count),
    ("LimitNPROC", "nproc", CountedIn::Count),
    ("LimitSTACK", "stack", CountedIn::Bytes),
];

/// Reads `512M`, in which a megabyte is 1024 times 1024.
fn bytes(text: &str) -> Option<u64> {
    let units = [('K', 1_u64 << 10), ('M', 1 << 20), ('G', 1 << 30), ('T', 1 << 40)];
    let unit = units.iter().find_map(|(letter, factor)| Some((text.strip_suffix(*letter)?, *factor)));
    let (number, factor) = unit.unwrap_or((text, 1));
    number.trim().parse::<u64>().ok()?.checked_mul(factor)
}
