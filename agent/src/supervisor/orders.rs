//! Takes orders in, gives each process its turn, and brings operations to their end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use belay_proto::{Problem, Reason};
use tokio::sync::watch;
use tracing::{Span, info, info_span, warn};
use uuid::Uuid;

use super::{
    Ticket,
    owner::{Owner, Work},
};
use crate::{
    journal::Record,
    life,
    operation::{Accepted, Order, Progress, Running, Standing, Target, Verb, stale_epoch},
    process::Alias,
    stop::{self, Time},
};

/// How many operations may go on at a time.
pub(super) const AT_A_TIME: usize = 256;

/// What a start may take, where the order does not say.
const START_BUDGET: Duration = Duration::from_secs(30);

/// What is kept of a budget for the start that follows a stop.
const START_NEED: Duration = Duration::from_secs(1);

impl Owner {
    /// Accepts an order: checks it, writes it down, and lets it begin. The id of a known operation joins it.
    pub(super) fn accept(&mut self, order: Order) -> Result<Uuid, Problem> {
        let highest = self.journal.state().epoch;
        let epoch = order.epoch.unwrap_or(highest);
        if epoch < highest {
            return Err(stale_epoch(epoch, highest));
        }
        if epoch > highest {
            self.journal.append(Record::Epoch { epoch });
        }
        if self.journal.state().operation(order.id).is_some() {
            return Ok(order.id);
        }
        let waves = self.waves(&order)?;
        self.refuse_late(&order, &waves)?;
        if self.running.len() >= AT_A_TIME {
            return Err(Problem::new(
                Reason::Overloaded,
                format!("{AT_A_TIME} operations go on at this host"),
            )
            .hint("try again when some of them have ended")
            .retry_after(Duration::from_secs(1)));
        }
        let accepted = self.write_up(order, waves);
        let id = accepted.id;
        let running = accepted.verb != Verb::Stop;
        self.journal.append(Record::Accepted { order: accepted.clone() });
        for alias in accepted.waves.iter().flatten() {
            self.journal.append(Record::Desired { alias: alias.clone(), running });
        }
        let span = order_span(&accepted);
        span.in_scope(|| {
            info!(verb = ?accepted.verb, epoch = accepted.epoch, principal = accepted.principal, "Order accepted.");
        });
        self.begin(accepted, span);
        Ok(id)
    }

    /// Begins an accepted operation, or goes on with it after a restart of the agent.
    pub(super) fn begin(&mut self, accepted: Accepted, span: Span) {
        let id = accepted.id;
        self.outrank(&accepted);
        let operation = Running::new(accepted, self.accepted, span);
        self.give_turns(id, &operation.current_wave());
        self.running.insert(id, operation);
    }

    /// Lets an order overrule those that were accepted before it, for the processes that it names.
    pub(super) fn outrank(&mut self, accepted: &Accepted) {
        let wish = life::Event::Wish { running: accepted.verb != Verb::Stop };
        self.accepted += 1;
        for alias in accepted.waves.iter().flatten() {
            if let Some(slot) = self.slots.get_mut(alias) {
                slot.latest = self.accepted;
                self.work.push_back(Work::Life(alias.clone(), wish.clone()));
            }
        }
    }

    /// Refuses an order that was on its way while the same server gave a newer one, which was accepted: its time is over.
    fn refuse_late(&self, order: &Order, waves: &[Vec<Alias>]) -> Result<(), Problem> {
        // Ids of this version rise with time: with that of the server, which the clock of this host knows nothing of.
        let rises = |id: Uuid| id.get_version_num() == 7;
        let Some(epoch) = order.epoch.filter(|_| rises(order.id)) else {
            return Ok(());
        };
        let newer =
            self.journal.state().operations().map(|operation| &operation.accepted).filter(|accepted| {
                accepted.epoch == epoch && !accepted.local && rises(accepted.id) && accepted.id > order.id
            });
        let overruled: BTreeSet<_> = newer.flat_map(|accepted| accepted.waves.iter().flatten()).collect();
        match waves.iter().flatten().find(|alias| overruled.contains(alias)) {
            None => Ok(()),
            Some(alias) => Err(Problem::new(
                Reason::Superseded,
                format!("a newer order for `{alias}` was accepted already"),
            )
            .target(format!("processes/{alias}"))),
        }
    }

