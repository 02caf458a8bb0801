//! A strict reader of the `OpenMetrics` 1.0 text format, for counters, gauges and infos. What the specification forbids
//! is an error here, also where Prometheus itself would let it pass.

use std::collections::{BTreeMap, BTreeSet};

/// All samples by name and labels.
#[derive(Debug)]
pub(crate) struct Exposition {
    samples: BTreeMap<(String, BTreeMap<String, String>), f64>,
}

impl Exposition {
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }
}

struct Family {
    name: String,
    kind: Option<String>,
    has: BTreeSet<&'static str>,
}

pub(crate) fn parse(text: &str) -> Result<Exposition, String> {
    let body = text.strip_suffix("# EOF\n").ok_or("it does not end with `# EOF`")?;
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let mut family: Option<Family> = None;
    for (index, line) in body.split_terminator('\n').enumerate() {
        let fail = |why: &str| format!("line {}: {why}: {line:?}", index + 1);
        if let Some(comment) = line.strip_prefix("# ") {
            let mut parts = comment.splitn(3, ' ');
            let (keyword, name, rest) = (parts.next(), parts.next(), parts.next());
            let keyword = match keyword {
                Some("HELP") => "HELP",
                Some("TYPE") => "TYPE",
                Some("UNIT") => "UNIT",
                _ => return Err(fail("neither HELP, TYPE nor UNIT")),
            };
            let (Some(name), Some(rest)) = (name, rest) else { return Err(fail("not three words")) };
            if !is_name(name, true) {
                return Err(fail("not the name of a family"));
            }
            if family.as_ref().is_none_or(|family| family.name != name) {
                if !families.insert(name.to_owned()) {
                    return Err(fail("the family was there before"));
                }
                family = Some(Family { name: name.to_owned(), kind: None, has: BTreeSet::new() });
            }
            let Some(family) = family.as_mut() else { return Err(fail("no family")) };
            if !family.has.insert(keyword) || family.has.contains("sample") {
                return Err(fail("twice, or after a sample"));
            }
            if keyword == "TYPE" {
                if !matches!(rest, "counter" | "gauge" | "info") || (rest == "counter" && name.ends_with("_total")) {
                    return Err(fail("a type that is not expected here, or `_total` in a counter family's name"));
                }
                family.kind = Some(rest.to_owned());
            }
            if keyword == "HELP" {
                unescape(rest).map_err(|why| fail(&why))?;
            }
            continue;
        }
        let Some(family) = family.as_mut() else { return Err(fail("a sample without a family")) };
        family.has.insert("sample");
        let suffix = match family.kind.as_deref() {
            Some("counter") => "_total",
            Some("info") => "_info",
            Some(_) => "",
            None => return Err(fail("a sample without a type")),
        };
        let end = line.find(['{', ' ']).ok_or_else(|| fail("no value"))?;
        let (name, rest) = line.split_at(end);
        if name.strip_suffix(suffix) != Some(&family.name) {
            return Err(fail("not a sample of the family above"));
        }
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => parse_labels(rest).map_err(|why| fail(&why))?,
            None => (BTreeMap::new(), rest),
        };
        let value = rest.strip_prefix(' ').ok_or_else(|| fail("no blank before the value"))?;
        if value.is_empty() || !value.bytes().all(|byte| b"0123456789+-.eE".contains(&byte)) {
            return Err(fail("not a number"));
        }
        let value: f64 = value.parse().ok().ok_or_else(|| fail("not a number"))?;
        if (suffix == "_total" && value < 0.0) || (suffix == "_info" && (value - 1.0).abs() > 0.0) {
            return Err(fail("a value that the type forbids"));
        }
        if samples.insert((name.to_owned(), labels), value).is_some() {
            return Err(fail("the series was there before"));
        }
    }
    Ok(Exposition { samples })
}

/// The labels up to the closing brace, and what follows it.
fn parse_labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("no label")?;
        if !is_name(name, false) {
            return Err(format!("`{name}` is not the name of a label"));
        }
        let bytes = after.as_bytes();
        let mut end = 0;
        while *bytes.get(end).ok_or("an open quote")? != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        if labels.insert(name.to_owned(), unescape(&after[..end])?).is_some() {
            return Err(format!("the label `{name}` is there twice"));
        }
        rest = &after[end + 1..];
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        rest = rest.strip_prefix(',').ok_or("neither `,` nor `}` after a label")?;
    }
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('"') => '"',
                Some('\\') => '\\',
                other => return Err(format!("the escape {other:?}")),
            },
            c => c,
        });
    }
    Ok(out)
}

fn is_name(name: &str, colon: bool) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || (colon && c == ':'))
}
