//! Which keys a running agent takes over when the file changes. All others need a restart: a new key does until it is
//! listed here and whatever reads it can be told.

use super::{Config, schema::Value as _};

/// Keys that take effect while the agent runs, with all below them.
const LIVE: &[&str] = &[
    "rules_files",
    "rules",
    "rule_matching",
    "watch_config_files",
    "priority",
    "json_output",
    "json_include_output_property",
    "json_include_message_property",
    "json_include_tags_property",
    "json_include_output_fields_property",
    "time_format_iso_8601",
    "append_output",
    "throttle",
    "log_level",
    "scope",
    "hold.max_time",
];

impl Config {
    /// This configuration as far as a running agent can take over `new`, and the keys that differ and need a restart.
    pub fn adopting(&self, new: &Self) -> (Self, Vec<String>) {
        let (mut adopted, mut restart) = (self.clone(), Vec::new());
        adopted.adopt(new, "", &mut restart);
        (adopted, restart)
    }
}

/// Whether a key, written with its sections, takes effect while the agent runs.
pub(super) fn is_live(path: &str) -> bool {
    LIVE.iter().any(|key| path.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// The key of a section, with dots.
pub(super) fn path(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_section_is_live_by_its_keys() {
        assert!(is_live("rules") && is_live("rules.enable.tag") && is_live("hold.max_time"));
        assert!(!is_live("hold") && !is_live("hold.max_events") && !is_live("rules_file") && !is_live("sensor"));
    }

    #[test]
    fn every_live_key_exists() {
        let keys = |keys: Vec<super::super::Key>| {
            let mut all = Vec::new();
            let mut open: Vec<(String, super::super::Key)> = keys.into_iter().map(|key| (String::new(), key)).collect();
            while let Some((section, key)) = open.pop() {
                let path = path(&section, key.name);
                open.extend(key.keys.into_iter().flatten().map(|below| (path.clone(), below)));
                all.push(path);
            }
            all
        };
        let known = keys(Config::keys().unwrap_or_default());
        for key in LIVE {
            assert!(known.iter().any(|known| known == key), "{key}");
        }
    }

    #[test]
    fn what_needs_a_restart_stays_and_is_named() {
        let text = "rules: [{disable: {tag: a}}]\nscope: containers\nhold: {max_events: 7, max_time: 1s}\n\
                    webserver: {listen_port: 1}\nsensor: {ring_bytes: 1MiB}\njson_output: true\n";
        let new = Config::parse(Path::new("x"), text).expect("valid");
        let (adopted, restart) = Config::default().adopting(&new);
        assert_eq!(restart, ["webserver.listen_port", "sensor.ring_bytes", "hold.max_events"]);
        assert_eq!((&adopted.rules, adopted.scope, adopted.json_output), (&new.rules, new.scope, true));
        assert_eq!(adopted.hold.max_time, new.hold.max_time);
        let default = Config::default();
        assert_eq!((adopted.hold.max_events, &adopted.webserver), (default.hold.max_events, &default.webserver));
        assert_eq!(new.adopting(&new), (new.clone(), Vec::new()));
    }
}
