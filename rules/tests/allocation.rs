//! Evaluating an event that matches nothing does not allocate.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and skips aloud"
)]

mod counting;

use counting::counted;
use purser_rules::{
    EventCode, Fact, Facts, FieldId, FieldRef, LoadOptions, Matches, Reason, RuleSet, Source, Value, default_sources,
};

/// An ordinary open in a container.
struct Open;

impl Facts for Open {
    fn event(&self) -> EventCode {
        EventCode::OPENAT
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        match field.id {
            FieldId::EVT_TYPE => Fact::text(b"openat"),
            FieldId::CONTAINER_ID => Fact::text(b"0123456789ab"),
            FieldId::FD_NAME => Fact::text(b"/usr/lib/x86_64-linux-gnu/libc.so.6"),
            FieldId::FD_DIRECTORY => Fact::text(b"/usr/lib/x86_64-linux-gnu"),
            FieldId::FD_FILENAME => Fact::text(b"libc.so.6"),
            FieldId::FD_TYPECHAR => Fact::text(b"f"),
            FieldId::FD_NUM => Fact::One(Value::I64(3)),
            FieldId::EVT_IS_OPEN_READ => Fact::One(Value::Bool(true)),
            FieldId::EVT_IS_OPEN_WRITE => Fact::One(Value::Bool(false)),
            FieldId::PROC_NAME | FieldId::PROC_PNAME => Fact::text(b"python3"),
            FieldId::PROC_EXEPATH => Fact::text(b"/usr/bin/python3.11"),
            FieldId::PROC_CMDLINE => Fact::text(b"python3 app.py"),
            FieldId::PROC_ANAME | FieldId::PROC_AEXEPATH | FieldId::PROC_ACMDLINE => Fact::Many(3),
            _ => Fact::Missing(Reason::Unknown),
        }
    }

    fn element(&self, _: FieldRef<'_>, _: usize) -> Fact<'_> {
        Fact::text(b"/usr/bin/containerd-shim")
    }
}

fn allocations(rules: &RuleSet) -> usize {
    let mut matches = Matches::new();
    rules.evaluate(&Open, &mut matches);
    assert!(matches.is_empty(), "{:?}", matches.matched());
    let ((), taken) = counted(|| {
        for _ in 0..100 {
            rules.evaluate(&Open, &mut matches);
        }
    });
    taken.allocations
}

#[test]
fn our_rules() {
    let (rules, _) = RuleSet::load(&default_sources(), &LoadOptions::default()).expect("rules");
    assert_eq!(allocations(&rules), 0);
}

#[test]
fn upstream_rules() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco/rules");
    let files = ["falco_rules.yaml", "falco-incubating_rules.yaml", "falco-sandbox_rules.yaml"];
    let Ok(texts) = files.iter().map(|file| std::fs::read(dir.join(file))).collect::<Result<Vec<_>, _>>() else {
        eprintln!("SKIPPED: no upstream rule files at {}", dir.display());
        return;
    };
    let sources: Vec<_> = files.iter().zip(&texts).map(|(name, text)| Source { name, text }).collect();
    let (rules, _) = RuleSet::load(&sources, &LoadOptions::default()).expect("rules");
    assert_eq!(allocations(&rules), 0);
}
