//! `purser.yaml`: its defaults, its errors, and its reference.
#![allow(clippy::expect_used, clippy::panic, reason = "a failed expectation is a failed test")]

use std::{fs, path::Path, time::Duration};

use purser::config::{Compat32, Config, ConfigError, Scope, Size, Span, TierChoice};
use purser_rules::{ExtraFieldSpec, Priority, RuleMatching, Selection, Selector};

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("purser.yaml"), text)
}

#[test]
fn no_text_means_the_defaults() {
    for text in ["", "# nothing\n\n  # but comments\n", "---\n", "webserver:\n", "{}"] {
        assert_eq!(parse(text).expect(text), Config::default(), "{text:?}");
    }
    assert_eq!(Config::load(None).ok().map(|_| ()), Some(()), "no file at the default place is no error");
    let config = Config::default();
    assert_eq!(config.listen(), "127.0.0.1:8765".parse().ok());
    assert_eq!(config.append_output.len(), 1);
    assert!(config.load_options().append_output[0].suggested_output, "alerts name their container by default");
}

#[test]
fn every_key_is_read() {
    let text = r#"
rules_files: [/etc/purser/rules.d, /etc/purser/own.yaml]
rules:
  - disable: {tag: network}
  - enable: {rule: "Read *"}
rule_matching: all
watch_config_files: false
priority: Info
json_output: true
json_include_output_property: false
json_include_message_property: true
json_include_tags_property: false
json_include_output_fields_property: false
time_format_iso_8601: true
append_output:
  - match: {source: syscall, tags: [a, b], rule: R}
    extra_output: "on %evt.hostname"
    extra_fields: [proc.name, {who: "%user.name"}]
throttle:
  rate: {alerts: 3, window: 10s, key: [k8s.ns.name, "proc.aname[2]"]}
  dedup: {window: 2m, key: [evt.arg.flags]}
  exempt_priority: none
  max_keys: 9
  rules: [{rule: "Read *", rate: {alerts: 0}}, {tag: net, dedup: {key: []}, exempt_priority: Error}]
syscall_event_drops: {actions: [alert, exit], threshold: .5, rate: 2, max_burst: 3}
outputs_queue: {capacity: 5}
stdout_output: {enabled: false}
file_output: {enabled: true, filename: /var/log/purser.txt, keep_alive: true}
log_level: critical
webserver: {enabled: true, listen_address: "::1", listen_port: 0, k8s_healthz_endpoint: /ready, prometheus_metrics_enabled: false}
scope: containers
sensor: {tier: c, compat32: off, ring_bytes: 1MiB, pushdown: off}
container_engines:
  host_root: /host
  timeout: 4s
  containerd: {daemons: [{socket: /a.sock, state: /a}]}
  podman: {roots: [/p]}
  runc: {roots: [/r]}
manifest: {cache_dir: /c, cache_max_bytes: 2MiB, memory_max_bytes: 9MiB, max_file_bytes: 3MiB, max_layer_bytes: 4MiB, pending_timeout: 5s, workers: 6}
hold: {max_events: 7, max_time: 80ms}
"#;
    let config = parse(text).expect("valid");
    // Whatever key is in the reference is in the text above, and none of them kept its default.
    let (default, changed) = (rows(&Config::default()), rows(&config));
    assert_eq!((default.len(), changed.len()), (54, 54), "{default:#?}");
    for ((key, default), (_, changed)) in default.iter().zip(&changed) {
        let same = default == changed && !matches!(key.as_str(), "webserver.enabled");
        assert!(!same, "`{key}` is not read: it is still {default}");
    }
    assert_eq!(config.priority.0, Priority::Informational);
    assert_eq!(
        (config.scope, config.sensor.tier, config.sensor.compat32, config.sensor.ring_bytes),
        (Scope::Containers, TierChoice::C, Compat32::Off, Size(1 << 20))
    );
    assert_eq!(config.hold.max_time, Span(Duration::from_millis(80)));
    assert_eq!(config.listen(), "[::1]:0".parse().ok());

    assert_eq!(RuleMatching::from(config.rule_matching), RuleMatching::All);
    let options = config.load_options();
    assert_eq!(options.min_priority, Priority::Informational);
    assert_eq!(
        options.selection,
        [
            Selection { enable: false, by: Selector::Tags(vec!["network".to_owned()]) },
            Selection { enable: true, by: Selector::Wildcard("Read *".to_owned()) },
        ]
    );
    let append = &options.append_output[0];
    assert_eq!(append.extra_output.as_deref(), Some("on %evt.hostname"));
    assert_eq!((append.source.as_deref(), append.rule.as_deref()), (Some("syscall"), Some("R")));
    assert_eq!(
        append.extra_fields,
        [
            ExtraFieldSpec::Raw("proc.name".to_owned()),
            ExtraFieldSpec::Formatted("who".to_owned(), "%user.name".to_owned())
        ]
    );
    assert!(!append.suggested_output);

    let containers = config.containers();
    assert_eq!((containers.host_root.as_path(), containers.api_timeout), (Path::new("/host"), Duration::from_secs(4)));
    assert_eq!(containers.containerd[0].socket, Path::new("/a.sock"));
    assert_eq!(containers.containerd[0].state, Path::new("/a"));
    assert_eq!((containers.storage_roots, containers.runc_roots), (vec!["/p".into()], vec!["/r".into()]));
    let verdicts = config.verdicts();
    assert_eq!((verdicts.builders, verdicts.hashers, verdicts.queue), (6, 6, 7));
    assert_eq!((verdicts.pending_timeout, verdicts.manifest_bytes), (Duration::from_secs(5), 9 << 20));
    assert_eq!(verdicts.hash.max_file_bytes, 3 << 20);
}