    /// Lets a process take its turn in an operation.
    pub(super) fn turn(&mut self, id: Uuid, alias: &Alias) {
        let now = self.os.now();
        let Some(operation) = self.running.get(&id) else {
            return;
        };
        let by = Some(now + self.share(operation, now));
        let (verb, number, span) = (operation.accepted.verb, operation.number, operation.span.clone());
        let Some(slot) = self.slots.get_mut(alias) else {
            let undeclared = format!("`{alias}` is not declared any more");
            let done = Work::Done(id, alias.clone(), Err((Reason::ProcessUnknown, undeclared)));
            return self.work.push_back(done);
        };
        if slot.latest > number {
            let overtaken = format!("a newer order for `{alias}` took the place of this one");
            let done = Work::Done(id, alias.clone(), Err((Reason::Superseded, overtaken)));
            return self.work.push_back(done);
        }
        slot.span = span;
        let event = match verb {
            Verb::Stop => {
                slot.stops.push(id);
                life::Event::Stop { by }
            }
            Verb::Start => {
                slot.starts.push(id);
                life::Event::Start
            }
            Verb::Restart => {
                slot.starts.push(id);
                life::Event::Restart { by }
            }
        };
        self.work.push_front(Work::Life(alias.clone(), event));
    }

    /// Takes in that an operation has ended for a process.
    pub(super) fn done(&mut self, id: Uuid, alias: &Alias, result: Result<(), (Reason, String)>) {
        if let Some(slot) = self.slots.get_mut(alias)
            && slot.stops.is_empty()
            && slot.starts.is_empty()
        {
            // What it does from now on it does by itself.
            slot.span = Span::none();
        }
        let Some(operation) = self.running.get_mut(&id) else {
            return;
        };
        match operation.take(alias, result) {
            Progress::Waits => {}
            Progress::NextWave => {
                let wave = operation.current_wave();
                self.grant_time(id);
                self.give_turns(id, &wave);
            }
            Progress::Ended => self.conclude(id),
        }
    }

    /// Brings an operation to its end.
    pub(super) fn conclude(&mut self, id: Uuid) {
        let Some(operation) = self.running.remove(&id) else {
            return;
        };
        let concerned = operation.accepted.waves.iter().flatten();
        let processes = concerned.filter_map(|alias| self.observe(alias)).collect();
        let outcome = operation.outcome(processes, self.os.date());
        operation.span.in_scope(|| match &outcome.failure {
            None => info!("Operation done."),
            Some(failure) => warn!(reason = failure.reason, message = failure.message, "Operation failed."),
        });
        self.journal.append(Record::Concluded { id, outcome: outcome.clone() });
        if operation.accepted.local {
            self.news.send_modify(|news| news.ended_here += 1);
        }
        operation.ended.send_replace(Some(outcome));
    }

    /// How to learn of the end of an operation that is known.
    pub(super) fn ticket(&mut self, id: Uuid) -> Ticket {
        let ended = match self.running.get(&id) {
            Some(operation) => operation.ended.subscribe(),
            None => {
                let known = self.journal.state().operation(id);
                watch::channel(known.and_then(|known| known.outcome.clone())).1
            }
        };
        Ticket { ended, synced: Box::pin(self.journal.synced()) }
    }

    /// How an operation stands.
    pub(super) fn standing(&self, id: Uuid) -> Option<Standing> {
        let known = self.journal.state().operation(id)?;
        let concerned = known.accepted.waves.iter().flatten();
        Some(Standing {
            id,
            outcome: known.outcome.clone(),
            processes: match known.outcome {
                Some(_) => Vec::new(),
                None => concerned.filter_map(|alias| self.observe(alias)).collect(),
            },
        })
    }

    /// Ends operations that should have ended by themselves.
    pub(super) fn end_overdue(&mut self, now: Time) {
        for (id, operation) in &self.running {
            if now < overdue_at(operation) {
                continue;
            }
            // Those after the current wave still get their turn.
            for alias in operation.current_wave() {
                let message = format!("`{alias}` did not get there in time; its order goes on");
                let done = Work::Done(*id, alias, Err((Reason::TimedOut, message)));
                self.work.push_back(done);
            }
        }
    }

    /// Gives what is left of an operation the time that it needs where the deadline has passed: those before it took too
    /// long, and it is not killed for that.
    fn grant_time(&mut self, id: Uuid) {
        let now = self.os.now();
        let Some(operation) = self.running.get(&id).filter(|late| late.accepted.deadline <= now) else {
            return;
        };
        let waves = operation.remaining_waves().iter();
        let needed: Duration = waves.map(|wave| self.need(operation.accepted.verb, wave)).sum();
        if let Some(operation) = self.running.get_mut(&id) {
            operation.accepted.deadline = now + needed;
        }
    }

    /// When the next operation should have ended.
    pub(super) fn next_overdue(&self) -> Option<Time> {
        self.running.values().map(overdue_at).min()
    }

    fn give_turns(&mut self, id: Uuid, wave: &[Alias]) {
        if wave.is_empty() {
            self.work.push_back(Work::Conclude(id));
        }
        let turns = wave.iter().map(|alias| Work::Turn(id, alias.clone()));
        self.work.extend(turns);
    }

