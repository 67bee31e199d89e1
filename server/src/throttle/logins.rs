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

    /// Takes a try of a password of this name. It counts as wrong until it is known not to be: of many that are tried at the
    /// same time no more than those are let through.
    ///
    /// # Errors
    /// When it may be tried again.
    pub(crate) fn begin<'a>(&'a self, name: &'a str, address: &'a str) -> Result<Try<'a>, Duration> {
        self.begin_at(name, address, Instant::now())
    }

    fn begin_at<'a>(&'a self, name: &'a str, address: &'a str, now: Instant) -> Result<Try<'a>, Duration> {
        if self.most > 0 {
            let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
            self.check_at(&wrong, name, address, now)?;
            self.count_at(&mut wrong, name, address, now);
        }
        Ok(Try { logins: self, name, address, is_wrong: false })
    }

    fn take_back(&self, name: &str, address: &str) {
        if self.most == 0 {
            return;
        }
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in self.counted(name, address) {
            // Whoever had no room of its own was counted with the others.
            let key = if wrong.contains_key(&key) { key } else { COMMON };
            if let Some((_, count)) = wrong.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    wrong.remove(&key);
                }
            }
        }
    }

    fn check_at(
        &self,
        wrong: &HashMap<Key, (Instant, u32)>,
        name: &str,
        address: &str,
        now: Instant,
    ) -> Result<(), Duration> {
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

    fn count_at(&self, wrong: &mut HashMap<Key, (Instant, u32)>, name: &str, address: &str, now: Instant) {
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

/// A try of a password. Unless it is said to be wrong it does not count when it has ended, however it did.
#[derive(Debug)]
pub(crate) struct Try<'a> {
    logins: &'a Logins,
    name: &'a str,
    address: &'a str,
    is_wrong: bool,
}

impl Try<'_> {
    /// It was wrong.
    pub(crate) fn wrong(mut self) {
        self.is_wrong = true;
    }
}

impl Drop for Try<'_> {
    fn drop(&mut self) {
        if !self.is_wrong {
            self.logins.take_back(self.name, self.address);
        }
    }
}

/// The count of those for whom there is no room.
const COMMON: Key = [0; 32];

#[cfg(test)]
mod tests {
    use super::*;

    impl Logins {
        fn is_let(&self, name: &str, address: &str, now: Instant) -> Result<(), Duration> {
            self.begin_at(name, address, now).map(drop)
        }

        fn wrong_at(&self, name: &str, address: &str, now: Instant) {
            if let Ok(tried) = self.begin_at(name, address, now) {
                tried.wrong();
            }
        }
    }

    /// Hazard L13.
    #[test]
    fn wrong_passwords_are_counted_by_name_and_address() {
        let logins = Logins::new(3).expect("a key");
        let now = Instant::now();
        for _ in 0..3 {
            logins.is_let("kim", "10.0.0.1", now).expect("may be tried");
            logins.wrong_at("kim", "10.0.0.1", now);
        }
        assert_eq!(logins.is_let("kim", "10.0.0.1", now), Err(SPAN));
        logins.is_let("kim", "10.0.0.2", now).expect("another address");
        logins.is_let("lee", "10.0.0.1", now).expect("another name");
        let later = now + SPAN;
        logins.is_let("kim", "10.0.0.1", later).expect("a minute later");
        logins.wrong_at("kim", "10.0.0.1", later);
        logins.is_let("kim", "10.0.0.1", later).expect("counted anew");
    }

    /// Hazard L13: from many addresses.
    #[test]
    fn a_name_is_guessed_from_everywhere_only_so_often() {
        let logins = Logins::new(3).expect("a key");
        let now = Instant::now();
        let mut tried = 0;
        for address in 0..1000 {
            let address = format!("10.0.{}.{}", address / 256, address % 256);
            if logins.is_let("kim", &address, now).is_ok() {
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
        assert!(logins.is_let("new", "10.0.0.1", now).is_err(), "there is no room to count it");
        logins.is_let("new", "10.0.0.1", now + SPAN).expect("there is again");
        logins.wrong_at("new", "10.0.0.1", now + SPAN);
        assert!(logins.wrong.lock().expect("whole").len() < 10);
    }

    #[test]
    fn nothing_is_counted_where_that_is_off() {
        let logins = Logins::new(0).expect("a key");
        for _ in 0..1000 {
            logins.wrong_at("kim", "10.0.0.1", Instant::now());
            logins.is_let("kim", "10.0.0.1", Instant::now()).expect("may be tried");
        }
    }

    /// Hazard L13: guesses that are under way count, so that many at once are no more than one after the other.
    #[test]
    fn what_is_tried_at_once_is_counted_too() {
        let logins = Logins::new(3).expect("a key");
        let now = Instant::now();
        let mut tries: Vec<_> =
            (0..64).filter_map(|_| logins.begin_at("kim", "10.0.0.1", now).ok()).collect();
        assert_eq!(tries.len(), 3);
        drop(tries.pop());
        tries.push(logins.begin_at("kim", "10.0.0.1", now).expect("one was right"));
        tries.into_iter().for_each(Try::wrong);
        assert_eq!(logins.is_let("kim", "10.0.0.1", now), Err(SPAN));
    }
}
