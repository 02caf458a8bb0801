//! Tests of rules that need neither privileges nor a sensor: events written down as field values, and the rules that
//! must fire on each, exactly those.
//!
//! ```yaml
//! rules: [my_rules.yaml]
//! defaults: {container.id: 0123456789ab}
//! cases:
//!   - name: cat reads the password hashes
//!     event: openat
//!     fields: {fd.name: /etc/shadow, evt.is_open_read: true, proc.exepath: /usr/bin/cat}
//!     fires: [Sensitive file read in a container]
//! ```

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Value as Yaml;

use crate::catalogue::{Catalogue, FieldId};
use crate::compile::typed_operand;
use crate::eval::{OperandSource, OwnedArg};
use crate::event::{EventCode, generic_calls};
use crate::facts::{Arg, Fact, Facts, FieldRef, Reason, Value};
use crate::load::too_deep;
use crate::matches::{Matches, Outcome};
use crate::nearest::did_you_mean;
use crate::parse::{Operand, parse_operand_prefix};
use crate::ruleset::RuleSet;
use crate::types::{Class, Type};

/// A file of cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseFile {
    /// Rule files, relative to the file of cases.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Fields that every event has unless its case says otherwise.
    #[serde(default, deserialize_with = "each_once")]
    pub defaults: BTreeMap<String, Yaml>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// An event and what it must lead to.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about.
    pub name: String,
    /// Name of the event or system call.
    pub event: String,
    /// Values of fields, such as `proc.name: cat`, `evt.arg.flags: O_RDWR`, `proc.aname: [bash, sshd]` (ancestors,
    /// nearest first). `null`: no value. `PENDING`, tagged `!pending`: not known yet. What follows from a field need not
    /// be given: the name, arguments and their number from `proc.cmdline`, the parent from its ancestors, directory and
    /// file name from `fd.name`. Clock fields such as `evt.time` are those of `evt.rawtime`, in UTC.
    #[serde(default, deserialize_with = "each_once")]
    pub fields: BTreeMap<String, Yaml>,
    /// Rules that are off, and on for this case.
    #[serde(default)]
    pub enable: Vec<String>,
    /// The rules that must fire; all others must stay silent.
    #[serde(default)]
    pub fires: Vec<String>,
}

/// How a case came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseResult {
    /// The case.
    pub name: String,
    /// Rules that should have fired and did not.
    pub missing: Vec<String>,
    /// Rules that fired and should not have.
    pub unexpected: Vec<String>,
}

/// A file of cases that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// It is not a file of cases.
    #[error("not a file of cases: {0}")]
    Yaml(String),
    /// A case names something that does not exist, or has a value of the wrong type.
    #[error("case \"{case}\": {message}")]
    Case {
        /// Which case.
        case: String,
        /// What is wrong.
        message: String,
    },
}

impl CaseResult {
    /// Whether exactly the rules that should have fired did.
    pub fn passed(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty()
    }
}

impl CaseFile {
    /// Reads a file of cases.
    ///
    /// # Errors
    /// It is not one.
    pub fn parse(text: &str) -> Result<Self, CaseError> {
        if let Some((line, column)) = too_deep(text) {
            let message = format!("it is nested too deeply at line {line} column {column}");
            return Err(CaseError::Yaml(message));
        }
        serde_yaml::from_str(text).map_err(|error| CaseError::Yaml(error.to_string()))
    }

    /// Runs every case against a set of rules.
    ///
    /// # Errors
    /// A case is wrong in itself.
    pub fn run(&self, rules: &RuleSet) -> Result<Vec<CaseResult>, CaseError> {
        let mut matches = Matches::new();
        let mut results = Vec::with_capacity(self.cases.len());
        for case in &self.cases {
            let fail = |message| CaseError::Case { case: case.name.clone(), message };
            let known = || rules.rules().iter().map(|rule| rule.name.as_str());
            let unknown = |name: &str| format!("there is no rule \"{name}\"{}", did_you_mean(name, known()));
            let find = |name: &String| rules.find(name).ok_or_else(|| fail(unknown(name)));
            for rule in &case.fires {
                find(rule)?;
            }
            let enabled = case.enable.iter().map(find).collect::<Result<Vec<_>, _>>()?;
            let facts = CaseFacts::new(case, &self.defaults, rules.catalogue()).map_err(fail)?;
            rules.evaluate(&facts, &mut matches);
            let more = enabled
                .into_iter()
                .filter(|rule| !rules.rule(*rule).enabled && rules.evaluate_rule(*rule, &facts) == Outcome::True);
            let fired = matches.matched().iter().copied().chain(more);
            let fired: Vec<&str> = fired.map(|rule| rules.rule(rule).name.as_str()).collect();
            results.push(CaseResult {
                name: case.name.clone(),
                missing: case.fires.iter().filter(|rule| !fired.contains(&rule.as_str())).cloned().collect(),
                unexpected: fired
                    .iter()
                    .filter(|fired| !case.fires.iter().any(|rule| rule == *fired))
                    .map(|fired| (*fired).to_owned())
                    .collect(),
            });
        }
        Ok(results)
    }
}

