//! Parameters of plain calls: the event table says where each is, the rule language's table how it prints.

use std::borrow::Cow;

use agent_common::{Arch, Parameter as Source};
use bytes::Bytes;
use purser_rules::event::Event as Row;
use purser_rules::{Arg, Fact, FieldId, FieldRef, PrintFormat, Type, Value};

use super::evt::{Parameter, Raw, code, descriptor, result_name};
use super::names::{asked_for, from_own_root};
use super::{NOT_APPLICABLE, Sight, boolean, flags, unsigned};
use crate::event::{Address, Call, EventType, Task};

/// The numbering of the machine's own calls.
const NATIVE: Arch = if cfg!(target_arch = "aarch64") { Arch::Aarch64 } else { Arch::X86_64 };

impl Sight<'_> {
    /// The parameter called `name` of a call; none for an event that rules know by its name alone.
    pub(super) fn call_parameter(&self, call: &Call, name: &[u8]) -> Option<Parameter<'_>> {
        let event = self.event.header.event;
        if event.is_failed_exec() {
            return self.failed_exec_parameter(call, name);
        }
        let sources = event.parameters();
        if code(event).is_generic() {
            return match name {
                b"ID" => Some(Parameter::text(event.name().as_bytes())),
                b"nativeID" => event.call(NATIVE).map(|number| Parameter::unsigned(number.into())),
                _ => None,
            };
        }
        let (at, param) = code(event).event().param(name)?;
        let source = *sources.get(at)?;
        let number = |argument: u8| call.arguments.get(usize::from(argument)).copied().unwrap_or(0);
        Some(match source {
            Source::Result => match param.ty {
                Type::Errno if call.result < 0 => named(result_name(call.result), call.result),
                _ if param.print == PrintFormat::Hex => number_text(call.result as u64, param.ty, param.print),
                _ => Parameter::signed(call.result),
            },
            Source::New => descriptor(call.result, self.call_type_char(call), self.keep(&self.call_object_name(call))),
            Source::Descriptor(argument) => descriptor(
                i64::from(number(argument) as i32),
                self.call_type_char(call),
                self.keep(&self.call_object_name(call)),
            ),
            Source::Directory(argument) => match number(argument) as i32 {
                -100 => named("AT_FDCWD", -100),
                fd => descriptor(i64::from(fd), b'd', directory_of(call, sources, argument)),
            },
            Source::Path(_) | Source::PathAt(..) | Source::Text(_) => {
                let nth = sources.iter().take(at).filter(|source| is_text(**source)).count();
                Parameter::text(self.keep(&self.call_text(call, nth, source)))
            }
            Source::Value(argument) => {
                let value = number(argument);
                match flags::names(event.name(), param.name) {
                    Some(names) => {
                        // Upstream has numbers of its own for these, in fewer bits.
                        let value = if matches!(param.ty, Type::EnumFlags8) {
                            value & 0xffff_ffff
                        } else {
                            truncated(value, param.ty)
                        };
                        match names.of(value) {
                            text if text.is_empty() => Parameter::unsigned(value),
                            text => Parameter { text: text.into(), raw: Some(Raw::Unsigned(value)) },
                        }
                    }
                    None => number_text(value, param.ty, param.print),
                }
            }
            Source::Inheritable => number_text(self.event.task.capabilities.inheritable, param.ty, param.print),
            Source::Permitted => number_text(self.event.task.capabilities.permitted, param.ty, param.print),
            Source::Effective => number_text(self.event.task.capabilities.effective, param.ty, param.print),
            Source::Address(_) => {
                let socket = call.socket.as_ref();
                let end = socket.map(|socket| if call.result < 0 { &socket.remote } else { &socket.local });
                bytes(super::fd::address(end.unwrap_or(&Address::None)))
            }
            Source::Tuple | Source::TupleTo(_) | Source::TupleFrom(_) | Source::TupleMessage(_) => {
                let name = self.call_object_name(call);
                bytes(if name.is_empty() { b"NULL".to_vec() } else { name })
            }
            Source::Data(_) | Source::MessageData(_) => {
                bytes(if call.data.is_empty() { b"NULL".to_vec() } else { call.data.to_vec() })
            }
            Source::Texts(_) | Source::Unknown => return None,
        })
    }

    /// A parameter of an exec that failed: what it asked for, and otherwise the program that goes on.
    fn failed_exec_parameter(&self, call: &Call, name: &[u8]) -> Option<Parameter<'_>> {
        let mut argv = call.data.split(|byte| *byte == 0);
        let program = &self.process.program;
        Some(match name {
            b"res" => named(result_name(call.result), call.result),
            b"exe" => Parameter::text(self.keep(argv.next().unwrap_or_default())),
            b"args" => Parameter::text(self.keep(&argv.skip(1).collect::<Vec<_>>().join(&b' '))),
            b"filename" => Parameter::text(self.keep(&call.texts[0])),
            b"trusted_exepath" => Parameter::text(&program.path),
            b"exe_ino" => Parameter::unsigned(program.file?.ino),
            b"exe_ino_ctime" => Parameter::unsigned(program.file?.ctime_ns as u64),
            b"exe_ino_mtime" => Parameter::unsigned(program.file?.mtime_ns as u64),
            b"flags" => self.exec_flags_parameter(&program.file?),
            _ => return self.capability(name).or_else(|| self.task_parameter(name)),
        })
    }

    /// A text of a call. A path is absolute, but under the event's name as asked for it is as the caller wrote it.
    fn call_text(&self, call: &Call, nth: usize, source: Source) -> Bytes {
        let text = call.texts.get(nth).cloned().unwrap_or_default();
        let is_path = matches!(source, Source::Path(_) | Source::PathAt(..));
        if !is_path || self.is_as_asked(call) {
            return text;
        }
        from_own_root(&absolute(call, nth), &self.event.task)
    }

    /// Whether the event is looked at under the name that the caller wrote.
    fn is_as_asked(&self, call: &Call) -> bool {
        first_path(call, self.event.header.event.parameters()).is_some_and(|path| path == self.name)
    }
}

