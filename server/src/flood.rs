//! How much one agent may say. An honest one stays far below; what comes faster is read more slowly, so that it waits at the
//! other end, and who does not let up is cut off. Pure: time is given, and nothing is waited for here.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use belay_proto::Bucket;

use crate::api::LARGEST_OF_AGENT;

/// Reports at once, and in a second after that. An honest agent gathers changes for 5 ms, which makes 200 in a second at the
/// very most, and no host changes for long at that rate.
const REPORTS: (f64, f64) = (2000.0, 200.0);
/// Their bytes at once, and in a second after that.
const BYTES: (f64, f64) = (4.0 * LARGEST_OF_AGENT as f64, 4.0 * 1024.0 * 1024.0);
/// Streams at once, and in a second after that. An honest agent pauses before it comes back.
const HELLOS: (f64, f64) = (60.0, 1.0);
/// Operations of the host itself at once, and in a second after that. An agent remembers a thousand of them, which may all be
/// news after a long time without a server; each is a commit, and a record of the audit trail.
const LOCAL: (f64, f64) = (1200.0, 0.5);
/// Agents that were never heard before, of all the fleet: at once, and in a second after that.
const NEW: (f64, f64) = (20_000.0, 5.0);

/// Who has to be slowed for so long without a break is cut off.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than this no stream waits to be welcomed: its agent would give up.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// Of so many agents quotas are kept before those are dropped that have said nothing for a while.
const MANY: usize = 20_000;

/// What is to be done with what has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is taken in.
    Take,
    /// It is taken in, and nothing else is read for so long.
    Slow(Duration),
    /// The stream is to end.
    Cut,
}

/// What is left to each agent, by identity.
#[derive(Debug)]
pub(crate) struct Floods {
    quotas: Mutex<HashMap<String, Quota>>,
    new: Mutex<Bucket>,
}

#[derive(Debug)]
struct Quota {
    reports: Bucket,
    bytes: Bucket,
    hellos: Bucket,
    local: Bucket,
    /// Since when it was slowed without a break.
    slowed: Option<Instant>,
}

impl Floods {
    /// Every agent has all that it may have.
    pub(crate) fn new(now: Instant) -> Self {
        Self { quotas: Mutex::default(), new: Mutex::new(Bucket::full(NEW, now)) }
    }

    /// An agent opens a stream, whose first message has so many bytes.
    pub(crate) fn hello(&self, identity: &str, bytes: usize, now: Instant) -> Verdict {
        let mut quotas = self.lock();
        if quotas.len() > MANY {
            quotas.retain(|_, quota| !quota.is_idle(now));
        }
        let quota = quotas.entry(identity.to_owned()).or_insert_with(|| Quota::new(now));
        if quota.hellos.wait(1.0, now) > LONGEST_WAIT {
            return Verdict::Cut;
        }
        match quota.hellos.take(1.0, now).max(quota.bytes.take(bytes as f64, now)) {
            Duration::ZERO => Verdict::Take,
            wait => Verdict::Slow(wait.min(LONGEST_WAIT)),
        }
    }

    /// An agent that was never heard before is about to be written down. Gives whether it may.
    pub(crate) fn newcomer(&self, now: Instant) -> bool {
        self.new.lock().unwrap_or_else(PoisonError::into_inner).try_take(1.0, now)
    }

    /// An agent has sent a report of so many bytes.
    pub(crate) fn report(&self, identity: &str, bytes: usize, now: Instant) -> Verdict {
        let mut quotas = self.lock();
        let quota = quotas.entry(identity.to_owned()).or_insert_with(|| Quota::new(now));
        let wait = quota.reports.take(1.0, now).max(quota.bytes.take(bytes as f64, now));
        if quota.reports.is_half_full() && quota.bytes.is_half_full() {
            quota.slowed = None;
        }
        if wait.is_zero() {
            return Verdict::Take;
        }
        let since = *quota.slowed.get_or_insert(now);
        match now.duration_since(since) > PATIENCE {
            true => Verdict::Cut,
            false => Verdict::Slow(wait),
        }
    }

