//! The main path, in order: record -> decode -> process -> container -> verdict -> rules -> alert.
//!
//! One worker runs it; stages are called from here and never call each other. Events leave in the order they came,
//! except those that wait for an identity (per container, in order) or a verdict (per event and rule).

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use agent_common::OwnFacts;
use bumpalo::Bump;
use purser_rules::format::Clock;
use purser_rules::{Alert, AlertOptions, Matches, Outcome, RuleIndex, RuleMatching};

use crate::active::ActiveRules;
use crate::config::Scope;
use crate::container::{Container, Lookup};
use crate::decode::decode;
use crate::event::{Body, Cgroup, Event};
use crate::facts::{Lineage, Names, OwnSight, Sight};
use crate::manifest::{ExecFile, Judgement, Verdict};
use crate::outside::{Input, Outside};
use crate::process::{Process, ProcessTable};
use crate::pushdown::Filter;
use crate::tally::Tally;
use crate::throttle::Throttle;
use crate::waiting::{Held, Parked, Waiting};

/// What the pipeline is told, at the start and by a reload.
#[derive(Debug, Clone)]
pub struct PipelineConfig {
    /// Whose events are looked at.
    pub scope: Scope,
    /// How alerts look.
    pub alerts: AlertOptions,
    /// How long an event waits for its container's image to be known.
    pub hold_time: Duration,
    /// How many events wait at most, for an identity or for a verdict. It is fixed at the start.
    pub hold_events: usize,
}

/// An event with all that belongs to it, owned: what is kept of one that has to wait.
#[derive(Debug)]
pub struct Seen {
    /// Running number.
    pub number: u64,
    /// The event.
    pub event: Event,
    /// Its process.
    pub process: Arc<Process>,
    /// Its container; `None` on the host.
    pub container: Option<Arc<Container>>,
    /// The event before it, ns since boot.
    pub previous_boot_ns: u64,
}

/// A rule and the place of the name it was evaluated under.
type Match = (RuleIndex, usize);

/// The stages and what they remember.
pub struct Pipeline<O> {
    config: PipelineConfig,
    outside: O,
    processes: ProcessTable,
    rules: Arc<ActiveRules>,
    waiting: Waiting,
    tally: Tally,
    throttle: Throttle,
    deliver: Box<dyn FnMut(Alert) + Send>,
    started_boot_ns: u64,
    previous_boot_ns: u64,
    number: u64,
    matches: Matches,
    arena: Bump,
    filter: Filter,
}

impl<O: Outside> Pipeline<O> {
    /// A pipeline that hands its alerts to `deliver`, which must not block.
    pub fn new(
        config: PipelineConfig,
        mut outside: O,
        rules: Arc<ActiveRules>,
        tally: Tally,
        started_boot_ns: u64,
        deliver: Box<dyn FnMut(Alert) + Send>,
    ) -> Self {
        outside.prepare(rules.set.needs());
        let filter = tally.filter();
        let waiting = Waiting::new(config.hold_events, config.hold_time);
        Self {
            config,
            outside,
            processes: ProcessTable::default(),
            rules,
            waiting,
            tally,
            throttle: Throttle::default(),
            deliver,
            started_boot_ns,
            previous_boot_ns: 0,
            number: 0,
            matches: Matches::new(),
            arena: Bump::new(),
            filter,
        }
    }

    /// Takes in what runs already; call it once, after the sensor is attached.
    pub fn scan(&mut self) {
        self.outside.input(Input::Scan);
        self.processes.scan(&self.outside);
    }

    /// One record of the kernel's ring.
    pub fn record(&mut self, record: &[u8]) {
        self.outside.input(Input::Record(record));
        match decode(record) {
            Ok(event) => self.event(event),
            Err(error) => self.tally.undecodable(error.reason()),
        }
    }

