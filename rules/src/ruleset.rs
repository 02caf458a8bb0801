//! A loaded and compiled set of rules.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Map;

use crate::alert::{Alert, AlertOptions};
use crate::catalogue::Catalogue;
use crate::compile::{CompileError, Hint};
use crate::diagnostic::Diagnostic;
use crate::event::{EVENTS, EventCode, EventSet};
use crate::facts::{Fact, Facts, FieldRef, Value};
use crate::load::{self, Definitions};
use crate::matches::{Matches, Outcome};
use crate::needs::Needs;
use crate::options::{LoadOptions, Selection, Source};
use crate::parse::Expr;
use crate::program::{Graph, NodeId, Plan, Scratch, Texts};
use crate::rule::{Rule, RuleIndex};
use crate::{FieldId, select};

/// Rules, ready to evaluate events. Immutable: a reload makes a new one, so no event is judged by half a set.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    roots: Vec<NodeId>,
    conditions: Vec<Arc<Expr>>,
    graph: Graph,
    /// Per event number its program.
    by_event: Vec<u16>,
    programs: Vec<Program>,
    needs: Needs,
    definitions: Definitions,
    catalogue: Arc<Catalogue>,
}

/// The conditions that can match an event, each once, with the rules that have it.
#[derive(Debug, Default)]
struct Program {
    conditions: Vec<(NodeId, Vec<RuleIndex>)>,
    plan: Plan,
}

/// What a condition asks of an event of one type.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'a> {
    /// The rules that have it.
    pub rules: &'a [RuleIndex],
    root: NodeId,
    graph: &'a Graph,
}

impl<'a> Reading<'a> {
    /// The fields that it asks for, each once, ordered.
    pub fn fields(&self) -> Vec<FieldRef<'a>> {
        self.graph.fields(self.root)
    }

    /// Whether the fields that `known` names can make it false, whatever all others are.
    pub fn refutable(&self, known: &dyn Fn(FieldRef<'_>) -> bool) -> bool {
        self.graph.may_be(self.root, false, known, &mut HashMap::new())
    }
}

/// The files cannot be used: the last diagnostic is the error.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.diagnostics.last().map(ToString::to_string).unwrap_or_default())]
pub struct LoadError {
    /// Warnings up to the error, then the error.
    pub diagnostics: Vec<Diagnostic>,
}

/// What is to be said about files.
#[derive(Debug)]
pub struct Checked {
    /// Errors and warnings, each once, in the order found.
    pub diagnostics: Vec<Diagnostic>,
    /// The rules, if there is no error.
    pub rules: Option<RuleSet>,
}

/// A check ends with so many errors.
pub const MAX_ERRORS: usize = 100;

