//! How many wrong passwords may be tried, whether or not there is such a user: for a name from one address, and for a name
//! from all of them. A script with an old password so locks nobody out who calls from elsewhere, and who guesses from many
//! addresses is bounded too.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use blake2::{
    Blake2sMac256,
    digest::{KeyInit, Mac},
};

/// The time in which wrong passwords are counted.
const SPAN: Duration = Duration::from_secs(60);
/// How many times more may be tried from all addresses together.
const FROM_EVERYWHERE: u32 = 10;
/// Names and addresses that are counted at a time. Those for whom there is no room share one count.
const COUNTED: usize = 16 * 1024;

type Key = [u8; 32];

/// Counts wrong passwords.
#[derive(Debug)]
pub(crate) struct Logins {
    most: u32,
    key: Key,
    wrong: Mutex<HashMap<Key, (Instant, u32)>>,
}

impl Logins {
    /// Lets through `most` wrong passwords in a minute, for each name from each address; 0 for any number.
    ///
    /// # Errors
    /// Where the system gives no random bytes.
    pub(crate) fn new(most: u32) -> Result<Self, getrandom::Error> {
        let mut key = [0; 32];
        getrandom::fill(&mut key)?;
        Ok(Self { most, key, wrong: Mutex::default() })
    }

    /// Whether a password of this name may be tried.
    ///
    /// # Errors
    /// When it may be tried again.
    pub(crate) fn check(&self, name: &str, address: &str) -> Result<(), Duration> {
        self.check_at(name, address, Instant::now())
    }

    /// Counts a wrong password.
    pub(crate) fn wrong(&self, name: &str, address: &str) {
        self.wrong_at(name, address, Instant::now());
    }

    fn check_at(&self, name: &str, address: &str, now: Instant) -> Result<(), Duration> {
        if self.most == 0 {
            return Ok(());
        }
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, most) in self.counted(name, address) {
            // Whoever has no count of its own is in the common one.
            let count = wrong.get(&key).or_else(|| wrong.get(&COMMON).filter(|_| wrong.len() >= COUNTED));
            if let Some((begin, count)) = count
                && *count >= most
                && let Some(left) =
                    SPAN.checked_sub(now.duration_since(*begin)).filter(|left| !left.is_zero())
            {
                return Err(left);
            }
        }
        Ok(())
    }

    fn wrong_at(&self, name: &str, address: &str, now: Instant) {
        if self.most == 0 {
            return;
        }
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in self.counted(name, address) {
            if wrong.len() >= COUNTED && !wrong.contains_key(&key) {
                wrong.retain(|_, (begin, _)| now.duration_since(*begin) < SPAN);
            }
            let key = if wrong.len() >= COUNTED && !wrong.contains_key(&key) { COMMON } else { key };
            let entry = wrong.entry(key).or_insert((now, 0));
            if now.duration_since(entry.0) >= SPAN {
                *entry = (now, 0);
            }
            entry.1 = entry.1.saturating_add(1);
        }
    }

    /// What is counted for a name and an address, and how often each may be.
    fn counted(&self, name: &str, address: &str) -> [(Key, u32); 2] {
        let everywhere = self.most.saturating_mul(FROM_EVERYWHERE);
        [(self.digest(name, Some(address)), self.most), (self.digest(name, None), everywhere)]
    }

    /// Keyed, so that nobody can choose names that share a count.
    fn digest(&self, name: &str, address: Option<&str>) -> Key {
        let mut mac = <Blake2sMac256 as KeyInit>::new(&self.key.into());
        mac.update(name.as_bytes());
        if let Some(address) = address {
            // No name has a NUL that is one of a user.
            mac.update(&[0]);
            mac.update(address.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }
}

/// The count of those for whom there is no room.
const COMMON: Key = [0; 32];

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard L13.
    #[test]
    fn wrong_passwords_are_counted_by_name_and_address() {
        let logins = Logins::new(3).expect("a key");
        let now = Instant::now();
        for _ in 0..3 {
            logins.check_at("kim", "10.0.0.1", now).expect("may be tried");
            logins.wrong_at("kim", "10.0.0.1", now);
        }
        assert_eq!(logins.check_at("kim", "10.0.0.1", now), Err(SPAN));
        logins.check_at("kim", "10.0.0.2", now).expect("another address");
        logins.check_at("lee", "10.0.0.1", now).expect("another name");
        let later = now + SPAN;
        logins.check_at("kim", "10.0.0.1", later).expect("a minute later");
        logins.wrong_at("kim", "10.0.0.1", later);
        logins.check_at("kim", "10.0.0.1", later).expect("counted anew");
    }

    /// Hazard L13: from many addresses.
    #[test]
    fn a_name_is_guessed_from_everywhere_only_so_often() {
        let logins = Logins::new(3).expect("a key");
        let now = Instant::now();
        let mut tried = 0;
        for address in 0..1000 {
            let address = format!("10.0.{}.{}", address / 256, address % 256);
            if logins.check_at("kim", &address, now).is_ok() {
                logins.wrong_at("kim", &address, now);
                tried += 1;
            }
        }
        assert_eq!(tried, 30);
    }

    /// Hazard L12.
    #[test]
    fn what_is_counted_is_bounded_and_no_way_round() {
        let logins = Logins::new(3).expect("a key");
        let now = Instant::now();
        for name in 0..COUNTED {
            logins.wrong_at(&format!("user{name}"), "10.0.0.1", now);
        }
        assert!(logins.wrong.lock().expect("whole").len() <= COUNTED + 1);
        assert!(logins.check_at("new", "10.0.0.1", now).is_err(), "there is no room to count it");
        logins.check_at("new", "10.0.0.1", now + SPAN).expect("there is again");
        logins.wrong_at("new", "10.0.0.1", now + SPAN);
        assert!(logins.wrong.lock().expect("whole").len() < 10);
    }

    #[test]
    fn nothing_is_counted_where_that_is_off() {
        let logins = Logins::new(0).expect("a key");
        for _ in 0..1000 {
            logins.wrong("kim", "10.0.0.1");
            logins.check("kim", "10.0.0.1").expect("may be tried");
        }
    }
}
