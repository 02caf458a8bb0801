//! Every check that a change must pass, cheapest first. All of them run even where one fails, so that one run says all; the
//! last line is `N passed, N failed`, over the tests of all steps.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::setup::{self, Purpose};
use crate::{arm64, build, demo, machine, vm, workspace};

/// How a step ended.
struct Outcome {
    name: &'static str,
    took: Duration,
    error: Option<anyhow::Error>,
    counts: Counts,
}

/// Tests that passed and failed, as the test harness reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

/// Runs the checks; false where one failed.
pub(crate) fn run(quick: bool) -> Result<bool> {
    if !quick {
        machine::require_ebpf("test")
            .map_err(|error| anyhow!("{error}; or run `cargo xtask test --quick`, which needs neither"))?;
    }
    setup::install(if quick { Purpose::Compile } else { Purpose::Everything })?;
    let target = Target::choose()?;
    let mut outcomes = Vec::new();
    let mut step = |name: &'static str, work: &mut dyn FnMut() -> Result<Counts>| {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let (counts, error) = match work() {
            Ok(counts) => (counts, None),
            Err(error) => (Counts::default(), Some(error)),
        };
        if let Some(error) = &error {
            eprintln!("error: {error:#}");
        }
        outcomes.push(Outcome { name, took: start.elapsed(), error, counts });
    };

    // agent-ebpf compiles for the BPF target alone; agent's build script does that.
    let all = ["--workspace", "--exclude", "agent-ebpf", "--locked"];
    step("format", &mut || {
        target.check(&["fmt", "--all", "--check"], &[])?;
        // Not a module of any crate, so cargo does not know it.
        workspace::check(workspace::program("rustfmt")?.args(["--check", "xtask/payload/main.rs"]))?;
        Ok(Counts::default())
    });
    step("lints", &mut || target.check(&["clippy", "--all-targets"], &[&all[..], &["--", "-D", "warnings"]].concat()));
    step("unit tests", &mut || target.test(&[&["--lib", "--bins"], &all[..]].concat()));
    // Without root those that need it say so and pass; with it they would run.
    let (rootless, root): (Vec<_>, Vec<_>) =
        integration_tests()?.into_iter().partition(|test| !test.needs_root || quick && !machine::is_root());
    step("integration tests", &mut || target.test(&[&["--locked"], &arguments(&rootless)[..]].concat()));
    step("licences and sources", &mut || {
        target.check(&["deny", "--locked", "check"], &["--hide-inclusion-graph", "licenses", "bans", "sources"])
    });
    if !quick {
        step("alert rules for Prometheus", &mut || {
            workspace::check(workspace::program("promtool")?.args([
                "check",
                "rules",
                "deploy/prometheus/purser.rules.yaml",
            ]))?;
            let tests = ["test", "rules", "deploy/prometheus/purser.rules.test.yaml"];
            workspace::check(workspace::program("promtool")?.args(tests))?;
            Ok(Counts::default())
        });
        // They watch the whole machine: one at a time, or they would see each other.
        let serial = ["--", "--test-threads=1"];
        step("tests on this kernel", &mut || target.test(&[&["--locked"], &arguments(&root)[..], &serial].concat()));
        step("compiles for arm64", &mut || arm64::check(&target.directory).map(|()| Counts::default()));
        step("tests on other kernels", &mut || {
            let mut counts = Counts::default();
            for outcome in vm::all(&target.directory)? {
                counts.passed += outcome.counts.passed;
                counts.failed += outcome.counts.failed + u64::from(!outcome.is_good() && outcome.counts.failed == 0);
            }
            Ok(counts)
        });
        step("demo", &mut || {
            let passed = demo::run_with(&build::build_in(&target.directory)?, false)?;
            Ok(Counts { passed: u64::from(passed), failed: u64::from(!passed) })
        });
    }
    Ok(report(&outcomes))
}

