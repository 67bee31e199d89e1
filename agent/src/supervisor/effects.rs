//! Carries out what the life of a process asks for.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use belay_proto::{Reason, fail_point, planted};
use jiff::SignedDuration;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, Span, error, info, warn};

use super::{
    Seen,
    helper::run_helper,
    owner::{Event, Launched, Owner, Work},
    slot::{Alive, Slot, unseen},
    vigil::{Remains, Vigil},
};
use crate::{
    config::Kill,
    error::Chain,
    journal::Record,
    life::{self, Effect, Fault, Stopped},
    os::{Instance, Launch, SignalError, Started, Tree},
    process::{Alias, Exit, ExitReport, Leftover, Sight},
    signal::Signal,
    stop::{Scope, Time},
};

/// How long the look at leftovers may take. Less than [`crate::stop::MARGIN`], which pays for it.
const SURVEY_PATIENCE: Duration = Duration::from_millis(500);

impl Owner {
    /// Does one thing that the life of a process asks for.
    pub(super) fn carry_out(&mut self, alias: &Alias, effect: Effect) {
        match effect {
            Effect::Spawn => self.launch(alias),
            Effect::Probe => self.probe(alias),
            Effect::Watch => self.watch(alias),
            Effect::Look => self.look(alias),
            Effect::Hook { until } => self.run_hook(alias, until),
            Effect::Pause => self.write_down_stop(alias),
            Effect::Ask(signal, scope) => self.ask(alias, signal, scope),
            Effect::Kill => self.kill(alias),
            Effect::Survey => self.survey(alias),
            Effect::Gone { exit, stopped } => self.gone(alias, exit, stopped),
            Effect::Rest => self.write_down_rest(alias),
            Effect::StopsEnd(result) => self.end(alias, |slot| &mut slot.stops, &result),
            Effect::StartsEnd(result) => self.end(alias, |slot| &mut slot.starts, &result),
        }
    }

    fn launch(&mut self, alias: &Alias) {
        self.write_down_rest(alias);
        if let Some(slot) = self.slots.get_mut(alias) {
            slot.outdated = false;
        }
        let Some(slot) = self.slots.get(alias) else {
            return;
        };
        let generation = slot.generation + 1;
        let launch = self.launch_of(slot, generation);
        let (os, outputs, events) = (self.os.clone(), self.outputs.clone(), self.events.clone());
        let lane = self.lane.clone();
        self.journal.append(Record::Starting { alias: alias.clone(), generation });
        self.launching += 1;
        let alias = alias.clone();
        let task = async move {
            let launched = lane.run(move || {
                let output_from = outputs.end(&launch.alias);
                fail_point(|| "start.begins");
                let started = os.start(&launch).map_err(|error| Chain(&error).to_string())?;
                fail_point(|| "start.made");
                Ok(Launched { started, output_from })
            });
            let result = launched.await.unwrap_or_else(|panic| Err(panic.to_string()));
            let launched = Event::Launched { alias, generation, result };
            // An error means that the owner is gone: the instance is found again by its cgroup or its mark.
            let _ = events.send(launched).await;
        };
        tokio::spawn(task.in_current_span());
    }

    /// How an instance of a process is started.
    pub(super) fn launch_of(&self, slot: &Slot, generation: u64) -> Launch {
        slot.launch(generation, &self.log, self.notify.as_deref())
    }

    /// Writes down how often it ended in a row, and what follows from that, where that has changed.
    fn write_down_rest(&mut self, alias: &Alias) {
        let (now, date) = (self.os.now(), self.os.date());
        let Some(slot) = self.slots.get_mut(alias) else {
            return;
        };
        let rest = slot.life.rest();
        let pause = rest.until.map(|until| SignedDuration::try_from(until.saturating_sub(now)));
        slot.next_start = pause.and_then(|pause| date.checked_add(pause.ok()?).ok());
        let known = self.journal.state().processes.get(alias);
        if known.is_none_or(|known| known.rest != rest) {
            self.journal.append(Record::Resting { alias: alias.clone(), rest });
        }
    }