/// Each leaf key with its value.
fn rows(config: &Config) -> Vec<(String, String)> {
    let debug = format!("{config:#?}");
    let mut stack: Vec<String> = Vec::new();
    let mut rows: Vec<(String, String)> = Vec::new();
    // Only what belongs to sections; lists stand as one value.
    let mut list: Option<(usize, String)> = None;
    for line in debug.lines() {
        let depth = line.len() - line.trim_start().len();
        let text = line.trim();
        if let Some((list_depth, value)) = &mut list {
            value.push_str(text);
            if depth == *list_depth {
                if let Some(row) = rows.last_mut() {
                    row.1.clone_from(value);
                }
                list = None;
            }
            continue;
        }
        let Some((key, value)) = text.split_once(": ") else {
            stack.pop();
            continue;
        };
        let path = || stack.iter().map(String::as_str).chain([key]).collect::<Vec<_>>().join(".");
        if value.ends_with('[') || (value.ends_with('(')) {
            rows.push((path(), String::new()));
            list = Some((depth, value.to_owned()));
        } else if value.ends_with('{') {
            stack.push(key.to_owned());
        } else {
            rows.push((path(), value.to_owned()));
        }
    }
    rows
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    for (text, want) in [
        ("jsn_output: true", "purser.yaml:1:1: unknown key `jsn_output`; the nearest is `json_output`"),
        (
            "json_output: true\nwebserver:\n  enabled: true\n  listen_prt: 1\n",
            "purser.yaml:4:3: webserver: unknown key `listen_prt`; the nearest is `listen_port`",
        ),
        ("hold: {a: 1}", "purser.yaml:1:8: hold: unknown key `a`; known are `max_events`, `max_time`"),
        (
            "append_output:\n- match:\n    tag: [x]\n",
            "purser.yaml:3:5: append_output[0].match: unknown key `tag`; the nearest is `tags`",
        ),
        ("scope: all\nscope: all\n", "purser.yaml:2:1: the key `scope` is there twice"),
        ("\njson_output: 3\n", "purser.yaml:2:14: json_output: invalid type: integer `3`, expected a boolean"),
        (
            "webserver: {listen_port: 70000}",
            "purser.yaml:1:26: webserver.listen_port: invalid value: integer `70000`, expected u16",
        ),
        ("webserver: {listen_address: here}", "webserver.listen_address: invalid IP address syntax"),
        ("webserver: 3", "webserver: invalid type: integer `3`, expected a section (`key: value` lines)"),
        ("- a\n", "invalid type: sequence, expected a section (`key: value` lines)"),
        ("rules_files: /etc", "rules_files: invalid type: string \"/etc\", expected a sequence"),
        ("scope: container", "purser.yaml:1:8: scope: unknown value `container`; the nearest is `containers`"),
        ("priority: urgent", "priority: unknown priority `urgent`; known are `Emergency`, `Alert`"),
        ("priority: warnin", "priority: unknown priority `warnin`; the nearest is `Warning`"),
        ("hold: {max_time: 10}", "hold.max_time: `10` has no unit: use one of ns, us, ms, s, m, h, d"),
        ("sensor: {ring_bytes: 8 mb}", "sensor.ring_bytes: `8 mb` has the unknown unit `mb`"),
        (
            "sensor: {ring_bytes: 100000}",
            "purser.yaml: sensor.ring_bytes: 100000 is not a power of two from 64KiB to 1GiB",
        ),
        ("outputs_queue: {capacity: 0}", "outputs_queue.capacity: must be from 1 to 16777216"),
        ("syscall_event_drops: {threshold: 1.1}", "syscall_event_drops.threshold: 1.1 is not from 0 to 1"),
        ("syscall_event_drops: {rate: .nan}", "syscall_event_drops: `rate` is from 0 to 1000 a second"),
        ("syscall_event_drops: {max_burst: 0}", "`max_burst` from 1 to 1000"),
        ("syscall_event_drops: {actions: [ignore, log]}", "syscall_event_drops.actions: `ignore` stands alone"),
        ("throttle: {dedup: {key: [fd.nam]}}", "throttle.dedup.key: `fd.nam` is not a field; the nearest is `fd.name`"),
        ("throttle: {rate: {key: [rule]}}", "`rule` is not a field; the rule always is part of the key"),
        (
            "throttle: {rate: {key: [proc.name and fd.name]}}",
            "throttle.rate.key: `proc.name and fd.name` is not a field",
        ),
        ("throttle: {rate: {key: [\"\"]}}", "throttle.rate.key: `` is not a field"),
        (
            "throttle: {rate: {key: ['proc.env[HOME]']}}",
            "`proc.env[HOME]`: the environment is collected for rules alone",
        ),
        ("throttle: {rate: {window: 0s}}", "throttle.rate.window: must be longer than 0; `alerts: 0` lifts the limit"),
        ("throttle: {dedup: {window: 25h}}", "throttle.dedup.window: 25h is longer than 1d"),
        ("throttle: {max_keys: 0}", "throttle.max_keys: must be from 1 to 1048576"),
        ("throttle: {exempt_priority: non}", "throttle.exempt_priority: unknown priority `non`"),
        ("throttle: {rules: [{rate: {alerts: 1}}]}", "throttle.rules: each item has either `rule:` or `tag:`"),
        ("throttle: {rules: [{rule: a, rate: {key: [x.y]}}]}", "throttle.rules.rate.key: `x.y` is not a field"),
        ("throttle: {rules: [{rule: a, dedup: {windw: 1s}}]}", "throttle.rules[0].dedup: unknown key `windw`"),
        ("manifest: {workers: 0}", "manifest.workers: must be from 1 to 64"),
        ("webserver: {k8s_healthz_endpoint: /livez}", "webserver.k8s_healthz_endpoint: `/livez` is taken"),
        ("webserver: {k8s_healthz_endpoint: healthz}", "`healthz` is not a path such as `/healthz`"),
        ("webserver: {k8s_healthz_endpoint: '/{x}'}", "is not a path"),
        ("file_output: {enabled: true, filename: ''}", "file_output.filename: is empty"),
        ("rules: [{enable: {rule: a}, disable: {rule: b}}]", "each item is either `enable:` or `disable:`"),
        (
            "container_engines: {containerd: {daemons: [{socket: /x}]}}",
            "container_engines.containerd.daemons: each daemon needs `socket:` and `state:`",
        ),
        ("rules: [{enable: {}}]", "each `enable:` and `disable:` has either `rule:` or `tag:`"),
        ("append_output: [{extra_fields: [{a: b, c: d}]}]", "one field per item"),
        ("rules_files: [", "purser.yaml:2:1: did not find expected node content"),
        ("a\u{1b}[2J: 1", "control characters are not allowed"),
    ] {
        let error = parse(text).map(|_| ()).expect_err(text).to_string();
        assert!(error.contains(want), "{text:?}\n  gave: {error}\n  want: {want}");
        assert!(!error.contains(['\n', '\u{1b}']), "one line, nothing that drives a terminal: {error:?}");
    }
}

