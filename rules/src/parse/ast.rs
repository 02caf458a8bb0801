//! The tree of a condition.
//!
//! Nodes are shared: a macro's tree is inserted by reference, so macros that use macros do not multiply memory.

use std::sync::Arc;

/// A place in a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Pos {
    /// Bytes from the start.
    pub index: usize,
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
}

/// A node.
#[derive(Clone, Debug)]
pub enum Expr {
    /// All are true.
    And(Vec<Arc<Self>>, Pos),
    /// Any is true.
    Or(Vec<Arc<Self>>, Pos),
    /// It is false.
    Not(Arc<Self>, Pos),
    /// A macro by name.
    Macro(String, Pos),
    /// The operand has a value.
    Exists(Operand, Pos),
    /// A comparison.
    Check {
        /// What is compared.
        left: Operand,
        /// How.
        op: Op,
        /// Oneof, anyof, allof.
        modifier: Option<Modifier>,
        /// With what.
        right: Right,
        /// Where it begins.
        pos: Pos,
    },
}

/// A field or a transformed value.
#[derive(Clone, Debug)]
pub enum Operand {
    /// `name[arg]`
    Field {
        /// Name, with dots.
        name: String,
        /// What is in the brackets.
        arg: Option<Vec<u8>>,
        /// Where it begins.
        pos: Pos,
    },
    /// `name(args)[arg]`
    Transform {
        /// Name.
        name: &'static str,
        /// What is in the parentheses.
        args: Vec<TransformArg>,
        /// What is in the brackets.
        arg: Option<Vec<u8>>,
        /// Where it begins.
        pos: Pos,
    },
}

/// An argument of a transformer.
#[derive(Clone, Debug)]
pub enum TransformArg {
    /// A field or a transformed value.
    Operand(Operand),
    /// A quoted text or a number.
    Value(Vec<u8>, Pos),
    /// A list of such.
    List(Vec<Self>, Pos),
}

/// What a check compares with.
#[derive(Clone, Debug)]
pub enum Right {
    /// A literal.
    Value(Vec<u8>, Pos),
    /// A list of literals.
    List(Vec<Vec<u8>>, Pos),
    /// A field (`val(...)`) or a transformed value.
    Operand(Operand),
}

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the operators")]
pub enum Op {
    Le,
    Lt,
    Ge,
    Gt,
    /// `=`
    Eq,
    /// `==`, the same but printed as written.
    EqEq,
    Ne,
    Glob,
    IGlob,
    Contains,
    IContains,
    BContains,
    StartsWith,
    BStartsWith,
    EndsWith,
    Regex,
    Intersects,
    In,
    PMatch,
}

/// How many of the listed values must satisfy the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the words")]
pub enum Modifier {
    OneOf,
    AnyOf,
    AllOf,
}

impl Op {
    /// Operators with numbers on the right.
    pub const NUMERIC: [Self; 4] = [Self::Le, Self::Lt, Self::Ge, Self::Gt];
    /// Operators with a text on the right, in the order they are tried.
    pub const TEXT: [Self; 12] = [
        Self::EqEq,
        Self::Eq,
        Self::Ne,
        Self::Glob,
        Self::IGlob,
        Self::Contains,
        Self::IContains,
        Self::BContains,
        Self::StartsWith,
        Self::BStartsWith,
        Self::EndsWith,
        Self::Regex,
    ];
    /// Operators with a list on the right.
    pub const LIST: [Self; 3] = [Self::Intersects, Self::In, Self::PMatch];

    /// How all are written, `exists` among them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        let all = Self::NUMERIC.iter().chain(&Self::TEXT).chain(&Self::LIST);
        all.map(|op| op.text()).chain(["exists"])
    }

    /// How it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Le => "<=",
            Self::Lt => "<",
            Self::Ge => ">=",
            Self::Gt => ">",
            Self::Eq => "=",
            Self::EqEq => "==",
            Self::Ne => "!=",
            Self::Glob => "glob",
            Self::IGlob => "iglob",
            Self::Contains => "contains",
            Self::IContains => "icontains",
            Self::BContains => "bcontains",
            Self::StartsWith => "startswith",
            Self::BStartsWith => "bstartswith",
            Self::EndsWith => "endswith",
            Self::Regex => "regex",
            Self::Intersects => "intersects",
            Self::In => "in",
            Self::PMatch => "pmatch",
        }
    }

    /// Whether it is a word (which needs a blank after it) and not a symbol.
    pub const fn is_word(self) -> bool {
        self.text().as_bytes()[0].is_ascii_alphabetic()
    }
}

impl Modifier {
    /// All.
    pub const ALL: [Self; 3] = [Self::OneOf, Self::AnyOf, Self::AllOf];

    /// How it is written.
    pub const fn text(self) -> &'static str {
        match self {
            Self::OneOf => "oneof",
            Self::AnyOf => "anyof",
            Self::AllOf => "allof",
        }
    }
}

impl Expr {
    /// Where it begins.
    pub const fn pos(&self) -> Pos {
        match self {
            Self::And(_, pos)
            | Self::Or(_, pos)
            | Self::Not(_, pos)
            | Self::Macro(_, pos)
            | Self::Exists(_, pos)
            | Self::Check { pos, .. } => *pos,
        }
    }

    /// Calls `visit` for every operand of the tree, transformer arguments and right-hand sides included.
    pub fn operands<'a>(&'a self, visit: &mut impl FnMut(&'a Operand)) {
        match self {
            Self::And(children, _) | Self::Or(children, _) => {
                for child in children {
                    child.operands(visit);
                }
            }
            Self::Not(child, _) => child.operands(visit),
            Self::Macro(..) => {}
            Self::Exists(operand, _) => operand.walk(visit),
            Self::Check { left, right, .. } => {
                left.walk(visit);
                if let Right::Operand(operand) = right {
                    operand.walk(visit);
                }
            }
        }
    }
}

impl Operand {
    /// Where it begins.
    pub const fn pos(&self) -> Pos {
        match self {
            Self::Field { pos, .. } | Self::Transform { pos, .. } => *pos,
        }
    }

    /// Calls `visit` for the operand and all operands inside.
    pub fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Self)) {
        visit(self);
        if let Self::Transform { args, .. } = self {
            for arg in args {
                arg.walk(visit);
            }
        }
    }
}

impl TransformArg {
    fn walk<'a>(&'a self, visit: &mut impl FnMut(&'a Operand)) {
        match self {
            Self::Operand(operand) => operand.walk(visit),
            Self::Value(..) => {}
            Self::List(items, _) => items.iter().for_each(|item| item.walk(visit)),
        }
    }
}