    /// Before whatever the stop does next: whatever happens to the agent now, nobody is asked twice, and the deadlines
    /// stay.
    fn write_down_stop(&mut self, alias: &Alias) {
        let Some(slot) = self.slots.get_mut(alias) else {
            return;
        };
        if let Some(ladder) = slot.life.ladder().cloned() {
            self.journal.append(Record::Stopping { alias: alias.clone(), ladder });
            slot.note_fault(self.journal.fault());
        }
    }

    /// Takes in a new instance, or that there is none.
    pub(super) fn launched(&mut self, alias: Alias, generation: u64, result: Result<Launched, String>) {
        self.launching = self.launching.saturating_sub(1);
        let date = self.os.date();
        let Some(slot) = self.slots.get_mut(&alias) else {
            return;
        };
        let outdated = std::mem::take(&mut slot.outdated);
        let span = slot.span.clone();
        let _entered = span.enter();
        match result {
            Ok(Launched { started: Started { instance, tree, not_applied }, output_from }) => {
                info!(%alias, pid = instance.pid, generation, "Process started.");
                for setting in &not_applied {
                    warn!(%alias, setting, "A setting is not applied.");
                }
                fail_point(|| "start.heard");
                self.journal.append(Record::Started { instance: instance.clone() });
                fail_point(|| "start.written");
                slot.generation = generation;
                slot.notes.clear();
                slot.leftovers.clear();
                slot.not_applied = not_applied;
                slot.last_active = Some(date);
                self.hold(&alias, instance, tree, None, output_from);
                // It may hang, and the instance is known all the same. Mostly it comes back before the instance has settled.
                self.look(&alias);
                self.work.push_back(Work::Life(alias.clone(), life::Event::Started));
                if outdated {
                    self.renew(alias);
                }
            }
            Err(why) => {
                warn!(%alias, why, "Process not started.");
                let report = ExitReport {
                    note: format!("could not be started: {why}"),
                    ..ExitReport::new(0, Exit::Unknown, date)
                };
                slot.last_exit = Some(report.clone());
                self.journal.append(Record::Ended { alias: alias.clone(), report });
                self.work.push_back(Work::Life(alias, life::Event::NotStarted { why }));
            }
        }
    }

    /// Watches a living instance.
    pub(super) fn hold(
        &mut self,
        alias: &Alias,
        instance: Instance,
        tree: Arc<dyn Tree>,
        sight: Option<Sight>,
        output_from: u64,
    ) {
        let Some(slot) = self.slots.get_mut(alias) else {
            return;
        };
        let sight = sight.unwrap_or_else(|| unseen(&instance));
        let sockets = Arc::new(Mutex::new(sight.sockets.clone()));
        let vigil = Vigil {
            alias: alias.clone(),
            generation: instance.generation,
            os: self.os.clone(),
            tree: tree.clone(),
            sockets: sockets.clone(),
            outputs: self.outputs.clone(),
            output_from,
            lane: self.lane.clone(),
            events: self.events.clone(),
        };
        slot.alive = Some(Alive {
            sight,
            instance,
            tree,
            sockets,
            output_from,
            _vigil: AbortOnDropHandle::new(tokio::spawn(vigil.keep())),
            said_ready: Arc::default(),
            probe: None,
        });
    }

    fn run_hook(&mut self, alias: &Alias, until: Time) {
        self.write_down_stop(alias);
        let Some((slot, alive)) = self.slots.get(alias).and_then(|s| Some((s, s.alive.as_ref()?))) else {
            return;
        };
        let Some(hook) = slot.config.stop.before.clone() else {
            return;
        };
        let launch =
            Launch { command: hook.command, args: hook.args, ..self.launch_of(slot, slot.generation) };
        let (instance, generation, os) = (alive.instance.clone(), slot.generation, self.os.clone());
        let patience = until.saturating_sub(os.now());
        let (events, alias) = (self.events.clone(), alias.clone());
        info!(%alias, hook = %launch.command.display(), "Hook begins.");
        let task = async move {
            fail_point(|| "hook.begins");
            let trouble = run_helper(os, instance, launch, patience).await.err();
            fail_point(|| "hook.ended");
            let _ = events.send(Event::HookEnded { alias, generation, trouble }).await;
        };
        tokio::spawn(task.in_current_span());
    }

