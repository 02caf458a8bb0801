//! Drives a `purser run` as its users do: by its command line, its stdout, `/healthz`, its signals and its summary.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal};
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// How the agent is to be run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The text of its configuration file.
    pub config: String,
    /// Rule files that replace the embedded ones.
    pub rules: Vec<PathBuf>,
    /// Further arguments of `purser run`.
    pub args: Vec<String>,
}

/// A running agent; dropping it kills it.
#[derive(Debug)]
pub struct Agent {
    directory: TempDir,
    child: Child,
    listen: SocketAddr,
    started: Instant,
    ready_after: Duration,
    alerts: Receiver<Line>,
    reader: Option<JoinHandle<()>>,
}

/// One line of the agent's stdout.
#[derive(Debug, Clone)]
pub struct Line {
    /// When it was read, ns of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// The alert, or the error for a line that is not one JSON object.
    pub alert: Result<Alert, String>,
}

/// An alert in Falco's JSON form; a line that lacks one of these keys is none.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// The machine.
    pub hostname: String,
    /// The rule's text, filled in.
    pub output: String,
    /// The fields by name.
    pub output_fields: BTreeMap<String, Value>,
    /// The rule's priority.
    pub priority: String,
    /// The rule's name.
    pub rule: String,
    /// The rule's source, `syscall`.
    pub source: String,
    /// The rule's tags.
    pub tags: Vec<String>,
    /// The event's time, RFC 3339.
    pub time: String,
}

impl Alert {
    /// A field's text; `None` where it is missing or null.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.output_fields.get(name)?.as_str()
    }
}

/// What the agent says of its whole run (`--summary`).
#[derive(Debug, Clone, Deserialize)]
pub struct Summary {
    /// Events by type.
    pub events: BTreeMap<String, u64>,
    /// Losses by stage and reason.
    pub lost: BTreeMap<String, BTreeMap<String, u64>>,
    /// Alerts by rule, folded ones included.
    pub alerts: BTreeMap<String, u64>,
    /// Those of them that were folded.
    pub folded: BTreeMap<String, u64>,
    /// Verdicts by name.
    pub verdicts: BTreeMap<String, u64>,
    /// The sensor's tier.
    pub tier: String,
    /// The attached hooks.
    pub hooks: Vec<String>,
    /// The number of loaded rules.
    pub rules: u64,
    /// Reloads of rules and configuration by result.
    #[serde(default)]
    pub reloads: BTreeMap<String, u64>,
}

impl Summary {
    /// Events of all types.
    pub fn events(&self) -> u64 {
        self.events.values().sum()
    }

    /// Losses of all stages and reasons.
    pub fn lost(&self) -> u64 {
        self.lost.values().flat_map(BTreeMap::values).sum()
    }
}