/// The first path that a call names, as the caller wrote it.
pub(super) fn first_path(call: &Call, sources: &[Source]) -> Option<Bytes> {
    let texts = sources.iter().filter(|source| is_text(**source));
    let nth = texts.enumerate().find(|(_, source)| !matches!(source, Source::Text(_)))?.0;
    call.texts.get(nth).cloned()
}

/// The same, made absolute.
pub(super) fn first_path_resolved(call: &Call, sources: &[Source], task: &Task) -> Option<Bytes> {
    let texts = sources.iter().filter(|source| is_text(**source));
    let nth = texts.enumerate().find(|(_, source)| !matches!(source, Source::Text(_)))?.0;
    let resolved = from_own_root(&absolute(call, nth), task);
    (!resolved.is_empty()).then_some(resolved)
}

const fn is_text(source: Source) -> bool {
    matches!(source, Source::Path(_) | Source::PathAt(..) | Source::Text(_))
}

/// The directory that a name of the call starts from, by the argument with its descriptor.
fn directory_of<'a>(call: &'a Call, sources: &[Source], argument: u8) -> &'a [u8] {
    let texts = sources.iter().filter(|source| is_text(**source)).enumerate();
    let mut from = texts.filter(|(_, source)| matches!(source, Source::PathAt(_, from) if *from == argument));
    from.next().and_then(|(nth, _)| call.directories.get(nth)).map_or(&[], |directory| directory)
}

fn named(name: &'static str, value: i64) -> Parameter<'static> {
    Parameter { text: Cow::Borrowed(name.as_bytes()), raw: Some(Raw::Signed(value)) }
}

fn bytes(text: Vec<u8>) -> Parameter<'static> {
    Parameter { text: Cow::Owned(text), raw: Some(Raw::Bytes) }
}

/// A register holds more than its argument.
const fn truncated(value: u64, ty: Type) -> u64 {
    match ty {
        Type::U8 | Type::I8 | Type::Flags8 | Type::EnumFlags8 | Type::SigType => value & 0xff,
        Type::U16 | Type::I16 | Type::Flags16 | Type::EnumFlags16 => value & 0xffff,
        Type::U64 | Type::I64 | Type::Dyn => value,
        _ => value & 0xffff_ffff,
    }
}

fn number_text(value: u64, ty: Type, print: PrintFormat) -> Parameter<'static> {
    let value = truncated(value, ty);
    let signed = match ty {
        Type::I32 | Type::Pid | Type::Pid32 | Type::Fd | Type::Fd32 | Type::Uid | Type::Gid => {
            Some(i64::from(value as i32))
        }
        Type::I64 => Some(value as i64),
        _ => None,
    };
    match (print, signed) {
        (PrintFormat::Hex, _) => {
            Parameter { text: Cow::Owned(format!("{value:X}").into_bytes()), raw: Some(Raw::Unsigned(value)) }
        }
        (PrintFormat::Oct, _) => {
            Parameter { text: Cow::Owned(format!("{value:o}").into_bytes()), raw: Some(Raw::Unsigned(value)) }
        }
        (_, Some(value)) => Parameter::signed(value),
        _ => Parameter::unsigned(value),
    }
}

/// The two ends of a call on two paths, by the places of its texts: source, then target. Of a link the source is the new
/// name, as upstream has it.
const fn two_paths(event: EventType) -> Option<(usize, usize)> {
    match event {
        EventType::Rename | EventType::Renameat | EventType::Renameat2 | EventType::Mount => Some((0, 1)),
        EventType::Link | EventType::Linkat | EventType::Symlink | EventType::Symlinkat => Some((1, 0)),
        _ => None,
    }
}

