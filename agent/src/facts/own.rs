//! Which fields of an event are its own: functions of what the programs hash of it (`agent-common/src/own.rs`). Only
//! these are answered when the rules are asked whether they can match the like of an event, whoever does it; all others
//! are [`Fact::Pending`]. A field is foreign unless it is listed here.

use agent_common::{EventGroup, EventType, OwnFacts, Parameter};
use purser_rules::{Arg, EventCode, Fact, Facts, FieldId, FieldRef};

use super::{Sight, code, collected};
use crate::event::{Address, Body, Socket};

/// How far a field depends on the event alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// It does.
    Yes,
    /// It does once this argument of the call is hashed.
    Argument(u8),
    /// It does for processes of the host.
    OfHost,
    /// Some events of the type leave it open.
    Sometimes,
    /// Something else decides it, and what.
    No(&'static str),
}

const PROCESS: &str = "depends on who does it";
const NUMBER: &str = "differs from one call to the next";
const LATER: &str = "may be another one tomorrow";
const UNHASHED: &str = "is not among the facts that are hashed";

/// Of every event: its type and constants of it, and whether it failed.
const EVENT: &[FieldId] = &[
    FieldId::EVT_TYPE,
    FieldId::EVT_TYPE_IS,
    FieldId::SYSCALL_TYPE,
    FieldId::EVT_CATEGORY,
    FieldId::EVT_SOURCE,
    FieldId::EVT_DIR,
    FieldId::EVT_IS_ASYNC,
    FieldId::EVT_IS_IO,
    FieldId::EVT_IS_IO_READ,
    FieldId::EVT_IS_IO_WRITE,
    FieldId::EVT_IS_WAIT,
    FieldId::EVT_IS_SYSLOG,
    FieldId::EVT_IS_OPEN_READ,
    FieldId::EVT_IS_OPEN_WRITE,
    FieldId::EVT_IS_OPEN_CREATE,
    FieldId::EVT_IS_OPEN_EXEC,
    FieldId::EVT_IO_URING,
    FieldId::EVT_ARG_SOURCE,
    FieldId::EVT_FAILED,
    FieldId::EVT_RES,
    FieldId::EVT_COUNT_ERROR,
    FieldId::EVT_ABSPATH,
    FieldId::FS_PATH_NAME,
    FieldId::FS_PATH_NAMERAW,
    FieldId::FS_PATH_SOURCE,
    FieldId::FS_PATH_SOURCERAW,
    FieldId::FS_PATH_TARGET,
    FieldId::FS_PATH_TARGETRAW,
    FieldId::EVT_BUFFER,
];

/// Names and kind of a file or socket.
const DESCRIPTOR: &[FieldId] = &[
    FieldId::FD_TYPE,
    FieldId::FD_TYPECHAR,
    FieldId::FD_NAMERAW,
    FieldId::FD_DIRECTORY,
    FieldId::FD_FILENAME,
    FieldId::FD_REALPATH,
    FieldId::FD_SOCKFAMILY,
    FieldId::FD_L4PROTO,
    FieldId::FD_IS_SERVER,
    FieldId::FD_CONNECTED,
];

/// Of an open also what its file has in the overlay's layers.
const LAYERS: &[FieldId] = &[FieldId::FD_IS_UPPER_LAYER, FieldId::FD_IS_LOWER_LAYER];

/// The ends of a socket, of which only the far one is hashed: the port of the own one differs each time.
const ENDS: &[FieldId] = &[
    FieldId::FD_NAME,
    FieldId::FD_IP,
    FieldId::FD_NET,
    FieldId::FD_PORT,
    FieldId::FD_PROTO,
    FieldId::FD_CIP,
    FieldId::FD_CNET,
    FieldId::FD_CPORT,
    FieldId::FD_CPROTO,
    FieldId::FD_SIP,
    FieldId::FD_SNET,
    FieldId::FD_SPORT,
    FieldId::FD_SPROTO,
    FieldId::FD_LIP,
    FieldId::FD_LNET,
    FieldId::FD_LPORT,
    FieldId::FD_LPROTO,
    FieldId::FD_RIP,
    FieldId::FD_RNET,
    FieldId::FD_RPORT,
    FieldId::FD_RPROTO,
];

