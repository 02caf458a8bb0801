//! Cases about rule files: loading, selecting, matching.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use purser_rules::{
    AlertOptions, AppendOutput, Diagnostic, ExtraFieldSpec, LoadError, LoadOptions, Matches, RuleMatching, RuleSet,
    Schema, Selection, Selector, Source, Version, check_schema, matches_wildcard, parse, plugins_satisfy,
};
use serde_json::{Map, Value as Json, json};

use crate::facts::{CaseFacts, catalogue};
use crate::{Corpus, Verdict, same, shown, text};

fn options(corpus: &Corpus, case: &Json) -> LoadOptions {
    let mut options = LoadOptions {
        catalogue: Some(Arc::new(catalogue(corpus, case["catalog"].as_str().unwrap_or("core")))),
        append_output: Vec::new(),
        plugins: None,
        ..LoadOptions::default()
    };
    if let Some(sources) = case["sources"].as_array() {
        options.sources = sources.iter().filter_map(Json::as_str).map(str::to_owned).collect();
    }
    let texts = |value: &Json| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect()
    };
    let own = |value: &Json| value.as_str().map(str::to_owned);
    for entry in case["append_output"].as_array().into_iter().flatten() {
        options.append_output.push(AppendOutput {
            source: own(&entry["source"]).filter(|source| !source.is_empty()),
            tags: texts(&entry["tags"]),
            rule: own(&entry["rule"]).filter(|rule| !rule.is_empty()),
            extra_output: own(&entry["format"]).or_else(|| own(&entry["extra_output"])),
            ..AppendOutput::default()
        });
    }
    for entry in case["append_fields"].as_array().into_iter().flatten() {
        let key = own(&entry["key"]).unwrap_or_default();
        let spec = match own(&entry["format"]) {
            Some(format) if entry["raw"] != true => ExtraFieldSpec::Formatted(key, format),
            _ => ExtraFieldSpec::Raw(key),
        };
        options.append_output.push(AppendOutput {
            source: own(&entry["source"]).filter(|source| !source.is_empty()),
            tags: texts(&entry["tags"]),
            rule: own(&entry["rule"]).filter(|rule| !rule.is_empty()),
            extra_fields: vec![spec],
            ..AppendOutput::default()
        });
    }
    options
}

type Files = Vec<(String, Vec<u8>)>;

fn files(case: &Json) -> Files {
    match case["files"].as_array() {
        Some(files) => files
            .iter()
            .map(|file| (file["name"].as_str().unwrap_or("rules.yaml").to_owned(), text(&file["content"])))
            .collect(),
        None => vec![("rules.yaml".to_owned(), text(&case["content"]))],
    }
}

fn load_files(files: &Files, options: &LoadOptions) -> Result<(RuleSet, Vec<Diagnostic>), LoadError> {
    let sources: Vec<Source<'_>> = files.iter().map(|(name, text)| Source { name, text }).collect();
    RuleSet::load(&sources, options)
}

fn found(diagnostics: &[Diagnostic]) -> Vec<(String, String)> {
    let mut found: Vec<_> = diagnostics
        .iter()
        .filter(|found| found.severity() == purser_rules::diagnostic::Severity::Warning)
        .map(|found| (found.code.name().to_owned(), found.item().map(|item| item.name.clone()).unwrap_or_default()))
        .collect();
    found.sort();
    found
}

