//! What a person sees on stderr while a command waits: a few lines, redrawn in place, with the time that has passed, where
//! stderr is a terminal; whole lines where it is not.

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
    /// How many lines are on the terminal now, the cursor at the end of the last one.
    shown: usize,
}

impl Progress {
    /// Begins; shows nothing yet.
    pub(crate) fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), begun: Instant::now(), shown: 0 }
    }

    /// Waits for `work` and says `what` meanwhile.
    pub(crate) async fn during<T>(&mut self, what: &str, work: impl Future<Output = T>) -> T {
        self.during_lines(&[what.to_owned()], work).await
    }

    /// Waits for `work` and shows `lines` meanwhile.
    pub(crate) async fn during_lines<T>(&mut self, lines: &[String], work: impl Future<Output = T>) -> T {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        tokio::pin!(work);
        let done = loop {
            tokio::select! {
                done = &mut work => break done,
                _ = ticks.tick() => self.show(lines),
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

    /// Whether lines are redrawn in place.
    pub(crate) fn is_live(&self) -> bool {
        self.terminal
    }

    fn show(&mut self, lines: &[String]) {
        let passed = self.begun.elapsed();
        if !self.terminal || passed < QUIET {
            return;
        }
        let frame = FRAMES[(passed.as_millis() / TICK.as_millis()) as usize % FRAMES.len()];
        say(&format!("{}{}", erased(self.shown), drawn(frame, lines, passed.as_secs())));
        self.shown = lines.len();
    }

    fn clear(&mut self) {
        if self.shown > 0 {
            say(&erased(self.shown));
            self.shown = 0;
        }
    }
}

/// Takes so many lines off the terminal; the cursor is at the end of the last one.
fn erased(lines: usize) -> String {
    let mut text = "\r\x1b[2K".to_owned();
    (1..lines).for_each(|_| text += "\x1b[1A\x1b[2K");
    text
}

/// Puts lines on the terminal. One that is too long is cut off by the terminal: wrapped, it would not be erased.
fn drawn(frame: char, lines: &[String], seconds: u64) -> String {
    let mut shown = lines.iter().map(|line| plain(line));
    let first = shown.next().unwrap_or_default();
    let below: String = shown.map(|line| format!("\r\n  {line}")).collect();
    format!("\x1b[?7l{frame} {first} ({seconds}s){below}\x1b[?7h")
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_erased_again() {
        let lines = ["task 7".to_owned(), "a\u{1b}[2Jb".to_owned()];
        assert_eq!(drawn('|', &lines, 3), "\x1b[?7l| task 7 (3s)\r\n  a\u{fffd}[2Jb\x1b[?7h");
        assert_eq!(erased(2), "\r\x1b[2K\x1b[1A\x1b[2K");
        assert_eq!(erased(1), "\r\x1b[2K");
    }
}
