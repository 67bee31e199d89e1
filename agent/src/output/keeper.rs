//! Keeps one output within its bound. A file that nobody writes to wakes nobody.

use std::{fs::File, io, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{debug, warn};

use super::{
    files::{Files, Look},
    pace::{Budget, FASTEST, Pace, SLOWEST},
    watcher::{Named, Watcher},
};
use crate::{error::Chain, lane::Lane, process::Alias};

/// How often a file is looked at that can not be watched.
const UNWATCHED: Duration = Duration::from_secs(3);

/// How often it is said, at most, that something was dropped.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Keeps the files of one process's output.
pub(super) struct Keeper {
    pub alias: Alias,
    pub files: Arc<Files>,
    pub watcher: Arc<Watcher>,
    /// For what may block: many logs may begin at the same moment.
    pub lane: Lane,
    /// Says when there may be another live file.
    pub named: Arc<Named>,
    /// Tells followers that there may be more to read.
    pub grown: watch::Sender<()>,
}

impl Keeper {
    /// Works for ever: it ends by being aborted, between two rotations or after one.
    pub(super) async fn run(self) {
        let mut budget = Budget::new(Instant::now());
        let mut dropped = Dropped { bytes: 0, said: None };
        loop {
            self.until_written(&mut dropped).await;
            let mut pace = Pace::new();
            wait(FASTEST).await;
            loop {
                let Look { size, grown } = self.look();
                let limits = self.files.limits();
                if size > limits.max_size {
                    let keep = budget.take(limits, Instant::now());
                    dropped.add(&self.alias, self.rotate(keep).await);
                }
                let room = limits.max_size.saturating_sub(size);
                let followed = self.grown.receiver_count() > 0;
                let Some(pause) = pace.next(grown, room, followed) else {
                    break;
                };
                wait(pause).await;
            }
            dropped.say(&self.alias);
        }
    }

    /// Ends when the file was written to since the last look at it.
    async fn until_written(&self, dropped: &mut Dropped) {
        loop {
            if self.named.has_changed() {
                let files = self.files.clone();
                // A panic there has been reported; there is nothing to be done about it here.
                let _ = self.lane.run(move || files.refresh(false)).await;
            }
            let live = self.files.live();
            let armed = live.as_deref().and_then(|live: &File| self.watcher.arm(live, &self.named.told));
            // What was written before it was armed is told by nobody else.
            if self.look().grown > 0 {
                return;
            }
            let blind = armed.is_none();
            tokio::select! {
                () = self.named.told.notified() => {}
                () = sleep(UNWATCHED), if blind => self.named.change(),
                () = dropped.due(), if dropped.bytes > 0 => dropped.say(&self.alias),
            }
            drop(armed);
            if self.look().grown > 0 {
                return;
            }
        }
    }

    /// Sees how the file has grown. To ask for the length of an open file does not wait for a disk.
    fn look(&self) -> Look {
        let look = self.files.look().unwrap_or_else(|error| {
            debug!(alias = %self.alias, error = %Chain(&error), "A log can not be looked at.");
            Look { size: 0, grown: 0 }
        });
        if look.grown > 0 {
            self.grown.send_replace(());
        }
        look
    }

    async fn rotate(&self, keep: bool) -> u64 {
        let files = self.files.clone();
        let rotated = tokio::task::spawn_blocking(move || files.rotate(keep)).await;
        let rotated = rotated.map_err(io::Error::other).and_then(|rotated| rotated);
        self.grown.send_replace(());
        match rotated {
            Ok(rotated) => {
                let rotated = rotated.unwrap_or_default();
                if let Some(error) = &rotated.trouble {
                    warn!(alias = %self.alias, error = %Chain(error), "A full log could not be copied; it is emptied all the same.");
                }
                rotated.dropped
            }
            Err(error) => {
                warn!(alias = %self.alias, error = %Chain(&error), "A log can not be kept within its bound.");
                // Not again at once.
                sleep(UNWATCHED).await;
                0
            }
        }
    }
}

/// What was thrown away and not said yet.
struct Dropped {
    bytes: u64,
    said: Option<Instant>,
}

impl Dropped {
    fn add(&mut self, alias: &Alias, bytes: u64) {
        self.bytes += bytes;
        self.say(alias);
    }

    /// Says it, unless that would be too often.
    fn say(&mut self, alias: &Alias) {
        let now = Instant::now();
        if self.bytes == 0 || self.said.is_some_and(|said| now < said + SAY_EVERY) {
            return;
        }
        warn!(%alias, bytes = self.bytes, "Output was dropped: it comes faster than it can be kept.");
        self.bytes = 0;
        self.said = Some(now);
    }

    /// Ends when it may be said again.
    async fn due(&self) {
        if let Some(said) = self.said {
            sleep_until(said + SAY_EVERY).await;
        }
    }
}

/// A pause. Long ones end at the same moments for all files, so that many cost no more wake-ups than one.
async fn wait(pause: Duration) {
    if pause < SLOWEST {
        return sleep(pause).await;
    }
    let step = SLOWEST.as_nanos();
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let now =
        since_boot.tv_sec.unsigned_abs() as u128 * 1_000_000_000 + since_boot.tv_nsec.unsigned_abs() as u128;
    let left = u64::try_from(step - now % step).unwrap_or_default();
    sleep(Duration::from_nanos(left)).await;
}
