//! Measures loading and evaluation: `cargo run --release -p purser-rules --example evaluate -- FILE...`
//!
//! Events are an ordinary mix (opens for reading, execs, connects) that matches nothing; figures are printed, not judged.

#![allow(clippy::print_stdout, clippy::print_stderr, clippy::expect_used, reason = "a tool for the terminal")]

use std::hint::black_box;
use std::time::Instant;

use purser_rules::{
    Arg, EventCode, Fact, Facts, FieldId, FieldRef, LoadOptions, Matches, Reason, RuleSet, Source, Value,
};

/// One kind of event.
struct Event {
    code: EventCode,
    path: &'static [u8],
    name: &'static [u8],
}

impl Facts for Event {
    fn event(&self) -> EventCode {
        self.code
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        let opens = self.code == EventCode::OPENAT;
        match field.id {
            FieldId::EVT_TYPE => Fact::text(self.code.name().as_bytes()),
            FieldId::EVT_NUM => Fact::One(Value::U64(7)),
            FieldId::EVT_RES => Fact::text(b"SUCCESS"),
            FieldId::CONTAINER_ID => Fact::text(b"0123456789ab"),
            FieldId::CONTAINER_IMAGE_REPOSITORY => Fact::text(b"registry.example/app"),
            FieldId::FD_NAME if opens => Fact::text(self.path),
            FieldId::FD_DIRECTORY if opens => Fact::text(b"/usr/lib/x86_64-linux-gnu"),
            FieldId::FD_TYPECHAR => Fact::text(if opens { b"f" } else { b"4" }),
            FieldId::EVT_RAWRES | FieldId::FD_NUM => Fact::One(Value::I64(3)),
            FieldId::EVT_IS_OPEN_READ => Fact::One(Value::Bool(opens)),
            FieldId::EVT_IS_OPEN_WRITE => Fact::One(Value::Bool(false)),
            FieldId::PROC_NAME => Fact::text(self.name),
            FieldId::PROC_PNAME => Fact::text(b"make"),
            FieldId::PROC_EXEPATH => Fact::text(b"/usr/bin/cc1"),
            FieldId::PROC_CMDLINE => Fact::text(b"cc1 -quiet -O2 main.c"),
            FieldId::PROC_TTY | FieldId::USER_UID => Fact::One(Value::U64(0)),
            FieldId::USER_NAME => Fact::text(b"root"),
            FieldId::MANIFEST_VERDICT => Fact::text(b"expected"),
            FieldId::PROC_ANAME => match field.arg {
                Arg::None => Fact::Many(3),
                _ => Fact::text(b"make"),
            },
            FieldId::PROC_AEXEPATH | FieldId::PROC_ACMDLINE => Fact::Many(3),
            _ => Fact::Missing(Reason::Unknown),
        }
    }

    fn element(&self, _: FieldRef<'_>, _: usize) -> Fact<'_> {
        Fact::text(b"/usr/bin/make")
    }
}

fn main() {
    let files: Vec<(String, Vec<u8>)> = std::env::args()
        .skip(1)
        .map(|name| {
            let text = std::fs::read(&name).expect("a rule file");
            (name, text)
        })
        .collect();
    for copies in [1, 10] {
        let texts: Vec<(String, Vec<u8>)> = (0..copies)
            .flat_map(|copy| {
                files.iter().map(move |(name, text)| {
                    let text = String::from_utf8_lossy(text).replace("- rule: ", &format!("- rule: {copy} "));
                    (name.clone(), text.into_bytes())
                })
            })
            .collect();
        let sources: Vec<_> = texts.iter().map(|(name, text)| Source { name, text }).collect();
        let start = Instant::now();
        let (rules, _) = RuleSet::load(&sources, &LoadOptions::default()).expect("rules");
        println!("{} rules: loaded in {:.1} ms", rules.rules().len(), start.elapsed().as_secs_f64() * 1e3);
        let events = [
            ("open", Event { code: EventCode::OPENAT, path: b"/usr/lib/x86_64-linux-gnu/libc.so.6", name: b"cc1" }),
            ("exec", Event { code: EventCode::EXECVE, path: b"", name: b"cc1" }),
            ("connect", Event { code: EventCode::CONNECT, path: b"", name: b"apt" }),
            ("close", Event { code: EventCode::CLOSE, path: b"", name: b"cc1" }),
        ];
        let mut matches = Matches::new();
        for (name, event) in &events {
            let mut best = f64::MAX;
            for _ in 0..20 {
                let start = Instant::now();
                for _ in 0..10_000 {
                    rules.evaluate(black_box(event), &mut matches);
                }
                best = best.min(start.elapsed().as_secs_f64() * 1e9 / 10_000.0);
            }
            println!("  {name}: {best:.0} ns, {} matched", matches.matched().len());
        }
    }
}