/// Prints the summary; false where a step failed.
fn report(outcomes: &[Outcome]) -> bool {
    println!();
    let mut total = Counts::default();
    let mut all_well = true;
    for outcome in outcomes {
        let failed = outcome.error.is_some() || outcome.counts.failed > 0;
        all_well &= !failed;
        total.passed += outcome.counts.passed;
        total.failed += outcome.counts.failed;
        if outcome.error.is_some() && outcome.counts.failed == 0 {
            total.failed += 1; // a step without tests of its own: a lint, a compile error
        }
        println!("{:6} {:28} {:6.1} s", if failed { "FAILED" } else { "ok" }, outcome.name, outcome.took.as_secs_f64());
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    all_well
}

/// The target directory of all steps, held alone while it is in use.
struct Target {
    directory: PathBuf,
    _lock: Option<fs::File>,
}

impl Target {
    /// In CI (`CI=true`) a directory in the cache, so that the dependencies of the last run are still compiled; the workspace's
    /// own where that is not to be had, or another run has it.
    fn choose() -> Result<Self> {
        if let Some(directory) = std::env::var_os("CARGO_TARGET_DIR") {
            return Ok(Self { directory: workspace::root().join(directory), _lock: None });
        }
        let own = Self { directory: workspace::root().join("target"), _lock: None };
        if std::env::var("CI").is_ok_and(|ci| ci == "true") {
            let directory = workspace::cache()?.join("target");
            fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
            let lock = fs::File::create(directory.join(".in-use"))
                .context("cannot create the lock of the target directory")?;
            if lock.try_lock().is_ok() {
                touch_sources(workspace::root())?;
                return Ok(Self { directory, _lock: Some(lock) });
            }
        }
        Ok(own)
    }

    fn cargo(&self, args: &[&str]) -> Result<Command> {
        let mut cargo = workspace::cargo(args)?;
        cargo.env("CARGO_TARGET_DIR", &self.directory);
        Ok(cargo)
    }

    fn check(&self, command: &[&str], args: &[&str]) -> Result<Counts> {
        workspace::check(self.cargo(command)?.args(args))?;
        Ok(Counts::default())
    }

    /// Runs `cargo test ARGS`, passes its output on and adds up what the harnesses report.
    fn test(&self, args: &[&str]) -> Result<Counts> {
        let mut test = self.cargo(&["test", "--no-fail-fast"])?;
        let mut child = test.args(args).stdout(Stdio::piped()).spawn().context("cannot run cargo test")?;
        let mut counts = Counts::default();
        if let Some(stdout) = child.stdout.take() {
            let mut screen = std::io::stdout().lock();
            for line in BufReader::new(stdout).split(b'\n') {
                let line = line.context("cannot read the output of cargo test")?;
                screen.write_all(&line).and_then(|()| screen.write_all(b"\n")).context("cannot write to stdout")?;
                counts.add(&String::from_utf8_lossy(&line));
            }
        }
        let status = child.wait().context("cannot wait for cargo test")?;
        if !status.success() && counts.failed == 0 {
            // It did not compile, or a test ended its whole process.
            counts.failed = 1;
        }
        Ok(counts)
    }
}

impl Counts {
    /// Adds a harness's closing line, `test result: ok. 3 passed; 0 failed; ...`.
    pub(crate) fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number_before = |word: &str| {
            let mut words = result.split([' ', ';', '.']).filter(|word| !word.is_empty()).peekable();
            let mut last = None;
            words.find(|&next| {
                let found = next == word;
                if !found {
                    last = next.parse::<u64>().ok();
                }
                found
            })?;
            last
        };
        self.passed += number_before("passed").unwrap_or(0);
        self.failed += number_before("failed").unwrap_or(0);
    }
}

/// cargo compares times, and a checkout may be older than what an earlier one left in a kept target directory.
fn touch_sources(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let kind = entry.file_type()?;
        if kind.is_dir() && name != "target" && !name.as_encoded_bytes().starts_with(b".") {
            touch_sources(&entry.path())?;
        } else if kind.is_file() {
            let file =
                fs::File::open(entry.path()).with_context(|| format!("cannot open {}", entry.path().display()))?;
            file.set_modified(std::time::SystemTime::now())
                .with_context(|| format!("cannot touch {}", entry.path().display()))?;
        }
    }
    Ok(())
}

/// A file of a package's `tests` folder, or a folder there with a `main.rs`.
#[derive(Debug)]
struct IntegrationTest {
    package: &'static str,
    name: String,
    /// It asks whether it is root, to skip without.
    needs_root: bool,
}

fn integration_tests() -> Result<Vec<IntegrationTest>> {
    let mut found = Vec::new();
    for (folder, package) in
        [("agent", "agent"), ("agent-common", "agent-common"), ("rules", "purser-rules"), ("xtask", "xtask")]
    {
        let tests = workspace::root().join(folder).join("tests");
        for path in fs::read_dir(tests).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let files = if path.join("main.rs").is_file() {
                fs::read_dir(&path)?.flatten().map(|entry| entry.path()).filter(|file| is_rust(file)).collect()
            } else if is_rust(&path) {
                vec![path.clone()]
            } else {
                continue;
            };
            let mut needs_root = false;
            for file in files {
                let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                needs_root |= text.contains("is_root()");
            }
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            found.push(IntegrationTest { package, name, needs_root });
        }
    }
    found.sort_by(|a, b| (a.package, &a.name).cmp(&(b.package, &b.name)));
    Ok(found)
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending == "rs")
}

/// The arguments of `cargo test` that pick them.
fn arguments(tests: &[IntegrationTest]) -> Vec<&str> {
    let mut arguments = Vec::new();
    for test in tests {
        if !arguments.contains(&test.package) {
            arguments.extend(["--package", test.package]);
        }
    }
    arguments.extend(tests.iter().flat_map(|test| ["--test", test.name.as_str()]));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_harnesses_add_up() {
        let mut counts = Counts::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.97s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.97s",
            "test a::b ... 7 passed",
        ] {
            counts.add(line);
        }
        assert_eq!(counts, Counts { passed: 15, failed: 2 });
    }

    #[test]
    fn tests_that_need_root_are_told_from_those_that_do_not() {
        let tests = integration_tests().unwrap();
        let needs_root = |name: &str| tests.iter().find(|test| test.name == name).unwrap().needs_root;
        assert!(needs_root("rig") && needs_root("sensor") && needs_root("manifest"));
        assert!(!needs_root("workspace") && !needs_root("corpus"));
        assert!(tests.iter().all(|test| test.name != "common"), "a folder without main.rs is no test");
        let (rig, workspace) = ("rig".to_owned(), "workspace".to_owned());
        let tests = [rig, workspace].map(|name| IntegrationTest { package: "xtask", name, needs_root: true });
        assert_eq!(arguments(&tests), ["--package", "xtask", "--test", "rig", "--test", "workspace"]);
    }

    #[test]
    fn a_step_that_fails_without_tests_counts_as_a_failure() {
        let outcome = |error: Option<anyhow::Error>, passed, failed| Outcome {
            name: "step",
            took: Duration::ZERO,
            error,
            counts: Counts { passed, failed },
        };
        assert!(report(&[outcome(None, 3, 0)]));
        assert!(!report(&[outcome(None, 3, 1)]));
        assert!(!report(&[outcome(None, 3, 0), outcome(Some(anyhow::anyhow!("lint")), 0, 0)]));
    }
}
