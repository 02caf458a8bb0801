//! What a file asks of the engine and of plugins.

use std::sync::Arc;

use super::Reader;
use super::values::parse_number;
use crate::diagnostic::Code;
use crate::load::collection::Trouble;
use crate::load::yaml::{Node, Value};
use crate::options::Version;

impl Reader<'_> {
    pub(super) fn engine_version(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        let text = self.required(item, "required_engine_version")?;
        let version = parse_number(&text).map(|minor| Version(0, minor, 0)).or_else(|| Version::parse(&text));
        let Some(version) = version else {
            return self.fail(Code::YamlValidate, format!("unable to parse engine version '{text}'"), item);
        };
        let engine = self.options.engine_version;
        if version.0 != engine.0 || version > engine {
            let message = format!(
                "rules require engine version {}.{}.{}, but engine version is {}.{}.{}",
                version.0, version.1, version.2, engine.0, engine.1, engine.2
            );
            return self.fail(Code::Validate, message, item);
        }
        self.collection.required_engine = self.collection.required_engine.max(Some(version));
        Ok(())
    }

    pub(super) fn plugin_versions(&mut self, item: &Arc<Node>) -> Result<(), Trouble> {
        let Some(node) = item.get("required_plugin_versions") else { return Ok(()) };
        let Some(entries) = node.items() else {
            return self.fail(
                Code::YamlValidate,
                "value of required_plugin_versions must be a sequence".to_owned(),
                node,
            );
        };
        for entry in entries {
            if !matches!(entry.value, Value::Map(_)) {
                return self.fail(Code::YamlValidate, "plugin version must be a map".to_owned(), entry);
            }
            let mut named = vec![(entry, self.required(entry, "name")?, self.required(entry, "version")?)];
            if let Some(node) = entry.get("alternatives") {
                let Some(more) = node.items() else {
                    return self.fail(Code::YamlValidate, "alternatives must be a sequence".to_owned(), node);
                };
                for entry in more {
                    if !matches!(entry.value, Value::Map(_)) {
                        return self.fail(Code::YamlValidate, "plugin version must be a map".to_owned(), entry);
                    }
                    named.push((entry, self.required(entry, "name")?, self.required(entry, "version")?));
                }
            }
            let mut alternatives: Vec<(String, Version)> = Vec::with_capacity(named.len());
            for (entry, name, version) in named {
                let Some(version) = Version::parse(&version) else {
                    let message = format!("unable to parse version '{version}' of plugin '{name}'");
                    return self.fail(Code::Validate, message, entry);
                };
                if alternatives.iter().any(|(known, _)| *known == name) {
                    return self.fail(Code::Validate, format!("plugin '{name}' is required twice"), entry);
                }
                alternatives.push((name, version));
            }
            self.collection.required_plugins.push(alternatives);
        }
        Ok(())
    }
}
