//! Events of the corpus as facts.

use std::collections::HashMap;
use std::net::IpAddr;

use purser_rules::{Arg, Catalogue, EventCode, Fact, Facts, FieldId, FieldRef, PrintFormat, Reason, Type, Value};
use serde_json::Value as Json;

use crate::{Corpus, unhex};

/// A value of the corpus.
#[derive(Debug)]
enum Held {
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Bool(bool),
    I64(i64),
    U64(u64),
    Ip(IpAddr),
}

#[derive(Debug)]
enum Got {
    Missing,
    One(Held),
    Many(Vec<Held>),
}

/// An event of the corpus.
pub(crate) struct CaseFacts {
    values: HashMap<(FieldId, String), Got>,
    code: EventCode,
    time: Option<u64>,
}

impl CaseFacts {
    /// An event by name, or of inline fields.
    pub(crate) fn of(corpus: &Corpus, case: &Json, catalogue: &Catalogue) -> Self {
        let (fields, time) = match case["event"].as_str() {
            Some(name) => (&corpus.events[name]["fields"], corpus.events[name]["ts"].as_u64()),
            None => (&case["fields"], None),
        };
        let mut facts = Self { values: HashMap::new(), code: EventCode::TASK, time };
        for (name, value) in fields.as_object().into_iter().flatten() {
            if name == "evt.type" {
                facts.code = value["v"].as_str().and_then(EventCode::by_name).unwrap_or(EventCode::TASK);
            }
            let Some((id, arg)) = key_of(name, catalogue) else { continue };
            facts.values.insert((id, arg), got(value));
            if let Some(own) = value.get("self") {
                facts.values.insert((id, "0".to_owned()), Got::One(held(&value["t"], own)));
            }
            if let Some(ancestors) = value["ancestors"].as_array() {
                for (nth, ancestor) in ancestors.iter().enumerate() {
                    facts.values.insert((id, (nth + 1).to_string()), Got::One(held(&value["t"], ancestor)));
                }
            }
        }
        facts
    }

    fn find(&self, field: FieldRef<'_>) -> Option<&Got> {
        let arg = match field.arg {
            Arg::None => String::new(),
            Arg::Index(index) => index.to_string(),
            Arg::Key(key) => String::from_utf8_lossy(key).into_owned(),
        };
        let found = self.values.get(&(field.id, arg));
        // Fields of the synthetic catalogues have one value whatever the argument.
        let is_synthetic = field.id.index() >= 0x4000;
        found.or_else(|| self.values.get(&(field.id, String::new())).filter(|_| is_synthetic))
    }
}

impl Facts for CaseFacts {
    fn event(&self) -> EventCode {
        self.code
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        if field.id == FieldId::EVT_RAWTIME
            && let Some(time) = self.time
        {
            return Fact::One(Value::U64(time));
        }
        match self.find(field) {
            None | Some(Got::Missing) => Fact::Missing(Reason::Unknown),
            Some(Got::One(value)) => Fact::One(lent(value)),
            Some(Got::Many(values)) => Fact::Many(values.len()),
        }
    }

    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_> {
        match self.find(field) {
            Some(Got::Many(values)) => {
                values.get(index).map_or(Fact::Missing(Reason::Unknown), |value| Fact::One(lent(value)))
            }
            _ => Fact::Missing(Reason::Unknown),
        }
    }
}

fn lent(value: &Held) -> Value<'_> {
    match value {
        Held::Text(text) => Value::Text(text),
        Held::Bytes(bytes) => Value::Bytes(bytes),
        Held::Bool(value) => Value::Bool(*value),
        Held::I64(value) => Value::I64(*value),
        Held::U64(value) => Value::U64(*value),
        Held::Ip(ip) => Value::Ip(*ip),
    }
}

/// Splits `name[arg]` and dotted arguments.
fn key_of(name: &str, catalogue: &Catalogue) -> Option<(FieldId, String)> {
    if let Some(field) = catalogue.get(name) {
        return Some((field.id, String::new()));
    }
    if let Some((base, arg)) = name.strip_suffix(']').and_then(|name| name.split_once('[')) {
        return Some((catalogue.get(base)?.id, arg.to_owned()));
    }
    ["evt.arg", "evt.rawarg", "evt.type.is", "evt.abspath", "thread.cgroup"].into_iter().find_map(|base| {
        let arg = name.strip_prefix(base)?.strip_prefix('.')?;
        Some((catalogue.get(base)?.id, arg.to_owned()))
    })
}