    /// One event, through all stages.
    pub fn event(&mut self, event: Event) {
        self.tally.event(event.header.event);
        if let Body::Cgroup(cgroup) = &event.body {
            return self.cgroup(cgroup, event.task.tgid);
        }
        let process = self.processes.apply(&event, &self.outside);
        if matches!(event.body, Body::Rename) {
            return;
        }
        let (container, is_host) = match self.outside.identity(event.task.cgroup_id, event.task.tgid) {
            Lookup::Host => (None, true),
            Lookup::Unknown => (None, false),
            Lookup::Container(container) => (Some(container), false),
        };
        if container.is_none() && !is_host {
            // Rules see it as the host's, for want of more; that they may be wrong is not kept quiet.
            self.tally.identity_gone.increment();
        }
        self.number += 1;
        let previous_boot_ns = std::mem::replace(&mut self.previous_boot_ns, event.header.boot_ns);
        let seen = Seen { number: self.number, event, process, container, previous_boot_ns };
        self.outside.seen(&seen.event.task, seen.container.as_deref());
        let starts = matches!(seen.event.body, Body::Exec(_));
        if starts && is_host {
            self.tally.verdict(Verdict::Host);
        }
        if starts || self.outside.judges_all() {
            self.judge(&seen);
        }
        if !self.is_wanted(&seen) {
            return;
        }
        if let Some(container) = &seen.container
            && self.waiting.must_hold(container)
        {
            let held = Held { lineage: self.lineage_of(&seen), seen, rules: Arc::clone(&self.rules) };
            if let Some(Held { seen, .. }) = self.waiting.hold(held, self.outside.now()) {
                // No room: it goes on with what is known of its container, which says so.
                self.tally.identity_overflow.increment();
                self.evaluate(seen, None);
            }
            return;
        }
        self.evaluate(seen, None);
    }