    /// Takes in that a hook has ended. That it failed is told, and holds nothing up.
    pub(super) fn hook_ended(&mut self, alias: Alias, trouble: Option<String>) {
        if let Some((slot, trouble)) = self.slots.get_mut(&alias).zip(trouble) {
            warn!(%alias, trouble, "The hook before the stop failed.");
            slot.notes.push(format!("the hook before the stop failed: {trouble}"));
        }
        self.work.push_back(Work::Life(alias, life::Event::HookEnded));
    }

    fn ask(&mut self, alias: &Alias, signal: Signal, scope: Scope) {
        if scope == Scope::Group && !planted("ask-not-journalled") {
            self.write_down_stop(alias);
        }
        let alive = self.slots.get(alias).and_then(|slot| slot.alive.as_ref());
        let pid = alive.map(|alive| alive.instance.pid);
        let told = alias.clone();
        self.signal(alias, move |tree| {
            fail_point(|| format!("ask.{scope:?}.begins").to_lowercase());
            tree.ask(signal, scope)?;
            if planted("asked-twice") {
                tree.ask(signal, scope)?;
            }
            fail_point(|| format!("ask.{scope:?}.sent").to_lowercase());
            info!(alias = %told, pid, %signal, ?scope, "Stop signal sent.");
            Ok(())
        });
    }

    fn kill(&mut self, alias: &Alias) {
        self.write_down_stop(alias);
        let alive = self.slots.get(alias).and_then(|slot| slot.alive.as_ref());
        let pid = alive.map(|alive| alive.instance.pid);
        let told = alias.clone();
        self.signal(alias, move |tree| {
            fail_point(|| "kill.begins");
            let killed = tree.kill()?;
            fail_point(|| "kill.sent");
            if killed {
                warn!(alias = %told, pid, signal = "SIGKILL", "Process tree killed.");
            }
            Ok(())
        });
    }

    /// Signals the tree: here, or beside the owner where all processes of the host must be walked for it.
    fn signal(
        &mut self,
        alias: &Alias,
        send: impl FnOnce(&dyn Tree) -> Result<(), SignalError> + Send + 'static,
    ) {
        let Some((slot, alive)) = self.slots.get(alias).and_then(|s| Some((s, s.alive.as_ref()?))) else {
            return;
        };
        let (tree, generation) = (alive.tree.clone(), slot.generation);
        let refused = |error: SignalError| {
            error!(pid = error.pid, error = %Chain(&error), "The system refused a signal.");
            life::Event::Refused { why: Chain(&error).to_string() }
        };
        let alias = alias.clone();
        if !tree.walks() {
            if let Err(error) = send(&*tree) {
                self.work.push_back(Work::Life(alias, refused(error)));
            }
            return;
        }
        let events = self.events.clone();
        let task = async move {
            let span = Span::current();
            let sent = tokio::task::spawn_blocking(move || span.in_scope(|| send(&*tree)));
            if let Ok(Err(error)) = sent.await {
                let event = refused(error);
                let event = Event::Life { alias, generation, event };
                let _ = events.send(event).await;
            }
        };
        tokio::spawn(task.in_current_span());
    }

    fn survey(&mut self, alias: &Alias) {
        let Some((slot, alive)) = self.slots.get(alias).and_then(|s| Some((s, s.alive.as_ref()?))) else {
            return;
        };
        let (tree, generation, sight) = (alive.tree.clone(), slot.generation, alive.sight.clone());
        let (events, alias) = (self.events.clone(), alias.clone());
        let task = async move {
            let members = tokio::task::spawn_blocking(move || tree.members());
            let leftovers = match tokio::time::timeout(SURVEY_PATIENCE, members).await {
                Ok(Ok(members)) => members,
                // Even the look at it hangs: it is told as it was last seen.
                Ok(Err(_)) | Err(_) => vec![Leftover { pid: sight.pid, command: sight.command }],
            };
            let surveyed = Event::Surveyed { alias, generation, leftovers };
            let _ = events.send(surveyed).await;
        };
        tokio::spawn(task.in_current_span());
    }

