//! `/metrics`, `/healthz`, `/livez`: the text holds to `OpenMetrics`, a real Prometheus reads it, and bad clients do no
//! harm.
#![allow(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

mod openmetrics;

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use openmetrics::{Exposition, parse};
use purser::{
    alert::Priority,
    config::Config,
    http::{Health, HttpError, Server},
    metrics::{LOST, Metrics, QUEUE_LENGTH, gauge},
};

fn metrics() -> Metrics {
    let metrics = Metrics::new();
    metrics.event("exec").add(5);
    metrics.event("open");
    metrics.lost("ring", "full");
    metrics.rule_matches("Read \"it\"\\ or\nnot", Priority::Warning).increment();
    metrics.verdict("expected").add(2);
    metrics.gauge(gauge("purser_bare", "without labels", &[]), &[], 3);
    metrics
}

fn exposition(metrics: &Metrics) -> Exposition {
    let text = metrics.encode().expect("encoded");
    parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

#[test]
fn the_text_is_strict_openmetrics() {
    let text = exposition(&metrics());
    assert_eq!(text.value("purser_events_total", &[("type", "exec")]), Some(5.0));
    assert_eq!(text.value("purser_events_total", &[("type", "open")]), Some(0.0), "0 from the start");
    assert_eq!(text.value("purser_events_lost_total", &[("stage", "ring"), ("reason", "full")]), Some(0.0));
    let labels = [("rule", "Read \"it\"\\ or\nnot"), ("priority", "Warning")];
    assert_eq!(text.value("purser_rule_matches_total", &labels), Some(1.0), "a rule's name is quoted");
    assert_eq!(text.value("purser_verdicts_total", &[("verdict", "expected")]), Some(2.0));
    assert_eq!(text.value("purser_bare", &[]), Some(3.0));
    let build = [("version", env!("CARGO_PKG_VERSION")), ("arch", std::env::consts::ARCH)];
    assert_eq!(text.value("purser_build_info", &build), Some(1.0));
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_start_time_seconds"] {
        assert!(text.value(name, &[]).is_some_and(|value| value > 0.0), "{name}");
    }
}

#[test]
fn the_strict_parser_is_strict() {
    assert!(parse("# TYPE a counter\na_total 1\n# EOF\n").is_ok());
    for (text, why) in [
        ("# TYPE a counter\na_total 1\n", "no end"),
        ("# TYPE a counter\na_total 1\n# EOF\nmore\n", "something after the end"),
        ("# TYPE a counter\na 1\n# EOF\n", "a counter without _total"),
        ("# TYPE a_total counter\na_total_total 1\n# EOF\n", "_total twice"),
        ("# TYPE a gauge\na_total 1\n# EOF\n", "a gauge with _total"),
        ("a 1\n# EOF\n", "no type"),
        ("# TYPE a gauge\na 1\na 1\n# EOF\n", "the same series twice"),
        ("# TYPE a gauge\n# TYPE a gauge\na 1\n# EOF\n", "the same family twice"),
        ("# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\na{x=\"1\"} 1\n# EOF\n", "interleaved families"),
        ("# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n# EOF\n", "a label twice"),
        ("# TYPE a gauge\na{x=\"\\q\"} 1\n# EOF\n", "an unknown escape"),
        ("# TYPE a gauge\na{x=\"1} 1\n# EOF\n", "an open quote"),
        ("# TYPE a gauge\na{1x=\"1\"} 1\n# EOF\n", "a wrong label name"),
        ("# TYPE a gauge\na one\n# EOF\n", "no number"),
        ("# TYPE a counter\na_total -1\n# EOF\n", "a negative counter"),
        ("# TYPE a gauge\na  1\n# EOF\n", "two blanks"),
        ("# TYPE a gauge\n\na 1\n# EOF\n", "an empty line"),
    ] {
        assert!(parse(text).is_err(), "{why} was let through");
    }
}

#[test]
fn counters_and_observed_numbers_are_one_family() {
    let metrics = Metrics::new();
    let (own, again) = (metrics.lost("sink", "queue_full"), metrics.lost("sink", "queue_full"));
    own.increment();
    again.add(2);
    let elsewhere = Arc::new(AtomicU64::new(4));
    let read = Arc::clone(&elsewhere);
    metrics.observe(LOST, &["ring", "full"], move || read.load(Ordering::Relaxed));
    metrics.queue("ring", 8, || 3);
    elsewhere.fetch_add(1, Ordering::Relaxed);
    let text = exposition(&metrics);
    assert_eq!(text.value("purser_events_lost_total", &[("stage", "sink"), ("reason", "queue_full")]), Some(3.0));
    assert_eq!(text.value("purser_events_lost_total", &[("stage", "ring"), ("reason", "full")]), Some(5.0));
    assert_eq!(text.value("purser_queue_length", &[("queue", "ring")]), Some(3.0));
    assert_eq!(text.value("purser_queue_capacity", &[("queue", "ring")]), Some(8.0));
    metrics.remove(QUEUE_LENGTH, &["ring"]);
    assert_eq!(exposition(&metrics).value("purser_queue_length", &[("queue", "ring")]), None);
}

fn serve(metrics: Metrics, health: &Arc<Health>) -> Server {
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    Server::start(any, &Config::default().webserver, Arc::new(metrics), Arc::clone(health)).expect("started")
}

/// Status, headers and body of one request.
fn get(address: SocketAddr, path: &str) -> (u16, BTreeMap<String, String>, String) {
    request(address, &format!("GET {path} HTTP/1.1\r\nHost: purser\r\nConnection: close\r\n\r\n"))
}

