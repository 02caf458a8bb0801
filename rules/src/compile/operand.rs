//! Fields and transformers of conditions and outputs, resolved against the catalogue.

use super::{CompileError, error};
use crate::catalogue::{ArgKind, Catalogue, Field, FieldFlags, FieldId};
use crate::eval::{Argument, FieldKind, FieldSource, OperandSource, OwnedArg, Transform, TransformName};
use crate::event::EVENTS;
use crate::nearest::nearest;
use crate::parse::{Operand, Pos, TransformArg};
use crate::types::{PrintFormat, Type};

/// An operand and what is known of its values.
#[derive(Debug)]
pub(crate) struct Typed {
    pub(crate) source: OperandSource,
    /// The field, if it is one and not a transformed value.
    pub(crate) field: Option<FieldId>,
    pub(crate) ty: Type,
    pub(crate) kind: FieldKind,
    pub(crate) flags: FieldFlags,
    pub(crate) print: PrintFormat,
    /// Its literals must be names of events.
    pub(crate) names_event: bool,
}

/// Fields whose argument follows a dot and not in brackets.
pub(crate) const fn dotted_bases() -> [&'static str; 5] {
    ["evt.arg", "evt.rawarg", "evt.type.is", "evt.abspath", "thread.cgroup"]
}

/// Resolves an operand; the error names the field that was probably meant.
pub(crate) fn typed_operand(operand: &Operand, catalogue: &Catalogue) -> Result<Typed, CompileError> {
    resolve(operand, catalogue).map_err(|mut error| {
        let mut unknown = None;
        operand.walk(&mut |inner| match inner {
            Operand::Field { name, .. } if error.message == nonexistent(name) => unknown = Some(name),
            _ => {}
        });
        if let Some(near) = unknown.and_then(|name| catalogue.nearest(name)) {
            error.message.push_str(&format!("; did you mean '{near}'?"));
        }
        error
    })
}

/// Resolves an operand that may as well be none, such as a text that looks like one: looks for no other field that was meant,
/// which would take longer than all else.
pub(crate) fn known_operand(operand: &Operand, catalogue: &Catalogue) -> Option<Typed> {
    resolve(operand, catalogue).ok()
}

fn nonexistent(name: &str) -> String {
    format!("nonexistent field '{name}'")
}

fn resolve(operand: &Operand, catalogue: &Catalogue) -> Result<Typed, CompileError> {
    match operand {
        Operand::Field { name, arg, pos } => field(name, arg.as_deref(), *pos, catalogue),
        Operand::Transform { name, args, arg, pos } => transform(name, args, arg.as_deref(), *pos, catalogue),
    }
}

fn field(name: &str, arg: Option<&[u8]>, pos: Pos, catalogue: &Catalogue) -> Result<Typed, CompileError> {
    let unknown = |message: String| CompileError { message, pos, unknown_filter: true };
    let (field, arg) = match catalogue.get(name) {
        Some(field) => (field, bracket_argument(field, arg).map_err(unknown)?),
        None => match dotted(name, catalogue) {
            Some((field, key)) if arg.is_none() => (field, dotted_argument(field, key).map_err(unknown)?),
            _ => return Err(unknown(nonexistent(name))),
        },
    };
    let (ty, print) = match (&arg, field.ty) {
        (OwnedArg::Key(key), Type::Dyn) => {
            let param = EVENTS.iter().find_map(|event| event.param(key));
            let Some((_, param)) = param else {
                return Err(unknown(format!("no event has an argument '{}'", String::from_utf8_lossy(key))));
            };
            (param.ty, param.print)
        }
        _ => (field.ty, field.print),
    };
    let kind = if field.flags.has(FieldFlags::LIST) {
        FieldKind::List
    } else if field.flags.has(FieldFlags::ANCESTORS) && !matches!(arg, OwnedArg::Index(_)) {
        FieldKind::Ancestors
    } else if field.flags.has(FieldFlags::PAIR) {
        FieldKind::Pair
    } else if field.flags.has(FieldFlags::TIME) {
        FieldKind::Time
    } else {
        FieldKind::Scalar
    };
    Ok(Typed {
        source: OperandSource::Field(FieldSource { id: field.id, arg, kind }),
        field: Some(field.id),
        ty,
        kind,
        flags: field.flags,
        print,
        names_event: field.id == FieldId::EVT_TYPE,
    })
}

