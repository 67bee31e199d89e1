//! One death of the agent at a place, and what comes after it.

use std::{
    fmt::Debug,
    fs,
    time::{Duration, Instant},
};

use belay_proto::{
    Problem,
    agent::v1::{ObservedProcess, Operation, OperationState, ProcessPhase},
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{
    host::{Host, PATIENCE, Way, alive, calls::Ask, eventually, install},
    places::{AGAIN, Story},
    victims::{KINDS, Kind, Victim},
};

/// How long a victim that does not end is left alone.
const GRACE: &str = "300ms";

/// The same where those that do end must have the time for it, also on a busy machine.
const LONG_GRACE: &str = "3s";

/// How long the agent may take to come by a second time, where it is not sure that it does.
const SECOND_TIME: Duration = Duration::from_millis(300);

/// How a run went.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Whether the agent came by the place.
    pub hit: bool,
    /// How often the agent died.
    pub deaths: usize,
}

/// One run.
pub(crate) struct Run {
    place: &'static str,
    what: &'static str,
    story: Story,
    dice: Dice,
    host: Host,
    victims: Vec<Victim>,
    done: Done,
    /// Whether it is to fail at the first time; otherwise at the second, where there is one.
    first_time: bool,
    /// Whether it comes by for sure.
    is_sure: bool,
    /// The epoch of the server that ordered last.
    epoch: u64,
    _folder: TempDir,
}

impl Run {
    /// An agent whose processes run.
    pub(crate) async fn new(place: &'static str, what: &'static str, story: Story, seed: u64) -> Self {
        let mut dice = Dice::new(place, seed);
        let folder = tempfile::tempdir().unwrap();
        let several = matches!(story, Story::Cancel | Story::Void | Story::Reload | Story::Upgrade);
        let count = if several { 2 } else { 1 + dice.roll(3) };
        let victims: Vec<_> = ["a", "b", "c"][..count]
            .iter()
            .map(|alias| {
                let kind = match (story, *alias) {
                    (Story::Kill | Story::Cancel, "a") => Kind::Deaf,
                    (Story::Rest, "a") => Kind::Daemon,
                    _ => KINDS[dice.roll(KINDS.len())],
                };
                Victim::new(alias, kind, folder.path())
            })
            .collect();
        let declarations: Vec<_> = victims
            .iter()
            .map(|victim| {
                let grace = match story {
                    Story::Rest | Story::Cancel => LONG_GRACE,
                    _ => GRACE,
                };
                let text = victim.declaration(grace, story == Story::Hook);
                // One comes after the other.
                let base = story == Story::Cancel && victim.alias == "b";
                (victim.alias, if base { format!("operable = false\n{text}") } else { text })
            })
            .collect();
        let declared: Vec<_> = declarations.iter().map(|(alias, text)| (*alias, text.as_str())).collect();
        let mode = ["auto", "off"][dice.roll(2)];
        let way = Way {
            settings: format!("cgroup = \"{mode}\"\n"),
            fails: true,
            own_program: story == Story::Upgrade,
            ..Way::default()
        };
        let host = Host::start_so(&declared, way).await;
        for victim in &victims {
            eventually(|| victim.has_begun(1)).await;
        }
        let first_time = seed == 0 || dice.roll(3) > 0;
        let done = Done::default();
        // What an order under way comes to before the agent is killed is left to chance.
        let is_sure = first_time && (story != Story::Begin || seed == 0 || dice.roll(2) == 0);
        Self { place, what, story, dice, host, victims, done, first_time, is_sure, epoch: 1, _folder: folder }
    }

    /// Plays it to its end.
    pub(crate) async fn play(mut self) -> Done {
        match self.story {
            Story::Cancel => self.cancel().await,
            Story::Void => self.void().await,
            Story::Local => self.local().await,
            Story::Reload => self.reload().await,
            Story::Upgrade => self.upgrade().await,
            _ => self.order().await,
        }
        self.done
    }