impl Sight<'_> {
    /// `fs.path.*`, `evt.abspath`, `evt.buffer` and `evt.buflen` of a call; none for other fields.
    pub(super) fn call_fact<'s>(&'s self, call: &'s Call, field: FieldRef<'_>) -> Option<Fact<'s>> {
        let event = self.event.header.event;
        let path = |nth: usize, raw: bool| {
            let text = match raw {
                true => call.texts.get(nth).cloned().unwrap_or_default(),
                false if self.is_as_asked(call) => absolute(call, nth),
                false => from_own_root(&absolute(call, nth), &self.event.task),
            };
            text_of(self.keep(&text))
        };
        Some(match field.id {
            FieldId::FS_PATH_NAME | FieldId::FS_PATH_NAMERAW => match event {
                EventType::Fchmod | EventType::Fchown => text_of(self.name),
                EventType::Chmod | EventType::Fchmodat => path(0, field.id == FieldId::FS_PATH_NAMERAW),
                EventType::Mkdir
                | EventType::Mkdirat
                | EventType::Rmdir
                | EventType::Unlink
                | EventType::Unlinkat
                | EventType::Umount
                | EventType::Umount2
                | EventType::Chown
                | EventType::Lchown
                | EventType::Fchownat
                    if call.result >= 0 =>
                {
                    path(0, field.id == FieldId::FS_PATH_NAMERAW)
                }
                _ => NOT_APPLICABLE,
            },
            FieldId::FS_PATH_SOURCE
            | FieldId::FS_PATH_SOURCERAW
            | FieldId::FS_PATH_TARGET
            | FieldId::FS_PATH_TARGETRAW => {
                let Some((source, target)) = two_paths(event) else { return Some(NOT_APPLICABLE) };
                let is_source = matches!(field.id, FieldId::FS_PATH_SOURCE | FieldId::FS_PATH_SOURCERAW);
                let raw = matches!(field.id, FieldId::FS_PATH_SOURCERAW | FieldId::FS_PATH_TARGETRAW);
                path(if is_source { source } else { target }, raw)
            }
            FieldId::EVT_ABSPATH => {
                let texts = event.parameters().iter().filter(|source| is_text(**source));
                let mut paths = texts.enumerate().filter(|(_, source)| !matches!(source, Source::Text(_)));
                let nth = match field.arg {
                    Arg::Key(b"dst") => paths.nth(1),
                    _ => paths.next(),
                };
                nth.map_or(NOT_APPLICABLE, |(nth, _)| path(nth, false))
            }
            FieldId::EVT_BUFFER if call.data.is_empty() => NOT_APPLICABLE,
            FieldId::EVT_BUFFER => Fact::One(Value::Bytes(&call.data)),
            FieldId::EVT_BUFLEN
            | FieldId::EVT_BUFLEN_IN
            | FieldId::EVT_BUFLEN_OUT
            | FieldId::EVT_BUFLEN_NET
            | FieldId::EVT_BUFLEN_NET_IN
            | FieldId::EVT_BUFLEN_NET_OUT
                if call.result >= 0 && moves_data(event, field.id) =>
            {
                unsigned(call.result as u64)
            }
            FieldId::EVT_IS_IO | FieldId::EVT_IS_IO_READ | FieldId::EVT_IS_IO_WRITE => {
                boolean(moves_data(event, field.id))
            }
            FieldId::EVT_IO_DIR if moves_data(event, FieldId::EVT_IS_IO_READ) => Fact::text(b"read"),
            FieldId::EVT_IO_DIR if moves_data(event, FieldId::EVT_IS_IO_WRITE) => Fact::text(b"write"),
            _ => return None,
        })
    }
}

/// Whether a call moves data in the direction that a field is about.
fn moves_data(event: EventType, field: FieldId) -> bool {
    let flags = code(event).event().flags;
    let wanted = match field {
        FieldId::EVT_IS_IO_READ | FieldId::EVT_BUFLEN_IN | FieldId::EVT_BUFLEN_NET_IN => Row::READS,
        FieldId::EVT_IS_IO_WRITE | FieldId::EVT_BUFLEN_OUT | FieldId::EVT_BUFLEN_NET_OUT => Row::WRITES,
        _ => Row::READS | Row::WRITES,
    };
    let is_message = event.parameters().iter().any(|source| matches!(source, Source::Data(_) | Source::MessageData(_)));
    is_message && flags & wanted != 0
}

/// A text of a call made absolute; a text that is no path, or whose directory is not known, as it is. An empty path with
/// which a call succeeds stands for what its descriptor is (`AT_EMPTY_PATH`).
fn absolute(call: &Call, nth: usize) -> Bytes {
    let text = call.texts.get(nth).cloned().unwrap_or_default();
    let directory = call.directories.get(nth).cloned().unwrap_or_default();
    if text.is_empty() && call.result >= 0 {
        return directory;
    }
    let resolved = asked_for(&directory, &text);
    if resolved.is_empty() { text } else { resolved }
}

fn text_of(text: &[u8]) -> Fact<'_> {
    if text.is_empty() { NOT_APPLICABLE } else { Fact::text(text) }
}

#[cfg(test)]
mod tests;