/// A name like `evt.arg.flags`: the field and what follows.
fn dotted<'n, 'c>(name: &'n str, catalogue: &'c Catalogue) -> Option<(&'c Field, &'n str)> {
    dotted_bases().into_iter().find_map(|base| {
        let key = name.strip_prefix(base)?.strip_prefix('.')?;
        Some((catalogue.get(base)?, key))
    })
}

fn dotted_argument(field: &Field, key: &str) -> Result<OwnedArg, String> {
    let known = match field.id {
        FieldId::EVT_ARG | FieldId::EVT_RAWARG => EVENTS.iter().any(|event| event.param(key.as_bytes()).is_some()),
        FieldId::EVT_TYPE_IS => EVENTS.iter().any(|event| event.name == key),
        FieldId::EVT_ABSPATH => matches!(key, "src" | "dst"),
        _ => true,
    };
    if known {
        Ok(OwnedArg::Key(key.as_bytes().into()))
    } else {
        let arguments = || EVENTS.iter().flat_map(|event| event.params).map(|param| param.name);
        let near = match field.id {
            FieldId::EVT_ARG | FieldId::EVT_RAWARG => nearest(key, arguments()),
            FieldId::EVT_TYPE_IS => nearest(key, super::event_names()),
            _ => nearest(key, ["src", "dst"]),
        };
        let hint = near.map(|near| format!("; did you mean '{}.{near}'?", field.name)).unwrap_or_default();
        Err(format!("nonexistent field '{}.{key}'{hint}", field.name))
    }
}

fn bracket_argument(field: &Field, arg: Option<&[u8]>) -> Result<OwnedArg, String> {
    let Some(arg) = arg else {
        let optional = !field.flags.has(FieldFlags::ARG_REQUIRED) || field.id == FieldId::EVT_ABSPATH;
        return if optional { Ok(OwnedArg::None) } else { Err(format!("field '{}' needs an argument", field.name)) };
    };
    let dotted_only = dotted_bases().contains(&field.name.as_ref()) && field.id != FieldId::EVT_ARG;
    if dotted_only || !field.flags.has(FieldFlags::ARG.with(FieldFlags::ARG_REQUIRED)) {
        return Err(format!("field '{}' takes no argument in brackets", field.name));
    }
    let index = std::str::from_utf8(arg).ok().and_then(|text| {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let index: u64 = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
        // Below 0 there are no ancestors but the process itself, and no elements.
        let none = if field.flags.has(FieldFlags::ANCESTORS) { 0 } else { u64::MAX };
        Some(if text.starts_with('-') && index > 0 { none } else { index })
    });
    match (field.arg, index) {
        (ArgKind::Index | ArgKind::Either, Some(index)) => Ok(OwnedArg::Index(index)),
        (ArgKind::Index, None) => Err(format!("the argument of field '{}' must be a number", field.name)),
        (ArgKind::Either, None) if field.id == FieldId::EVT_ARG => {
            Err("evt.arg takes a number in brackets, or a name after a dot".to_owned())
        }
        _ => Ok(OwnedArg::Key(arg.into())),
    }
}