#[test]
fn nesting_without_end_is_an_error_at_once() {
    // The reader of YAML behind it would need hours for the second.
    for (text, column) in [("[".repeat(5_000), 101), ("priority: ".to_owned() + &"[".repeat(1 << 20), 110)] {
        let error = Config::parse(Path::new("x.yaml"), &text).expect_err("deep").to_string();
        assert_eq!(error, format!("x.yaml:1:{column}: the file is nested too deeply"));
    }
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("purser.yaml");
    let missing = Config::load(Some(&path)).expect_err("there is no such file").to_string();
    assert!(missing.contains("purser.yaml") && missing.contains("name an existing file with --config"), "{missing}");
    fs::write(&path, b"scope: \xff\n").expect("written");
    assert!(Config::load(Some(&path)).expect_err("not UTF-8").to_string().contains("UTF-8"));
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
    assert!(Config::load(Some(&path)).expect_err("too large").to_string().contains("larger than 1MiB"));
    // Anchors that multiply: refused, not expanded.
    let levels: Vec<_> =
        ('a'..='i').zip('b'..='j').map(|(p, n)| format!("{n}: &{n} [*{p}, *{p}, *{p}, *{p}]")).collect();
    let bomb = format!("a: &a [x, x, x, x, x]\n{}\nrules_files: *j\n", levels.join("\n"));
    assert!(parse(&bomb).is_err());
}

