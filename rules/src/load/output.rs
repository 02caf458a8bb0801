//! Outputs of rules: what the configuration adds, and the compiled format.

use super::item::RuleItem;
use crate::catalogue::{Catalogue, FieldFlags};
use crate::format::{Format, FormatError};
use crate::options::{AppendOutput, ExtraFieldSpec, LoadOptions};
use crate::rule::ExtraField;

/// An output with what the configuration adds, and what it has that should no longer be used; not compiled yet.
pub(super) struct Text {
    pub(super) text: String,
    /// What was removed.
    pub(super) removed: Option<&'static str>,
}

/// A compiled output.
pub(super) struct Output {
    pub(super) text: String,
    pub(super) format: Format,
    pub(super) extra: Vec<ExtraField>,
    /// What in it should no longer be used.
    pub(super) deprecations: Vec<String>,
}

const CONTAINER_INFO: &str = "%container.info";

/// The text of a rule's output.
pub(super) fn text(item: &RuleItem, options: &LoadOptions, catalogue: &Catalogue) -> Text {
    let mut text = item.output.clone();
    for append in options.append_output.iter().filter(|append| applies(append, item)) {
        if let Some(more) = &append.extra_output {
            text.push(' ');
            text.push_str(more);
        }
        if append.suggested_output {
            for field in catalogue.fields().iter().filter(|field| field.flags.has(FieldFlags::SUGGESTED)) {
                text.push_str(&format!(" {}=%{}", field.name.replace('.', "_"), field.name));
            }
        }
    }
    let removed = text.contains(CONTAINER_INFO).then(|| {
        text = text.replace(CONTAINER_INFO, "");
        "%container.info is deprecated and was removed; the suggested output has the container's fields"
    });
    Text { text, removed }
}

/// Compiles an output.
pub(super) fn compile(
    text: String,
    item: &RuleItem,
    options: &LoadOptions,
    catalogue: &Catalogue,
) -> Result<Output, FormatError> {
    let format = Format::parse(text.as_bytes(), catalogue)?;
    let mut deprecations = deprecated(&text);
    let mut extra: Vec<ExtraField> = Vec::new();
    let appends = options.append_output.iter().filter(|append| applies(append, item));
    for spec in appends.flat_map(|append| &append.extra_fields) {
        let (key, format, raw) = match spec {
            ExtraFieldSpec::Raw(field) => (field, format!("%{field}"), true),
            ExtraFieldSpec::Formatted(key, format) => (key, format.clone(), false),
        };
        // The configuration asks for it, so no rule is left out for it.
        let value = Format::parse(format.as_bytes(), catalogue)
            .map_err(|error| FormatError { unknown_filter: false, ..error })?;
        deprecations.extend(deprecated(&format));
        extra.push(ExtraField { key: key.clone(), value, raw });
    }
    Ok(Output { text, format, extra, deprecations })
}

fn deprecated(format: &str) -> Vec<String> {
    let found = super::suspicions::DEPRECATED.into_iter().filter(|field| format.contains(field));
    found
        .map(|field| format!("usage of deprecated field '{field}' in the output; it has no meaning any more"))
        .collect()
}

fn applies(append: &AppendOutput, item: &RuleItem) -> bool {
    append.source.as_ref().is_none_or(|source| *source == item.source)
        && append.rule.as_ref().is_none_or(|rule| *rule == item.name)
        && append.tags.iter().all(|tag| item.tags.contains(tag))
}
