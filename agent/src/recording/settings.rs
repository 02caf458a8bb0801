//! The part of a configuration that alerts depend on, as text that is read like any configuration. The rest stays where
//! it is: a recording is taken elsewhere, and paths, addresses and whatever secrets there are do not concern anybody there.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::config::{Config, Value as _};

/// Those keys, with their values in `config`.
///
/// # Errors
/// They cannot be written so that they are read again as they are.
pub fn recorded(config: &Config) -> Result<String> {
    let kept = Config {
        rules: config.rules.clone(),
        rule_matching: config.rule_matching,
        priority: config.priority,
        json_output: config.json_output,
        json_include_output_property: config.json_include_output_property,
        json_include_message_property: config.json_include_message_property,
        json_include_tags_property: config.json_include_tags_property,
        json_include_output_fields_property: config.json_include_output_fields_property,
        time_format_iso_8601: config.time_format_iso_8601,
        append_output: config.append_output.clone(),
        throttle: config.throttle.clone(),
        scope: config.scope,
        hold: config.hold.clone(),
        ..Config::default()
    };
    let text = kept.show();
    let read = Config::parse(Path::new("the configuration as recorded"), &text)?;
    ensure!(read == kept, "this configuration cannot be recorded: {text} is read as another one; please report it");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_alerts_depend_on_is_read_again_as_it_was() {
        let text = r#"
rules: [{disable: {rule: "a: b, {c}* #\u2028"}}, {enable: {tag: "null"}}, {enable: {tag: "1.5"}}]
rule_matching: all
priority: warning
json_output: true
json_include_tags_property: false
time_format_iso_8601: true
append_output:
  - match: {tags: [x, "y z"], rule: "é"}
    extra_output: "%proc.name: [\"x\"]\t"
    extra_fields: [proc.name, {"my: key": "%proc.pid}"}]
scope: containers
hold: {max_events: 7, max_time: 1500ms}
throttle: {rate: {alerts: 3, window: 1m30s, key: [container.id, proc.name]}}
file_output: {enabled: true, filename: /secret}
"#;
        let config = Config::parse(Path::new("x"), text).expect("valid");
        let written = recorded(&config).expect("written");
        assert!(!written.contains("secret"), "{written}");
        let again = Config::parse(Path::new("x"), &written).expect("read");
        assert_eq!(Config { file_output: config.file_output.clone(), ..again }, config);
        assert_eq!(recorded(&Config::default()).expect("written"), "{}");
        let none = Config { append_output: Vec::new(), ..Config::default() };
        assert_eq!(recorded(&none).expect("written"), "{append_output: []}");
    }
}
