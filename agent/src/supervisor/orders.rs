//! Takes orders in, gives each process its turn, and brings operations to their end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use belay_proto::{Problem, Reason, fail_point, planted};
use tokio::sync::watch;
use tracing::{Span, info, info_span, warn};
use uuid::Uuid;

use super::{
    Ticket,
    owner::{Owner, Work},
    slot::Slot,
};
use crate::{
    journal::Record,
    life,
    operation::{Accepted, Order, Queue, Running, Standing, Target, Verb, stale_epoch},
    process::Alias,
    stop::{self, Time},
};

/// How many operations may go on at a time.
pub(super) const AT_A_TIME: usize = 256;

/// What a start may take, where the order does not say.
const START_BUDGET: Duration = Duration::from_secs(30);

/// How far the epoch of one order may lie above the highest that was seen. A server's rises by one with each start, so this
/// is decades of them; beyond it somebody means to lock the real server out.
const LARGEST_STEP: u64 = 1 << 24;

impl Owner {
    /// Accepts an order: checks it, writes it down, and lets it begin. The id of a known operation joins it.
    pub(super) fn accept(&mut self, order: Order) -> Result<Uuid, Problem> {
        fail_point(|| "order.arrived");
        self.take_epoch(&order)?;
        if self.journal.state().operation(order.id).is_some() && !planted("known-order-not-joined") {
            fail_point(|| "order.joined");
            return Ok(order.id);
        }
        self.check_policy(&order)?;
        let queue = self.queue(&order)?;
        self.refuse_late(&order, &queue)?;
        self.check_generation(&order)?;
        let spared = self.spared(&order);
        let order = self.spare_what_is_new(order);
        if self.running.len() >= AT_A_TIME {
            return Err(Problem::new(
                Reason::Overloaded,
                format!("{AT_A_TIME} operations go on at this host"),
            )
            .hint("try again when some of them have ended")
            .retry_after(Duration::from_secs(1)));
        }
        let accepted = Accepted { spared, ..self.write_up(order, queue) };
        let id = accepted.id;
        let running = accepted.verb != Verb::Stop;
        self.journal.append(Record::Accepted { order: accepted.clone() });
        fail_point(|| "order.accepted");
        for alias in accepted.queue.aliases() {
            self.journal.append(Record::Desired { alias: alias.clone(), running });
        }
        fail_point(|| "order.wished");
        let span = order_span(&accepted);
        span.in_scope(|| {
            info!(verb = ?accepted.verb, epoch = accepted.epoch, principal = accepted.principal, "Order accepted.");
        });
        self.begin(accepted, span);
        Ok(id)
    }

    /// Leaves alone what an operation has not begun. One that never arrived is written down as one that has ended: where it
    /// still arrives, it is known and does nothing.
    pub(super) fn cancel(&mut self, order: Order) -> Result<(), Problem> {
        fail_point(|| "cancel.arrived");
        self.take_epoch(&order)?;
        let id = order.id;
        if self.journal.state().operation(id).is_none() {
            let cancelled = Some(BTreeSet::new());
            let accepted = Accepted { cancelled, ..self.write_up(order, Queue::default()) };
            let span = order_span(&accepted);
            span.in_scope(|| info!("Order cancelled before it arrived."));
            self.journal.append(Record::Accepted { order: accepted.clone() });
            fail_point(|| "cancel.voided");
            let outcome = Running::new(accepted, self.accepted, span).outcome(Vec::new(), self.os.date());
            self.journal.append(Record::Concluded { id, outcome });
            return Ok(());
        }
        let Some(operation) = self.running.get_mut(&id) else {
            return Ok(());
        };
        let (number, left_alone) = (operation.number, operation.cancel());
        operation.span.in_scope(|| info!(?left_alone, "Order cancelled."));
        let wanted = operation.accepted.wanted.clone();
        // Another life of the agent goes on with it, and leaves the same alone.
        if !planted("cancel-not-journalled") {
            self.journal.append(Record::Accepted { order: operation.accepted.clone() });
        }
        fail_point(|| "cancel.accepted");
        if operation.is_over() {
            self.work.push_back(Work::Conclude(id));
        }
        for alias in left_alone {
            // A newer order has its own wish.
            if self.slots.get(&alias).is_some_and(|slot| slot.latest == number) {
                let running = wanted.contains(&alias);
                self.journal.append(Record::Desired { alias: alias.clone(), running });
                self.work.push_back(Work::Life(alias, life::Event::Wish { running }));
            }
        }
        Ok(())
    }

    /// Refuses the order of a server that was replaced, and remembers the epoch of one that took over.
    fn take_epoch(&mut self, order: &Order) -> Result<(), Problem> {
        let highest = self.journal.state().epoch;
        let epoch = order.epoch.unwrap_or(highest);
        if epoch > highest.saturating_add(LARGEST_STEP) && !planted("any-epoch-accepted") {
            return Err(improbable_epoch(epoch, highest));
        }
        if epoch < highest && !planted("lower-epoch-accepted") {
            return Err(stale_epoch(epoch, highest));
        }
        if epoch > highest {
            self.journal.append(Record::Epoch { epoch });
        }
        Ok(())
    }

