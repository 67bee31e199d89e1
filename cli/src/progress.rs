//! What a person sees on stderr while a command waits: one line with the time that has passed, where stderr is a
//! terminal; whole lines where it is not.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::output::{plain, say};

const FRAMES: [char; 4] = ['|', '/', '-', '\\'];
const TICK: Duration = Duration::from_millis(120);
/// What is done sooner is not worth a line.
const QUIET: Duration = Duration::from_millis(400);

/// Shows that something goes on.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
    begun: Instant,
    shown: bool,
}

impl Progress {
    /// Begins; shows nothing yet.
    pub(crate) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), begun: Instant::now(), shown: false }
    }

    /// Waits for `work` and says `what` meanwhile.
    pub(crate) async fn during<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = ticks.tick() => self.show(what),
            }
        };
        self.clear();
        done
    }

    /// Says something that stays.
    pub(crate) fn line(&mut self, text: &str) {
        self.clear();
        say(&format!("{}\n", plain(text)));
    }

    fn show(&mut self, what: &str) {
        let passed = self.begun.elapsed();
        if !self.terminal || passed < QUIET {
            return;
        }
        let frame = FRAMES[(passed.as_millis() / TICK.as_millis()) as usize % FRAMES.len()];
        say(&format!("\r\x1b[2K{frame} {} ({}s)", plain(what), passed.as_secs()));
        self.shown = true;
    }

    fn clear(&mut self) {
        if self.shown {
            say("\r\x1b[2K");
            self.shown = false;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