pub(crate) fn load(corpus: &Corpus, case: &Json) -> Verdict {
    let files = files(case);
    let options = options(corpus, case);
    let want = &case["expect"];
    let (set, diagnostics) = match load_files(&files, &options) {
        Ok((set, diagnostics)) => (Some(set), diagnostics),
        Err(error) => (None, error.diagnostics),
    };
    let listed = || diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    same(&format!("ok ({})", listed()), &set.is_some(), &(want["ok"] == true))?;
    if let Some(code) = want["error"].as_str() {
        let got = diagnostics.last().map(|last| last.code.name()).unwrap_or_default();
        same(&format!("error ({})", listed()), &got, &code)?;
        error_item(diagnostics.last(), want)?;
    }
    if let Some(wanted) = want["warnings_exact"].as_array() {
        let mut wanted: Vec<_> = wanted
            .iter()
            .map(|pair| {
                (pair[0].as_str().unwrap_or_default().to_owned(), pair[1].as_str().unwrap_or_default().to_owned())
            })
            .collect();
        wanted.sort();
        same("warnings", &found(&diagnostics), &wanted)?;
    }
    let codes: Vec<String> = found(&diagnostics).into_iter().map(|(code, _)| code).collect();
    for code in want["warnings"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        same(&format!("has {code} in {codes:?}"), &codes.iter().any(|known| known == code), &true)?;
    }
    for code in want["warnings_absent"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        same(&format!("has {code}"), &codes.iter().any(|known| known == code), &false)?;
    }
    if let Some(any) = want["any_warning"].as_bool() {
        same(&format!("any warning of {codes:?}"), &!codes.is_empty(), &any)?;
    }
    for pair in want["warnings_on"].as_array().into_iter().flatten() {
        let pair = (pair[0].as_str().unwrap_or_default().to_owned(), pair[1].as_str().unwrap_or_default().to_owned());
        same(&format!("{pair:?} in {:?}", found(&diagnostics)), &found(&diagnostics).contains(&pair), &true)?;
    }
    if let Some(schema) = want["schema"].as_str() {
        let got = match files.last().map(|(_, text)| check_schema(&shown(text))) {
            Some(Schema::Ok) => "ok",
            Some(Schema::Failed) => "failed",
            _ => "none",
        };
        same("schema", &got, &schema)?;
    }
    let Some(set) = set else { return Ok(()) };
    check_rules(&set, want)?;
    if let Some(count) = want["enabled_count"].as_u64() {
        same("enabled", &(set.rules().iter().filter(|rule| rule.enabled).count() as u64), &count)?;
    }
    Ok(())
}

/// The item an error is in: its type and name, or either.
fn error_item(error: Option<&Diagnostic>, want: &Json) -> Verdict {
    let pair = &want["error_item"];
    let kind = pair[0].as_str().or_else(|| want["error_item_type"].as_str());
    let name = pair[1].as_str().or_else(|| want["error_item_name"].as_str());
    let step = error.and_then(|error| match kind {
        // The innermost step of all, where it is not an item.
        Some("rule" | "macro" | "list" | "exception") | None => error.item(),
        Some(_) => error.place(),
    });
    if let Some(kind) = kind {
        same("kind of the item in error", &step.map(|step| step.kind).unwrap_or_default(), &kind)?;
    }
    match name {
        Some(name) => {
            same("name of the item in error", &step.map(|step| step.name.as_str()).unwrap_or_default(), &name)
        }
        None => Ok(()),
    }
}

