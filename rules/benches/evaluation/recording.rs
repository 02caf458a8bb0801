//! Events as `agent/examples/record.rs` wrote them down: each a row of numbers of values, one per field.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::sync::Arc;

use flate2::read::GzDecoder;
use purser_rules::{Arg, Catalogue, EventCode, Fact, Facts, FieldId, FieldRef, Reason, Value};
use serde::Deserialize;

/// Package installation and compilation in a container.
const RECORDING: &[u8] = include_bytes!("../recording.jsonl.gz");

/// The first line.
#[derive(Deserialize)]
struct Header {
    /// Name of a field and its argument: a number, a text, or null.
    fields: Vec<(String, serde_json::Value)>,
    /// The first is null: no value.
    values: Vec<Option<Held>>,
}

/// A value, and how the agent holds it.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Held {
    Pending,
    Text(String),
    Bytes(String),
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Ip(IpAddr),
    Many(Vec<Option<Self>>),
}

/// What all events share.
struct Table {
    values: Vec<Option<Held>>,
    /// Per field the column of its value without argument.
    plain: Vec<Option<usize>>,
    indexed: HashMap<(FieldId, u64), usize>,
    keyed: Vec<(FieldId, Box<[u8]>, usize)>,
}

/// One event under one name of its file.
pub(crate) struct Recorded {
    table: Arc<Table>,
    code: EventCode,
    /// From 1.
    number: u64,
    row: Vec<u32>,
}

/// Reads the recording.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read() -> Result<Vec<Recorded>, String> {
    let mut lines = BufReader::new(GzDecoder::new(RECORDING)).lines();
    let mut line = || lines.next().transpose().map_err(|error| error.to_string());
    let header = line()?.ok_or("the recording is empty")?;
    let header: Header = serde_json::from_str(&header).map_err(|error| error.to_string())?;
    let table = Arc::new(table(header)?);
    let mut events = Vec::new();
    while let Some(line) = line()? {
        let row: Vec<serde_json::Value> = serde_json::from_str(&line).map_err(|error| error.to_string())?;
        let [name, row @ ..] = row.as_slice() else { return Err("an event without a name".to_owned()) };
        let code = name.as_str().and_then(EventCode::by_name).ok_or(format!("there is no event {name}"))?;
        let number = |value: &serde_json::Value| {
            let number = value.as_u64().filter(|number| *number < table.values.len() as u64);
            number.map(|number| number as u32).ok_or(format!("{value} is not the number of a value"))
        };
        let row = row.iter().map(number).collect::<Result<_, _>>()?;
        let number = events.len() as u64 + 1;
        events.push(Recorded { table: Arc::clone(&table), code, number, row });
    }
    Ok(events)
}

fn table(header: Header) -> Result<Table, String> {
    let catalogue = Catalogue::builtin();
    let mut table = Table {
        values: header.values,
        plain: vec![None; catalogue.fields().len()],
        indexed: HashMap::new(),
        keyed: Vec::new(),
    };
    for (column, (name, arg)) in header.fields.into_iter().enumerate() {
        let id = catalogue.get(&name).ok_or(format!("there is no field {name}: make a new recording"))?.id;
        match arg {
            serde_json::Value::Number(index) => {
                table.indexed.insert((id, index.as_u64().unwrap_or_default()), column);
            }
            serde_json::Value::String(key) => table.keyed.push((id, key.into_bytes().into(), column)),
            _ => table.plain[id.index()] = Some(column),
        }
    }
    Ok(table)
}

impl Recorded {
    fn find(&self, field: FieldRef<'_>) -> Option<&Held> {
        let column = match field.arg {
            Arg::None => *self.table.plain.get(field.id.index())?,
            Arg::Index(index) => self.table.indexed.get(&(field.id, index)).copied(),
            Arg::Key(wanted) => {
                let found = self.table.keyed.iter().find(|(id, key, _)| *id == field.id && **key == *wanted);
                found.map(|(.., column)| *column)
            }
        };
        let number = *self.row.get(column?)?;
        self.table.values.get(number as usize)?.as_ref()
    }
}

impl Facts for Recorded {
    fn event(&self) -> EventCode {
        self.code
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        if field.id == FieldId::EVT_NUM {
            return Fact::One(Value::U64(self.number));
        }
        match self.find(field) {
            None => Fact::Missing(Reason::Unknown),
            Some(Held::Pending) => Fact::Pending,
            Some(Held::Many(values)) => Fact::Many(values.len()),
            Some(held) => held.lend().map_or(Fact::Missing(Reason::Unknown), Fact::One),
        }
    }

    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_> {
        let value = match self.find(field) {
            Some(Held::Many(values)) => values.get(index).and_then(Option::as_ref).and_then(Held::lend),
            _ => None,
        };
        value.map_or(Fact::Missing(Reason::Unknown), Fact::One)
    }
}

impl Held {
    fn lend(&self) -> Option<Value<'_>> {
        Some(match self {
            Self::Text(text) => Value::Text(text.as_bytes()),
            Self::Bytes(bytes) => Value::Bytes(bytes.as_bytes()),
            Self::Bool(value) => Value::Bool(*value),
            Self::Signed(value) => Value::I64(*value),
            Self::Unsigned(value) => Value::U64(*value),
            Self::Ip(value) => Value::Ip(*value),
            Self::Many(_) | Self::Pending => return None,
        })
    }
}