/// Fields and their values. Of a field that is given twice one value would count, unnoticed.
fn each_once<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Yaml>, D::Error> {
    struct Fields;

    impl<'de> Visitor<'de> for Fields {
        type Value = BTreeMap<String, Yaml>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("fields and their values")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(BTreeMap::new())
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut fields = BTreeMap::new();
            while let Some((name, value)) = map.next_entry::<String, Yaml>()? {
                if fields.contains_key(&name) {
                    return Err(A::Error::custom(format_args!("field '{name}' is given twice")));
                }
                fields.insert(name, value);
            }
            Ok(fields)
        }
    }

    deserializer.deserialize_any(Fields)
}

/// The event of a case.
struct CaseFacts {
    code: EventCode,
    values: HashMap<(FieldId, OwnedArg), Got>,
}

enum Got {
    Missing,
    Pending,
    One(Held),
    Many(Vec<Held>),
}

enum Held {
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    Bool(bool),
    I64(i64),
    U64(u64),
    F64(f64),
    Ip(IpAddr),
}

impl CaseFacts {
    fn new(case: &Case, defaults: &BTreeMap<String, Yaml>, catalogue: &Catalogue) -> Result<Self, String> {
        let code = EventCode::by_name(&case.event).ok_or_else(|| {
            let known = EventCode::current().iter().map(|(name, _)| *name).chain(generic_calls());
            format!("there is no event '{}'{}", case.event, did_you_mean(&case.event, known))
        })?;
        let mut facts = Self { code, values: HashMap::new() };
        let name = || Got::One(Held::Text(case.event.clone().into_bytes()));
        facts.values.insert((FieldId::EVT_TYPE, OwnedArg::None), name());
        facts.values.insert((FieldId::EVT_NUM, OwnedArg::None), Got::One(Held::U64(1)));
        if code.is_syscall() {
            facts.values.insert((FieldId::SYSCALL_TYPE, OwnedArg::None), name());
        }
        for (name, value) in defaults.iter().chain(&case.fields) {
            facts.set(name, value, catalogue)?;
        }
        facts.imply();
        Ok(facts)
    }

    fn set(&mut self, name: &str, value: &Yaml, catalogue: &Catalogue) -> Result<(), String> {
        let parsed = parse_operand_prefix(name.as_bytes(), true);
        let Ok((operand @ Operand::Field { .. }, length)) = parsed else {
            return Err(format!("'{name}' is not a field"));
        };
        if length != name.len() {
            return Err(format!("'{name}' is not a field"));
        }
        // Fields that must have an argument in conditions can have any here.
        let typed = typed_operand(&operand, catalogue).map_err(|error| error.message)?;
        let OperandSource::Field(source) = typed.source else { return Err(format!("'{name}' is not a field")) };
        let wrong = || format!("the value of '{name}' is not {}", typed.ty.name());
        let got = match value {
            Yaml::Null => Got::Missing,
            Yaml::Tagged(tagged) if tagged.tag == "pending" => Got::Pending,
            Yaml::Sequence(items) => {
                let items =
                    items.iter().map(|item| held(item, typed.ty)).collect::<Option<Vec<_>>>().ok_or_else(wrong)?;
                // A list of a case replaces that of the defaults, each of its elements too.
                self.values.retain(|(id, arg), _| *id != source.id || !matches!(arg, OwnedArg::Index(_)));
                for (nth, item) in items.iter().enumerate() {
                    let index = OwnedArg::Index(nth as u64 + 1);
                    if let Held::Text(text) = item {
                        self.values.insert((source.id, index), Got::One(Held::Text(text.clone())));
                    }
                }
                Got::Many(items)
            }
            other => Got::One(held(other, typed.ty).ok_or_else(wrong)?),
        };
        self.values.insert((source.id, source.arg), got);
        Ok(())
    }