fn check_rules(set: &RuleSet, want: &Json) -> Verdict {
    let map_of = |value: &dyn Fn(&purser_rules::Rule) -> Json| -> Map<String, Json> {
        set.rules().iter().map(|rule| (rule.name.clone(), value(rule))).collect()
    };
    if let Some(wanted) = want["compiled"].as_object() {
        let got = map_of(&|rule| json!(rule.condition));
        for (name, condition) in wanted {
            let condition = json!(shown(&text(condition)));
            same(&format!("condition of {name}"), got.get(name).unwrap_or(&Json::Null), &condition)?;
        }
        if want.get("warnings_exact").is_some() {
            same("compiled rules", &crate::checks::sorted(&got), &crate::checks::sorted(wanted))?;
        }
    }
    for (name, output) in want["outputs"].as_object().into_iter().flatten() {
        let got = set.find(name).map(|rule| set.rule(rule).output_text.clone()).unwrap_or_default();
        same(&format!("output of {name}"), &got, &shown(&text(output)))?;
    }
    if let Some(output) = want["output"].as_str() {
        let got = set.rules().first().map(|rule| rule.output_text.clone()).unwrap_or_default();
        same("output", &got, &output.to_owned())?;
    }
    if let Some(output) = want["output"].as_object() {
        for (name, output) in output {
            let got = set.find(name).map(|rule| set.rule(rule).output_text.clone()).unwrap_or_default();
            same(&format!("output of {name}"), &json!(got), output)?;
        }
    }
    for (name, info) in want["info"].as_object().into_iter().flatten() {
        let Some(rule) = set.find(name).map(|rule| set.rule(rule)) else { return Err(format!("no rule {name}")) };
        for (key, value) in info.as_object().into_iter().flatten() {
            let got = match key.as_str() {
                "enabled" => json!(rule.enabled),
                "priority" => json!(rule.priority.name()),
                "tags" => json!(rule.tags),
                "description" => json!(rule.desc),
                "capture" => json!(rule.capture),
                "capture_duration" => json!(rule.capture_duration),
                "condition" => json!(rule.condition_text),
                "output" => json!(rule.output_text),
                other => return Err(format!("unknown info '{other}'")),
            };
            same(&format!("{key} of {name}"), &got, value)?;
        }
    }
    if let Some(wanted) = want["lists"].as_object() {
        for (name, items) in wanted {
            let got = set.definitions().lists.iter().find(|(known, _)| known == name).map(|(_, items)| json!(items));
            same(&format!("list {name}"), &got.unwrap_or_default(), items)?;
        }
    }
    for (name, events) in want["events"].as_object().into_iter().flatten() {
        let Some(rule) = set.find(name).map(|rule| set.rule(rule)) else { return Err(format!("no rule {name}")) };
        check_events(rule, events)?;
    }
    Ok(())
}

fn check_events(rule: &purser_rules::Rule, events: &Json) -> Verdict {
    let names = rule.event_names();
    match events["count"].as_u64() {
        Some(count) => same(&format!("number of events of {}", rule.name), &(names.len() as u64), &count),
        None => same(&format!("events of {}", rule.name), &json!(names), events),
    }
}

pub(crate) fn plugin_requirements(corpus: &Corpus, case: &Json) -> Verdict {
    let mut options = options(corpus, case);
    let plugins = case["plugins"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|plugin| {
            let version = Version::parse(plugin["version"].as_str().unwrap_or_default()).unwrap_or(Version(0, 0, 0));
            (plugin["name"].as_str().unwrap_or_default().to_owned(), version)
        })
        .collect();
    options.plugins = Some(plugins);
    let content = text(&case["content"]);
    let got = plugins_satisfy(&Source { name: "rules.yaml", text: &content }, &options);
    match case["expect"].as_bool() {
        Some(want) => same("satisfied", &got, &Ok(want)),
        None => same("error", &got.is_err(), &true),
    }
}

pub(crate) fn macro_resolve(case: &Json) -> Verdict {
    let macros = case["macros"].as_object().cloned().unwrap_or_default();
    let bodies = macros.iter().map(|(name, condition)| (name.clone(), text(condition))).collect::<Vec<_>>();
    let got = purser_rules::resolve_macros(&text(&case["expr"]), &bodies);
    match case["expect"].as_str() {
        Some("error") => same("error", &got.is_err(), &true),
        _ => same("resolved", &got.map(|expr| shown(&parse::print(&expr))), &Ok(shown(&text(&case["expect"])))),
    }
}

pub(crate) fn details(case: &Json) -> Verdict {
    let tree = parse::parse(&text(&case["expr"]), 100).map_err(|error| error.to_string())?;
    let mut fields = std::collections::BTreeSet::new();
    let mut transformers = std::collections::BTreeSet::new();
    tree.operands(&mut |operand| {
        match operand {
            parse::Operand::Field { name, .. } => fields.insert(name.clone()),
            parse::Operand::Transform { name, .. } => transformers.insert((*name).to_owned()),
        };
    });
    let sorted = |value: &Json| {
        let mut names: Vec<_> =
            value.as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect();
        names.sort();
        names
    };
    same("fields", &fields.into_iter().collect::<Vec<_>>(), &sorted(&case["expect"]["fields"]))?;
    same("transformers", &transformers.into_iter().collect::<Vec<_>>(), &sorted(&case["expect"]["transformers"]))
}