fn got(value: &Json) -> Got {
    if value.is_null() || (value.get("v").is_some_and(Json::is_null)) {
        return Got::Missing;
    }
    for key in ["list", "ancestors", "pair"] {
        if let Some(items) = value[key].as_array() {
            return Got::Many(items.iter().map(|item| held(&value["t"], item)).collect());
        }
    }
    Got::One(held(&value["t"], &value["v"]))
}

pub(crate) fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| c as u32 as u8).collect()
}

fn held(ty: &Json, value: &Json) -> Held {
    let ty = ty.as_str().unwrap_or_default();
    match ty {
        "string" | "fspath" | "CHARBUF" | "FSPATH" | "FSRELPATH" => Held::Text(match value.as_str() {
            Some(text) => latin1(text),
            None => crate::text(value),
        }),
        "bytes" | "BYTEBUF" => Held::Bytes(match value.as_str() {
            Some(hex) => unhex(hex),
            None => crate::text(value),
        }),
        "bool" | "BOOL" => Held::Bool(value.as_bool().unwrap_or_else(|| value.as_u64() == Some(1))),
        "ipaddr" | "ipnet" | "IPADDR" | "IPNET" => Held::Ip(value.as_str().expect("address").parse().expect("address")),
        _ if ty.starts_with('i') || ty.starts_with("INT") || matches!(ty, "FD" | "PID" | "ERRNO") => {
            Held::I64(value.as_i64().unwrap_or_else(|| panic!("{ty}: {value}")))
        }
        _ => match value.as_u64() {
            Some(value) => Held::U64(value),
            None => Held::I64(value.as_i64().unwrap_or_else(|| panic!("{ty}: {value}"))),
        },
    }
}

/// The catalogue of a case.
pub(crate) fn catalogue(corpus: &Corpus, name: &str) -> Catalogue {
    use purser_rules::catalogue::{ArgKind, FieldClass, FieldFlags};
    let mut catalogue = match name {
        "core+container" => Catalogue::subset(|field| matches!(field.class, FieldClass::Core | FieldClass::Container)),
        _ => Catalogue::subset(|field| field.class == FieldClass::Core),
    };
    for field in ["sample.proc_name", "sample.tick"] {
        catalogue.add(field, Type::Text, PrintFormat::Na, FieldFlags::NONE, ArgKind::None);
    }
    catalogue.add("sample.is_open", Type::U64, PrintFormat::Dec, FieldFlags::NONE, ArgKind::None);
    let own: Vec<&str> = match name {
        "core" | "core+container" | "" => vec!["mock", "mock2"],
        other => vec![other],
    };
    for field in own.iter().flat_map(|name| corpus.catalogs[name].as_array().into_iter().flatten()) {
        let text = |key: &str| field[key].as_str().unwrap_or_default();
        let has = |flag: &str| field["flags"].as_array().is_some_and(|flags| flags.iter().any(|known| known == flag));
        let mut flags = FieldFlags::NONE;
        for (flag, value) in [
            ("ARG_ALLOWED", FieldFlags::ARG),
            ("ARG_REQUIRED", FieldFlags::ARG_REQUIRED),
            ("IS_LIST", FieldFlags::LIST),
            ("NO_RHS", FieldFlags::NO_RHS),
            ("NO_TRANSFORMER", FieldFlags::NO_TRANSFORMER),
            ("FILTER_ONLY", FieldFlags::FILTER_ONLY),
        ] {
            if has(flag) {
                flags = flags.with(value);
            }
        }
        let arg = if has("ARG_KEY") { ArgKind::Key } else { ArgKind::Index };
        let ty = Type::by_name(text("type")).unwrap_or_else(|| panic!("{field}"));
        catalogue.add(text("name"), ty, PrintFormat::by_name(text("print")).unwrap_or(PrintFormat::Na), flags, arg);
    }
    catalogue
}