    /// An order to all or one.
    async fn order(&mut self) {
        let starts = [Ask::Start("a"), Ask::Restart("a"), Ask::StartAll];
        let stops = [Ask::Stop("a"), Ask::Restart("a"), Ask::StopAll];
        let ask = match self.story {
            Story::Start => starts[self.dice.roll(3)].clone(),
            // Somebody has to be there to be taken back.
            Story::Begin if self.is_sure => stops[self.dice.roll(3)].clone(),
            Story::Stop | Story::Kill | Story::Rest | Story::Hook | Story::Gone => {
                stops[self.dice.roll(3)].clone()
            }
            _ if self.dice.roll(2) == 0 => starts[self.dice.roll(3)].clone(),
            _ => stops[self.dice.roll(3)].clone(),
        };
        let mut times = 1;
        if matches!(ask, Ask::Start(_) | Ask::StartAll) {
            let stopped = self.host.ask(Ask::StopAll, &id(), 1).await.unwrap();
            assert_eq!(stopped.state(), OperationState::Done, "{stopped:?}");
        }
        let id = id();
        match self.story {
            Story::Begin => {
                // The order is under way when the agent is killed, or has not even arrived.
                if self.is_sure {
                    self.host.crash().await;
                } else {
                    let call = tokio::spawn(self.host.ask(ask.clone(), &id, 1));
                    sleep(Duration::from_millis(self.dice.roll(30) as u64)).await;
                    self.host.crash().await;
                    let _ = call.await.unwrap();
                }
                self.arm();
                self.host.run();
            }
            Story::Gone => {
                self.host.crash().await;
                for pid in self.victims.iter().flat_map(Victim::living) {
                    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
                    eventually(|| !alive(pid)).await;
                }
                // What is left of a family would keep its instance alive.
                for pid in self.victims.iter().flat_map(|victim| self.host.members(victim.alias)) {
                    let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
                }
                times += 1;
                self.arm();
                self.host.run();
            }
            Story::Again => {
                let first = self.host.ask(ask.clone(), &id, 1).await.unwrap();
                assert_eq!(first.state(), OperationState::Done, "{first:?}");
                self.arm();
            }
            _ => self.arm(),
        }
        let mut answer = self.until_answered(ask.clone(), &id).await;
        if self.expect_death().await {
            answer = self.until_answered(ask.clone(), &id).await;
        }
        self.settle().await;
        self.check_order(&ask, &answer, times).await;
        self.check_nothing_more_happens(&id, &answer).await;
    }

    async fn check_order(&self, ask: &Ask, answer: &Operation, times: usize) {
        let place = self.place;
        assert_eq!(answer.state(), OperationState::Done, "{place}: {answer:#?}");
        for victim in &self.victims {
            let is_named = match ask {
                Ask::Stop(alias) | Ask::Start(alias) | Ask::Restart(alias) => *alias == victim.alias,
                Ask::StopAll | Ask::StartAll | Ask::Cancel => true,
            };
            let (running, begun) = match ask {
                Ask::Stop(_) | Ask::StopAll => (!is_named, None),
                Ask::Restart(_) => (true, Some(times + usize::from(is_named))),
                _ => (is_named, Some(times + usize::from(is_named))),
            };
            self.check_victim(victim, running).await;
            let all = victim.begun().len();
            // Who ended while no agent lived is begun once more, unless the stop comes first.
            let gone = self.story == Story::Gone;
            assert!(gone || begun.is_none_or(|begun| all == begun), "{place}, {ask:?}: {}", victim.told());
            assert!(all <= times + 1, "{place}, {ask:?}: {}", victim.told());
        }
    }

    /// Nobody was asked twice, and it is as it should be.
    async fn check_victim(&self, victim: &Victim, running: bool) {
        let place = self.place;
        assert!(victim.asked().values().all(|times| *times <= 1), "{place}: {}", victim.told());
        assert!(victim.hooks() <= 1, "{place}: {}", victim.told());
        let process = self.host.process(victim.alias).await;
        let wanted = if running { ProcessPhase::Running } else { ProcessPhase::Stopped };
        assert_eq!((process.phase(), process.desired_running), (wanted, running), "{place}: {process:?}");
        match running {
            true => assert_eq!(victim.living(), [process.pid], "{place}: {}", victim.told()),
            false => assert!(self.host.members(victim.alias).is_empty(), "{place}: {}", victim.told()),
        }
    }

    /// One more life of the agent finds everything as it is, and leaves it so.
    async fn check_nothing_more_happens(&mut self, id: &str, answer: &Operation) {
        let told = |run: &Self| run.victims.iter().map(Victim::told).collect::<Vec<_>>();
        let before = told(self);
        self.host.crash().await;
        self.host.begin().await;
        let again = self.host.operation(id).await;
        // What could not be written down when it ended is not known any more, or is done again.
        if self.what != "error" {
            assert_eq!(gist(&again.unwrap()), gist(answer), "{}", self.place);
        }
        self.settle().await;
        assert_eq!(told(self), before, "{}", self.place);
    }

