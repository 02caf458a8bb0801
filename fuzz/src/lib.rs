//! An event whose every fact is made from the fuzzer's bytes: what a container's processes could put into names, arguments and
//! paths, and values of types that the field does not have.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;

use purser_rules::{Arg, EventCode, Fact, Facts, FieldId, FieldRef, Reason, Value};

/// An event of the fuzzer's bytes. Equal questions get equal answers, as from a sensor.
#[derive(Debug)]
pub struct Bytes<'a> {
    code: EventCode,
    data: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// The first byte chooses the event, all others are facts.
    pub fn new(data: &'a [u8]) -> Self {
        let current = EventCode::current();
        let nth = data.first().map_or(0, |byte| usize::from(*byte));
        Self { code: current[nth % current.len()].1, data: data.get(1..).unwrap_or_default() }
    }

    fn value(&self, seed: u64) -> Fact<'_> {
        let Some(start) = (seed as usize).checked_rem(self.data.len()) else { return Fact::Missing(Reason::Unknown) };
        let rest = &self.data[start..];
        let kind = rest[0] ^ (seed >> 32) as u8;
        let length = rest.get(1).map_or(0, |byte| usize::from(*byte)).min(rest.len());
        let mut number = [0; 16];
        for (to, from) in number.iter_mut().zip(rest.iter().skip(1)) {
            *to = *from;
        }
        let wide = u128::from_le_bytes(number);
        let number = wide as u64;
        Fact::One(match kind % 16 {
            0 => return Fact::Missing(Reason::Unknown),
            1 => return Fact::Pending,
            2 => Value::Bytes(&rest[..length]),
            3 => Value::Bool(number & 1 == 1),
            4 => Value::I64(number as i64),
            5 => Value::U64(number),
            6 => Value::U64(u64::from(number as u8)),
            7 => Value::F64(f64::from_bits(number)),
            8 => Value::Ip(IpAddr::from((number as u32).to_ne_bytes())),
            9 => Value::Ip(IpAddr::from(wide.to_ne_bytes())),
            10 => return Fact::Many(usize::from(number as u8)),
            _ => Value::Text(&rest[..length]),
        })
    }
}

fn seed(field: FieldRef<'_>, element: Option<usize>) -> u64 {
    let mut hasher = DefaultHasher::new();
    field.id.index().hash(&mut hasher);
    match field.arg {
        Arg::None => 0_u8.hash(&mut hasher),
        Arg::Index(index) => index.hash(&mut hasher),
        Arg::Key(key) => key.hash(&mut hasher),
    }
    element.hash(&mut hasher);
    hasher.finish()
}

impl Facts for Bytes<'_> {
    fn event(&self) -> EventCode {
        self.code
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        match field.id {
            FieldId::EVT_TYPE => Fact::text(self.code.name().as_bytes()),
            FieldId::SYSCALL_TYPE if self.code.is_syscall() => Fact::text(self.code.name().as_bytes()),
            FieldId::SYSCALL_TYPE => Fact::Missing(Reason::NotApplicable),
            FieldId::EVT_NUM => Fact::One(Value::U64(seed(field, None) | 1)),
            _ => self.value(seed(field, None)),
        }
    }

    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_> {
        match self.value(seed(field, Some(index))) {
            Fact::Many(_) | Fact::Pending => Fact::Missing(Reason::Unknown),
            fact => fact,
        }
    }
}

/// What is before the first NUL, and what is after it.
pub fn split(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, &[]),
    }
}
