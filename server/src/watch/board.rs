//! What is watched, as it was last seen, each part with the number of its last change. One board serves all watchers, and
//! keeps nothing for any of them: who is slow is told the latest state of a part, and not each of its changes.

use std::collections::{BTreeMap, VecDeque};

/// So many parts that are gone are remembered. Who has not heard of one that is forgotten begins anew.
const MOST_GONE: usize = 4096;

/// What is watched.
#[derive(Debug)]
pub(crate) struct Board<K, V> {
    /// Tells it from every other board that ever was.
    id: BoardId,
    /// The number of the last change.
    revision: u64,
    /// Each part, with the number of its last change.
    parts: BTreeMap<K, (u64, V)>,
    /// What is gone, with the number of that change, oldest first.
    gone: VecDeque<(u64, K)>,
    /// Whose cursor is below this may have missed that something went.
    floor: u64,
    /// What it was last looked at for: nothing has happened since while this is the same.
    looked_at: Option<u64>,
}

/// Which board: the epoch of the server, and a number in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BoardId {
    pub(crate) epoch: u64,
    pub(crate) number: u64,
}

/// How far a watcher has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) board: BoardId,
    /// The last change that it has heard of.
    pub(crate) revision: u64,
    /// The last change before it began: what had gone by then it never knew.
    pub(crate) begun: u64,
}

/// One thing that a watcher hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News<K, V> {
    /// All that there is follows; what was heard before counts for nothing.
    Begins,
    /// A part is new, or is as it is here.
    Is(V),
    /// A part is gone.
    Gone(K),
}

impl<K: Copy + Ord, V: Clone + PartialEq> Board<K, V> {
    /// A board of which nothing is known yet.
    pub(crate) fn new(id: BoardId) -> Self {
        let (parts, gone) = (BTreeMap::new(), VecDeque::new());
        Self { id, revision: 0, parts, gone, floor: 0, looked_at: None }
    }

    /// Whether it was looked at since this.
    pub(crate) fn has_seen(&self, change: u64) -> bool {
        self.looked_at == Some(change)
    }

    /// Takes in how all of it is now.
    pub(crate) fn look(&mut self, change: Option<u64>, now: BTreeMap<K, V>) {
        self.looked_at = change;
        let vanished: Vec<K> = self.parts.keys().filter(|key| !now.contains_key(key)).copied().collect();
        for key in vanished {
            self.parts.remove(&key);
            self.revision += 1;
            self.gone.push_back((self.revision, key));
        }
        for (key, value) in now {
            if self.parts.get(&key).is_none_or(|(_, known)| *known != value) {
                self.revision += 1;
                self.parts.insert(key, (self.revision, value));
            }
        }
        while self.gone.len() > MOST_GONE {
            self.floor = self.gone.pop_front().map_or(self.floor, |(revision, _)| revision);
        }
    }