    /// Takes in answers from outside and lets go of what waited for them or waited too long.
    /// Gives the time of the next deadline.
    pub fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.outside.input(Input::Tick(now));
        let answers = self.outside.answers();
        for container in answers.containers {
            for held in self.waiting.identified(&container) {
                let seen = Seen { container: Some(Arc::clone(&container)), ..held.seen };
                self.evaluate_held(Held { seen, ..held });
            }
        }
        for (ticket, judgement) in answers.judgements {
            self.judged(ticket, judgement);
        }
        for held in self.waiting.overdue(now) {
            self.tally.identity_timeout.increment();
            self.evaluate_held(held);
        }
        let throttle = self.throttle.tick(&self.rules.set, now, &self.config.alerts);
        self.summarise();
        [self.waiting.next_deadline(), throttle].into_iter().flatten().min()
    }

    /// Something still waits for an answer.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Ends what still waits: held events are evaluated as they are, parked rules are counted as lost, and folded alerts
    /// are summed up.
    pub fn finish(&mut self) {
        self.outside.input(Input::Finish);
        for held in self.waiting.all_held() {
            self.tally.identity_timeout.increment();
            self.evaluate_held(held);
        }
        self.tally.verdict_shutdown.add(self.waiting.abandon() as u64);
        self.throttle.flush(&self.config.alerts);
        self.summarise();
    }

    /// Brings the numbers of what is kept into the metrics.
    pub fn publish(&self) {
        let lengths = [self.processes.len(), self.waiting.held(), self.waiting.parked()];
        self.tally.publish(self.processes.counters(), lengths.map(|length| length as u64));
    }

    /// Local time in rules and alerts from now on.
    pub fn set_clock(&mut self, clock: Clock) {
        if self.config.alerts.clock != clock {
            self.outside.input(Input::Clock(clock));
            self.config.alerts.clock = clock;
        }
    }

    /// Which alerts are folded from now on; those that are folded already are summed up.
    pub fn set_throttle(&mut self, throttle: Throttle) {
        self.throttle.flush(&self.config.alerts);
        self.summarise();
        self.throttle = throttle;
    }

    /// Puts other rules and settings in force, from the next event on; gives the rules that were. What waits is judged
    /// by the rules that it came under.
    pub fn replace(&mut self, config: PipelineConfig, rules: Arc<ActiveRules>, throttle: Throttle) -> Arc<ActiveRules> {
        self.set_throttle(throttle);
        self.waiting.set_hold_time(config.hold_time);
        self.config = config;
        // What the former rules said of events is no answer of these.
        self.filter.set(None);
        self.outside.prepare(rules.set.needs());
        std::mem::replace(&mut self.rules, rules)
    }

    /// How alerts look now.
    pub fn alert_options(&self) -> &AlertOptions {
        &self.config.alerts
    }

    /// A policy is in force that was made for the rules in force alone, with what it hashes.
    pub(crate) fn set_filter(&mut self, generation: u32, own: &OwnFacts) {
        self.filter.set(Some((generation, own)));
    }

    /// Hashes of events that no rule in force can match, each once.
    pub(crate) fn take_unmatched(&mut self) -> Vec<u64> {
        self.filter.take_unmatched()
    }

    /// An alert of the agent itself: it is delivered like one of a rule.
    pub fn raise(&mut self, alert: Alert) {
        self.outside.input(Input::Raise(&alert));
        (self.deliver)(alert);
    }

    /// The rules in force.
    pub fn rules(&self) -> &Arc<ActiveRules> {
        &self.rules
    }

    /// Gives back what it reads from outside.
    pub fn into_outside(self) -> O {
        self.outside
    }

    /// What the pipeline reads from outside.
    pub fn outside(&mut self) -> &mut O {
        &mut self.outside
    }

    fn cgroup(&mut self, cgroup: &Cgroup, maker: u32) {
        if cgroup.made {
            self.outside.cgroup_made(cgroup.id, &cgroup.path, maker);
        } else {
            self.outside.cgroup_removed(cgroup.id);
        }
    }

    fn is_wanted(&self, seen: &Seen) -> bool {
        (self.config.scope == Scope::All || seen.container.is_some())
            && self.rules.set.needs().events.contains(crate::facts::code(seen.event.header.event))
    }

    /// Asks for the verdict on the program of `seen`'s process, once per program.
    fn judge(&mut self, seen: &Seen) {
        let program = &seen.process.program;
        let Some(container) = &seen.container else { return };
        if program.judgement.get().is_some() || program.ticket.get().is_some() {
            return;
        }
        let ticket = self.waiting.ticket(program);
        let file = ExecFile {
            identity: program.file.unwrap_or_default(),
            path: program.path.clone(),
            fs_path: program.fs_path.clone(),
            tgid: seen.process.key.tgid,
            in_host_mount_namespace: self.is_runtime_own(&seen.process, container),
            boot_ns: program.exec_boot_ns,
        };
        if let Some(judgement) = self.outside.judge(ticket, container, file) {
            self.judged(ticket, judgement);
        }
    }

    /// A runtime starts itself again inside the container's cgroup before the entry point: such a task still
    /// has the mount namespace of the process that made it.
    fn is_runtime_own(&mut self, process: &Process, container: &Container) -> bool {
        let maker = self.processes.ancestors(process).find(|ancestor| {
            !matches!(self.outside.identity(ancestor.cgroup_id, ancestor.key.tgid),
                Lookup::Container(its) if its.id == container.id)
        });
        maker.is_some_and(|maker| maker.mnt_ns == process.mnt_ns && maker.mnt_ns != 0)
    }

    fn judged(&mut self, ticket: u64, judgement: Judgement) {
        let Some((program, parked)) = self.waiting.judged(ticket) else { return };
        self.tally.verdict(judgement.verdict);
        // Each program is asked for once, so the cell is empty.
        let _first = program.judgement.set(judgement);
        for parked in parked {
            self.resume(parked);
        }
    }

    fn evaluate_held(&mut self, held: Held) {
        let Held { seen, lineage, rules } = held;
        self.evaluate(seen, Some((lineage, rules)));
    }

    /// Evaluates every rule under every name of the event, reports what matches, parks what waits for a verdict.
    /// `kept`: what an event that was held has of its own.
    fn evaluate(&mut self, seen: Seen, kept: Option<(Vec<Arc<Process>>, Arc<ActiveRules>)>) {
        let rules = kept.as_ref().map_or(&self.rules, |(_, rules)| rules);
        let names = Names::of(&seen.event);
        let mut matched: Vec<Match> = Vec::new();
        let mut pending: Vec<Match> = Vec::new();
        self.arena.reset();
        for (place, name) in names.iter().enumerate() {
            let lineage = kept.as_ref().map_or(Lineage::Table(&self.processes), |(lineage, _)| Lineage::Kept(lineage));
            let sight =
                sight(&seen, lineage, name, &self.outside, &self.arena, self.started_boot_ns, self.config.alerts.clock);
            rules.set.evaluate(&sight, &mut self.matches);
            matched.extend(self.matches.matched().iter().map(|rule| (*rule, place)));
            pending.extend(self.matches.pending().iter().map(|rule| (*rule, place)));
        }
        if matched.is_empty() && pending.is_empty() {
            // One that waited may have come under other rules than those in force.
            if kept.is_none() {
                self.ask(&seen, &names);
            }
            return;
        }
        let rules = Arc::clone(rules);
        self.decide(seen, &names, kept.map(|(lineage, _)| lineage), rules, matched, pending);
    }

    /// Asks the rules whether any can match the like of an event that matched none, whoever does it.
    fn ask(&mut self, seen: &Seen, names: &Names) {
        let header = &seen.event.header;
        let Some(own) = self.filter.asks(header.event, header.generation, header.hash) else { return };
        self.arena.reset();
        let clock = self.config.alerts.clock;
        let may_match = names.iter().any(|name| {
            let lineage = Lineage::Table(&self.processes);
            let sight = sight(seen, lineage, name, &self.outside, &self.arena, self.started_boot_ns, clock);
            self.rules.set.evaluate(&OwnSight::new(&sight, own), &mut self.matches);
            !self.matches.is_empty()
        });
        self.filter.answer(header.hash, may_match);
    }

    fn decide(
        &mut self,
        seen: Seen,
        names: &Names,
        kept: Option<Vec<Arc<Process>>>,
        rules: Arc<ActiveRules>,
        mut matched: Vec<Match>,
        mut pending: Vec<Match>,
    ) {
        // A rule fires once for an event, under the first name that it matches.
        matched.sort_unstable();
        matched.dedup_by_key(|(rule, _)| *rule);
        pending.sort_unstable();
        pending.retain(|(rule, _)| !matched.iter().any(|(known, _)| known == rule));
        let mut fallback = None;
        if rules.matching == RuleMatching::First
            && let Some(first) = matched.first().copied()
        {
            pending.retain(|(rule, _)| *rule < first.0);
            matched.truncate(1);
            if !pending.is_empty() {
                fallback = Some(first);
                matched.clear();
            }
        }
        for (rule, place) in matched {
            let lineage = kept.as_deref().map_or(Lineage::Table(&self.processes), Lineage::Kept);
            let name = names.get(place);
            let sight =
                sight(&seen, lineage, name, &self.outside, &self.arena, self.started_boot_ns, self.config.alerts.clock);
            let alert = raised(&mut self.throttle, &self.rules, (&rules, rule), &sight, &self.config.alerts);
            self.report(&rules, rule, alert);
        }
        if pending.is_empty() {
            return;
        }
        self.judge(&seen);
        let lineage = kept.unwrap_or_else(|| self.lineage_of(&seen));
        let parked = Parked { held: Held { seen, lineage, rules }, pending, fallback };
        if parked.held.seen.process.program.judgement.get().is_some() {
            return self.resume(parked);
        }
        if !self.waiting.park(parked) {
            self.tally.verdict_overflow.increment();
        }
    }

    /// Decides rules that waited for a verdict, now that there is one.
    fn resume(&mut self, parked: Parked) {
        let Parked { held: Held { seen, lineage, rules }, pending, fallback } = parked;
        let names = Names::of(&seen.event);
        self.arena.reset();
        let mut reported: Option<RuleIndex> = None;
        for (rule, place) in pending.iter().copied() {
            if reported == Some(rule) || (reported.is_some() && rules.matching == RuleMatching::First) {
                continue;
            }
            let name = names.get(place);
            let sight = sight(
                &seen,
                Lineage::Kept(&lineage),
                name,
                &self.outside,
                &self.arena,
                self.started_boot_ns,
                self.config.alerts.clock,
            );
            match rules.set.evaluate_rule(rule, &sight) {
                Outcome::True => {
                    let alert = raised(&mut self.throttle, &self.rules, (&rules, rule), &sight, &self.config.alerts);
                    self.report(&rules, rule, alert);
                    reported = Some(rule);
                }
                Outcome::False => {}
                Outcome::Pending => self.tally.verdict_unknown.increment(),
            }
        }
        if let (None, Some((rule, place))) = (reported, fallback) {
            let name = names.get(place);
            let sight = sight(
                &seen,
                Lineage::Kept(&lineage),
                name,
                &self.outside,
                &self.arena,
                self.started_boot_ns,
                self.config.alerts.clock,
            );
            let alert = raised(&mut self.throttle, &self.rules, (&rules, rule), &sight, &self.config.alerts);
            self.report(&rules, rule, alert);
        }
    }

    /// Counts a match, and delivers its alert unless that was folded.
    fn report(&mut self, rules: &ActiveRules, rule: RuleIndex, alert: Option<Alert>) {
        rules.matched(rule);
        self.summarise();
        if let Some(alert) = alert {
            (self.deliver)(alert);
        }
    }

    fn summarise(&mut self) {
        for summary in self.throttle.take_due() {
            (self.deliver)(summary);
        }
    }

    /// The processes that rules may ask about later: ancestors, session and group leader.
    fn lineage_of(&self, seen: &Seen) -> Vec<Arc<Process>> {
        let process = &seen.process;
        let leaders = [process.sid, process.pgid].into_iter().filter_map(|pid| self.processes.by_pid(pid));
        self.processes.ancestors(process).chain(leaders).cloned().collect()
    }
}