    /// Adds what follows from the fields that are given.
    fn imply(&mut self) {
        self.imply_command();
        for (ancestors, parent) in [
            (FieldId::PROC_ANAME, FieldId::PROC_PNAME),
            (FieldId::PROC_AEXEPATH, FieldId::PROC_PEXEPATH),
            (FieldId::PROC_ACMDLINE, FieldId::PROC_PCMDLINE),
        ] {
            if let Some(text) = self.text(ancestors, OwnedArg::Index(1)) {
                self.values.entry((parent, OwnedArg::None)).or_insert(Got::One(Held::Text(text)));
            }
        }
        self.imply_parts_of_path();
    }

    /// A command line is the command's name and its arguments; here no argument has a space.
    fn imply_command(&mut self) {
        let Some(line) = self.text(FieldId::PROC_CMDLINE, OwnedArg::None) else { return };
        let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (name, rest) = line.split_at(end);
        let args = rest.get(1..).unwrap_or_default();
        let words: Vec<&[u8]> = args.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).collect();
        let mut add = |id, arg, got| {
            self.values.entry((id, arg)).or_insert(got);
        };
        add(FieldId::PROC_NAME, OwnedArg::None, Got::One(Held::Text(name.to_vec())));
        add(FieldId::PROC_ARGS, OwnedArg::None, Got::One(Held::Text(args.to_vec())));
        add(FieldId::PROC_CMDNARGS, OwnedArg::None, Got::One(Held::U64(words.len() as u64)));
        for (nth, word) in words.into_iter().enumerate() {
            add(FieldId::PROC_ARGS, OwnedArg::Index(nth as u64), Got::One(Held::Text(word.to_vec())));
        }
    }

    fn text(&self, id: FieldId, arg: OwnedArg) -> Option<Vec<u8>> {
        match self.values.get(&(id, arg)) {
            Some(Got::One(Held::Text(text))) => Some(text.clone()),
            _ => None,
        }
    }

    fn imply_parts_of_path(&mut self) {
        let path = match self.values.get(&(FieldId::FD_NAME, OwnedArg::None)) {
            Some(Got::One(Held::Text(path))) if path.starts_with(b"/") => path.clone(),
            _ => return,
        };
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        let directory = if slash == 0 { b"/".to_vec() } else { path[..slash].to_vec() };
        for (id, text) in [(FieldId::FD_DIRECTORY, directory), (FieldId::FD_FILENAME, path[slash + 1..].to_vec())] {
            self.values.entry((id, OwnedArg::None)).or_insert(Got::One(Held::Text(text)));
        }
    }

    fn find(&self, field: FieldRef<'_>) -> Option<&Got> {
        let arg = match field.arg {
            Arg::None => OwnedArg::None,
            Arg::Index(index) => OwnedArg::Index(index),
            Arg::Key(key) => OwnedArg::Key(key.into()),
        };
        self.values.get(&(field.id, arg))
    }
}

impl Facts for CaseFacts {
    fn event(&self) -> EventCode {
        self.code
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        match self.find(field) {
            None | Some(Got::Missing) => Fact::Missing(Reason::Unknown),
            Some(Got::Pending) => Fact::Pending,
            Some(Got::One(value)) => Fact::One(value.lend()),
            Some(Got::Many(values)) => Fact::Many(values.len()),
        }
    }

    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_> {
        match self.find(field) {
            Some(Got::Many(values)) if index < values.len() => Fact::One(values[index].lend()),
            _ => Fact::Missing(Reason::Unknown),
        }
    }
}

impl Held {
    fn lend(&self) -> Value<'_> {
        match self {
            Self::Text(text) => Value::Text(text),
            Self::Bytes(bytes) => Value::Bytes(bytes),
            Self::Bool(value) => Value::Bool(*value),
            Self::I64(value) => Value::I64(*value),
            Self::U64(value) => Value::U64(*value),
            Self::F64(value) => Value::F64(*value),
            Self::Ip(value) => Value::Ip(*value),
        }
    }
}

/// A scalar as a value of a type.
fn held(value: &Yaml, ty: Type) -> Option<Held> {
    let text = match value {
        Yaml::String(text) => Some(text.clone()),
        Yaml::Number(number) => Some(number.to_string()),
        Yaml::Bool(value) => Some(value.to_string()),
        _ => None,
    };
    Some(match ty.class() {
        Class::Text => Held::Text(text?.into_bytes()),
        Class::Bytes => Held::Bytes(text?.into_bytes()),
        Class::Bool => Held::Bool(value.as_bool()?),
        Class::Signed(_) => Held::I64(value.as_i64()?),
        Class::Unsigned(_) => Held::U64(value.as_u64()?),
        Class::Double => Held::F64(value.as_f64()?),
        Class::Ip | Class::Net => Held::Ip(text?.parse().ok()?),
        Class::Opaque => return None,
    })
}