    /// Begins an accepted operation, or goes on with it after a restart of the agent.
    pub(super) fn begin(&mut self, accepted: Accepted, span: Span) {
        let id = accepted.id;
        self.outrank(&accepted);
        self.running.insert(id, Running::new(accepted, self.accepted, span));
        self.give_turns(id);
    }

    /// Begins an operation of the agent's own: to start these at its start, in their order.
    pub(super) fn begin_own(&mut self, queue: Queue) {
        let start = Order {
            id: Uuid::new_v4(),
            epoch: Some(0),
            principal: "agent".to_owned(),
            budget: None,
            verb: Verb::Start,
            force: false,
            target: Target::All,
            generations: Vec::new(),
            not_started_after: None,
            trace: String::new(),
        };
        let accepted = self.write_up(start, queue);
        let id = accepted.id;
        self.begin(accepted, Span::none());
        if let Some(operation) = self.running.get_mut(&id) {
            operation.is_own = true;
        }
    }

    /// Lets an order overrule those that were accepted before it, for the processes that it names.
    pub(super) fn outrank(&mut self, accepted: &Accepted) {
        let wish = life::Event::Wish { running: accepted.verb != Verb::Stop };
        self.accepted += 1;
        for alias in accepted.queue.aliases() {
            if let Some(slot) = self.slots.get_mut(alias) {
                slot.latest = self.accepted;
                if !accepted.leaves_alone(alias) {
                    self.work.push_back(Work::Life(alias.clone(), wish.clone()));
                }
            }
        }
    }