    /// An operation of the host itself is about to be written down. Gives whether it may be now, and not later.
    pub(crate) fn local(&self, identity: &str, now: Instant) -> bool {
        let mut quotas = self.lock();
        let quota = quotas.entry(identity.to_owned()).or_insert_with(|| Quota::new(now));
        quota.local.try_take(1.0, now)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Quota>> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quota {
    fn new(now: Instant) -> Self {
        Self {
            reports: Bucket::full(REPORTS, now),
            bytes: Bucket::full(BYTES, now),
            hellos: Bucket::full(HELLOS, now),
            local: Bucket::full(LOCAL, now),
            slowed: None,
        }
    }

    fn is_idle(&self, now: Instant) -> bool {
        [&self.reports, &self.bytes, &self.hellos, &self.local].into_iter().all(|bucket| bucket.is_full(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Sends reports of a size, each as soon as it may, for a time. Gives how many were taken, and whether it was cut off.
    fn send(
        floods: &Floods,
        now: &mut Instant,
        pause: Duration,
        bytes: usize,
        time: Duration,
    ) -> (u32, bool) {
        let (end, mut taken) = (*now + time, 0);
        while *now < end {
            match floods.report("a", bytes, *now) {
                Verdict::Take => taken += 1,
                Verdict::Slow(wait) => {
                    taken += 1;
                    *now += wait;
                }
                Verdict::Cut => return (taken, true),
            }
            *now += pause;
        }
        (taken, false)
    }

    /// Hazard A13: what an honest agent says goes through, also after a crash of all its thousand processes.
    #[test]
    fn an_honest_burst_goes_through_at_once() {
        let mut now = Instant::now();
        let floods = Floods::new(now);
        // As fast as it gathers, for a second, every process in each of them.
        for _ in 0..200 {
            assert_eq!(floods.report("a", 200_000, now), Verdict::Take);
            now += 5 * MILLISECOND;
        }
        let (taken, cut) = send(&floods, &mut now, 100 * MILLISECOND, 20_000, Duration::from_secs(600));
        assert!(taken >= 5900 && !cut, "{taken}");
    }

    /// Hazard A13.
    #[test]
    fn a_flood_is_slowed_and_then_cut() {
        let mut now = Instant::now();
        let floods = Floods::new(now);
        let (taken, cut) = send(&floods, &mut now, Duration::ZERO, 100, Duration::from_secs(60));
        assert!(cut && taken <= 2000 + 200 * 12, "{taken}");
        // It is cut off again at once as long as it does not let up, and nobody else is concerned.
        assert_eq!(floods.report("a", 100, now), Verdict::Cut);
        assert_eq!(floods.report("b", 100, now), Verdict::Take);
        now += Duration::from_secs(30);
        assert_eq!(floods.report("a", 100, now), Verdict::Take);
    }

    #[test]
    fn few_large_reports_are_a_flood_too() {
        let mut now = Instant::now();
        let floods = Floods::new(now);
        let (taken, cut) =
            send(&floods, &mut now, 10 * MILLISECOND, LARGEST_OF_AGENT, Duration::from_secs(60));
        assert!(cut && taken < 10, "{taken}");
    }

    #[test]
    fn streams_that_are_opened_again_and_again_are_refused() {
        let mut now = Instant::now();
        let floods = Floods::new(now);
        let (mut taken, mut cut) = (0, 0);
        for _ in 0..1000 {
            match floods.hello("a", 1000, now) {
                Verdict::Take | Verdict::Slow(_) => taken += 1,
                Verdict::Cut => cut += 1,
            }
            now += MILLISECOND;
        }
        assert!(taken <= 66 && cut > 900, "{taken} {cut}");
        assert_eq!(floods.hello("b", 1000, now), Verdict::Take);
        now += Duration::from_secs(120);
        assert_eq!(floods.hello("a", 1000, now), Verdict::Take);
    }

    #[test]
    fn operations_of_a_host_are_written_down_at_a_bounded_rate() {
        let mut now = Instant::now();
        let floods = Floods::new(now);
        let mut taken = 0;
        for _ in 0..100_000 {
            taken += u32::from(floods.local("a", now));
            now += MILLISECOND;
        }
        assert!((1200..=1251).contains(&taken), "{taken}");
    }

    /// What is kept of agents that say nothing any more is dropped.
    #[test]
    fn the_memory_of_agents_is_bounded() {
        let mut now = Instant::now();
        let floods = Floods::new(now);
        for number in 0..3 * MANY {
            let _ = floods.hello(&number.to_string(), 10, now);
            now += MILLISECOND;
        }
        assert!(floods.lock().len() <= 2 * MANY, "{}", floods.lock().len());
    }

    #[test]
    fn newcomers_are_taken_at_a_bounded_rate() {
        let now = Instant::now();
        let floods = Floods::new(now);
        let taken = (0..50_000).filter(|_| floods.newcomer(now)).count();
        assert_eq!(taken, 20_000);
    }
}
