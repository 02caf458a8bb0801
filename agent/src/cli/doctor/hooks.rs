//! The programs, given to the kernel to check and taken back: nothing is attached.

use super::{Check, State, files};
use crate::config::{Size, TierChoice};
use crate::run;
use crate::sensor::{Circumstances, Hook, HookState, Policy, Sensor, SensorError};

/// What the kernel says to the programs.
pub(super) struct Look {
    pub(super) checks: Vec<Check>,
    pub(super) circumstances: Circumstances,
}

pub(super) fn look(files: &files::Look) -> Look {
    let mut look = Look { checks: Vec::new(), circumstances: Circumstances::default() };
    let mut config = run::sensor_config(&files.config);
    let mut started = Sensor::start(&config, &Policy::default());
    if let Err(error @ SensorError::Tier { .. }) = &started {
        look.checks.push(Check::new(State::Missing, "used tier", error.to_string()));
        config.tier = None;
        started = Sensor::start(&config, &Policy::default());
    }
    let check = match started {
        Ok(sensor) => {
            look.loaded(&sensor, files);
            Check::ok("ring", Size(config.ring_bytes.into()).to_string())
        }
        Err(SensorError::NotPrivileged) => {
            Check::new(State::Unchecked, "programs", SensorError::NotPrivileged.to_string())
        }
        Err(error) => Check::new(State::Missing, "programs", error.to_string()),
    };
    look.checks.push(check);
    look
}

impl Look {
    fn loaded(&mut self, sensor: &Sensor, files: &files::Look) {
        let report = sensor.tier();
        self.checks.push(Check::new(State::Info, "allowed tier", format!("{}: {}", report.available, report.reason)));
        if self.checks.len() == 1 {
            let why = if files.config.sensor.tier == TierChoice::Auto { "" } else { ", as sensor.tier says" };
            self.checks.push(Check::ok("used tier", format!("{}{why}", report.in_use)));
        }
        let missing = sensor.hooks().iter().filter(|hook| matches!(hook.state, HookState::Unavailable(_)));
        self.circumstances.missing = Some(missing.map(|hook| hook.name).collect());
        self.circumstances.tier = Some(report.in_use);
        self.circumstances.misses_compat = Some(sensor.misses_compat_calls());
        let needed = files.rules.as_ref().map(|(_, policy)| sensor.needed(policy));
        self.checks.extend(sensor.hooks().iter().map(|hook| check(hook, needed.as_deref())));
    }
}

fn check(hook: &Hook, needed: Option<&[&str]>) -> Check {
    let needed = needed.map(|needed| needed.contains(&hook.name));
    match (&hook.state, needed) {
        (HookState::Unavailable(reason), Some(false)) => {
            Check::new(State::Info, hook.name, format!("not to be had ({reason}), and no rule needs it"))
        }
        (HookState::Unavailable(reason), _) => {
            Check::new(State::Limited, hook.name, format!("not to be had: {reason}"))
        }
        (_, Some(true)) => Check::ok(hook.name, "can be attached, and rules need it"),
        (_, Some(false)) => Check::new(State::Info, hook.name, "can be attached; no rule needs it: it costs nothing"),
        (_, None) => Check::ok(hook.name, "can be attached"),
    }
}