fn request(address: SocketAddr, request: &str) -> (u16, BTreeMap<String, String>, String) {
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status").parse().expect("a number");
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(k, v)| (k.to_lowercase(), v.to_owned()));
    (status, headers.collect(), body.to_owned())
}

#[test]
fn health_follows_its_conditions() {
    let health = Arc::new(Health::default());
    let server = serve(Metrics::new(), &health);
    let answer = |path| {
        let (status, _, body) = get(server.address(), path);
        (status, body)
    };
    assert_eq!(answer("/healthz"), (503, "not ready: starting\n".to_owned()));
    assert_eq!(answer("/livez"), (200, "ok\n".to_owned()), "it lives before it is ready");
    let (hooks, rules) = (health.condition("hooks attached"), health.condition("rules loaded"));
    assert_eq!(answer("/healthz"), (503, "not ready: hooks attached, rules loaded\n".to_owned()));
    hooks.set(true);
    assert_eq!(answer("/healthz"), (503, "not ready: rules loaded\n".to_owned()));
    rules.set(true);
    assert_eq!(answer("/healthz"), (200, "ok\n".to_owned()));
    hooks.set(false);
    assert_eq!(answer("/healthz").0, 503, "it can be lost again");
}

#[test]
fn metrics_over_http() {
    let server = serve(metrics(), &Arc::default());
    let (status, headers, body) = get(server.address(), "/metrics");
    assert_eq!(status, 200);
    assert_eq!(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = parse(&body).expect("OpenMetrics");
    assert_eq!(text.value("purser_events_total", &[("type", "exec")]), Some(5.0));
    assert_eq!(get(server.address(), "/nothing").0, 404);
    assert_eq!(
        request(
            server.address(),
            "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
        .0,
        405
    );
}

#[test]
fn the_configuration_names_the_paths() {
    let mut config = Config::default().webserver;
    config.k8s_healthz_endpoint = "/ready".to_owned();
    config.prometheus_metrics_enabled = false;
    let any = "127.0.0.1:0".parse().expect("an address");
    let server = Server::start(any, &config, Arc::default(), Arc::default()).expect("started");
    assert_eq!(get(server.address(), "/ready").0, 503);
    assert_eq!(get(server.address(), "/healthz").0, 404);
    assert_eq!(get(server.address(), "/metrics").0, 404);
}

#[test]
fn a_taken_port_is_an_error_of_the_start() {
    let server = serve(Metrics::new(), &Arc::default());
    let (address, config) = (server.address(), Config::default().webserver);
    let error = Server::start(address, &config, Arc::default(), Arc::default()).expect_err("taken");
    assert!(matches!(error, HttpError::Bind { .. }));
    let text = error.to_string();
    assert!(text.contains(&address.to_string()) && text.contains("--listen"), "{text}");
    drop(server);
    drop(Server::start(address, &config, Arc::default(), Arc::default()).expect("free again once it has ended"));
}

#[test]
fn bad_clients_do_no_harm() {
    let server = serve(metrics(), &Arc::default());
    // Silent ones hold fewer places than there are; garbage is answered or cut off.
    let silent: Vec<_> = (0..60).map(|_| TcpStream::connect(server.address()).expect("connected")).collect();
    for garbage in
        [&b"\x16\x03\x01\x02\x00"[..], b"GET\r\n\r\n", b"GET / HTTP/9\r\n\r\n", "A".repeat(64 << 10).as_bytes()]
    {
        let mut stream = TcpStream::connect(server.address()).expect("connected");
        // A reset while writing, or while reading, is an answer too.
        let _ = stream.write_all(garbage);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."), "{answer:?}");
    }
    assert_eq!(get(server.address(), "/livez").0, 200);
    drop(silent);
}

/// Prometheus itself, scraping and answering a query.
#[test]
fn a_real_prometheus_scrapes_it() {
    if Command::new("prometheus").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("SKIPPED a_real_prometheus_scrapes_it: needs prometheus (apt install prometheus)");
        return;
    }
    let server = serve(metrics(), &Arc::default());
    let directory = tempfile::tempdir().expect("a directory");
    let config = directory.path().join("prometheus.yml");
    let target = server.address();
    std::fs::write(
        &config,
        format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms}}\nscrape_configs:\n- job_name: purser\n  \
             static_configs: [{{targets: ['{target}']}}]\n"
        ),
    )
    .expect("written");
    // Taken and let go: Prometheus cannot be asked which port it chose.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let log = std::fs::File::create(directory.path().join("log")).expect("made");
    let child = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", directory.path().join("data").display()))
        .arg(format!("--web.listen-address={port}"))
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("started");
    let _ended_with_the_test = Ended(child);
    let query = "/api/v1/query?query=purser_build_info%20*%20on(instance)%20group_left%20sum%20by(instance)(purser_events_total)";
    let start = Instant::now();
    let body = loop {
        if let Ok(mut stream) = TcpStream::connect(port) {
            let mut answer = String::new();
            let request = format!("GET {query} HTTP/1.0\r\nHost: prometheus\r\n\r\n");
            if stream.write_all(request.as_bytes()).is_ok() && stream.read_to_string(&mut answer).is_ok() {
                let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
                if body.contains("\"version\"") {
                    break body;
                }
            }
        }
        assert!(
            start.elapsed() < Duration::from_mins(1),
            "never scraped: {}",
            std::fs::read_to_string(directory.path().join("log")).unwrap_or_default()
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    let answer: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let result = &answer["data"]["result"][0];
    assert_eq!(result["metric"]["version"], env!("CARGO_PKG_VERSION"), "{body}");
    assert_eq!(result["metric"]["job"], "purser");
    assert_eq!(result["value"][1], "5", "the build's 1 times the five events: {body}");
}

struct Ended(std::process::Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill, only to wait for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
