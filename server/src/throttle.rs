//! How many requests each user may send in a time, as documented: windows of 10 s, 1 min, 1 h and 1 d, counted for each user.
//!
//! The windows are our own. What `governor` counts is a rate, from which neither the documented remainder nor the time of its
//! reset can be told, and several of its rates can not be asked at once without spending some of what is refused.

mod logins;
mod windows;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use belay_proto::{RATE_LIMIT, UserId};
use http::{HeaderMap, HeaderName, HeaderValue};

use self::windows::Usage;
use crate::config::RateLimit;

pub(crate) use self::{
    logins::{Logins, Try},
    windows::{Allowance, Window},
};

/// Users whose requests are counted at a time. Who is forgotten for want of room is who called least recently.
const USERS: usize = 10_000;

/// Counts requests.
#[derive(Debug)]
pub(crate) struct Throttle {
    windows: Vec<Window>,
    begin: Instant,
    users: Mutex<HashMap<UserId, Usage>>,
}

impl Throttle {
    /// Counts by these settings.
    pub(crate) fn new(settings: &RateLimit) -> Self {
        Self { windows: settings.windows(), begin: Instant::now(), users: Mutex::default() }
    }

    /// Counts a request of a user. `None` where nothing is limited.
    ///
    /// # Errors
    /// The same numbers where there is no room for it: it is not counted then.
    pub(crate) fn take(&self, user: UserId) -> Option<Result<Allowance, Allowance>> {
        (!self.windows.is_empty()).then(|| self.take_at(user, self.begin.elapsed()))
    }

    fn take_at(&self, user: UserId, now: Duration) -> Result<Allowance, Allowance> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS && !users.contains_key(&user) {
            let idle = users.iter().min_by_key(|(_, usage)| usage.last()).map(|(idle, _)| *idle);
            idle.map(|idle| users.remove(&idle));
        }
        users.entry(user).or_insert_with(|| Usage::of(&self.windows)).take(&self.windows, now)
    }
}

impl Allowance {
    /// Tells a caller.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        // A part of a second is told as a whole one, so that whoever waits so long has waited enough.
        let reset = self.reset.as_secs() + u64::from(self.reset.subsec_nanos() > 0);
        let numbers = [u64::from(self.limit), u64::from(self.remaining), reset];
        for (name, number) in RATE_LIMIT.into_iter().zip(numbers) {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: usize) -> UserId {
        UserId::try_from(i64::try_from(number).expect("small")).expect("an id")
    }

    fn throttle(per_10s: u32, per_minute: u32) -> Throttle {
        let settings = RateLimit { per_10s, per_minute, per_hour: 0, per_day: 0, ..RateLimit::default() };
        Throttle::new(&settings)
    }

    /// Hazard L13: one user's flood is nobody else's.
    #[test]
    fn users_have_nothing_to_do_with_each_other() {
        let throttle = throttle(3, 0);
        let now = Duration::from_secs(5);
        for left in [2, 1, 0] {
            let allowance = throttle.take_at(user(1), now).expect("room");
            assert_eq!((allowance.limit, allowance.remaining), (3, left));
        }
        assert!(throttle.take_at(user(1), now).is_err());
        assert_eq!(throttle.take_at(user(2), now).expect("room").remaining, 2);
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let throttle = throttle(0, 0);
        assert!(throttle.take(user(1)).is_none());
        assert!(throttle.users.lock().expect("whole").is_empty());
        let off = RateLimit { enabled: false, ..RateLimit::default() };
        assert!(Throttle::new(&off).take(user(1)).is_none());
    }

    /// Hazard L12: who is counted takes bounded room, and who calls is not forgotten for who does not.
    #[test]
    fn the_number_of_users_is_bounded() {
        let throttle = throttle(3, 0);
        for number in 1..=USERS {
            throttle.take_at(user(number), Duration::from_millis(1)).expect("room");
        }
        throttle.take_at(user(1), Duration::from_millis(2)).expect("room");
        for number in USERS + 1..USERS + 100 {
            throttle.take_at(user(number), Duration::from_millis(3)).expect("room");
        }
        assert_eq!(throttle.users.lock().expect("whole").len(), USERS);
        assert_eq!(throttle.take_at(user(1), Duration::from_millis(4)).expect("room").remaining, 0);
    }

    #[test]
    fn a_part_of_a_second_is_told_as_a_whole_one() {
        let mut headers = HeaderMap::new();
        Allowance { limit: 10, remaining: 4, reset: Duration::from_millis(1001), span: Duration::ZERO }
            .write(&mut headers);
        let told = RATE_LIMIT.map(|name| headers[name].to_str().expect("a number").to_owned());
        assert_eq!(told, ["10", "4", "2"]);
    }
}