#[test]
fn directories_of_rules_open_up_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let dir = directory.path().join("rules.d");
    fs::create_dir(&dir).expect("made");
    let empty = purser::config::rule_paths(std::slice::from_ref(&dir)).expect_err("nothing to load").to_string();
    assert!(empty.contains("holds no *.yaml or *.yml file"), "{empty}");
    for name in ["b.yaml", "a.yml", "c.txt", "A.yaml"] {
        fs::write(dir.join(name), "").expect("written");
    }
    fs::create_dir(dir.join("d.yaml")).expect("made");
    // A ConfigMap's files are links.
    std::os::unix::fs::symlink("b.yaml", dir.join("0.yaml")).expect("linked");
    let single = directory.path().join("single");
    fs::write(&single, "").expect("written");
    let paths = purser::config::rule_paths(&[single.clone(), dir.clone()]).expect("found");
    let want: Vec<_> = ["0.yaml", "A.yaml", "a.yml", "b.yaml"].iter().map(|name| dir.join(name)).collect();
    assert_eq!(paths[0], single);
    assert_eq!(paths[1..], want);
    let missing = purser::config::rule_paths(&[directory.path().join("no")]).expect_err("missing").to_string();
    assert!(missing.contains("cannot read the rules") && missing.contains("/no"), "{missing}");
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/config.md");
    let reference = Config::reference();
    if std::env::var_os("PURSER_BLESS").is_some() {
        fs::write(&path, &reference).expect("written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/config.md is not what agent/src/config.rs says: run `PURSER_BLESS=1 cargo test -p agent --test config`"
    );
}