impl RuleSet {
    /// Loads files one after another into one set, and compiles them.
    ///
    /// # Errors
    /// The first error of the files, after the warnings found up to it.
    pub fn load(sources: &[Source<'_>], options: &LoadOptions) -> Result<(Self, Vec<Diagnostic>), LoadError> {
        let (loaded, diagnostics, definitions) = load::load(sources, options);
        match loaded {
            Some(loaded) => Ok((Self::assemble(loaded, definitions, sources, options), diagnostics)),
            None => Err(LoadError { diagnostics }),
        }
    }

    /// Loads files to say all that is wrong with them: goes on after an error with the next item, up to [`MAX_ERRORS`].
    pub fn check(sources: &[Source<'_>], options: &LoadOptions) -> Checked {
        let (loaded, diagnostics, definitions) = load::check(sources, options);
        let rules = loaded.map(|loaded| Self::assemble(loaded, definitions, sources, options));
        Checked { diagnostics, rules }
    }

    fn assemble(loaded: load::Loaded, definitions: Definitions, sources: &[Source<'_>], options: &LoadOptions) -> Self {
        let mut set = Self {
            rules: Vec::with_capacity(loaded.rules.len()),
            roots: Vec::with_capacity(loaded.rules.len()),
            conditions: Vec::with_capacity(loaded.rules.len()),
            graph: loaded.graph,
            by_event: Vec::new(),
            programs: Vec::new(),
            needs: Needs::nothing(),
            definitions,
            catalogue: options.catalogue.clone().unwrap_or_else(Catalogue::shared),
        };
        for (mut rule, root, condition) in loaded.rules {
            let file = rule.defined.0.parse::<usize>().ok().and_then(|file| sources.get(file));
            rule.defined.0 = file.map(|source| source.name.to_owned()).unwrap_or_default();
            set.rules.push(rule);
            set.roots.push(root);
            set.conditions.push(condition);
        }
        set.select(&options.selection, options.min_priority);
        set
    }

    /// All rules, in rule order, disabled ones too.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// One rule.
    pub fn rule(&self, index: RuleIndex) -> &Rule {
        &self.rules[index.0 as usize]
    }

    /// The condition of a rule, lists and macros in place.
    pub fn condition(&self, index: RuleIndex) -> &Expr {
        &self.conditions[index.0 as usize]
    }

    /// The rule called `name`.
    pub fn find(&self, name: &str) -> Option<RuleIndex> {
        self.rules.iter().position(|rule| rule.name == name).map(|at| RuleIndex(at as u32))
    }

    /// What the enabled rules need from the sensor.
    pub fn needs(&self) -> &Needs {
        &self.needs
    }

    /// What the files define.
    pub fn definitions(&self) -> &Definitions {
        &self.definitions
    }

    /// The conditions that can match an event, as far as its name leaves them open: each once, with the rules that have it.
    pub fn readings(&self, event: EventCode) -> impl Iterator<Item = Reading<'_>> {
        let program = self.by_event.get(usize::from(event.number()));
        let program = program.and_then(|at| self.programs.get(usize::from(*at)));
        let conditions = program.into_iter().flat_map(|program| &program.conditions);
        conditions.map(|(root, rules)| Reading { rules, root: *root, graph: &self.graph })
    }

    /// The fields the set was compiled with.
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Evaluates every enabled rule that can match the event; `matches` then holds the outcome of this event alone.
    ///
    /// Does not allocate once `matches` has been used with this set.
    pub fn evaluate<F: Facts + ?Sized>(&self, facts: &F, matches: &mut Matches) {
        matches.matched.clear();
        matches.pending.clear();
        let program = self.by_event.get(usize::from(facts.event().number()));
        let Some(program) = program.and_then(|at| self.programs.get(usize::from(*at))) else { return };
        if program.plan.is_empty() {
            return;
        }
        matches.scratch.start(&self.graph);
        program.plan.run(&self.graph, facts, &mut matches.scratch, &mut matches.matched, &mut matches.pending);
        matches.matched.sort_unstable();
        matches.pending.sort_unstable();
    }

    /// Evaluates one rule, such as one that was pending, whether it is enabled or not.
    pub fn evaluate_rule<F: Facts + ?Sized>(&self, rule: RuleIndex, facts: &F) -> Outcome {
        let at = rule.0 as usize;
        if !self.rules[at].events.contains(facts.event()) {
            return Outcome::False;
        }
        // What the event's name decides is decided in its program, which has only enabled rules.
        let program = self.by_event.get(usize::from(facts.event().number()));
        let program = program.and_then(|at| self.programs.get(usize::from(*at)));
        let mut conditions = program.into_iter().flat_map(|program| &program.conditions);
        let condition = match conditions.find(|(_, rules)| rules.contains(&rule)) {
            Some((condition, _)) => *condition,
            None if self.rules[at].enabled => return Outcome::False,
            None => self.roots[at],
        };
        let mut scratch = Scratch::default();
        scratch.start(&self.graph);
        self.graph.evaluate(condition, &Texts::default(), facts, &mut scratch)
    }

    /// The alert of a rule that matched.
    pub fn alert<F: Facts + ?Sized>(&self, rule: RuleIndex, facts: &F, options: &AlertOptions) -> Alert {
        let rule = self.rule(rule);
        let time_ns = match facts.fact(FieldId::EVT_RAWTIME.plain()) {
            Fact::One(Value::U64(ns)) => ns,
            _ => 0,
        };
        let message = rule.format.text_with(facts, true).unwrap_or_default();
        let message = String::from_utf8_lossy(&message).into_owned();
        let mut output_fields = Map::new();
        rule.format.json_into(facts, &mut output_fields);
        for extra in &rule.extra {
            let value = if extra.raw {
                extra.value.first_json(facts)
            } else {
                let text = extra.value.text_with(facts, true).unwrap_or_default();
                String::from_utf8_lossy(&text).into_owned().into()
            };
            output_fields.insert(extra.key.clone(), value);
        }
        Alert::new(rule, time_ns, &message, output_fields, options)
    }

    /// Applies a selection to what the files say, and builds what is evaluated.
    fn select(&mut self, selection: &[Selection], min_priority: crate::Priority) {
        for rule in &mut self.rules {
            rule.enabled = rule.enabled_by_file;
            for change in selection {
                if select::matches(&change.by, &rule.name, &rule.tags) {
                    rule.enabled = change.enable;
                }
            }
            rule.enabled &= rule.priority <= min_priority;
        }
        self.build();
    }

    fn build(&mut self) {
        self.programs = Vec::new();
        self.by_event = Vec::with_capacity(EVENTS.len());
        let enabled: Vec<RuleIndex> =
            (0..self.rules.len() as u32).map(RuleIndex).filter(|rule| self.rule(*rule).enabled).collect();
        let mut known: HashMap<(Vec<bool>, Vec<RuleIndex>), u16> = HashMap::new();
        for number in 0..EVENTS.len() as u16 {
            let Some(code) = EventCode::from_number(number) else { continue };
            let rules: Vec<RuleIndex> =
                enabled.iter().copied().filter(|rule| self.rule(*rule).events.contains(code)).collect();
            let key = (self.graph.name_signature(code), rules);
            if let Some(at) = known.get(&key) {
                self.by_event.push(*at);
                continue;
            }
            let mut done = HashMap::new();
            let mut conditions: BTreeMap<NodeId, Vec<RuleIndex>> = BTreeMap::new();
            for rule in &key.1 {
                let root = self.graph.specialise(self.roots[rule.0 as usize], code, &mut done);
                if !self.graph.is_never(root) {
                    conditions.entry(root).or_default().push(*rule);
                }
            }
            let at = self.programs.len() as u16;
            let conditions: Vec<_> = conditions.into_iter().collect();
            let plan = Plan::new(&mut self.graph, &conditions);
            self.programs.push(Program { conditions, plan });
            self.by_event.push(at);
            known.insert(key, at);
        }
        let mut events = EventSet::EMPTY;
        for (number, at) in self.by_event.iter().enumerate() {
            if let Some(code) = EventCode::from_number(number as u16)
                && !self.programs[usize::from(*at)].conditions.is_empty()
            {
                events.insert(code);
            }
        }
        let enabled = self.rules.iter().zip(&self.conditions).filter(|(rule, _)| rule.enabled);
        self.needs = Needs::of(enabled.map(|(rule, condition)| (rule, condition.as_ref())), events);
    }
}

/// One condition on its own, for tests and tools.
#[derive(Debug)]
pub struct Filter {
    graph: Graph,
    root: NodeId,
}

impl Filter {
    /// Compiles a condition without macros; also what its checks are suspected of.
    ///
    /// # Errors
    /// A check does not fit its field.
    pub fn new(expr: &Arc<Expr>, catalogue: &Catalogue) -> Result<(Self, Vec<Hint>), CompileError> {
        let mut graph = Graph::default();
        let mut hints = Vec::new();
        let root = graph.add(expr, catalogue, &mut hints)?;
        Ok((Self { graph, root }, hints))
    }

    /// Evaluates it.
    pub fn evaluate<F: Facts + ?Sized>(&self, facts: &F) -> Outcome {
        let mut scratch = Scratch::default();
        scratch.start(&self.graph);
        self.graph.evaluate(self.root, &Texts::default(), facts, &mut scratch)
    }
}
