//! The catalogue of fields: name, type, argument and meaning of each.
//!
//! One table (`fields`) declares them all; conditions, output formats and documentation follow from it. A catalogue is
//! a value, so tests can bring their own; the built-in one is [`Catalogue::builtin`].

mod fields;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use crate::types::{PrintFormat, Type};

/// Names a field at no cost: match on the constants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(u16);

impl FieldId {
    /// The number of the field in its catalogue, dense from 0 for the built-in one.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Description of a field.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its id.
    pub id: FieldId,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Who declares it.
    pub class: FieldClass,
    /// Type of its value, or of its elements.
    pub ty: Type,
    /// How it prints.
    pub print: PrintFormat,
    /// What else there is to know.
    pub flags: FieldFlags,
    /// What argument it takes.
    pub arg: ArgKind,
    /// Its meaning, one sentence.
    pub doc: Cow<'static, str>,
}

/// Who declares a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldClass {
    /// Falco's own fields.
    Core,
    /// Falco's container plugin.
    Container,
    /// Purser's own fields.
    Purser,
    /// A catalogue other than the built-in one.
    Custom,
}

/// What argument a field takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArgKind {
    /// None.
    None,
    /// A number.
    Index,
    /// A name.
    Key,
    /// A number or a name.
    Either,
}

/// What is special about a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FieldFlags(u16);

impl FieldFlags {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// May have an argument.
    pub const ARG: Self = Self(1);
    /// Must have an argument.
    pub const ARG_REQUIRED: Self = Self(1 << 1);
    /// Has a list of values.
    pub const LIST: Self = Self(1 << 2);
    /// Has no printable value.
    pub const FILTER_ONLY: Self = Self(1 << 3);
    /// Not for conditions.
    pub const PRINT_ONLY: Self = Self(1 << 4);
    /// Not usable as, or with, a field on the right-hand side.
    pub const NO_RHS: Self = Self(1 << 5);
    /// Not usable in a transformer.
    pub const NO_TRANSFORMER: Self = Self(1 << 6);
    /// Should no longer be used.
    pub const DEPRECATED: Self = Self(1 << 7);
    /// Not shown in listings.
    pub const HIDDEN: Self = Self(1 << 8);
    /// Without index: any ancestor.
    pub const ANCESTORS: Self = Self(1 << 9);
    /// Either of two ends, or any of an address's names.
    pub const PAIR: Self = Self(1 << 10);
    /// A clock time, printed by the engine from the event's nanoseconds.
    pub const TIME: Self = Self(1 << 11);
    /// Added to every output where that is configured.
    pub const SUGGESTED: Self = Self(1 << 12);

    /// Whether any flag of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A set of known fields.
#[derive(Clone, Debug)]
pub struct Catalogue {
    fields: Vec<Field>,
    by_name: HashMap<Cow<'static, str>, usize>,
}

impl Catalogue {
    /// Every field a Purser rule can use.
    pub fn builtin() -> &'static Self {
        Self::builtin_cell()
    }

    /// The same, to be kept.
    pub(crate) fn shared() -> Arc<Self> {
        Arc::clone(Self::builtin_cell())
    }

    fn builtin_cell() -> &'static Arc<Self> {
        static BUILTIN: OnceLock<Arc<Catalogue>> = OnceLock::new();
        BUILTIN.get_or_init(|| Arc::new(Self::new(fields::all())))
    }

    /// Only the fields of the built-in catalogue that `keep` picks.
    pub fn subset(keep: impl Fn(&Field) -> bool) -> Self {
        Self::new(Self::builtin().fields.iter().filter(|field| keep(field)).cloned())
    }

    /// Adds a field that is not in the built-in catalogue and returns its id.
    pub fn add(&mut self, name: &str, ty: Type, print: PrintFormat, flags: FieldFlags, arg: ArgKind) -> FieldId {
        let id = FieldId(Self::CUSTOM | self.fields.len() as u16);
        let name: Cow<'static, str> = Cow::Owned(name.to_owned());
        self.by_name.insert(name.clone(), self.fields.len());
        self.fields.push(Field { id, name, class: FieldClass::Custom, ty, print, flags, arg, doc: Cow::Borrowed("") });
        id
    }

    /// A catalogue without fields.
    pub fn empty() -> Self {
        Self::new([])
    }

    /// The field called `name`, without argument.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.by_name.get(name).map(|place| &self.fields[*place])
    }

    /// All fields in the order of the table.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The names nearest to `name`, for an error that suggests.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        crate::nearest::nearest(name, self.fields.iter().map(|field| field.name.as_ref()))
    }

    /// Ids from here on are not in the built-in catalogue.
    pub(crate) const CUSTOM: u16 = 0x4000;

    fn new(fields: impl IntoIterator<Item = Field>) -> Self {
        let fields: Vec<_> = fields.into_iter().collect();
        let by_name = fields.iter().enumerate().map(|(place, field)| (field.name.clone(), place)).collect();
        Self { fields, by_name }
    }
}
