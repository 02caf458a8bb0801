//! Outputs of rules: what the configuration adds, and the compiled format.

use super::item::RuleItem;
use crate::catalogue::{Catalogue, FieldFlags};
use crate::format::{Format, FormatError};
use crate::options::{AppendOutput, ExtraFieldSpec, LoadOptions};
use crate::rule::ExtraField;

/// A compiled output.
pub(super) struct Output {
    pub(super) text: String,
    pub(super) format: Format,
    pub(super) extra: Vec<ExtraField>,
    /// What in it should no longer be used.
    pub(super) deprecations: Vec<String>,
}

const CONTAINER_INFO: &str = "%container.info";

pub(super) fn compile(item: &RuleItem, options: &LoadOptions, catalogue: &Catalogue) -> Result<Output, FormatError> {
    let mut text = item.output.clone();
    let mut extra = Vec::new();
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
        for spec in &append.extra_fields {
            let (key, format, raw) = match spec {
                ExtraFieldSpec::Raw(field) => (field, format!("%{field}"), true),
                ExtraFieldSpec::Formatted(key, format) => (key, format.clone(), false),
            };
            extra.push(ExtraField { key: key.clone(), value: Format::parse(format.as_bytes(), catalogue)?, raw });
        }
    }
    let mut deprecations = Vec::new();
    if text.contains(CONTAINER_INFO) {
        let message = "%container.info is deprecated and was removed; the suggested output has the container's fields";
        deprecations.push(message.to_owned());
        text = text.replace(CONTAINER_INFO, "");
    }
    for field in super::DEPRECATED {
        if text.contains(field) {
            deprecations.push(format!("usage of deprecated field '{field}' in the output; it has no meaning any more"));
        }
    }
    let format = Format::parse(text.as_bytes(), catalogue)?;
    Ok(Output { text, format, extra, deprecations })
}

fn applies(append: &AppendOutput, item: &RuleItem) -> bool {
    append.source.as_ref().is_none_or(|source| *source == item.source)
        && append.rule.as_ref().is_none_or(|rule| *rule == item.name)
        && append.tags.iter().all(|tag| item.tags.contains(tag))
}
