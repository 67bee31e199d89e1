//! One death of the server at a place, and all that comes before and after it until nothing is left to be done.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use belay_proto::{
    Reason,
    v1::{BatchPolicy, Task, TaskState},
};
use belay_tests::{Kind, PATIENCE, Script};
use tokio::time::sleep;

use super::{
    arena::{ALIASES, Arena, HOSTS, Heard},
    asks::{Ask, Ordered, Verb, is_over, policy},
    places::{AGAIN, Story},
};

/// One round.
pub(super) struct Round<'a> {
    pub(super) arena: &'a mut Arena,
    pub(super) place: &'a str,
    what: &'static str,
    story: Story,
    pub(super) seed: u64,
    pub(super) dice: Dice,
    pub(super) verb: Verb,
    /// The numbers of the hosts.
    pub(super) hosts: Vec<usize>,
    /// How it goes, where it is for many.
    policy: Option<BatchPolicy>,
    /// What an operator does, and whether the server is to fail then.
    asks: VecDeque<(Ask, bool)>,
    /// How often each thing was asked, and how often it was let in.
    pub(super) asked: BTreeMap<&'static str, (i64, i64)>,
    /// Which processes ran at the beginning.
    pub(super) before: BTreeMap<(usize, &'static str), bool>,
    /// What each agent was meant to be doing then.
    pub(super) meant: BTreeMap<i64, String>,
    /// Operators cancel it in the middle.
    meddles: bool,
    /// A host loses its connections in the middle.
    loses: bool,
    /// When somebody kills the server in the middle.
    killed_at: Option<Instant>,
    pub(super) began: Instant,
}