    /// A stop of all that is cancelled while the first are under way.
    async fn cancel(&mut self) {
        let id = id();
        let call = tokio::spawn(self.host.ask(Ask::StopAll, &id, 1));
        eventually(|| !self.victims[0].asked().is_empty()).await;
        self.arm();
        self.until_answered(Ask::Cancel, &id).await;
        let _ = self.expect_death().await;
        let _ = call.await.unwrap();
        let answer = self.until_answered(Ask::StopAll, &id).await;
        self.settle().await;
        // One that was never written down came too late, where the agent was dead for so long.
        let left_alone = answer.state() == OperationState::Failed;
        if left_alone {
            assert_eq!(answer.reason, "CANCELLED", "{answer:#?}");
            assert_eq!(answer.changed, ["a"], "{answer:#?}");
        }
        assert!(left_alone || self.place == "cancel.arrived", "{}: {answer:#?}", self.place);
        self.check_victim(&self.victims[0], false).await;
        self.check_victim(&self.victims[1], left_alone).await;
        assert!(!left_alone || self.victims[1].asked().is_empty(), "{}", self.place);
        self.check_nothing_more_happens(&id, &answer).await;
    }

    /// A stop of all that is cancelled before it arrives.
    async fn void(&mut self) {
        let id = id();
        self.arm();
        self.until_answered(Ask::Cancel, &id).await;
        let _ = self.expect_death().await;
        let answer = self.until_answered(Ask::StopAll, &id).await;
        assert_eq!(answer.reason, "CANCELLED", "{}: {answer:#?}", self.place);
        self.settle().await;
        for victim in &self.victims {
            self.check_victim(victim, true).await;
            assert!(victim.asked().is_empty());
        }
        self.check_nothing_more_happens(&id, &answer).await;
    }

    /// A stop that a person on the host orders. It has no id that could be repeated; the server hears of it all the same.
    async fn local(&mut self) {
        self.arm();
        self.until_told(&["stop", "a"]).await;
        let _ = self.expect_death().await;
        self.settle().await;
        self.check_victim(&self.victims[0], false).await;
        eventually(|| self.host.server.local_operations().iter().any(|told| told.aliases == ["a"])).await;
    }

    /// A reload that takes one away, gives another one another setting, and brings a new one.
    async fn reload(&mut self) {
        let new = Victim::new("d", Kind::Polite, self.victims[0].ledger.parent().unwrap());
        self.host.also_has(new.alias);
        let declaration = new.declaration(GRACE, false);
        let b = self.victims[1].declaration(GRACE, false);
        self.host.edit(|text| {
            let (head, _) = text.split_once("[[process]]").unwrap();
            let changed = format!("environment = {{ CHANGED = \"1\" }}\n{b}");
            format!("{head}[[process]]\nalias = \"b\"\n{changed}[[process]]\nalias = \"d\"\n{declaration}")
        });
        self.arm();
        self.until_told(&["reload"]).await;
        let _ = self.expect_death().await;
        eventually(|| new.has_begun(1)).await;
        let (a, b) = (&self.victims[0], &self.victims[1]);
        // What was not written down before the agent died is not stopped: it may be another configuration by now.
        let is_planned = !self.done.hit || self.place != "reload.planned";
        if is_planned {
            eventually(|| self.host.members("a").is_empty()).await;
        }
        let ordered = is_planned && (!self.done.hit || self.place != "reload.removed");
        eventually(|| b.begun().len() == 1 + usize::from(ordered)).await;
        self.host.shows(|all| all.len() == 2 && all.iter().all(|p| p.phase() == ProcessPhase::Running)).await;
        self.check_victim(b, true).await;
        self.check_victim(&new, true).await;
        assert_eq!((a.begun().len(), new.begun().len()), (1, 1), "{}", self.place);
        assert!(a.asked().values().all(|times| *times == 1), "{}", a.told());
    }

    /// The same program takes its own place.
    async fn upgrade(&mut self) {
        let before: Vec<_> = self.victims.iter().map(Victim::living).collect();
        install(env!("CARGO_BIN_EXE_belay-agent").as_ref(), &self.host.folder().join("belay-agent"));
        self.arm();
        self.until_told(&["upgrade"]).await;
        let _ = self.expect_death().await;
        self.settle().await;
        assert_eq!(self.victims.iter().map(Victim::living).collect::<Vec<_>>(), before, "{}", self.place);
        let id = id();
        let stopped = self.until_answered(Ask::StopAll, &id).await;
        self.check_order(&Ask::StopAll, &stopped, 1).await;
    }