/// Whether a field of events of a type is their own.
pub(crate) fn own(event: EventType, field: FieldRef<'_>) -> Own {
    let id = field.id;
    match id {
        FieldId::EVT_ARG | FieldId::EVT_RAWARG => return parameter(event, field.arg),
        FieldId::EVT_RAWRES => return Own::No(NUMBER),
        FieldId::FD_NUM => return number(event),
        FieldId::FD_CIP_NAME | FieldId::FD_SIP_NAME | FieldId::FD_LIP_NAME | FieldId::FD_RIP_NAME => {
            return Own::No(LATER);
        }
        _ => {}
    }
    let is_open = event.group() == EventGroup::Open;
    if EVENT.contains(&id) || DESCRIPTOR.contains(&id) || (is_open && LAYERS.contains(&id)) {
        Own::Yes
    } else if ENDS.contains(&id) {
        if is_open { Own::Yes } else { Own::Sometimes }
    } else if super::container::is_container_field(id) || collected::waits(id) {
        Own::OfHost
    } else if is_about_the_event(id) {
        Own::No(UNHASHED)
    } else {
        Own::No(PROCESS)
    }
}

fn is_about_the_event(id: FieldId) -> bool {
    super::fd::is_fd_field(id) || id.index() <= FieldId::EVT_IS_OPEN_CREATE.index()
}

/// The number of the event's descriptor: a new one is the call's result.
fn number(event: EventType) -> Own {
    let argument = event.parameters().iter().find_map(|parameter| match parameter {
        Parameter::New => Some(Own::No(NUMBER)),
        Parameter::Descriptor(argument) => Some(Own::Argument(*argument)),
        _ => None,
    });
    match (event.group(), argument) {
        (EventGroup::Call, None) => Own::Yes,
        (_, None) => Own::No(NUMBER),
        (_, Some(own)) => own,
    }
}

/// A parameter of an event, by its name or place.
fn parameter(event: EventType, arg: Arg<'_>) -> Own {
    let params = code(event).event().params;
    let (at, name) = match arg {
        Arg::Index(index) => match usize::try_from(index).ok().and_then(|at| Some((at, params.get(at)?))) {
            Some((at, param)) => (Some(at), param.name.as_bytes()),
            None => return Own::Yes,
        },
        Arg::Key(name) => (params.iter().position(|param| param.name.as_bytes() == name), name),
        Arg::None => return Own::Yes,
    };
    match event.group() {
        EventGroup::Open => match name {
            b"name" | b"path" | b"flags" | b"creat_flags" | b"mode" => Own::Yes,
            _ => Own::No(UNHASHED),
        },
        EventGroup::Connect => match name {
            b"res" | b"addr" => Own::Yes,
            b"tuple" => Own::Sometimes,
            _ => Own::No(UNHASHED),
        },
        // Beside what was asked for it has what every exec has: facts of the process.
        EventGroup::Call if event.is_failed_exec() => match name {
            b"res" | b"exe" | b"args" | b"filename" => Own::Yes,
            _ => Own::No(PROCESS),
        },
        // One that rules know by its name alone has nothing but constants.
        EventGroup::Call => match at.and_then(|at| event.parameters().get(at)) {
            Some(Parameter::Value(argument)) => Own::Argument(*argument),
            None
            | Some(
                Parameter::Unknown
                | Parameter::Path(_)
                | Parameter::PathAt(..)
                | Parameter::Text(_)
                | Parameter::Data(_)
                | Parameter::MessageData(_),
            ) => Own::Yes,
            Some(Parameter::Result | Parameter::New) => Own::No(NUMBER),
            Some(Parameter::Inheritable | Parameter::Permitted | Parameter::Effective) => Own::No(PROCESS),
            Some(_) => Own::No(UNHASHED),
        },
        _ => Own::No(UNHASHED),
    }
}

