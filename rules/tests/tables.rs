//! The tables of fields and events against upstream's own, where those are at hand.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and skips aloud"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use purser_rules::catalogue::{ArgKind, FieldClass, FieldFlags};
use purser_rules::event::{Category, EVENTS, Event, Origin, SYSCALLS};
use purser_rules::{Catalogue, PrintFormat, Type};
use serde_json::Value as Json;

/// A table of upstream, or nothing (said aloud) if it is not there.
fn table(name: &str) -> Option<Json> {
    let dir = match std::env::var_os("PURSER_FALCO_TABLES") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco"),
    };
    let path = dir.join(name);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(serde_json::from_str(&text).expect("JSON")),
        Err(error) => {
            println!("SKIPPED: {}: {error} (set PURSER_FALCO_TABLES)", path.display());
            None
        }
    }
}

fn rows(json: &Json) -> &[Json] {
    json.as_array().expect("an array")
}

fn words(json: &Json) -> Vec<&str> {
    rows(json).iter().map(|word| word.as_str().expect("a text")).collect()
}

fn word<'a>(row: &'a Json, key: &str) -> &'a str {
    row[key].as_str().expect("a text")
}

#[test]
fn fields_are_upstreams() {
    let Some(upstream) = table("fields.json") else { return };
    let catalogue = Catalogue::builtin();
    let mut wrong = Vec::new();
    for row in rows(&upstream) {
        let name = word(row, "name");
        let Some(field) = catalogue.get(name) else {
            wrong.push(format!("{name} is missing"));
            continue;
        };
        let mut differs = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                wrong.push(format!("{name}: {what} is {ours}, upstream's {theirs}"));
            }
        };
        differs("type", field.ty.name().to_owned(), word(row, "type").to_owned());
        let print = PrintFormat::by_name(word(row, "pf")).expect("a print format");
        differs("print format", format!("{:?}", field.print), format!("{print:?}"));
        let flags = words(&row["flags"]);
        for (flag, word) in [
            (FieldFlags::ARG, "EPF_ARG_ALLOWED"),
            (FieldFlags::ARG_REQUIRED, "EPF_ARG_REQUIRED"),
            (FieldFlags::LIST, "EPF_IS_LIST"),
            (FieldFlags::FILTER_ONLY, "EPF_FILTER_ONLY"),
            (FieldFlags::PRINT_ONLY, "EPF_PRINT_ONLY"),
            (FieldFlags::NO_RHS, "EPF_NO_RHS"),
            (FieldFlags::NO_TRANSFORMER, "EPF_NO_TRANSFORMER"),
            (FieldFlags::DEPRECATED, "EPF_DEPRECATED"),
            (FieldFlags::HIDDEN, "EPF_TABLE_ONLY"),
        ] {
            differs(word, field.flags.has(flag).to_string(), flags.contains(&word).to_string());
        }
        let takes = flags.contains(&"EPF_ARG_ALLOWED") || flags.contains(&"EPF_ARG_REQUIRED");
        differs("argument", (field.arg != ArgKind::None).to_string(), takes.to_string());
    }
    let known: BTreeSet<&str> = rows(&upstream).iter().map(|row| word(row, "name")).collect();
    for field in catalogue.fields().iter().filter(|field| field.class == FieldClass::Core) {
        if !known.contains(field.name.as_ref()) {
            wrong.push(format!("{} is not upstream's", field.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn origin(categories: &[&str]) -> Origin {
    for (name, origin) in [
        ("EC_SYSCALL", Origin::Syscall),
        ("EC_TRACEPOINT", Origin::Tracepoint),
        ("EC_PLUGIN", Origin::Plugin),
        ("EC_METAEVENT", Origin::Meta),
        ("EC_ITER", Origin::Iterator),
    ] {
        if categories.contains(&name) {
            return origin;
        }
    }
    Origin::Unused
}

fn category(categories: &[&str]) -> Category {
    for (name, category) in [
        ("EC_OTHER", Category::Other),
        ("EC_FILE", Category::File),
        ("EC_NET", Category::Net),
        ("EC_IPC", Category::Ipc),
        ("EC_MEMORY", Category::Memory),
        ("EC_PROCESS", Category::Process),
        ("EC_SLEEP", Category::Sleep),
        ("EC_SYSTEM", Category::System),
        ("EC_SIGNAL", Category::Signal),
        ("EC_USER", Category::User),
        ("EC_TIME", Category::Time),
        ("EC_WAIT", Category::Wait),
        ("EC_IO_READ", Category::IoRead),
        ("EC_IO_WRITE", Category::IoWrite),
        ("EC_IO_OTHER", Category::IoOther),
        ("EC_SCHEDULER", Category::Scheduler),
        ("EC_INTERNAL", Category::Internal),
    ] {
        if categories.contains(&name) {
            return category;
        }
    }
    Category::Unknown
}

#[test]
fn events_are_upstreams() {
    let Some(upstream) = table("events.json") else { return };
    assert_eq!(SYSCALLS.as_slice(), words(&upstream["sc"]).as_slice(), "names of system calls");
    let upstream = rows(&upstream["events"]);
    assert_eq!(EVENTS.len(), upstream.len());
    let mut wrong = Vec::new();
    for (number, (event, row)) in EVENTS.iter().zip(upstream).enumerate() {
        assert_eq!(row["num"].as_u64(), Some(number as u64));
        let mut differs = |what: &str, ours: String, theirs: String| {
            if ours != theirs {
                wrong.push(format!("{number} {}: {what} is {ours}, upstream's {theirs}", event.name));
            }
        };
        differs("name", event.name.to_owned(), word(row, "name").to_owned());
        let categories = words(&row["cats"]);
        differs("origin", format!("{:?}", event.origin), format!("{:?}", origin(&categories)));
        differs("category", format!("{:?}", event.category), format!("{:?}", category(&categories)));
        let flags = words(&row["flags"]);
        for (flag, word) in [
            (Event::OLD, "EF_OLD_VERSION"),
            (Event::UNUSED, "EF_UNUSED"),
            (Event::READS, "EF_READS_FROM_FD"),
            (Event::WRITES, "EF_WRITES_TO_FD"),
            (Event::WAITS, "EF_WAITS"),
            (Event::USES_FD, "EF_USES_FD"),
        ] {
            differs(word, (event.flags & flag != 0).to_string(), flags.contains(&word).to_string());
        }
        let ours: Vec<_> =
            event.params.iter().map(|param| format!("{} {} {:?}", param.name, param.ty.name(), param.print)).collect();
        let theirs: Vec<_> = rows(&row["params"])
            .iter()
            .map(|param| {
                let param = words(param);
                let print = PrintFormat::by_name(param[2]).expect("a print format");
                assert!(Type::by_name(param[1]).is_some(), "no type {}", param[1]);
                format!("{} {} {print:?}", param[0], param[1])
            })
            .collect();
        differs("parameters", ours.join(", "), theirs.join(", "));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
