//! `purser rules fields`: the catalogue, class by class, and which fields have no value in this build.

use std::fmt::Write as _;

use anyhow::bail;
use purser_rules::catalogue::{ArgKind, FieldClass, FieldFlags};
use purser_rules::{Catalogue, Field, FieldId};
use serde_json::json;

use super::{Form, Listing, page};
use crate::facts::collected;

/// The classes in order: the names that begin so, and what they are about.
const CLASSES: [(&str, &[&str], &str); 14] = [
    ("evt", &["evt", "syscall"], "the event itself, its result and its parameters"),
    ("proc", &["proc"], "the process, its ancestors and its program"),
    ("thread", &["thread"], "the thread that did it"),
    ("user", &["user"], "its user"),
    ("group", &["group"], "its group"),
    ("fd", &["fd"], "the file or socket of the event"),
    ("fs.path", &["fs"], "the path that a call on files works on"),
    ("fdlist", &["fdlist"], "the descriptors of a poll"),
    ("container", &["container"], "the container"),
    ("image", &["image"], "the image of the container"),
    ("k8s", &["k8s"], "the pod of the container"),
    ("manifest", &["manifest"], "the verdict on the program"),
    ("lib", &["lib"], "a file that was mapped executable"),
    ("util", &["util"], "other"),
];

pub(super) fn show(listing: &Listing) -> anyhow::Result<String> {
    let prefix = listing.prefix.as_deref().unwrap_or_default();
    let all = Catalogue::builtin();
    // A field that listings leave out is still found by its whole name.
    let wanted = |field: &&Field| field.name.starts_with(prefix) && (!hidden(field) || field.name == prefix);
    let fields: Vec<&Field> = all.fields().iter().filter(wanted).collect();
    if fields.is_empty() {
        let nearest = all.nearest(prefix).map(|near| format!("; did you mean `{near}`?"));
        bail!("no field begins with `{prefix}`{}`purser rules fields` lists them all", hint(nearest));
    }
    match listing.form() {
        Form::Json => Ok(format!("{}\n", json!(fields.iter().map(|field| as_json(field)).collect::<Vec<_>>()))),
        Form::Markdown => Ok(as_page(&fields)),
        Form::Text => Ok(as_text(&fields)),
    }
}

/// A suggestion, or nothing, before a further sentence.
pub(super) fn hint(nearest: Option<String>) -> String {
    nearest.map_or_else(|| "; ".to_owned(), |hint| format!("{hint} "))
}

fn hidden(field: &Field) -> bool {
    field.flags.has(FieldFlags::HIDDEN)
}

/// The fields of each class that has any.
fn classes<'a>(fields: &[&'a Field]) -> Vec<(&'static str, &'static str, Vec<&'a Field>)> {
    let of = |names: &[&str]| -> Vec<&'a Field> {
        let first = |field: &Field| field.name.split('.').next().is_some_and(|first| names.contains(&first));
        fields.iter().copied().filter(|field| first(field)).collect()
    };
    let all = CLASSES.iter().map(|(name, first, about)| (*name, *about, of(first)));
    all.filter(|(_, _, fields)| !fields.is_empty()).collect()
}

fn class_of(field: &Field) -> &'static str {
    let first = field.name.split('.').next().unwrap_or_default();
    CLASSES.iter().find(|(_, names, _)| names.contains(&first)).map_or("", |(name, ..)| name)
}

/// The name with the argument that it takes.
fn usage(field: &Field) -> String {
    let dotted = [FieldId::EVT_RAWARG, FieldId::EVT_TYPE_IS, FieldId::EVT_ABSPATH, FieldId::THREAD_CGROUP];
    let argument = match field.arg {
        ArgKind::None => return field.name.to_string(),
        _ if dotted.contains(&field.id) => return format!("{}.NAME", field.name),
        _ if field.id == FieldId::EVT_ARG => return "evt.arg.NAME, evt.arg[N]".to_owned(),
        ArgKind::Index => "[N]",
        ArgKind::Key => "[NAME]",
        ArgKind::Either => "[N or NAME]",
    };
    let optional = if field.flags.has(FieldFlags::ARG_REQUIRED) { "" } else { "?" };
    format!("{}{argument}{optional}", field.name)
}