/// Upstream's rule files.
fn upstream(case: &Json) -> Result<Files, String> {
    let dir = match std::env::var_os("PURSER_FALCO_RULES") {
        Some(dir) => PathBuf::from(dir),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/falco/rules"),
    };
    case["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|file| {
            let name = file["path"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default().to_owned();
            let text = std::fs::read(dir.join(&name)).map_err(|error| format!("{name}: {error}"))?;
            Ok((name, text))
        })
        .collect()
}

pub(crate) fn rules_file(corpus: &Corpus, case: &Json) -> Verdict {
    let (set, diagnostics) = load_files(&upstream(case)?, &options(corpus, case)).map_err(|error| error.to_string())?;
    let want = &case["expect"];
    if let Some(wanted) = want["warnings_exact"].as_array() {
        let got: Vec<_> = found(&diagnostics).into_iter().map(|(code, item)| json!([code, item])).collect();
        same("warnings", &got, wanted)?;
    }
    for (key, got) in [
        ("rules", set.rules().len()),
        ("enabled", set.rules().iter().filter(|rule| rule.enabled).count()),
        ("macros", set.definitions().macros.len()),
        ("lists", set.definitions().lists.len()),
    ] {
        if let Some(want) = want[key].as_u64() {
            same(key, &(got as u64), &want)?;
        }
    }
    Ok(())
}

pub(crate) fn rules_file_rule(corpus: &Corpus, case: &Json) -> Verdict {
    let (set, _) = load_files(&upstream(case)?, &options(corpus, case)).map_err(|error| error.to_string())?;
    let want = &case["expect"];
    let name = case["rule"].as_str().unwrap_or_default();
    let Some(rule) = set.find(name).map(|rule| set.rule(rule)) else { return Err(format!("no rule {name}")) };
    same("length", &(rule.condition.len() as u64), &want["compiled_len"].as_u64().unwrap_or_default())?;
    same("condition", &json!(crate::sha256(rule.condition.as_bytes())), &want["compiled_sha256"])?;
    same("output", &json!(rule.output_text), &want["output"])?;
    same("priority", &json!(rule.priority.name()), &want["priority"])?;
    same("enabled", &json!(rule.enabled), &want["enabled"])?;
    same("tags", &json!(rule.tags), &want["tags"])?;
    check_events(rule, &want["events"])
}

fn selection(step: &Json) -> Selection {
    let pattern = step["pattern"].as_str().unwrap_or_default().to_owned();
    let by = match step["op"].as_str() {
        Some("exact") => Selector::Exact(pattern),
        Some("substring") => Selector::Substring(pattern),
        Some("wildcard") => Selector::Wildcard(pattern),
        _ => Selector::Tags(
            step["tags"].as_array().into_iter().flatten().filter_map(Json::as_str).map(str::to_owned).collect(),
        ),
    };
    Selection { enable: step["enable"] != false, by }
}

fn enabled(corpus: &Corpus, case: &Json, selection: Vec<Selection>) -> Result<Vec<String>, String> {
    let options = LoadOptions { selection, ..options(corpus, case) };
    let (set, _) = load_files(&files(case), &options).map_err(|error| error.to_string())?;
    let mut names: Vec<_> = set.rules().iter().filter(|rule| rule.enabled).map(|rule| rule.name.clone()).collect();
    names.sort();
    Ok(names)
}

pub(crate) fn enable(corpus: &Corpus, case: &Json) -> Verdict {
    let mut selected: std::collections::HashMap<String, Vec<Selection>> = std::collections::HashMap::new();
    for (nth, step) in case["steps"].as_array().into_iter().flatten().enumerate() {
        let ruleset = step["ruleset"].as_str().unwrap_or("default").to_owned();
        let default = ruleset == "default";
        let steps = selected.entry(ruleset).or_insert_with(|| {
            // Only the default rule set starts with what the files enable.
            let nothing = Selection { enable: false, by: Selector::Substring(String::new()) };
            if default { Vec::new() } else { vec![nothing] }
        });
        match step["expect_enabled"].as_u64() {
            Some(want) => {
                let got = enabled(corpus, case, steps.clone())?;
                same(&format!("enabled at step {nth}"), &(got.len() as u64), &want)?;
            }
            None => steps.push(selection(step)),
        }
    }
    Ok(())
}

