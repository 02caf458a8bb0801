//! All the engine knows of an event: the [`Facts`] trait and the values it answers with.
//!
//! Nothing here knows where facts come from. Values are borrowed; evaluation of an event that matches nothing must not
//! allocate, so an implementation keeps composed texts (a command line, a socket's name) in a cell of its own and
//! lends them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::catalogue::FieldId;
use crate::event::EventCode;
use crate::format::Clock;

/// An event, as the rules see it.
///
/// The engine asks for the facts a rule needs and for no others, each at most once per predicate.
pub trait Facts {
    /// What happened. The names of [`FieldId::EVT_TYPE`] and [`FieldId::SYSCALL_TYPE`] are asked for as facts, too.
    fn event(&self) -> EventCode;

    /// The value of a field.
    ///
    /// Time fields that are text (`evt.time`, `evt.datetime` ...) are never asked for: the engine prints them from
    /// [`FieldId::EVT_RAWTIME`], with the [`clock`](Self::clock).
    fn fact(&self, field: FieldRef<'_>) -> Fact<'_>;

    /// Element `index` of a fact that was answered with [`Fact::Many`].
    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_>;

    /// The local time in which clock fields are compared and printed; UTC unless an implementation says otherwise.
    fn clock(&self) -> Clock {
        Clock::default()
    }
}

/// A field with its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldRef<'a> {
    /// Which field.
    pub id: FieldId,
    /// Its argument.
    pub arg: Arg<'a>,
}

/// Argument of a field, parsed when the rule was compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arg<'a> {
    /// None was given.
    None,
    /// A number: `proc.aname[2]`, `evt.arg[0]`, `container.mount.dest[0]`.
    Index(u64),
    /// A name: `evt.arg.flags`, `proc.env[HOME]`, `thread.cgroup.cpu`; for `evt.abspath.src` it is `src`.
    Key(&'a [u8]),
}

/// What is known about a field of an event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fact<'a> {
    /// There is no value: every check of the field is false.
    Missing(Reason),
    /// The value will be known later: a rule that depends on it is neither true nor false until then.
    Pending,
    /// One value.
    One(Value<'a>),
    /// So many values, to be asked for one by one with [`Facts::element`]: the elements of a list field, the ancestors
    /// of an ancestor field without index (nearest first, the process itself excluded; a further element at index
    /// `n` does not exist), the two ends of `fd.ip`, `fd.port`, `fd.proto`, `fd.net`, or the names of the address of
    /// `fd.sip.name` and its like (none is an answer, too).
    Many(usize),
}

/// Why a field has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Events of this kind do not have it.
    NotApplicable,
    /// It is not known for this event.
    Unknown,
    /// The sensor does not collect it.
    NotCollected,
}

/// A value. The engine knows the type of each field; a value only says how it is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Text: any bytes.
    Text(&'a [u8]),
    /// A buffer.
    Bytes(&'a [u8]),
    /// True or false.
    Bool(bool),
    /// A number that may be negative.
    I64(i64),
    /// A number, port or time in nanoseconds.
    U64(u64),
    /// A fraction.
    F64(f64),
    /// An address; also the answer to a network field such as `fd.snet`.
    Ip(IpAddr),
    /// A network.
    Net(IpNet),
}

impl<'a> Fact<'a> {
    /// A fact that holds text.
    pub const fn text(bytes: &'a [u8]) -> Self {
        Self::One(Value::Text(bytes))
    }
}

impl fmt::Display for Arg<'_> {
    /// As it follows the field's name in a condition.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Index(index) => write!(f, "[{index}]"),
            Self::Key(key) => write!(f, "[{}]", String::from_utf8_lossy(key)),
        }
    }
}

impl FieldId {
    /// The field without argument.
    pub const fn plain(self) -> FieldRef<'static> {
        FieldRef { id: self, arg: Arg::None }
    }
}