fn transform(
    name: &'static str,
    args: &[TransformArg],
    result: Option<&[u8]>,
    pos: Pos,
    catalogue: &Catalogue,
) -> Result<Typed, CompileError> {
    if name == "val" {
        return match args {
            [TransformArg::Operand(operand @ Operand::Field { .. })] => resolve(operand, catalogue),
            _ => Err(error("val() takes a field".to_owned(), pos)),
        };
    }
    let Some(known) = TransformName::parse(name) else {
        return Err(error(format!("unknown transformer '{name}'"), pos));
    };
    let fail = |message: String| Err(error(format!("transformer '{name}': {message}"), pos));
    let result = match (known, result) {
        (_, None) => None,
        (TransformName::GetOpt, Some([letter])) => Some(*letter),
        (TransformName::GetOpt, Some(_)) => return fail("the argument in brackets must be one character".to_owned()),
        _ => return fail("takes no argument in brackets".to_owned()),
    };
    let typed = args.iter().map(|arg| argument(arg, catalogue)).collect::<Result<Vec<_>, _>>()?;
    let (ty, is_list) = match (known, typed.as_slice()) {
        (TransformName::Join, [separator, list]) => {
            if separator.raw_is_list || !list.raw_is_list {
                return fail("takes a single separator and a list".to_owned());
            }
            (Type::Text, false)
        }
        (TransformName::Concat, [_, _, ..]) => {
            if typed.iter().any(|arg| arg.raw_is_list || arg.raw_ty != Type::Text) {
                return fail("takes single texts".to_owned());
            }
            (Type::Text, false)
        }
        (TransformName::GetOpt, [list, options]) => {
            if !list.raw_is_list || list.raw_ty != Type::Text || options.raw_is_list || options.raw_ty != Type::Text {
                return fail("takes a list of texts and a text of options".to_owned());
            }
            (Type::Text, result.is_none())
        }
        (_, [arg]) if !known.is_multi() => {
            if arg.flags.has(FieldFlags::NO_TRANSFORMER) {
                return fail("the field cannot be transformed".to_owned());
            }
            if let Some(result) = known.result(arg.ty, arg.is_list) {
                result
            } else {
                let list = if arg.is_list { "lists of " } else { "" };
                return fail(format!("does not take {list}{}", arg.ty.name()));
            }
        }
        _ => return fail(format!("does not take {} arguments", args.len())),
    };
    let flags =
        if known.is_multi() { FieldFlags::NONE } else { typed.first().map_or(FieldFlags::NONE, |arg| arg.flags) };
    let print = typed.first().filter(|_| !known.is_multi()).map_or(PrintFormat::Na, |arg| arg.print);
    let names_event = !known.is_multi() && typed.iter().any(|arg| arg.names_event);
    let args = typed.into_iter().map(|arg| arg.argument).collect();
    Ok(Typed {
        source: OperandSource::Transform(Box::new(Transform { name: known, args, result })),
        field: None,
        ty,
        kind: if is_list { FieldKind::List } else { FieldKind::Scalar },
        flags,
        print,
        names_event,
    })
}

/// An argument and its type: `raw` before any transformer, which is what upstream checks.
struct TypedArg {
    argument: Argument,
    ty: Type,
    is_list: bool,
    raw_ty: Type,
    raw_is_list: bool,
    flags: FieldFlags,
    print: PrintFormat,
    names_event: bool,
}

fn argument(arg: &TransformArg, catalogue: &Catalogue) -> Result<TypedArg, CompileError> {
    let plain = |argument, ty, is_list| TypedArg {
        argument,
        ty,
        is_list,
        raw_ty: ty,
        raw_is_list: is_list,
        flags: FieldFlags::NONE,
        print: PrintFormat::Na,
        names_event: false,
    };
    Ok(match arg {
        TransformArg::Value(text, _) => plain(Argument::Literal(text.as_slice().into()), Type::Text, false),
        TransformArg::List(items, _) => {
            let items = items.iter().map(|item| Ok(argument(item, catalogue)?.argument)).collect::<Result<_, _>>()?;
            plain(Argument::List(items), Type::Text, true)
        }
        TransformArg::Operand(operand) => {
            let typed = resolve(operand, catalogue)?;
            let is_list = typed.kind == FieldKind::List;
            let (raw_ty, raw_is_list) = raw_type(operand, catalogue)?;
            let argument = match typed.source {
                OperandSource::Field(field) => Argument::Field(field),
                OperandSource::Transform(transform) => Argument::Transform(transform),
            };
            TypedArg {
                argument,
                ty: typed.ty,
                is_list,
                raw_ty,
                raw_is_list,
                flags: typed.flags,
                print: typed.print,
                names_event: typed.names_event,
            }
        }
    })
}

/// The type at the bottom of a chain of transformers of one argument. What `join`, `concat` and `getopt` make counts as a
/// single text there, whatever it is.
fn raw_type(operand: &Operand, catalogue: &Catalogue) -> Result<(Type, bool), CompileError> {
    let mut operand = operand;
    loop {
        match operand {
            Operand::Transform { name, args, .. } => match (TransformName::parse(name), args.as_slice()) {
                (Some(known), [TransformArg::Operand(inner)]) if !known.is_multi() => operand = inner,
                (Some(known), [TransformArg::List(..)]) if !known.is_multi() => return Ok((Type::Text, true)),
                _ => return Ok((Type::Text, false)),
            },
            Operand::Field { .. } => {
                let typed = resolve(operand, catalogue)?;
                return Ok((typed.ty, typed.kind == FieldKind::List));
            }
        }
    }
}
