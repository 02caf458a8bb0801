//! What the loaded rules need from a sensor, so that events no rule can match never leave the kernel.
//!
//! Only ever too much, never too little: where a condition cannot be told, everything is needed.

use crate::catalogue::FieldId;
use crate::event::{EventSet, SYSCALLS};
use crate::parse::{Expr, Op, Operand, Right};
use crate::rule::Rule;

/// What the enabled rules need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Events that some rule can match.
    pub events: EventSet,
    /// Names of the generic system calls that some rule can match; none means all of them (if `events` has the
    /// generic event at all).
    pub generic_calls: Option<Vec<&'static str>>,
    /// Fields that conditions and outputs read, each once, ordered.
    pub fields: Vec<FieldId>,
    /// Opens (`open`, `openat`, `openat2`, ...) that some rule can match.
    pub opens: Opens,
    /// Per event code number: whether only events of containers can match.
    pub container_only: EventSet,
    /// Events of which some rule can match a failed call.
    pub failed: EventSet,
    /// Messages (`sendto`, `recvfrom`, ...) matter that name no address, such as those of a stream.
    pub plain_messages: bool,
    /// Domain names that conditions compare addresses with (`fd.sip.name` and its like), ordered: only these have to be
    /// resolved.
    pub domains: Vec<String>,
}

/// Which opens are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opens {
    /// Opens for reading, `O_RDWR` included.
    pub read: bool,
    /// Opens for writing, `O_RDWR` included.
    pub write: bool,
}

impl Needs {
    /// Whether any rule reads a field.
    pub fn reads(&self, field: FieldId) -> bool {
        self.fields.binary_search(&field).is_ok()
    }

    /// Whether any rule reads the environment of a process.
    pub fn environment(&self) -> bool {
        self.reads(FieldId::PROC_ENV) || self.reads(FieldId::PROC_AENV)
    }

    /// Whether any rule reads what is sent or received.
    pub fn data(&self) -> bool {
        [
            FieldId::EVT_BUFFER,
            FieldId::EVT_BUFLEN,
            FieldId::EVT_ARG,
            FieldId::EVT_RAWARG,
            FieldId::EVT_ARGS,
            FieldId::EVT_INFO,
        ]
        .into_iter()
        .any(|field| self.reads(field))
    }

    /// Whether any rule waits for a manifest's verdict or reads a digest.
    pub fn digests(&self) -> bool {
        self.fields.iter().any(|field| FieldId::MANIFEST_VERDICT <= *field && *field <= FieldId::LIB_VERDICT)
    }
}

impl Needs {
    /// For no rule at all.
    pub(crate) fn nothing() -> Self {
        Self {
            events: EventSet::EMPTY,
            generic_calls: Some(Vec::new()),
            fields: Vec::new(),
            opens: Opens { read: false, write: false },
            container_only: EventSet::EMPTY,
            failed: EventSet::EMPTY,
            plain_messages: false,
            domains: Vec::new(),
        }
    }

    /// For rules with their conditions, of which `events` can match at all.
    pub(crate) fn of<'a>(rules: impl Iterator<Item = (&'a Rule, &'a Expr)>, events: EventSet) -> Self {
        let mut needs = Self::nothing();
        needs.events = events;
        let named = |names: &[&str]| names.iter().fold(EventSet::EMPTY, |set, name| set.union(&EventSet::named(name)));
        let opens = named(&["open", "openat", "openat2", "open_by_handle_at", "creat"]);
        let messages = named(&["sendto", "sendmsg", "sendmmsg", "recvfrom", "recvmsg", "recvmmsg"]);
        let generic = EventSet::named("uname");
        let mut host = EventSet::EMPTY;
        for (rule, condition) in rules {
            needs.fields.extend(&rule.fields);
            let must = Must::of(condition, None).unwrap_or_default();
            if let Some(must) = for_some(rule, condition, &opens) {
                needs.opens.read |= !must.open_write;
                needs.opens.write |= !must.open_read;
            }
            needs.plain_messages |= for_some(rule, condition, &messages).is_some_and(|must| !must.named);
            if rule.fields.iter().any(|field| DOMAIN_FIELDS.contains(field)) {
                domains(condition, &mut needs.domains);
            }
            if !must.container {
                host = host.union(&rule.events);
            }
            if !must.success {
                // Only of an open does the descriptor's number say that it succeeded.
                let opened = for_some(rule, condition, &opens).is_none_or(|must| must.opened || must.success);
                let may_fail = if opened { rule.events.intersection(&opens.complement()) } else { rule.events };
                needs.failed = needs.failed.union(&may_fail);
            }
            if !rule.events.intersection(&generic).is_empty() {
                match (names(condition), &mut needs.generic_calls) {
                    (Some(more), Some(calls)) => calls.extend(more),
                    (_, calls) => *calls = None,
                }
            }
        }
        needs.fields.sort_unstable();
        needs.fields.dedup();
        needs.domains.sort_unstable();
        needs.domains.dedup();
        if let Some(calls) = &mut needs.generic_calls {
            calls.sort_unstable();
            calls.dedup();
        }
        needs.container_only = needs.events.intersection(&host.complement());
        needs.failed = needs.failed.intersection(&needs.events);
        needs
    }
}

/// What must hold for a rule to match one of `events`; nothing if it cannot.
fn for_some(rule: &Rule, condition: &Expr, events: &EventSet) -> Option<Must> {
    if rule.events.intersection(events).is_empty() { None } else { Must::of(condition, Some(events)) }
}