    /// From now on the agent fails at the place.
    fn arm(&mut self) {
        let time = if self.first_time { 1 } else { 2 };
        self.host.fail_at(&format!("{}={}@{time}", self.place, self.what));
    }

    /// Orders until it is answered, as a server does: always the same, of a higher epoch each time.
    async fn until_answered(&mut self, ask: Ask, id: &str) -> Operation {
        let began = Instant::now();
        loop {
            self.epoch += 1;
            let answer = timeout(PATIENCE, self.host.ask(ask.clone(), id, self.epoch)).await;
            match answer.unwrap_or_else(|_| panic!("{}: no answer", self.place)) {
                Ok(operation) => return operation,
                Err(status) if self.host.is_running() && began.elapsed() < PATIENCE => {
                    assert!(Problem::from_status(&status).is_none(), "{}: {status:?}", self.place);
                    sleep(Duration::from_millis(5)).await;
                }
                Err(_) => self.rise().await,
            }
        }
    }

    /// Has a person on the host order this until it is answered.
    async fn until_told(&mut self, arguments: &[&str]) {
        loop {
            let call = tokio::spawn(self.host.ctl(arguments));
            while !call.is_finished() {
                if !self.host.is_running() {
                    self.rise().await;
                }
                sleep(Duration::from_millis(5)).await;
            }
            let told = call.await.unwrap();
            if told.code == 0 {
                return;
            }
        }
    }

    /// Begins another life of the agent, which has died, or is about to; it may die again.
    async fn rise(&mut self) {
        loop {
            let ended = self.host.ended().await;
            let signal = ended.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
            assert_eq!(signal, Some(Signal::ABORT.as_raw()), "{}: {ended:?}", self.place);
            self.done.deaths += 1;
            self.done.hit = true;
            let again = self.done.deaths < 3 && self.dice.roll(3) == 0;
            self.host.fail_at(&match again {
                true => format!("{}=kill", AGAIN[self.dice.roll(AGAIN.len())]),
                false => String::new(),
            });
            self.host.run();
            while self.host.is_running() {
                if self.host.try_inventory().await.is_ok() {
                    return;
                }
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    /// Where the agent has not come by the place yet, it does so now. Says whether it died of it.
    async fn expect_death(&mut self) -> bool {
        let deaths = self.done.deaths;
        if self.what == "error" {
            self.done.hit |= self.host.log().contains(&format!("fail point `{}`", self.place));
        } else if !self.done.hit {
            let patience = if self.is_sure { PATIENCE } else { SECOND_TIME };
            if !self.host.stays(patience).await {
                self.rise().await;
            }
        }
        self.host.fail_at("");
        self.done.deaths > deaths
    }

    /// Waits until nothing is under way.
    async fn settle(&self) {
        let at_rest = |phase| matches!(phase, ProcessPhase::Running | ProcessPhase::Stopped);
        self.host.shows(|all| !all.is_empty() && all.iter().all(|process| at_rest(process.phase()))).await;
        for victim in &self.victims {
            eventually(|| victim.living().is_empty() || victim.has_begun(victim.begun().len())).await;
        }
        assert!(fs::exists(self.host.state()).unwrap());
    }
}

/// What is the same over all lives of an agent. How far a process had been seen is not.
fn gist(operation: &Operation) -> impl PartialEq + Debug {
    let Operation { id, reason, message, changed, .. } = operation.clone();
    let process = |process: &ObservedProcess| {
        (process.alias.clone(), process.phase(), process.pid, process.generation, process.last_exit.clone())
    };
    let processes: Vec<_> = operation.processes.iter().map(process).collect();
    (id, operation.state(), reason, message, changed, processes)
}

/// As a server makes them.
fn id() -> String {
    Uuid::now_v7().to_string()
}

/// Chance that a seed repeats.
struct Dice(u64);

impl Dice {
    fn new(place: &str, seed: u64) -> Self {
        let start = place.bytes().fold(seed, |all, byte| all.wrapping_mul(31).wrapping_add(byte.into()));
        Self(start)
    }

    /// A number below this one.
    fn roll(&mut self, sides: usize) -> usize {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }
}
