//! Runs the conformance corpus of Falco's rule language: every case of every `.jsonl` file.
//!
//! Prints one line per file and one total, and fails if any case does. A case tagged `quirk` that comes out differently
//! is a deviation: upstream's outcome there rests on the terminator of a C string, ours on the value.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking and skips aloud"
)]

mod checks;
mod facts;
mod files;
mod language;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value as Json;

/// How a case came out: nothing to say, or how it differs.
type Verdict = Result<(), String>;

/// Corpus files a case may need besides itself.
struct Corpus {
    catalogs: Json,
    events: Json,
}

fn main() -> ExitCode {
    let dir = match std::env::var_os("PURSER_CORPUS") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco/corpus/open"),
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    if files.is_empty() {
        println!("SKIPPED: no corpus at {} (set PURSER_CORPUS)", dir.display());
        return ExitCode::SUCCESS;
    }
    let filter = std::env::args().nth(1).filter(|arg| !arg.starts_with('-'));
    let corpus = Corpus {
        catalogs: read_json(&[dir.join("catalogs.json"), dir.join("../catalogs.json")]),
        events: read_json(&[dir.join("events.json"), dir.join("../events.json")]),
    };
    let (mut passed, mut failed, mut deviations) = (0, 0, BTreeMap::<String, usize>::new());
    for file in &files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).expect("corpus file");
        let (mut file_passed, mut file_failed) = (0, 0);
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let case: Json = serde_json::from_str(line).expect("a JSON object per line");
            if filter.as_ref().is_some_and(|filter| !line.contains(filter.as_str())) {
                continue;
            }
            match run(&corpus, &case) {
                Ok(()) => file_passed += 1,
                Err(difference) if case.get("quirk").is_some() => {
                    println!("deviation {}: {difference}", case["id"]);
                    *deviations.entry(case["quirk"].to_string()).or_default() += 1;
                    file_passed += 1;
                }
                Err(difference) => {
                    println!("FAILED {} ({}): {difference}", case["id"], case["kind"]);
                    file_failed += 1;
                }
            }
        }
        println!("{name}: {file_passed} passed, {file_failed} failed");
        passed += file_passed;
        failed += file_failed;
    }
    for (quirk, count) in deviations {
        println!("deviations {quirk}: {count} (counted as passed)");
    }
    println!("total: {passed} passed, {failed} failed");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(corpus: &Corpus, case: &Json) -> Verdict {
    match case["kind"].as_str().unwrap_or_default() {
        "parse" => language::parse_case(case),
        "ast" => language::ast(case),
        "ast_equal" => language::ast_equal(case),
        "positions" => language::positions(case),
        "print" => language::print_case(case),
        "roundtrip" => language::roundtrip(case),
        "escape" => language::escape_case(case),
        "escape_roundtrip" => language::escape_roundtrip(case),
        "unescape" => language::unescape_case(case),
        "compile" => checks::compile(corpus, case),
        "field" => checks::field(corpus, case),
        "eval" => checks::eval(corpus, case),
        "evtset" | "evtset_events" => checks::events(case),
        "evtset_equal" => checks::events_equal(case),
        "evtset_valid" => checks::events_valid(case),
        "condition_warning" => checks::condition_warning(case),
        "transform_type" => checks::transform_type_case(case),
        "transform" => checks::transform(case),
        "pmatch" => checks::pmatch(case),
        "pmatch_reduce" => checks::pmatch_reduce(case),
        "format_valid" => checks::format_valid(corpus, case),
        "format" => checks::format(corpus, case),
        "format_typed" => checks::format_typed(corpus, case),
        "render" => checks::render_case(corpus, case),
        "load" => files::load(corpus, case),
        "plugin_requirements" => files::plugin_requirements(corpus, case),
        "macro_resolve" => files::macro_resolve(case),
        "details" => files::details(case),
        "rules_file" => files::rules_file(corpus, case),
        "rules_file_rule" => files::rules_file_rule(corpus, case),
        "enable" => files::enable(corpus, case),
        "tag_select" => files::tag_select(corpus, case),
        "name_wildcard" => files::name_wildcard(case),
        "detect" => files::detect(corpus, case),
        "matching" => files::matching(corpus, case),
        "alert" => files::alert(corpus, case),
        other => Err(format!("unknown kind '{other}'")),
    }
}

/// A text of the corpus: a string, `{"hex"}` or `{"repeat", "count"}`.
fn text(value: &Json) -> Vec<u8> {
    if let Some(text) = value.as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(hex) = value["hex"].as_str() {
        return unhex(hex);
    }
    let repeat = value["repeat"].as_str().unwrap_or_else(|| panic!("no text: {value}"));
    repeat.repeat(value["count"].as_u64().expect("a count") as usize).into_bytes()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[at * 2..at * 2 + 2], 16).expect("hex")).collect()
}

/// Fails with both sides if they differ.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: &T, want: &T) -> Verdict {
    if got == want { Ok(()) } else { Err(format!("{what}: got {got:?}, want {want:?}")) }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes)
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read_json(candidates: &[PathBuf]) -> Json {
    let text = candidates.iter().find_map(|path| std::fs::read_to_string(path).ok());
    text.map_or(Json::Null, |text| serde_json::from_str(&text).expect("JSON"))
}