/// The alert of a rule that matched, unless it is folded. What waited under former rules is folded as an alert of the
/// rule that has the name now: a reload opens no gap in a limit.
fn raised(
    throttle: &mut Throttle,
    current: &ActiveRules,
    (rules, rule): (&ActiveRules, RuleIndex),
    sight: &Sight<'_>,
    options: &AlertOptions,
) -> Option<Alert> {
    let is_current = Arc::ptr_eq(&current.set, &rules.set);
    let limited = if is_current { Some(rule) } else { current.set.find(&rules.set.rule(rule).name) };
    let admitted = limited.is_none_or(|limited| throttle.admits(&current.set, limited, sight, options));
    admitted.then(|| rules.set.alert(rule, sight, options))
}

fn sight<'a>(
    seen: &'a Seen,
    lineage: Lineage<'a>,
    name: &'a [u8],
    outside: &'a dyn Outside,
    arena: &'a Bump,
    started_boot_ns: u64,
    clock: Clock,
) -> Sight<'a> {
    Sight {
        number: seen.number,
        event: &seen.event,
        process: &seen.process,
        lineage,
        container: seen.container.as_deref(),
        name,
        epoch_offset_ns: outside.epoch_offset_ns(),
        started_boot_ns,
        previous_boot_ns: seen.previous_boot_ns,
        clock,
        outside,
        arena,
        user: OnceCell::new(),
    }
}

#[cfg(test)]
mod tests;