    /// The next things that one hears who has heard that much, each with how much it has heard then: at most so many. Whose
    /// cursor is of another board, or of before what is remembered, begins anew.
    pub(crate) fn next(&self, heard: Option<Cursor>, most: usize) -> Vec<(Cursor, News<K, V>)> {
        let known = heard.filter(|heard| {
            heard.board == self.id
                && heard.revision.max(heard.begun) >= self.floor
                && heard.revision.max(heard.begun) <= self.revision
        });
        let Some(heard) = known else {
            let cursor = Cursor { board: self.id, revision: 0, begun: self.revision };
            return vec![(cursor, News::Begins)];
        };
        let is_new = |revision: u64| revision > heard.revision;
        let is = self.parts.iter().filter(|(_, (revision, _))| is_new(*revision));
        let is = is.map(|(key, (revision, value))| (*revision, key, Some(value)));
        let gone = self.gone.iter().filter(|(revision, _)| is_new(*revision));
        let gone = gone.map(|(revision, key)| (*revision, key, None));
        let mut all: Vec<_> = is.chain(gone).collect();
        all.sort_by_key(|(revision, ..)| *revision);
        all.truncate(most);
        let told = |(revision, key, value): (u64, &K, Option<&V>)| {
            let news = value.map_or(News::Gone(*key), |value| News::Is(value.clone()));
            (Cursor { revision, ..heard }, news)
        };
        all.into_iter().map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: BoardId = BoardId { epoch: 7, number: 1 };

    /// What a watcher knows that heeds what it hears.
    #[derive(Default)]
    struct Watcher {
        heard: Option<Cursor>,
        knows: BTreeMap<u8, u8>,
        begun: usize,
    }

    impl Watcher {
        /// Hears at most so many things; says whether there was any.
        fn hear(&mut self, board: &Board<u8, (u8, u8)>, most: usize) -> bool {
            let news = board.next(self.heard, most);
            for (cursor, news) in &news {
                self.heard = Some(*cursor);
                match news {
                    News::Begins => {
                        self.knows.clear();
                        self.begun += 1;
                    }
                    News::Is((key, value)) => {
                        self.knows.insert(*key, *value);
                    }
                    News::Gone(key) => {
                        self.knows.remove(key);
                    }
                }
            }
            !news.is_empty()
        }
    }

    fn parts(parts: &BTreeMap<u8, u8>) -> BTreeMap<u8, (u8, u8)> {
        parts.iter().map(|(key, value)| (*key, (*key, *value))).collect()
    }

    proptest! {
        /// Whatever changes, and however slowly and with whichever pauses a watcher hears of it: in the end it knows what there
        /// is, and has begun once.
        #[test]
        fn a_watcher_knows_in_the_end_what_there_is(
            states in prop::collection::vec(prop::collection::btree_map(0..6_u8, 0..3_u8, 0..6), 1..20),
            pace in prop::collection::vec(0..4_usize, 20),
        ) {
            let (mut board, mut watcher) = (Board::new(ID), Watcher::default());
            for (state, pace) in states.iter().zip(pace) {
                board.look(None, parts(state));
                if pace > 0 {
                    watcher.hear(&board, pace);
                }
            }
            while watcher.hear(&board, 2) {}
            prop_assert_eq!(&watcher.knows, states.last().expect("a state"));
            prop_assert_eq!(watcher.begun, 1);
        }
    }

    /// A removal is never lost without a word: who was away for too long, or heard of another board, begins anew.
    #[test]
    fn who_may_have_missed_something_begins_anew() {
        let mut board = Board::new(ID);
        board.look(None, (0..5000_u16).map(|key| (key, key)).collect());
        let hear = |board: &Board<u16, u16>, heard, most| {
            let news = board.next(heard, most);
            (news.last().expect("news").0, news.into_iter().map(|(_, news)| news).collect::<Vec<_>>())
        };
        let (begun, _) = hear(&board, None, 1);
        let (early, _) = hear(&board, Some(begun), 1);
        let (late, all) = hear(&board, Some(begun), 5000);
        assert_eq!(all.len(), 5000);
        assert!(board.next(Some(late), 1).is_empty());
        board.look(None, BTreeMap::from([(0, 0)]));
        for heard in [Some(begun), Some(early), Some(late), None] {
            assert_eq!(hear(&board, heard, 5).1, [News::Begins], "903 of those that are gone are forgotten");
        }
        let (now, _) = hear(&board, None, 1);
        assert_eq!(hear(&board, Some(now), 5000).1.iter().filter(|news| **news == News::Is(0)).count(), 1);
        for foreign in [BoardId { epoch: 8, ..ID }, BoardId { number: 2, ..ID }] {
            assert_eq!(hear(&board, Some(Cursor { board: foreign, ..now }), 1).1, [News::Begins]);
        }
        let future = Cursor { revision: u64::MAX, ..now };
        assert_eq!(hear(&board, Some(future), 1).1, [News::Begins], "of a future that never was");
    }
}