/// What must hold for a condition to be true, as far as it can be told.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
struct Must {
    container: bool,
    open_read: bool,
    open_write: bool,
    success: bool,
    /// The event's descriptor has a number.
    opened: bool,
    /// The event itself gave the socket its far end.
    named: bool,
}

impl Must {
    /// For an event, one of `events` where they are given; nothing where the condition cannot be true for it.
    fn of(expr: &Expr, events: Option<&EventSet>) -> Option<Self> {
        Some(match expr {
            Expr::And(children, _) => {
                let mut all = Self::default();
                for child in children {
                    all = all.either(Self::of(child, events)?);
                }
                all
            }
            Expr::Or(children, _) => children.iter().filter_map(|child| Self::of(child, events)).reduce(Self::both)?,
            Expr::Not(child, _) => match child.as_ref() {
                Expr::Check {
                    left: Operand::Field { name, arg: None, .. },
                    op: Op::Eq | Op::EqEq,
                    right,
                    modifier: None,
                    ..
                } => Self { container: name == "container.id" && is(right, "host"), ..Self::default() },
                _ => Self::default(),
            },
            Expr::Check { left: Operand::Field { name, arg: None, .. }, op, right, modifier: None, .. } => {
                if events.is_some_and(|events| names(expr).is_some_and(|names| none_of(&names, events))) {
                    return None;
                }
                let equal = matches!(op, Op::Eq | Op::EqEq);
                let at_least_zero =
                    (*op == Op::Ge && is(right, "0")) || (*op == Op::Gt && (is(right, "0") || is(right, "-1")));
                Self {
                    container: name == "container.id" && *op == Op::Ne && is(right, "host"),
                    open_read: name == "evt.is_open_read" && equal && is(right, "true"),
                    open_write: name == "evt.is_open_write" && equal && is(right, "true"),
                    success: match name.as_str() {
                        "evt.rawres" => at_least_zero,
                        "evt.res" => equal && is(right, "SUCCESS"),
                        "evt.failed" => equal && is(right, "false"),
                        _ => false,
                    },
                    opened: name == "fd.num" && at_least_zero,
                    named: name == "fd.name_changed" && equal && is(right, "true"),
                }
            }
            _ => Self::default(),
        })
    }

    const fn either(self, other: Self) -> Self {
        Self {
            container: self.container || other.container,
            open_read: self.open_read || other.open_read,
            open_write: self.open_write || other.open_write,
            success: self.success || other.success,
            opened: self.opened || other.opened,
            named: self.named || other.named,
        }
    }

    const fn both(self, other: Self) -> Self {
        Self {
            container: self.container && other.container,
            open_read: self.open_read && other.open_read,
            open_write: self.open_write && other.open_write,
            success: self.success && other.success,
            opened: self.opened && other.opened,
            named: self.named && other.named,
        }
    }
}

fn none_of(names: &[&str], events: &EventSet) -> bool {
    names.iter().all(|name| EventSet::named(name).intersection(events).is_empty())
}

fn is(right: &Right, text: &str) -> bool {
    match right {
        Right::Value(value, _) => value == text.as_bytes(),
        Right::List(values, _) => matches!(values.as_slice(), [value] if value == text.as_bytes()),
        Right::Operand(_) => false,
    }
}

/// Fields that are names of an address.
const DOMAIN_FIELDS: [FieldId; 4] =
    [FieldId::FD_CIP_NAME, FieldId::FD_SIP_NAME, FieldId::FD_LIP_NAME, FieldId::FD_RIP_NAME];

/// The names that a condition compares addresses with. What is no text resolves to nothing, and is left out.
fn domains(expr: &Expr, found: &mut Vec<String>) {
    match expr {
        Expr::And(children, _) | Expr::Or(children, _) => children.iter().for_each(|child| domains(child, found)),
        Expr::Not(child, _) => domains(child, found),
        Expr::Check {
            left: Operand::Field { name, .. },
            op: Op::Eq | Op::EqEq | Op::Ne | Op::In | Op::Intersects,
            right,
            ..
        } if matches!(name.as_str(), "fd.cip.name" | "fd.sip.name" | "fd.lip.name" | "fd.rip.name") => {
            let values = match right {
                Right::Value(value, _) => std::slice::from_ref(value),
                Right::List(values, _) => values,
                Right::Operand(_) => return,
            };
            found.extend(values.iter().filter_map(|value| String::from_utf8(value.clone()).ok()));
        }
        _ => {}
    }
}

/// Names of events that a condition that is true must have one of; nothing if it can be true for any.
fn names(expr: &Expr) -> Option<Vec<&'static str>> {
    match expr {
        Expr::And(children, _) => children.iter().find_map(|child| names(child)),
        Expr::Or(children, _) => {
            let mut all = Vec::new();
            for child in children {
                all.extend(names(child)?);
            }
            Some(all)
        }
        Expr::Check {
            left: Operand::Field { name, arg: None, .. },
            op: Op::Eq | Op::EqEq | Op::In,
            modifier: None,
            right,
            ..
        } if name == "evt.type" || name == "syscall.type" => {
            let values = match right {
                Right::Value(value, _) => std::slice::from_ref(value),
                Right::List(values, _) => values,
                Right::Operand(_) => return None,
            };
            let known = |value: &Vec<u8>| SYSCALLS.iter().copied().find(|call| call.as_bytes() == value);
            Some(values.iter().filter_map(known).collect())
        }
        _ => None,
    }
}
