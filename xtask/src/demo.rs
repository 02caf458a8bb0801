//! Stowaways start in a container, and each is alerted: an image of known layers, a containerd, the agent and a container, all
//! started here. It compares the agent's alerts with what each program must and must not raise.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use xtask::agent::{Agent, Alert, Line, Options};
use xtask::rig::containerd::{Container, Containerd};
use xtask::rig::image::{Image, Layer, Written};
use xtask::rig::{payload, unique_name};

use crate::setup::{self, Purpose};
use crate::{build, interrupt, machine};

/// What a case must raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Silence,
    Verdict(&'static str),
    SensitiveFile,
}

/// One thing that is started in the container.
struct Case {
    label: &'static str,
    title: &'static str,
    /// Run first, to make what is then started.
    prepare: Vec<String>,
    start: Vec<String>,
    /// The program's path, by which its alerts are known; `None` for the program from memory, known by its verdict.
    program: Option<String>,
    expected: Expected,
}

/// The program of the image that every case is made from.
const SHIPPED: &str = "/app/server";
/// A second one, whose bytes are replaced.
const REPLACED: &str = "/app/tool";
const SECRET: &str = "/etc/shadow";

fn cases() -> Vec<Case> {
    let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let renamed = format!("/tmp/{}", unique_name("renamed"));
    let new = format!("/tmp/{}", unique_name("new"));
    vec![
        Case {
            label: "a",
            title: "a program of the image",
            prepare: Vec::new(),
            start: words(&format!("{SHIPPED} exit 0")),
            program: Some(SHIPPED.to_owned()),
            expected: Expected::Silence,
        },
        Case {
            label: "b",
            title: "the same program under a new name",
            prepare: words(&format!("/bin/cp {SHIPPED} {renamed}")),
            start: words(&format!("{renamed} exit 0")),
            program: Some(renamed),
            expected: Expected::Verdict("relocated"),
        },
        Case {
            label: "c",
            title: "a program of the image with other bytes",
            prepare: words(&format!("{SHIPPED} copy-unique {SHIPPED} {REPLACED}")),
            start: words(&format!("{REPLACED} exit 0")),
            program: Some(REPLACED.to_owned()),
            expected: Expected::Verdict("modified"),
        },
        Case {
            label: "d",
            title: "a new program with unknown bytes",
            prepare: words(&format!("{SHIPPED} copy-unique {SHIPPED} {new}")),
            start: words(&format!("{new} exit 0")),
            program: Some(new),
            expected: Expected::Verdict("unlisted"),
        },
        Case {
            label: "e",
            title: "a program from memory (memfd)",
            prepare: Vec::new(),
            start: words(&format!("{SHIPPED} memfd {SHIPPED} exit 0")),
            program: None,
            expected: Expected::Verdict("fileless"),
        },
        Case {
            label: "f",
            title: "cat /etc/shadow",
            prepare: Vec::new(),
            start: words(&format!("/bin/cat {SECRET}")),
            program: Some("/bin/busybox".to_owned()),
            expected: Expected::SensitiveFile,
        },
    ]
}

/// Runs the demo with the agent `binary`, or a new build; false where the agent's alerts differ from what is expected.
pub(crate) fn run(binary: Option<PathBuf>, json: bool) -> Result<bool> {
    machine::require_ebpf("demo")?;
    setup::install(Purpose::Everything)?;
    run_with(&build::given_or_new(binary)?, json)
}

/// Runs the demo with the agent `binary`.
pub(crate) fn run_with(binary: &Path, json: bool) -> Result<bool> {
    interrupt::defer()?;
    let start = Instant::now();
    let said = |text: &str| eprintln!("demo: {:5.1} s  {text}", start.elapsed().as_secs_f64());
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let archive = directory.path().join("image.tar");
    let image = write_image(&archive)?;
    said(&format!("wrote the image {} ({})", image.reference, image.manifest_digest));
    let containerd = Containerd::start()?;
    containerd.import(&archive)?;
    said(&format!("imported it into a containerd at {}", containerd.address().display()));
    let config = configuration(&containerd, &directory.path().join("manifests"));
    let agent = Agent::start(binary, &Options { config, ..Options::default() })?;
    said(&format!("the agent watches, ready after {} ms", agent.ready_after().as_millis()));
    let container = containerd.start_container(&image.reference, &unique_name("demo"), &[])?;
    said(&format!("started the container {}", container.id()));

    let cases = cases();
    let mut lines = Vec::new();
    for case in &cases {
        said(&format!("({}) {}: {}", case.label, case.title, case.start.join(" ")));
        perform(&container, case)?;
        wait_for(&agent, case, &container, &mut lines)?;
    }
    let id = container.id().to_owned();
    container.delete();
    let (rest, summary) = agent.stop()?;
    lines.extend(rest);
    let report = Report::new(&cases, &lines, &id, summary.lost())?;
    if json {
        println!("{}", report.json(&image, &summary.tier));
    } else {
        print!("{}", report.table());
    }
    Ok(report.passed())
}

