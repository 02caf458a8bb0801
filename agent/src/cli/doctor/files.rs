//! The configuration and the rules, as `purser run` would read them.

use purser_rules::RuleSet;

use super::{Check, DoctorArgs, State};
use crate::cli::{self, RunArgs};
use crate::config::{Config, Pushdown};
use crate::reload::{self, files};
use crate::sensor::Policy;

/// What the files say.
pub(super) struct Look {
    /// The defaults where it cannot be used.
    pub(super) config: Config,
    /// The rules and what they need of the kernel; `None` where they cannot be used.
    pub(super) rules: Option<(RuleSet, Policy)>,
    pub(super) checks: Vec<Check>,
}

pub(super) fn look(arguments: &DoctorArgs) -> Look {
    let args = RunArgs { config: arguments.config.clone(), rules: arguments.rules.clone(), ..RunArgs::default() };
    let mut checks = Vec::new();
    let config = match args.configuration() {
        Ok(config) => {
            let path = files::path(&args);
            let read = if args.config.is_some() || path.exists() {
                path.display().to_string()
            } else {
                format!("the defaults: there is no {}", path.display())
            };
            checks.push(Check::ok("configuration", read));
            config
        }
        Err(error) => {
            checks.push(Check::new(State::Missing, "configuration", cli::explain(&error)));
            Config::default()
        }
    };
    let rules = rules(&args, &config, &mut checks).map(|set| {
        // Whether or not it is on: `--pushdown` says what it would do.
        let policy = reload::policy(&set, config.scope, Pushdown::On);
        (set, policy)
    });
    Look { config, rules, checks }
}

fn rules(args: &RunArgs, config: &Config, checks: &mut Vec<Check>) -> Option<RuleSet> {
    const NAME: &str = "rules";
    let texts = match files::Files::new(args.clone(), config).rules(config, true) {
        Ok(texts) => texts,
        Err(error) => {
            checks.push(Check::new(State::Missing, NAME, error.to_string()));
            return None;
        }
    };
    match files::compile(config, &texts) {
        Ok((set, warnings)) => {
            let enabled = set.rules().iter().filter(|rule| rule.enabled).count();
            let state = match (enabled, warnings.len()) {
                (0, _) => State::Limited,
                (_, 0) => State::Ok,
                _ => State::Limited,
            };
            let hint = if warnings.is_empty() { "" } else { "; see `purser rules check`" };
            let text = format!(
                "{enabled} enabled of {}, in {} files, {} warnings{hint}",
                set.rules().len(),
                texts.len(),
                warnings.len()
            );
            checks.push(Check::new(state, NAME, text));
            Some(set)
        }
        Err(error) => {
            let text = error.to_string();
            let text = format!("{}; see `purser rules check`", text.lines().next().unwrap_or_default());
            checks.push(Check::new(State::Missing, NAME, text));
            None
        }
    }
}