/// What else there is to know, in words.
fn flags(field: &Field) -> Vec<&'static str> {
    let words = [
        (FieldFlags::LIST, "list"),
        (FieldFlags::FILTER_ONLY, "filter only"),
        (FieldFlags::PRINT_ONLY, "print only"),
        (FieldFlags::DEPRECATED, "deprecated"),
        (FieldFlags::NO_RHS, "no field on the right"),
        (FieldFlags::NO_TRANSFORMER, "no transformer"),
    ];
    words.into_iter().filter(|(flag, _)| field.flags.has(*flag)).map(|(_, word)| word).collect()
}

fn declared_by(field: &Field) -> &'static str {
    match field.class {
        FieldClass::Core => "falco",
        FieldClass::Container => "falco's container plugin",
        FieldClass::Purser | FieldClass::Custom => "purser",
    }
}

fn as_json(field: &Field) -> serde_json::Value {
    let argument = match field.arg {
        ArgKind::None => None,
        ArgKind::Index => Some("index"),
        ArgKind::Key => Some("name"),
        ArgKind::Either => Some("index or name"),
    };
    let is = |flag| field.flags.has(flag);
    let reason = collected::absent(field.id);
    json!({
        "name": field.name,
        "class": class_of(field),
        "type": field.ty.name(),
        "argument": argument,
        "argument_required": is(FieldFlags::ARG_REQUIRED),
        "list": is(FieldFlags::LIST),
        "filter_only": is(FieldFlags::FILTER_ONLY),
        "print_only": is(FieldFlags::PRINT_ONLY),
        "deprecated": is(FieldFlags::DEPRECATED),
        "right_hand_side": !is(FieldFlags::NO_RHS),
        "transformers": !is(FieldFlags::NO_TRANSFORMER),
        "declared_by": declared_by(field),
        "description": field.doc,
        "has_value": reason.is_none(),
        "no_value_because": reason,
    })
}

fn as_text(fields: &[&Field]) -> String {
    let mut out = String::new();
    for (name, about, fields) in classes(fields) {
        let _ = writeln!(out, "{}{name}: {about}\n", if out.is_empty() { "" } else { "\n" });
        for field in fields {
            let mut doc = field.doc.to_string();
            let flags = flags(field);
            if !flags.is_empty() {
                doc = format!("{doc} ({})", flags.join(", "));
            }
            let _ = writeln!(out, "  {:<44}  {:<8}  {doc}", usage(field), field.ty.name());
            if let Some(reason) = collected::absent(field.id) {
                let _ = writeln!(out, "  {:<44}  {:<8}  never has a value: {reason}", "", "");
            }
        }
    }
    out
}

fn as_page(fields: &[&Field]) -> String {
    let mut out = page::head("Fields", "rules/src/catalogue and agent/src/facts/collected.rs");
    out.push_str(
        "What conditions and outputs of rules can read. Names, types and meanings are Falco's; fields that Falco does not \
         have are marked. `purser rules fields` prints this list, with `--json` as one JSON array.\n\n\
         A field in brackets takes an argument, which can be left out where a `?` follows. A field that an event does not \
         have is neither equal nor unequal to anything: every check of it is false. Some fields never have a value in this \
         build, and the table says why; rules that use them load, and `purser rules check` names them.\n\n",
    );
    for (name, about, fields) in classes(fields) {
        let _ = writeln!(out, "## {name}\n\n{}.\n", capitalised(about));
        let rows = fields.iter().map(|field| {
            let mut meaning = page::cell(&field.doc);
            if field.class == FieldClass::Purser {
                meaning.push_str(" *Purser's own.*");
            }
            if let Some(reason) = collected::absent(field.id) {
                let _ = write!(meaning, " **Never has a value:** {}.", page::cell(reason));
            }
            [page::codes(usage(field).split(", ")), field.ty.name().to_owned(), flags(field).join(", "), meaning]
        });
        page::table(&mut out, ["field", "type", "use", "meaning"], rows);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_has_a_class() {
        for field in Catalogue::builtin().fields() {
            assert_ne!(class_of(field), "", "{} is in no class of the listing", field.name);
        }
    }
}
