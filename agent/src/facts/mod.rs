//! What rules see of an event: [`Sight`] answers each field of the catalogue from the event, its process, its
//! container and its verdict. One file per class of fields. It reads nothing from the machine but user databases and domain names,
//! and those through [`Outside`].

mod call;
pub mod collected;
mod container;
mod evt;
mod fd;
mod flags;
mod manifest;
mod names;
mod own;
mod proc;

#[cfg(test)]
mod tests;

use std::cell::OnceCell;
use std::sync::Arc;

use bumpalo::Bump;
use purser_rules::format::Clock;
use purser_rules::{EventCode, Fact, Facts, FieldId, FieldRef, Reason, Value};

pub(crate) use evt::code;
pub use names::Names;
pub(crate) use own::{Own, OwnSight, own};

use crate::container::Container;
use crate::event::Event;
use crate::outside::Outside;
use crate::process::{Process, ProcessTable, User};

/// Where a process's ancestors are found.
#[derive(Debug, Clone, Copy)]
pub enum Lineage<'a> {
    /// In the table as it is now.
    Table(&'a ProcessTable),
    /// In a list that was kept when the event had to wait: its ancestors and the leaders of its session and group.
    Kept(&'a [Arc<Process>]),
}

/// One event under one of its names.
pub struct Sight<'a> {
    /// Running number of the event.
    pub number: u64,
    /// The event.
    pub event: &'a Event,
    /// Its process (after the event was applied).
    pub process: &'a Process,
    /// Its process's ancestors.
    pub lineage: Lineage<'a>,
    /// Its container; `None` on the host.
    pub container: Option<&'a Container>,
    /// The name under which its file is looked at; empty where it has none.
    pub name: &'a [u8],
    /// Realtime minus boot time, ns.
    pub epoch_offset_ns: i64,
    /// When the agent started, ns since boot.
    pub started_boot_ns: u64,
    /// The previous event, ns since boot; 0 for the first.
    pub previous_boot_ns: u64,
    /// Local time.
    pub clock: Clock,
    /// For users, groups and domain names.
    pub outside: &'a dyn Outside,
    /// Composed texts live here until the event is done.
    pub arena: &'a Bump,
    /// The user's account, asked for once.
    pub user: OnceCell<Option<User>>,
}

impl std::fmt::Debug for Sight<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sight").field("number", &self.number).field("event", self.event).finish_non_exhaustive()
    }
}

const NOT_APPLICABLE: Fact<'static> = Fact::Missing(Reason::NotApplicable);
const UNKNOWN: Fact<'static> = Fact::Missing(Reason::Unknown);
const NOT_COLLECTED: Fact<'static> = Fact::Missing(Reason::NotCollected);

impl Sight<'_> {
    /// Time of the event, ns since the epoch.
    pub fn epoch_ns(&self) -> u64 {
        self.event.header.boot_ns.saturating_add_signed(self.epoch_offset_ns)
    }

    /// Keeps `text` as long as the event is looked at.
    fn keep(&self, text: &[u8]) -> &[u8] {
        self.arena.alloc_slice_copy(text)
    }

    fn keep_text(&self, text: &[u8]) -> Fact<'_> {
        Fact::text(self.keep(text))
    }
}

impl Facts for Sight<'_> {
    fn event(&self) -> EventCode {
        code(self.event.header.event)
    }

    fn fact(&self, field: FieldRef<'_>) -> Fact<'_> {
        // Fields are numbered in the order of the catalogue, class by class; each file takes the ids it knows.
        self.evt_fact(field)
            .or_else(|| self.proc_fact(field))
            .or_else(|| self.fd_fact(field))
            .or_else(|| self.container_fact(field))
            .or_else(|| self.manifest_fact(field))
            .unwrap_or(NOT_COLLECTED)
    }

    fn element(&self, field: FieldRef<'_>, index: usize) -> Fact<'_> {
        match field.id {
            FieldId::FD_IP | FieldId::FD_PORT | FieldId::FD_NET | FieldId::FD_PROTO => self.fd_end(field.id, index),
            FieldId::FD_CIP_NAME | FieldId::FD_SIP_NAME | FieldId::FD_LIP_NAME | FieldId::FD_RIP_NAME => {
                self.domain(field.id, index)
            }
            _ => self.ancestor_fact(field.id, index),
        }
    }

    fn clock(&self) -> Clock {
        self.clock
    }
}

const fn boolean(value: bool) -> Fact<'static> {
    Fact::One(Value::Bool(value))
}

const fn signed(value: i64) -> Fact<'static> {
    Fact::One(Value::I64(value))
}

const fn unsigned(value: u64) -> Fact<'static> {
    Fact::One(Value::U64(value))
}

fn text_or_missing(text: Option<&str>) -> Fact<'_> {
    text.map_or(UNKNOWN, |text| Fact::text(text.as_bytes()))
}