    fn gone(&mut self, alias: &Alias, exit: Exit, stopped: Option<Stopped>) {
        let (now, date) = (self.os.now(), self.os.date());
        let Some(slot) = self.slots.get_mut(alias) else {
            return;
        };
        let Some(alive) = slot.alive.take() else {
            return;
        };
        let Remains { ending, accounts, notes, last_output, .. } = std::mem::take(&mut slot.remains);
        slot.notes.extend(notes);
        if exit == Exit::Unknown {
            let note = "how it ended is not known: it was not a child of this agent program";
            slot.notes.push(note.to_owned());
        }
        let mut report = ExitReport {
            core_dumped: ending.core_dumped,
            oom_killed: accounts.oom_killed,
            cpu_time: accounts.cpu.or(ending.accounts.cpu),
            peak_memory: accounts.peak_memory.or(ending.accounts.peak_memory),
            last_output,
            note: std::mem::take(&mut slot.notes).join("; "),
            ..ExitReport::new(alive.instance.pid, exit, date)
        };
        if let Some(Stopped { began, escalated, rungs }) = stopped {
            report.stop_duration = Some(now.saturating_sub(began));
            report.escalated = escalated;
            report.rungs = rungs;
        }
        info!(
            %alias,
            pid = report.pid,
            %exit,
            escalated = report.escalated,
            stop_duration = ?report.stop_duration,
            "Process is gone."
        );
        slot.last_active = Some(date);
        slot.last_exit = Some(report.clone());
        slot.leftovers.clear();
        slot.not_applied.clear();
        fail_point(|| "gone.proven");
        self.journal.append(Record::Ended { alias: alias.clone(), report });
        fail_point(|| "gone.written");
    }

    fn look(&mut self, alias: &Alias) {
        let Some((slot, alive)) = self.slots.get(alias).and_then(|s| Some((s, s.alive.as_ref()?))) else {
            return;
        };
        let (alias, generation, tree) = (alias.clone(), slot.generation, alive.tree.clone());
        let (lane, events) = (self.lane.clone(), self.events.clone());
        tokio::spawn(async move {
            if let Ok(Some(sight)) = lane.run(move || tree.look()).await {
                let _ = events.send(Event::Seen(Seen { alias, generation, sight })).await;
            }
        });
    }

    /// Answers whoever waits.
    fn end(
        &mut self,
        alias: &Alias,
        waiting: impl Fn(&mut Slot) -> &mut Vec<uuid::Uuid>,
        result: &Result<(), Fault>,
    ) {
        let Some(slot) = self.slots.get_mut(alias) else {
            return;
        };
        let ended = std::mem::take(waiting(slot));
        let result = result.clone().map_err(|fault| explain(slot, fault));
        for id in ended {
            self.work.push_back(Work::Done(id, alias.clone(), result.clone()));
        }
    }
}

/// Why an order was not carried out, for a program and for a person.
fn explain(slot: &Slot, fault: Fault) -> (Reason, String) {
    let alias = &slot.config.alias;
    match fault {
        Fault::Superseded => {
            (Reason::Superseded, format!("a newer order for `{alias}` took the place of this one"))
        }
        Fault::Leftovers => {
            let told = |left: &Leftover| format!("{} ({})", left.pid, left.command);
            let left: Vec<_> = slot.leftovers.iter().map(told).collect();
            let how = match slot.config.stop.kill {
                Kill::Never => "still alive, and its settings say that only a person kills it",
                Kill::AfterGrace => "still alive after SIGKILL",
            };
            let mut message = format!("cannot stop `{alias}`: {how}: {}", left.join(", "));
            if slot.unnamed > 0 {
                message.push_str(&format!(", and {} more", slot.unnamed));
            }
            (Reason::Leftovers, message)
        }
        Fault::PortsOpen { ports } => {
            let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
            let message = format!(
                "nothing of `{alias}` is alive, but a socket of it is still listened on, by somebody to whom it was handed: port {}",
                ports.join(", ")
            );
            (Reason::Leftovers, message)
        }
        Fault::Refused { why } => (Reason::SignalRefused, format!("cannot stop `{alias}`: {why}")),
        Fault::NotStarted { why } => (Reason::StartFailed, format!("cannot start `{alias}`: {why}")),
    }
}
