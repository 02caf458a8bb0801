//! Loads a text as a rule file in a thread with a small stack, evaluates what it made, and says what that took.

use std::sync::mpsc;
use std::time::Duration;

use purser_rules::{
    AlertOptions, EventCode, Fact, Facts, FieldId, FieldRef, LoadOptions, Matches, Reason, RuleIndex, RuleSet, Source,
    Value,
};

use crate::counting::counted;

/// Most memory that loading and evaluating may hold, without the text itself.
const MAX_MEMORY: isize = 200 << 20;

/// What a thread has at least: tokio's and the standard library's default.
const STACK: usize = 2 << 20;

/// When a load counts as hanging; nothing takes a tenth of it, even unoptimised.
const HANGS: Duration = Duration::from_mins(1);

/// An open in which every text is the same, and every other field has no value.
struct Open;

impl Facts for Open {
    fn event(&self) -> EventCode {
        EventCode::OPENAT
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        match field.id {
            FieldId::EVT_TYPE => Fact::text(b"openat"),
            FieldId::EVT_NUM => Fact::One(Value::U64(1)),
            FieldId::PROC_NAME | FieldId::FD_NAME | FieldId::PROC_CMDLINE | FieldId::PROC_EXEPATH => {
                Fact::text(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab")
            }
            FieldId::PROC_ANAME => Fact::Many(100),
            _ => Fact::Missing(Reason::Unknown),
        }
    }

    fn element(&self, _: FieldRef<'_>, _: usize) -> Fact<'_> {
        Fact::text(b"aaaaaaaaaaaaaaaab")
    }
}

/// Loads files; returns the number of rules, or the error. What it took is printed, and the memory asserted.
pub(crate) fn load_all(name: &str, texts: Vec<Vec<u8>>) -> Result<usize, String> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().stack_size(STACK);
    let size: usize = texts.iter().map(Vec::len).sum();
    let work = move || {
        let sources: Vec<_> = texts.iter().map(|text| Source { name: "rules.yaml", text }).collect();
        let ((result, loading, evaluating), taken) = counted(|| {
            let start = processor_time();
            let result = RuleSet::load(&sources, &LoadOptions::default());
            let loading = processor_time().saturating_sub(start);
            let start = processor_time();
            let result = match result {
                Ok((rules, warnings)) => {
                    evaluate(&rules);
                    let _ = warnings.len();
                    Ok(rules.rules().len())
                }
                Err(error) => Err(error.to_string()),
            };
            // Taking it apart again must not exhaust the stack either.
            (result, loading, processor_time().saturating_sub(start))
        });
        let _ = sender.send((result, loading, evaluating, taken.peak));
    };
    let handle = thread.spawn(work).expect("a thread");
    let Ok((result, loading, evaluating, peak)) = receiver.recv_timeout(HANGS) else {
        assert!(!handle.is_finished(), "{name}: it panicked");
        panic!("{name}: it did not end within {HANGS:?}");
    };
    handle.join().expect("no panic");
    let outcome = match &result {
        Ok(rules) => format!("{rules} rules"),
        Err(error) => format!("error: {:.110}", error.lines().next().unwrap_or_default()),
    };
    println!(
        "| {name} | {} KB | {} ms | {} ms | {} MB | {outcome} |",
        size >> 10,
        loading.as_millis(),
        evaluating.as_millis(),
        peak >> 20
    );
    assert!(peak <= MAX_MEMORY, "{name}: it held {} MB", peak >> 20);
    result
}

/// Loads one file.
pub(crate) fn load(name: &str, text: impl Into<Vec<u8>>) -> Result<usize, String> {
    load_all(name, vec![text.into()])
}

/// What this thread has computed so far: the time it takes does not depend on what else the machine does.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn evaluate(rules: &RuleSet) {
    let mut matches = Matches::new();
    rules.evaluate(&Open, &mut matches);
    for at in [0, rules.rules().len().saturating_sub(1)] {
        if at < rules.rules().len() {
            let _ = rules.evaluate_rule(RuleIndex(at as u32), &Open);
            let _ = rules.alert(RuleIndex(at as u32), &Open, &AlertOptions::default());
        }
    }
}