/// An event of which only its own facts are known.
pub(crate) struct OwnSight<'a> {
    sight: &'a Sight<'a>,
    /// What is hashed of it.
    own: u8,
}

impl<'a> OwnSight<'a> {
    /// `own`: what the policy had hashed of the event.
    pub(crate) fn new(sight: &'a Sight<'a>, own: u8) -> Self {
        Self { sight, own }
    }

    fn knows(&self, field: FieldRef<'_>) -> bool {
        let header = &self.sight.event.header;
        match own(header.event, field) {
            Own::Yes => true,
            Own::Argument(argument) => self.own & 1 << argument != 0,
            Own::OfHost => self.own & OwnFacts::HOST != 0 && header.of_host && self.sight.container.is_none(),
            Own::Sometimes => self.end_is_known(field.id),
            // Whether a call failed is hashed, and how; a descriptor that it did not make has no number.
            Own::No(_) => {
                let result = match &self.sight.event.body {
                    Body::Open(open) => open.result,
                    Body::Connect(connect) => connect.result,
                    Body::Call(call) => call.result,
                    _ => 0,
                };
                field.id == FieldId::EVT_RAWRES && result < 0
            }
        }
    }

    fn socket(&self) -> Option<&Socket> {
        match &self.sight.event.body {
            Body::Connect(connect) => Some(&connect.socket),
            Body::Call(call) => call.socket.as_ref(),
            _ => None,
        }
    }

    /// Whether a fact of a socket's ends depends on the far one only.
    fn end_is_known(&self, field: FieldId) -> bool {
        let Some(socket) = self.socket() else { return true };
        // Only sockets of the internet have an own end that is not hashed.
        if !matches!(i32::from(socket.family), libc::AF_INET | libc::AF_INET6) {
            return true;
        }
        let accepts = matches!(self.sight.event.header.event, EventType::Accept | EventType::Accept4);
        let listens = matches!(self.sight.event.header.event, EventType::Listen | EventType::Bind);
        match field {
            FieldId::FD_RIP | FieldId::FD_RNET | FieldId::FD_RPORT | FieldId::FD_RPROTO
            // The elements tell.
            | FieldId::FD_IP | FieldId::FD_NET | FieldId::FD_PORT | FieldId::FD_PROTO => true,
            FieldId::FD_SIP | FieldId::FD_SNET | FieldId::FD_SPORT | FieldId::FD_SPROTO => !accepts && !listens,
            FieldId::FD_CIP | FieldId::FD_CNET | FieldId::FD_CPORT | FieldId::FD_CPROTO => accepts,
            // The far end alone where that is no address of the internet.
            FieldId::FD_NAME | FieldId::EVT_ARG | FieldId::EVT_RAWARG => {
                !accepts && !listens && !matches!(socket.remote, Address::Inet(_))
            }
            _ => false,
        }
    }
}

impl Facts for OwnSight<'_> {
    fn event(&self) -> EventCode {
        self.sight.event()
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        if self.knows(field) { self.sight.fact(field) } else { Fact::Pending }
    }

    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_> {
        let end = match (field.id, index) {
            (FieldId::FD_IP | FieldId::FD_NET | FieldId::FD_PORT | FieldId::FD_PROTO, 0) => FieldId::FD_CIP,
            (FieldId::FD_IP | FieldId::FD_NET | FieldId::FD_PORT | FieldId::FD_PROTO, _) => FieldId::FD_SIP,
            _ => return Fact::Pending,
        };
        if self.knows(end.plain()) { self.sight.element(field, index) } else { Fact::Pending }
    }
}

#[cfg(test)]
mod tests;