impl Agent {
    /// Starts `binary` and waits until `/healthz` says that every hook is attached and the rules are loaded.
    ///
    /// # Errors
    /// It ends before that, with its last words, or is not ready within 30 s.
    pub fn start(binary: &Path, options: &Options) -> Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("purser-agent-").tempdir().context("cannot make a directory")?;
        let path = directory.path();
        let config = path.join("purser.yaml");
        fs::write(&config, &options.config).context("cannot write the agent's configuration")?;
        // A port that was free a moment ago; nothing on this machine takes ports at random in between.
        let listen = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|socket| socket.local_addr())
            .context("cannot find a free port")?;
        let mut run = Command::new(binary);
        run.args(["run", "--json", "--config"]).arg(&config).arg("--summary").arg(path.join("summary.json"));
        run.arg("--listen").arg(listen.to_string()).args(&options.args);
        for rules in &options.rules {
            run.arg("--rules").arg(rules);
        }
        let log = fs::File::create(path.join("log")).context("cannot write the agent's log")?;
        run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let started = Instant::now();
        let mut child = run.spawn().with_context(|| format!("cannot run {}", binary.display()))?;
        let (sender, alerts) = mpsc::channel();
        let reader = child.stdout.take().map(|stdout| {
            thread::spawn(move || {
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    let alert = serde_json::from_slice(&line)
                        .map_err(|error| format!("{error}: {}", String::from_utf8_lossy(&line)));
                    if sender.send(Line { monotonic_ns: monotonic_ns(), alert }).is_err() {
                        return;
                    }
                }
            })
        });
        let ready_after = Duration::ZERO;
        let mut agent = Self { directory, child, listen, started, ready_after, alerts, reader };
        agent.wait_until_ready(Duration::from_secs(30))?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self, patience: Duration) -> Result<()> {
        while !self.get("/healthz").is_ok_and(|(status, _)| status == 200) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the agent ended with {status}:\n{}", self.log_tail());
            }
            if self.started.elapsed() > patience {
                bail!("the agent was not ready within {} s:\n{}", patience.as_secs(), self.log_tail());
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.ready_after = self.started.elapsed();
        Ok(())
    }

    /// How long it took from the start until `/healthz` said 200.
    pub fn ready_after(&self) -> Duration {
        self.ready_after
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Status and body of a page of its own server.
    ///
    /// # Errors
    /// It does not answer in HTTP.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.listen).context("cannot connect to the agent")?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.listen)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).context("the agent did not answer")?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").context("the agent's answer is not HTTP")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP status")?;
        Ok((status, body.to_owned()))
    }

    /// Where its configuration file is, to change it while it runs.
    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("purser.yaml")
    }

    /// The whole of its stderr so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// The next line of its stdout, or `None` where none comes within `patience`.
    pub fn next_line(&self, patience: Duration) -> Option<Line> {
        self.alerts.recv_timeout(patience).ok()
    }

    /// CPU time of all its threads so far, ns (`/proc/PID/task/*/schedstat`).
    ///
    /// # Errors
    /// It does not run any more.
    pub fn cpu_ns(&self) -> Result<u64> {
        let mut total = 0;
        let tasks = format!("/proc/{}/task", self.pid());
        for task in fs::read_dir(&tasks).context("the agent has ended")?.flatten() {
            let stat = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            total += stat.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(total)
    }

    /// Resident memory now and at its highest, bytes.
    ///
    /// # Errors
    /// It does not run any more.
    pub fn memory(&self) -> Result<(u64, u64)> {
        memory(self.pid())
    }

    /// The last lines of its stderr.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let mut lines: Vec<&str> = log.lines().rev().take(10).collect();
        lines.reverse();
        lines.join("\n")
    }

    /// Ends it as Ctrl-C does and gives the lines that nobody has read, to the last, and its summary.
    ///
    /// # Errors
    /// It does not end within 15 s, or with a failure, or without a summary.
    pub fn stop(mut self) -> Result<(Vec<Line>, Summary)> {
        if let Some(pid) = Pid::from_raw(self.child.id().cast_signed()) {
            rustix::process::kill_process(pid, Signal::INT).context("the agent has ended by itself")?;
        }
        let deadline = Instant::now() + Duration::from_secs(15);
        let status = loop {
            match self.child.try_wait()? {
                Some(status) => break status,
                None if Instant::now() > deadline => bail!("the agent does not end on SIGINT:\n{}", self.log_tail()),
                None => thread::sleep(Duration::from_millis(5)),
            }
        };
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        if !status.success() {
            bail!("the agent ended with {status}:\n{}", self.log_tail());
        }
        let summary = fs::read(self.directory.path().join("summary.json")).context("the agent wrote no summary")?;
        let summary = serde_json::from_slice(&summary).context("the agent's summary is not what it promises")?;
        Ok((self.alerts.try_iter().collect(), summary))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory of a process, now and at its highest, bytes.
///
/// # Errors
/// There is no such process.
pub fn memory(pid: u32) -> Result<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("the process has ended")?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    line("VmRSS:").zip(line("VmHWM:")).context("the process has ended")
}

/// `CLOCK_MONOTONIC`, ns: one clock for all processes, also in containers without a time namespace.
pub fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_exactly_falcos_object_is_an_alert() {
        let whole = json!({
            "hostname": "h", "output": "text", "output_fields": { "fd.name": "/x", "proc.tty": null, "evt.time": 1 },
            "priority": "Notice", "rule": "r", "source": "syscall", "tags": ["t"], "time": "2026-01-01T00:00:00.0Z",
        });
        let alert: Alert = serde_json::from_value(whole.clone()).unwrap();
        assert_eq!(alert.field("fd.name"), Some("/x"));
        assert_eq!(alert.field("proc.tty"), None);
        assert_eq!(alert.field("evt.time"), None, "a number is no text");
        for key in ["hostname", "output", "output_fields", "priority", "rule", "source", "tags", "time"] {
            let mut less = whole.clone();
            less.as_object_mut().unwrap().remove(key);
            assert!(serde_json::from_value::<Alert>(less).is_err(), "without {key}");
        }
        let mut more = whole;
        more["uuid"] = json!(1);
        assert!(serde_json::from_value::<Alert>(more).is_err());
    }

    #[test]
    fn a_summary_adds_up() {
        let summary: Summary = serde_json::from_value(json!({
            "events": { "exec": 2, "openat": 3 }, "lost": { "ring": { "full": 4 }, "sink": { "queue_full": 1, "io": 0 } },
            "alerts": {}, "folded": {}, "verdicts": {}, "tier": "c", "hooks": ["sched_process_exec"], "rules": 8,
        }))
        .unwrap();
        assert_eq!((summary.events(), summary.lost()), (5, 5));
    }

    #[test]
    fn an_agent_that_ends_at_once_is_an_error_with_its_last_words() {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("purser");
        fs::write(&binary, "#!/bin/sh\necho 'no such hook' >&2\nexit 3\n").unwrap();
        fs::set_permissions(&binary, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let error = Agent::start(&binary, &Options::default()).unwrap_err().to_string();
        assert!(error.contains("no such hook") && error.contains("exit status: 3"), "{error}");
    }
}