    /// Whom an order is for, in the order in which they get their turn.
    fn waves(&self, order: &Order) -> Result<Vec<Vec<Alias>>, Problem> {
        match &order.target {
            Target::One(alias) => {
                let slot = self.slots.get(alias).ok_or_else(|| process_unknown(alias))?;
                // Who may order on the host itself decides also about what all else there stands on.
                if !slot.config.operable && order.epoch.is_some() {
                    return Err(not_operable(alias));
                }
                self.refuse_removed(order.verb, alias)?;
                Ok(vec![vec![alias.clone()]])
            }
            Target::All | Target::These(_) => {
                let meant = |alias: &Alias| match &order.target {
                    Target::These(aliases) => aliases.contains(alias),
                    _ => self.refuse_removed(order.verb, alias).is_ok(),
                };
                let meant = self.slots.values().filter(|slot| meant(&slot.config.alias));
                let (workers, base): (Vec<_>, Vec<_>) = meant.partition(|slot| slot.config.operable);
                let waves = match order.verb {
                    Verb::Stop => [workers, base],
                    Verb::Start | Verb::Restart => [base, workers],
                };
                let aliases = |wave: Vec<&super::slot::Slot>| {
                    wave.into_iter().map(|slot| slot.config.alias.clone()).collect()
                };
                let waves = waves.into_iter().filter(|wave| !wave.is_empty());
                Ok(waves.map(aliases).collect())
            }
        }
    }

    fn write_up(&self, order: Order, waves: Vec<Vec<Alias>>) -> Accepted {
        let Order { id, epoch, principal, budget, verb, force: _, target: _, trace } = order;
        let (epoch, local) = (epoch.unwrap_or(self.journal.state().epoch), epoch.is_none());
        let slots = || {
            let aliases = waves.iter().flatten();
            aliases.filter_map(|alias| Some((alias, self.slots.get(alias)?)))
        };
        let changes = slots().filter(|(_, slot)| match verb {
            Verb::Stop => !slot.life.is_stopped(),
            Verb::Start => !slot.life.is_running(),
            Verb::Restart => true,
        });
        let generations = slots().map(|(alias, slot)| (alias.clone(), slot.generation));
        let needed: Duration = waves.iter().map(|wave| self.need(verb, wave)).sum();
        let budget = budget.unwrap_or(match verb {
            Verb::Stop => needed,
            Verb::Start | Verb::Restart => needed + START_BUDGET,
        });
        Accepted {
            id,
            verb,
            epoch,
            local,
            principal,
            trace,
            at: self.os.date(),
            deadline: self.os.now() + budget,
            changes: changes.map(|(alias, _)| alias.clone()).collect(),
            generations: generations.collect::<BTreeMap<_, _>>(),
            waves,
        }
    }

    /// What a wave needs at the longest.
    fn need(&self, verb: Verb, wave: &[Alias]) -> Duration {
        let slots = wave.iter().filter_map(|alias| self.slots.get(alias));
        let stop = slots.map(super::slot::Slot::stop_budget).max().unwrap_or_default();
        match verb {
            Verb::Stop => stop,
            Verb::Start => START_NEED,
            Verb::Restart => stop + START_NEED,
        }
    }

    /// How much of what is left of its budget an operation has for the stops of its current wave.
    fn share(&self, operation: &Running, now: Time) -> Duration {
        let verb = operation.accepted.verb;
        let waves = operation.remaining_waves();
        let left = operation.accepted.deadline.saturating_sub(now);
        let this = waves.first().map_or(Duration::ZERO, |wave| self.need(Verb::Stop, wave));
        let all: Duration = waves.iter().map(|wave| self.need(verb, wave)).sum();
        if left >= all || all.is_zero() {
            left.saturating_sub(all.saturating_sub(this))
        } else {
            left.mul_f64(this.as_secs_f64() / all.as_secs_f64())
        }
    }
}

/// The trace of an order, for whatever is logged on its behalf.
pub(super) fn order_span(accepted: &Accepted) -> Span {
    info_span!("order", trace_id = %accepted.trace, operation = %accepted.id)
}

/// When an operation should have ended, whatever happened.
fn overdue_at(operation: &Running) -> Time {
    operation.accepted.deadline + stop::MARGIN
}

fn process_unknown(alias: &Alias) -> Problem {
    Problem::new(Reason::ProcessUnknown, format!("this host's agent declares no process `{alias}`"))
        .hint("see which it declares with `GetInventory`")
        .target(format!("processes/{alias}"))
}

fn not_operable(alias: &Alias) -> Problem {
    Problem::new(Reason::ProcessNotOperable, format!("`{alias}` is a base process (`operable = false`)"))
        .hint("order the whole agent, which takes its base processes with it")
        .target(format!("processes/{alias}"))
}