/// The agent's configuration: where the rig's containerd is, and a cache that ends with the rig.
pub(crate) fn configuration(containerd: &Containerd, cache: &Path) -> String {
    let daemon = json!({ "socket": containerd.address(), "state": containerd.state() });
    // JSON is YAML.
    json!({ "container_engines": { "containerd": { "daemons": [daemon] } }, "manifest": { "cache_dir": cache } })
        .to_string()
}

/// Two layers: a small system with an account file that is secret, and the programs.
fn write_image(archive: &Path) -> Result<Written> {
    let programs = Layer::new().dir("/app", 0o755).file(SHIPPED, payload::unique()?, 0o755).file(
        REPLACED,
        payload::unique()?,
        0o755,
    );
    Image::new(format!("local.test/{}:1", unique_name("demo")))
        .layer(Layer::busybox(&["sh", "cat", "cp"])?)
        .layer(programs)
        .entrypoint(&[SHIPPED, "sleep", "600"])
        .write_archive(archive)
}

fn perform(container: &Container<'_>, case: &Case) -> Result<()> {
    for command in [&case.prepare, &case.start] {
        if !command.is_empty() {
            let args: Vec<&str> = command.iter().map(String::as_str).collect();
            container.exec_ok(&args)?;
        }
    }
    Ok(())
}

/// Reads alerts until one is this case's; the end of the run reads the rest, so a slow one is late, not missed.
fn wait_for(agent: &Agent, case: &Case, container: &Container<'_>, lines: &mut Vec<Line>) -> Result<()> {
    let patience = Duration::from_secs(if case.expected == Expected::Silence { 0 } else { 10 });
    let deadline = Instant::now() + patience;
    loop {
        interrupt::check()?;
        let left = deadline.saturating_duration_since(Instant::now());
        let Some(line) = agent.next_line(left.min(Duration::from_millis(100))) else {
            if left.is_zero() {
                return Ok(());
            }
            continue;
        };
        let found = line.alert.as_ref().is_ok_and(|alert| of_container(alert, container.id()) && case.is_of(alert));
        lines.push(line);
        if found {
            return Ok(());
        }
    }
}

fn of_container(alert: &Alert, id: &str) -> bool {
    alert.field("container.id").is_some_and(|found| !found.is_empty() && id.starts_with(found))
}

impl Case {
    /// Whether an alert of the container is about this case.
    fn is_of(&self, alert: &Alert) -> bool {
        let verdict = alert.field("manifest.verdict");
        match (&self.program, self.expected) {
            (None, Expected::Verdict(expected)) => verdict == Some(expected),
            (_, Expected::SensitiveFile) => alert.field("fd.name") == Some(SECRET),
            (Some(program), _) => alert.field("proc.exepath") == Some(program),
            (None, Expected::Silence) => false,
        }
    }

    /// What the case's alerts say, in the words of `expected_text`.
    fn seen_text(&self, alerts: &[&Alert]) -> String {
        let mut words: Vec<&str> = alerts
            .iter()
            .map(|alert| match self.expected {
                Expected::SensitiveFile => "sensitive file",
                Expected::Silence | Expected::Verdict(_) => alert.field("manifest.verdict").unwrap_or("no verdict"),
            })
            .collect();
        words.sort_unstable();
        words.dedup();
        if words.is_empty() { "silence".to_owned() } else { words.join(", ") }
    }

    fn expected_text(&self) -> &'static str {
        match self.expected {
            Expected::Silence => "silence",
            Expected::Verdict(verdict) => verdict,
            Expected::SensitiveFile => "sensitive file",
        }
    }
}

/// Expected against seen.
struct Report {
    rows: Vec<Row>,
    /// Alerts of the container that belong to no case.
    strays: Vec<String>,
    lost: u64,
}

struct Row {
    label: &'static str,
    title: &'static str,
    expected: &'static str,
    seen: String,
    rules: Vec<String>,
}

impl Report {
    fn new(cases: &[Case], lines: &[Line], container: &str, lost: u64) -> Result<Self> {
        let mut by_case: BTreeMap<usize, Vec<&Alert>> = BTreeMap::new();
        let mut strays = Vec::new();
        for line in lines {
            let alert = match &line.alert {
                Ok(alert) => alert,
                Err(error) => bail!("a line of the agent's stdout is no alert: {error}"),
            };
            if of_container(alert, container) {
                match cases.iter().position(|case| case.is_of(alert)) {
                    Some(case) => by_case.entry(case).or_default().push(alert),
                    None => strays.push(alert.output.clone()),
                }
            }
        }
        let rows = cases
            .iter()
            .enumerate()
            .map(|(at, case)| {
                let alerts = by_case.remove(&at).unwrap_or_default();
                let mut rules: Vec<String> = alerts.iter().map(|alert| alert.rule.clone()).collect();
                rules.dedup();
                let (label, title, expected) = (case.label, case.title, case.expected_text());
                Row { label, title, expected, seen: case.seen_text(&alerts), rules }
            })
            .collect();
        Ok(Self { rows, strays, lost })
    }

