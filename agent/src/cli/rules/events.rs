//! `purser rules events`: the events that rules can name, their parameters, and which of them this build delivers.

use std::fmt::Write as _;

use anyhow::bail;
use purser_rules::EventCode;
use purser_rules::event::{Category, Origin, Param, generic_calls};
use serde_json::json;

use super::{Form, Listing, fields, page};
use crate::{facts::collected, sensor};

/// An event that rules can name.
struct Row {
    name: &'static str,
    code: EventCode,
    /// The hooks that deliver it; none if nothing does.
    hooks: Vec<&'static str>,
}

pub(super) fn show(listing: &Listing) -> anyhow::Result<String> {
    let prefix = listing.prefix.as_deref().unwrap_or_default();
    let all = rows();
    let rows: Vec<&Row> = all.iter().filter(|row| row.name.starts_with(prefix)).collect();
    if rows.is_empty() {
        let nearest = nearest(prefix).map(|near| format!("; did you mean `{near}`?"));
        bail!("no event begins with `{prefix}`{}`purser rules events` lists them all", fields::hint(nearest));
    }
    match listing.form() {
        Form::Json => Ok(format!("{}\n", json!(rows.iter().map(|row| row.json()).collect::<Vec<_>>()))),
        Form::Markdown => Ok(as_page(&rows)),
        Form::Text => Ok(as_text(&rows)),
    }
}

/// Every event once, by name: those with parameters of their own, and the system calls that share the generic event.
fn rows() -> Vec<Row> {
    let own = EventCode::current().iter().copied().filter(|(_, code)| *code != EventCode::GENERIC);
    let generic = generic_calls().filter_map(|name| Some((name, EventCode::by_name(name)?)));
    let row = |(name, code)| Row { name, code, hooks: sensor::hooks_of(name) };
    let mut rows: Vec<Row> = own.chain(generic).map(row).collect();
    rows.sort_unstable_by_key(|row| row.name);
    rows.dedup_by_key(|row| row.name);
    rows
}

/// The name of an event that is nearest to `name`.
fn nearest(name: &str) -> Option<&'static str> {
    let rows = rows();
    let near = rows.iter().map(|row| (strsim::damerau_levenshtein(name, row.name), row.name)).min()?;
    (near.0 <= 3 && near.0 < near.1.len()).then_some(near.1)
}

impl Row {
    fn params(&self) -> &'static [Param] {
        self.code.event().params
    }

    fn has_value(&self, param: &Param) -> bool {
        !self.hooks.is_empty() && !collected::absent_parameter(self.name, param.name)
    }

    fn kind(&self) -> &'static str {
        match self.code.event().origin {
            Origin::Syscall if self.code.is_generic() => "system call, generic",
            Origin::Syscall => "system call",
            Origin::Tracepoint => "tracepoint",
            Origin::Plugin => "plugin",
            Origin::Meta | Origin::Iterator | Origin::Unused => "internal",
        }
    }

    fn category(&self) -> &'static str {
        match self.code.event().category {
            Category::Unknown => "unknown",
            Category::Other => "other",
            Category::File => "file",
            Category::Net => "net",
            Category::Ipc => "IPC",
            Category::Memory => "memory",
            Category::Process => "process",
            Category::Sleep => "sleep",
            Category::System => "system",
            Category::Signal => "signal",
            Category::User => "user",
            Category::Time => "time",
            Category::Wait => "wait",
            Category::IoRead => "I/O read",
            Category::IoWrite => "I/O write",
            Category::IoOther => "I/O other",
            Category::Scheduler => "processing",
            Category::Internal => "internal",
        }
    }

    fn json(&self) -> serde_json::Value {
        let params = self
            .params()
            .iter()
            .map(|param| json!({"name": param.name, "type": param.ty.name(), "has_value": self.has_value(param)}));
        json!({
            "name": self.name,
            "kind": self.kind(),
            "category": self.category(),
            "parameters": params.collect::<Vec<_>>(),
            "delivered": !self.hooks.is_empty(),
            "hooks": self.hooks,
        })
    }

    /// Name and parameters as a prototype.
    fn prototype(&self) -> String {
        let params: Vec<_> = self.params().iter().map(|param| format!("{} {}", param.ty.name(), param.name)).collect();
        format!("{}({})", self.name, params.join(", "))
    }
}

/// Rows in the order of a listing, under what they have in common.
fn groups<'a>(rows: &[&'a Row]) -> Vec<(&'static str, Vec<&'a Row>)> {
    let is = |want: fn(&Row) -> bool| rows.iter().copied().filter(|row| want(row)).collect::<Vec<_>>();
    let groups = [
        ("Delivered by this build", is(|row| !row.hooks.is_empty())),
        ("Not delivered", is(|row| row.hooks.is_empty() && !row.code.is_generic())),
        ("Not delivered, without parameters of their own", is(|row| row.hooks.is_empty() && row.code.is_generic())),
    ];
    groups.into_iter().filter(|(_, rows)| !rows.is_empty()).collect()
}

fn as_text(rows: &[&Row]) -> String {
    let mut out = String::new();
    for (title, rows) in groups(rows) {
        let _ = writeln!(out, "{}{title}:\n", if out.is_empty() { "" } else { "\n" });
        for row in rows {
            let _ = write!(out, "  {}", if row.code.is_generic() { row.name.to_owned() } else { row.prototype() });
            if !row.hooks.is_empty() {
                let _ = write!(out, "\n      from {}", row.hooks.join(", "));
                let without: Vec<&str> = row.without_value().collect();
                if !without.is_empty() {
                    let _ = write!(out, "; without value: {}", without.join(", "));
                }
            }
            out.push('\n');
        }
    }
    out
}

impl Row {
    fn without_value(&self) -> impl Iterator<Item = &'static str> {
        self.params().iter().filter(|param| !self.has_value(param)).map(|param| param.name)
    }
}

fn as_page(rows: &[&Row]) -> String {
    let mut out = page::head("Events", "rules/src/event, agent-common/src/event.rs and agent/src/facts/collected.rs");
    out.push_str(
        "What `evt.type` can be. Names and parameters are Falco's, of the event at the end of a call; a parameter is read \
         with `evt.arg.NAME`. Rules may name every event: a rule about one that is not delivered loads and never fires, and \
         `purser rules check` says so. `purser rules events` prints this list, with `--json` as one JSON array.\n\n",
    );
    for (title, rows) in groups(rows) {
        let _ = writeln!(out, "## {title}\n");
        if rows.iter().all(|row| row.code.is_generic()) {
            out.push_str("These system calls share one event with the parameters `ID` and `nativeID`.\n\n");
            let _ = writeln!(out, "{}\n", page::codes(rows.iter().map(|row| row.name)));
            continue;
        }
        let delivered = rows.iter().all(|row| !row.hooks.is_empty());
        let params = |row: &Row| {
            let one = |param: &Param| {
                let mark = if delivered && !row.has_value(param) { "\u{b9}" } else { "" };
                format!("`{}` {}{mark}", param.name, param.ty.name())
            };
            row.params().iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let cells = |row: &&Row| [page::code(row.name), row.category().to_owned(), params(row)];
        if delivered {
            let rows = rows.iter().map(|row| {
                let [name, category, params] = cells(row);
                [name, category, params, page::codes(row.hooks.iter().copied())]
            });
            page::table(&mut out, ["event", "category", "parameters", "from"], rows);
            out.push_str("\u{b9} never has a value in this build.\n\n");
        } else {
            page::table(&mut out, ["event", "category", "parameters"], rows.iter().map(cells));
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}