    /// Refuses an order that was on its way while the same server gave a newer one, which was accepted: its time is over.
    fn refuse_late(&self, order: &Order, queue: &Queue) -> Result<(), Problem> {
        // Ids of this version rise with time: with that of the server, which the clock of this host knows nothing of.
        let rises = |id: Uuid| id.get_version_num() == 7;
        let Some(epoch) = order.epoch.filter(|_| rises(order.id)) else {
            return Ok(());
        };
        let newer =
            self.journal.state().operations().map(|operation| &operation.accepted).filter(|accepted| {
                accepted.epoch == epoch && !accepted.local && rises(accepted.id) && accepted.id > order.id
            });
        let overruled: BTreeSet<_> = newer.flat_map(|accepted| accepted.queue.aliases()).collect();
        match queue.aliases().find(|alias| overruled.contains(alias)) {
            Some(_) if planted("late-order-accepted") => Ok(()),
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
        let by = Some(now + self.share(operation, alias, now));
        let Accepted { verb, force, .. } = operation.accepted;
        let (number, span) = (operation.number, operation.span.clone());
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
                life::Event::Stop { by, force }
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
        if !operation.take(alias, result) {
            return;
        }
        if operation.is_over() {
            return self.conclude(id);
        }
        self.grant_time(id);
        self.give_turns(id);
    }

    /// Brings an operation to its end.
    pub(super) fn conclude(&mut self, id: Uuid) {
        let Some(operation) = self.running.remove(&id) else {
            return;
        };
        if operation.is_own {
            return;
        }
        let concerned = operation.accepted.queue.aliases();
        let processes = concerned.filter_map(|alias| self.observe(alias)).collect();
        let outcome = operation.outcome(processes, self.os.date());
        operation.span.in_scope(|| match &outcome.failure {
            None => info!("Operation done."),
            Some(failure) => warn!(reason = failure.reason, message = failure.message, "Operation failed."),
        });
        fail_point(|| "operation.ended");
        self.journal.append(Record::Concluded { id, outcome: outcome.clone() });
        fail_point(|| "operation.concluded");
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
        let concerned = known.accepted.queue.aliases();
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
            // Those after them still get their turn.
            for alias in operation.under_way() {
                let message = format!("`{alias}` did not get there in time; its order goes on");
                let done = Work::Done(*id, alias.clone(), Err((Reason::TimedOut, message)));
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
        let needed = self.need_of(operation.accepted.verb, operation.left());
        if let Some(operation) = self.running.get_mut(&id) {
            operation.accepted.deadline = now + needed;
        }
    }

    /// When the next operation should have ended.
    pub(super) fn next_overdue(&self) -> Option<Time> {
        self.running.values().map(overdue_at).min()
    }

    fn give_turns(&mut self, id: Uuid) {
        let Some(operation) = self.running.get_mut(&id) else {
            return;
        };
        if operation.is_over() {
            return self.work.push_back(Work::Conclude(id));
        }
        let turns = operation.next_turns().into_iter().map(|alias| Work::Turn(id, alias));
        self.work.extend(turns);
    }

    /// Whom an order is for, and who of them comes before whom.
    pub(super) fn queue(&self, order: &Order) -> Result<Queue, Problem> {
        match &order.target {
            Target::One(alias) => {
                let slot = self.slots.get(alias).ok_or_else(|| process_unknown(alias))?;
                // Who may order on the host itself decides also about what all else there stands on.
                if !slot.config.operable && order.epoch.is_some() {
                    return Err(not_operable(alias));
                }
                self.refuse_removed(order.verb, alias)?;
                Ok(Queue::one(alias.clone()))
            }
            Target::All | Target::These(_) => {
                let start = self.start_queue(|slot| match &order.target {
                    _ if self.protects(order, &slot.config.alias) => false,
                    Target::These(aliases) => aliases.contains(&slot.config.alias),
                    _ => self.refuse_removed(order.verb, &slot.config.alias).is_ok(),
                });
                Ok(match order.verb {
                    Verb::Stop => start.reversed(),
                    Verb::Start | Verb::Restart => start,
                })
            }
        }
    }

    /// Who of these starts before whom: what `after` says, and base processes before workers.
    pub(super) fn start_queue(&self, includes: impl Fn(&Slot) -> bool) -> Queue {
        let included = || self.slots.iter().filter(|(_, slot)| includes(slot));
        let base = included().filter(|(_, slot)| !slot.config.operable);
        let base: BTreeSet<_> = base.map(|(alias, _)| alias.clone()).collect();
        let before = included().map(|(alias, slot)| {
            let mut before: BTreeSet<_> = slot.config.after.iter().cloned().collect();
            if slot.config.operable {
                before.extend(base.iter().cloned());
            }
            (alias.clone(), before)
        });
        Queue::new(before.collect())
    }

    fn write_up(&self, order: Order, queue: Queue) -> Accepted {
        let Order { id, epoch, principal, budget, verb, force, trace, .. } = order;
        let (epoch, local) = (epoch.unwrap_or(self.journal.state().epoch), epoch.is_none());
        let slots = || queue.aliases().filter_map(|alias| Some((alias, self.slots.get(alias)?)));
        let changes = slots().filter(|(_, slot)| match verb {
            Verb::Stop => !slot.life.is_stopped(),
            Verb::Start => !slot.life.is_running(),
            Verb::Restart => true,
        });
        let generations = slots().map(|(alias, slot)| (alias.clone(), slot.generation));
        let wanted =
            slots().filter(|(_, slot)| slot.life.desired()).map(|(alias, _)| alias.clone()).collect();
        let needed = self.need_of(verb, &queue);
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
            wanted,
            cancelled: None,
            spared: BTreeSet::new(),
            force,
            queue,
        }
    }

    /// What a process needs at the longest.
    fn need(&self, verb: Verb, alias: &Alias) -> Duration {
        let Some(slot) = self.slots.get(alias) else {
            return Duration::ZERO;
        };
        match verb {
            Verb::Stop => slot.stop_budget(),
            Verb::Start => slot.start_budget(),
            Verb::Restart => slot.stop_budget() + slot.start_budget(),
        }
    }

    /// What these need at the longest, in their order.
    fn need_of(&self, verb: Verb, queue: &Queue) -> Duration {
        queue.longest_way(|alias| self.need(verb, alias))
    }

    /// How much of what is left of its budget an operation has for the stop of this process: all that those after it, and
    /// its own start, do not need.
    fn share(&self, operation: &Running, alias: &Alias, now: Time) -> Duration {
        let verb = operation.accepted.verb;
        let left = operation.accepted.deadline.saturating_sub(now);
        let way = operation.left().way_from(alias, |alias| self.need(verb, alias));
        let this = self.need(Verb::Stop, alias);
        if left >= way || way.is_zero() {
            left.saturating_sub(way.saturating_sub(this))
        } else {
            left.mul_f64(this.as_secs_f64() / way.as_secs_f64())
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

fn improbable_epoch(epoch: u64, highest: u64) -> Problem {
    let message = format!(
        "the order carries epoch {epoch}, and the highest that was seen is {highest}: no server is so far ahead"
    );
    Problem::new(Reason::InvalidArgument, message.clone())
        .field("order.epoch", message)
        .hint("find out who sends it: the epoch of a server rises by one with each start of it")
}

fn process_unknown(alias: &Alias) -> Problem {
    Problem::new(Reason::ProcessUnknown, format!("this host's agent declares no process `{alias}`"))
        .hint("see which it declares with `belay-agent ctl ps` on the host, or with `GetInventory`")
        .target(format!("processes/{alias}"))
}

fn not_operable(alias: &Alias) -> Problem {
    Problem::new(Reason::ProcessNotOperable, format!("`{alias}` is a base process (`operable = false`)"))
        .hint("order the whole agent, which takes its base processes with it")
        .target(format!("processes/{alias}"))
}