    /// All that was expected, nothing else, and nothing lost on the way.
    fn passed(&self) -> bool {
        self.rows.iter().all(Row::matches) && self.strays.is_empty()
    }

    fn table(&self) -> String {
        let mut lines =
            vec![format!("\n     {:<44} {:<15} {:<15} rules", "started in the container", "expected", "seen")];
        lines.extend(self.rows.iter().map(|row| {
            let mark = if row.matches() { "ok  " } else { "DIFF" };
            format!("{mark} {:<44} {:<15} {:<15} {}", row.heading(), row.expected, row.seen, row.rules.join(", "))
        }));
        lines.extend(self.strays.iter().map(|stray| format!("DIFF unexpected: {stray}")));
        let all = if self.passed() { "all" } else { "NOT all" };
        lines.push(format!("{all} as expected, {} events lost\n", self.lost));
        lines.join("\n")
    }

    fn json(&self, image: &Written, tier: &str) -> serde_json::Value {
        let cases: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "case": row.label, "title": row.title, "expected": row.expected, "seen": row.seen, "rules": row.rules,
                    "ok": row.matches(),
                })
            })
            .collect();
        json!({
            "passed": self.passed(), "cases": cases, "unexpected": self.strays, "lost": self.lost, "tier": tier,
            "image": { "reference": image.reference, "manifest_digest": image.manifest_digest },
        })
    }
}

impl Row {
    fn matches(&self) -> bool {
        self.seen == self.expected
    }

    fn heading(&self) -> String {
        format!("({}) {}", self.label, self.title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTAINER: &str = "demo-1-0";

    fn alert(rule: &str, fields: &[(&str, &str)]) -> Line {
        let mut output_fields: BTreeMap<_, _> =
            fields.iter().map(|&(name, value)| (name.to_owned(), json!(value))).collect();
        output_fields.entry("container.id".to_owned()).or_insert(json!(CONTAINER));
        let alert = json!({
            "hostname": "h", "output": rule, "output_fields": output_fields, "priority": "Critical", "rule": rule,
            "source": "syscall", "tags": [], "time": "2026-01-01T00:00:00.000000000Z",
        });
        Line { monotonic_ns: 0, alert: serde_json::from_value(alert).map_err(|error| error.to_string()) }
    }

    fn all_expected(cases: &[Case]) -> Vec<Line> {
        cases
            .iter()
            .filter_map(|case| match case.expected {
                Expected::Silence => None,
                Expected::SensitiveFile => {
                    Some(alert("secret", &[("fd.name", SECRET), ("proc.exepath", "/bin/busybox")]))
                }
                Expected::Verdict(verdict) => {
                    let program = case.program.as_deref().unwrap_or("memfd:payload");
                    Some(alert("exec", &[("manifest.verdict", verdict), ("proc.exepath", program)]))
                }
            })
            .collect()
    }

    #[test]
    fn exactly_the_expected_alerts_pass() {
        let cases = cases();
        let lines = all_expected(&cases);
        assert!(Report::new(&cases, &lines, CONTAINER, 0).unwrap().passed());
        for missing in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(missing);
            assert!(!Report::new(&cases, &fewer, CONTAINER, 0).unwrap().passed(), "without alert {missing}");
        }
    }

    #[test]
    fn any_other_alert_of_the_container_is_a_difference() {
        let cases = cases();
        for (fields, passes) in [
            (vec![("proc.exepath", SHIPPED), ("manifest.verdict", "unlisted")], false),
            (vec![("proc.exepath", "/bin/busybox"), ("fd.name", "/etc/passwd")], false),
            (vec![("proc.exepath", REPLACED), ("manifest.verdict", "unlisted")], false),
            (vec![("proc.exepath", REPLACED), ("manifest.verdict", "modified")], true),
            (vec![("proc.exepath", "/x"), ("container.id", "host")], true),
            (vec![("proc.exepath", "/x"), ("container.id", "")], true),
        ] {
            let mut lines = all_expected(&cases);
            lines.push(alert("other", &fields));
            let report = Report::new(&cases, &lines, CONTAINER, 0).unwrap();
            assert_eq!(report.passed(), passes, "{fields:?}\n{}", report.table());
        }
    }

    #[test]
    fn a_line_that_is_no_alert_is_an_error() {
        let lines = [Line { monotonic_ns: 0, alert: Err("not JSON".to_owned()) }];
        assert!(Report::new(&cases(), &lines, CONTAINER, 0).is_err());
    }
}