/// How a round went.
pub(super) struct Done {
    /// Whether the server came by the place.
    pub(super) hit: bool,
    /// How often it died.
    pub(super) deaths: usize,
    /// How it ended.
    pub(super) end: &'static str,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        arena: &'a mut Arena,
        place: &'a str,
        what: &'static str,
        story: Story,
        seed: u64,
    ) -> Self {
        let mut dice = Dice::new(place, seed);
        let verb = match story {
            Story::Start | Story::UndoStart | Story::CancelStart | Story::StartOne => Verb::Start,
            Story::Restart | Story::RestartOne => Verb::Restart,
            Story::Order | Story::Batch | Story::Pause | Story::Resume | Story::Approve | Story::Begin => {
                [Verb::Stop, Verb::Start, Verb::Restart][dice.roll(3)]
            }
            _ => Verb::Stop,
        };
        let verb = match story {
            Story::UndoStop | Story::UndoStart if dice.roll(2) == 1 => Verb::Restart,
            _ => verb,
        };
        let many = match story {
            Story::Batch | Story::BatchKey | Story::Pause | Story::Resume | Story::Approve => true,
            Story::Key | Story::Suspect | Story::Earlier | Story::Move => false,
            _ => dice.roll(2) == 1,
        };
        let count = if many { 2 + dice.roll(4) } else { 1 };
        let first = dice.roll(HOSTS);
        let hosts: Vec<_> = (0..count).map(|place| (first + place) % HOSTS).collect();
        let policy = many.then(|| policy(&mut dice, story));
        let (asked, before, meant) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let asks = match story {
            Story::UndoStop | Story::UndoStart | Story::Rollback => vec![(Ask::Rollback, true)],
            Story::Retry | Story::Earlier => vec![(Ask::Retry, true)],
            Story::Skip => vec![(Ask::Skip, true)],
            Story::CancelStop | Story::CancelStart => vec![(Ask::Cancel, true)],
            Story::Pause => vec![(Ask::Pause, true), (Ask::Resume, false)],
            Story::Resume => vec![(Ask::Pause, false), (Ask::Resume, true)],
            Story::Approve => vec![(Ask::Approve, true)],
            _ => Vec::new(),
        };
        let meddles = seed > 0 && dice.roll(4) == 0;
        let loses = seed > 0 && dice.roll(4) == 0;
        let killed_at = (seed > 0 && dice.roll(5) == 0)
            .then(|| Instant::now() + Duration::from_millis(dice.roll(400) as u64));
        Self {
            arena,
            place,
            what,
            story,
            seed,
            dice,
            verb,
            hosts,
            policy,
            asks: asks.into(),
            asked,
            before,
            meant,
            meddles,
            loses,
            killed_at,
            began: Instant::now(),
        }
    }

    /// Plays it to its end.
    pub(super) async fn play(mut self) -> Done {
        self.prepare().await;
        let end = match self.story {
            Story::StopOne | Story::StartOne | Story::RestartOne | Story::Unsettled => {
                self.order_one().await;
                self.check_settled(None).await;
                self.check_one().await;
                "answered"
            }
            Story::Move => {
                let id = self.move_host().await;
                self.check_settled(Some(id)).await;
                "moved"
            }
            _ => {
                let id = self.order().await;
                if self.story == Story::Begin {
                    self.until_begun().await;
                    let armed = self.armed();
                    self.arena.kill(&armed).await;
                }
                let task = self.drive(id).await;
                self.check_settled(Some(id)).await;
                self.check_task(&task).await
            }
        };
        Done { hit: self.is_hit(), deaths: self.arena.deaths, end }
    }

    /// Brings the hosts to where they are at the beginning, and says what they and the server are to do.
    async fn prepare(&mut self) {
        self.arena.clear_log();
        (self.arena.deaths, self.arena.died_of) = (0, Vec::new());
        for &host in &self.hosts {
            for (number, alias) in ALIASES.into_iter().enumerate() {
                let runs = match (self.verb, number) {
                    (Verb::Start, 0) => false,
                    (Verb::Restart, 0) | (Verb::Stop, 0) => true,
                    // What did not run before is in the way back of a restart.
                    (Verb::Restart, _) if self.story == Story::UndoStart => false,
                    _ => self.dice.roll(2) == 0,
                };
                self.arena.agents.agent(host).happens(alias, runs);
                self.before.insert((host, alias), runs);
            }
        }
        for &host in &self.hosts {
            self.arena.agents.agent(host).wait_for_host().await;
        }
        let rows = self.arena.rows("SELECT id, agent_state FROM hosts".into()).await;
        let meant =
            |row: &sea_orm::QueryResult| Some((row.try_get_by_index(0).ok()?, row.try_get_by_index(1).ok()?));
        self.meant = rows.iter().filter_map(meant).collect();
        self.arena.agents.orders().take();
        self.script();
        let (armed, stuck) = (self.armed(), "step.stop_all.runs=kill");
        let finish = match self.verb {
            Verb::Stop => "step.finish_stop.runs=panic@1",
            Verb::Start | Verb::Restart => "step.finish_start.runs=panic@1",
        };
        let (first, next): (&str, &[&str]) = match self.story {
            Story::UndoStop if self.verb == Verb::Restart => ("step.start_all.runs=panic@1", &[]),
            Story::UndoStop | Story::UndoStart | Story::Retry | Story::Rollback | Story::Skip => {
                (finish, &[])
            }
            Story::Earlier => ("order.StopAllProcesses.answered=panic@1", &[]),
            Story::CancelStop | Story::CancelStart | Story::Pause | Story::Resume => ("", &[]),
            Story::Approve | Story::Begin => ("", &[]),
            Story::Suspect => (stuck, &[stuck, stuck, &armed]),
            Story::Unsettled => ("process.StopProcess.answered=kill", &[&armed]),
            _ => (&armed, &[]),
        };
        self.arena.lives = next.iter().map(|life| (*life).to_owned()).collect();
        // Others may die once more, somewhere.
        if next.is_empty() && self.seed > 0 && self.dice.roll(2) == 0 {
            let again = AGAIN[self.dice.roll(AGAIN.len())];
            self.arena.lives.push_back(format!("{again}=kill@{}", 1 + self.dice.roll(2)));
        }
        self.arena.set(first);
    }

    /// What agents make of orders: at once, slowly, or one of them fails.
    fn script(&mut self) {
        let slowly = Duration::from_millis(match self.story {
            // So long that they hear of the cancel meanwhile.
            Story::CancelStop | Story::CancelStart => 300,
            Story::Pause | Story::Resume | Story::Begin => 80 + self.dice.roll(50) as u64,
            _ if self.loses => 60,
            _ if self.seed > 0 => self.dice.roll(40) as u64,
            _ => 0,
        });
        let agents = &self.arena.agents;
        agents.play(&if slowly.is_zero() { Script::AtOnce } else { Script::After(slowly) });
        // The answer would not be an answer then.
        let is_one = matches!(self.story, Story::StopOne | Story::StartOne | Story::RestartOne);
        if self.seed > 0
            && !is_one
            && !matches!(self.story, Story::Unsettled | Story::Skip)
            && self.dice.roll(4) == 0
        {
            let failing = self.hosts[self.dice.roll(self.hosts.len())];
            let why = (Reason::Leftovers, "`obstat2` is still alive".to_owned());
            agents.agent(failing).play(Script::Fails(why.0, why.1));
        }
    }

    /// The place, as the server is told of it. What it comes by often it may fail at later.
    fn armed(&mut self) -> String {
        let is_often = self.place.starts_with("append.") && !self.place.contains(".end.");
        let time = if is_often && self.seed > 0 { 1 + self.dice.roll(6) } else { 1 };
        format!("{}={}@{time}", self.place, self.what)
    }

    pub(super) fn is_hit(&self) -> bool {
        let of_it = |set: &String| set.starts_with(&format!("{}=", self.place));
        match self.what {
            "panic" => self.arena.has_panicked_at(self.place),
            _ => self.arena.died_of.iter().any(of_it),
        }
    }

    /// Orders it until that is known to be taken. Gives the task's id.
    async fn order(&mut self) -> i64 {
        let last = self.arena.number("SELECT COALESCE(MAX(id), 0) FROM tasks".into()).await;
        let newest = format!("SELECT COALESCE(MAX(id), 0) FROM tasks WHERE id > {last}");
        // Under a key it is sent again until it is answered; without one it is looked for.
        let is_keyed = matches!(self.story, Story::Key | Story::BatchKey) || self.dice.roll(2) == 0;
        let key = is_keyed.then(|| format!("{}-{}-{last}", self.place, self.seed));
        let id = loop {
            let this =
                Ordered { verb: self.verb, ids: self.ids(), policy: self.policy.clone(), key: key.clone() };
            match self.arena.call(async |wire| this.send(&wire).await).await {
                Heard::Answer(task) => break task.id,
                Heard::Refused(problem) => {
                    let is_early = [Reason::AgentUnreachable, Reason::IdempotencyKeyInUse];
                    assert!(is_early.contains(&problem.reason), "{}: {problem:?}", self.told());
                    self.pause().await;
                }
                Heard::Died if is_keyed => {}
                Heard::Died => match self.arena.number(newest.clone()).await {
                    0 => {}
                    taken => break taken,
                },
            }
        };
        let taken = self.arena.number(format!("SELECT COUNT(*) FROM tasks WHERE id > {last}")).await;
        assert_eq!((taken, self.arena.number(newest).await), (1, id), "{}: taken once", self.told());
        id
    }

    pub(super) fn ids(&self) -> Vec<i64> {
        self.hosts.iter().map(|host| self.arena.ids[*host]).collect()
    }

    /// Waits until an agent has begun something, or the task has ended without.
    async fn until_begun(&mut self) {
        while !self.has_begun() && self.began.elapsed() < PATIENCE {
            sleep(Duration::from_millis(2)).await;
        }
    }

    fn has_begun(&self) -> bool {
        let all = self.arena.agents.orders().all();
        all.iter().any(|entry| matches!(entry.kind, Kind::Begun { .. }))
    }

    /// Does with the task what there is to do, until it is done or undone.
    async fn drive(&mut self, id: i64) -> Task {
        loop {
            if self.killed_at.is_some_and(|at| Instant::now() > at) && self.arena.fleet.server.is_running() {
                self.killed_at = None;
                let next = if self.is_hit() { String::new() } else { self.arena.armed().to_owned() };
                self.arena.kill(&next).await;
            }
            if self.loses && self.has_begun() {
                self.loses = false;
                self.lose_an_answer().await;
            }
            let task = match self.arena.task(id).await {
                Heard::Answer(task) => task,
                Heard::Refused(problem) => panic!("{}: {problem:?}", self.told()),
                Heard::Died => continue,
            };
            let state = task.state();
            assert!(self.began.elapsed() < PATIENCE * 2, "{}: it does not end: {state:?}", self.told());
            if matches!(state, TaskState::Successful | TaskState::RolledBack) {
                return task;
            }
            if let Some(&(ask, arms)) = self.asks.front()
                && ask.is_for(state)
                && (state != TaskState::Running || self.has_begun())
            {
                if arms && !self.is_hit() {
                    let armed = self.armed();
                    self.arena.set(&armed);
                }
                if self.ask(&task, ask).await {
                    self.asks.pop_front();
                }
                continue;
            }
            match state {
                TaskState::Paused => {
                    let waits = &task.batch.as_ref().expect("a batch").waits_for;
                    let approve = waits.iter().any(|wait| wait.contains("approve"));
                    self.ask(&task, if approve { Ask::Approve } else { Ask::Resume }).await;
                }
                TaskState::Running if self.meddles && self.is_hit() && self.has_begun() => {
                    self.meddles = false;
                    self.ask(&task, Ask::Cancel).await;
                }
                TaskState::RollbackStuck => {
                    self.arena.agents.play(&Script::AtOnce);
                    self.ask(&task, Ask::Retry).await;
                }
                state if is_over(state) => {
                    self.arena.agents.play(&Script::AtOnce);
                    let goes_on = !self.is_hit() || self.dice.roll(2) == 0;
                    self.ask(&task, if goes_on { Ask::Retry } else { Ask::Rollback }).await;
                }
                _ => self.pause().await,
            }
        }
    }

    /// A host loses its connections while it does what it was ordered to, and comes back: the answer is lost.
    async fn lose_an_answer(&mut self) {
        let lost = self.hosts[self.dice.roll(self.hosts.len())];
        let agent = self.arena.agents.agent(lost);
        agent.leave();
        sleep(Duration::from_millis(self.dice.roll(80) as u64)).await;
        match self.dice.roll(4) {
            0 => agent.come_back_anew().await,
            _ => agent.come_back().await,
        }
    }

    /// Lets the server go on for a moment.
    pub(super) async fn pause(&self) {
        sleep(Duration::from_millis(15)).await;
    }

    /// What a failure shows, and what to run again.
    pub(super) fn told(&self) -> String {
        let (place, seed, verb, hosts) = (self.place, self.seed, self.verb, &self.hosts);
        let died_of = &self.arena.died_of;
        format!("BELAY_PLACE={place} ({}) seed {seed}: {verb:?} of {hosts:?}, died of {died_of:?}", self.what)
    }
}

/// Chance that a seed repeats.
pub(super) struct Dice(u64);

impl Dice {
    fn new(place: &str, seed: u64) -> Self {
        let start = place.bytes().fold(seed, |all, byte| all.wrapping_mul(31).wrapping_add(byte.into()));
        Self(start)
    }

    /// A number below this one.
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).expect("small")
    }
}