pub(crate) fn tag_select(corpus: &Corpus, case: &Json) -> Verdict {
    let steps = case["equivalent_steps"].as_array().into_iter().flatten().map(selection).collect();
    let got = enabled(corpus, case, steps)?;
    same("enabled", &json!(got), &case["expect"]["enabled"])
}

pub(crate) fn name_wildcard(case: &Json) -> Verdict {
    let (pattern, value) = (case["pattern"].as_str().unwrap_or_default(), case["value"].as_str().unwrap_or_default());
    same("matches", &json!(matches_wildcard(pattern, value)), &case["expect"])
}

pub(crate) fn detect(corpus: &Corpus, case: &Json) -> Verdict {
    let mut options = options(corpus, case);
    if case["catalog"].is_null() {
        options.catalogue = Some(Arc::new(catalogue(corpus, "core+container")));
    }
    for pattern in case["disable_substring"].as_array().into_iter().flatten().filter_map(Json::as_str) {
        options.selection.push(Selection { enable: false, by: Selector::Substring(pattern.to_owned()) });
    }
    let (set, _) = load_files(&files(case), &options).map_err(|error| error.to_string())?;
    let facts = CaseFacts::of(corpus, case, set.catalogue());
    let mut matches = Matches::new();
    set.evaluate(&facts, &mut matches);
    let want = &case["expect"];
    if let Some(any) = want["any_match"].as_bool() {
        same("any match", &!matches.matched().is_empty(), &any)?;
    }
    if let (Some(priority), Some(first)) = (want["priority"].as_str(), matches.matched().first()) {
        same("priority", &set.rule(*first).priority.name().to_ascii_uppercase(), &priority.to_ascii_uppercase())?;
    }
    Ok(())
}

pub(crate) fn matching(corpus: &Corpus, case: &Json) -> Verdict {
    let (set, _) = load_files(&files(case), &options(corpus, case)).map_err(|error| error.to_string())?;
    let facts = CaseFacts::of(corpus, case, set.catalogue());
    let mut matches = Matches::new();
    set.evaluate(&facts, &mut matches);
    let strategy = if case["strategy"] == "first" { RuleMatching::First } else { RuleMatching::All };
    let got: Vec<_> = matches.decide(strategy).report.iter().map(|rule| json!(set.rule(*rule).name)).collect();
    same("rules", &Json::Array(got), &case["expect"])
}

pub(crate) fn alert(corpus: &Corpus, case: &Json) -> Verdict {
    let rule = &case["rule"];
    let text = |key: &str| rule[key].as_str().unwrap_or_default();
    let yaml = json!([{
        "rule": text("name"), "desc": "d", "condition": "evt.num >= 0", "priority": text("priority"), "output": text("output"),
    }]);
    let files = vec![("rules.yaml".to_owned(), yaml.to_string().into_bytes())];
    let (set, _) = load_files(&files, &options(corpus, case)).map_err(|error| error.to_string())?;
    let facts = CaseFacts::of(corpus, case, set.catalogue());
    let config = &case["config"];
    let options = AlertOptions {
        time_format_iso_8601: config["time_format_iso_8601"] == true,
        hostname: config["hostname"].as_str().unwrap_or_default().to_owned(),
        ..AlertOptions::default()
    };
    let alert = set.alert(set.find(text("name")).ok_or("no rule")?, &facts, &options);
    match case["mode"].as_str() {
        Some("text") => same("line", &json!(alert.output), &case["expect"]),
        _ => same("object", &Json::Object(alert.to_json(&options)), &case["expect"]),
    }
}
