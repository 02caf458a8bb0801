//! What loading says about rule files: errors and warnings with the place they were found at.

use std::fmt;

use serde::Serialize;

/// An error or warning of a rule file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Diagnostic {
    /// What kind of trouble.
    pub code: Code,
    /// The trouble, and where it helps what to do about it.
    pub message: String,
    /// Where, from the file down to the part of an item.
    pub context: Vec<Context>,
    /// The line that [`spot`](Self::spot) is on, if that is known, else the one that the innermost context begins on; only
    /// the start of a long one.
    pub snippet: String,
    /// The exact place, where it is known: a word of a condition, which may be that of a macro in another file.
    pub spot: Option<Spot>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Spot {
    /// The source it is in.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

/// One step from the file to the place of a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Context {
    /// What it is: `rules content`, `rule`, `macro`, `list`, `exception`, `condition`, `output` ...
    pub kind: &'static str,
    /// Its name, if it has one.
    pub name: String,
    /// The source it is in.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

/// How bad a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The files cannot be used.
    Error,
    /// They can, but probably do not do what was meant.
    Warning,
}

impl Severity {
    /// `error` or `warning`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

macro_rules! codes {
    ($($variant:ident = $name:literal, $severity:ident, $doc:literal;)*) => {
        /// Kind of a diagnostic, Falco's codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $doc] $variant),* }

        impl Code {
            /// Falco's name of the code.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// What it stands for, in a sentence.
            pub const fn description(self) -> &'static str {
                match self { $(Self::$variant => $doc),* }
            }

            /// Whether the code is an error.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }
        }
    };
}

codes! {
    FileRead = "LOAD_ERR_FILE_READ", Error, "The file cannot be read.";
    YamlParse = "LOAD_ERR_YAML_PARSE", Error, "The file is not YAML.";
    YamlValidate = "LOAD_ERR_YAML_VALIDATE", Error, "An item has the wrong shape, type or keys.";
    CompileCondition = "LOAD_ERR_COMPILE_CONDITION", Error, "A condition does not compile.";
    CompileOutput = "LOAD_ERR_COMPILE_OUTPUT", Error, "An output does not compile.";
    Validate = "LOAD_ERR_VALIDATE", Error, "Items do not fit together.";
    Extension = "LOAD_ERR_EXTENSION", Error, "An extension reported an error.";
    UnknownSource = "LOAD_UNKNOWN_SOURCE", Warning, "The rule is for an event source that is not configured.";
    UnsafeNaCheck = "LOAD_UNSAFE_NA_CHECK", Warning, "A field is compared with `<NA>`; use `exists`.";
    NoEvttype = "LOAD_NO_EVTTYPE", Warning, "The rule matches too many event types, which is slow.";
    UnknownFilter = "LOAD_UNKNOWN_FILTER", Warning, "The rule uses an unknown field and was left out as it asks for.";
    UnusedMacro = "LOAD_UNUSED_MACRO", Warning, "The macro is never used.";
    UnusedList = "LOAD_UNUSED_LIST", Warning, "The list is never used.";
    UnknownItem = "LOAD_UNKNOWN_ITEM", Warning, "The item is of no known kind and was ignored.";
    UnknownKey = "LOAD_UNKNOWN_KEY", Warning, "The key is not known and was ignored.";
    DeprecatedItem = "LOAD_DEPRECATED_ITEM", Warning, "The item uses something that will go away.";
    WarningExtension = "LOAD_WARNING_EXTENSION", Warning, "An extension reported a warning.";
    AppendNoValues = "LOAD_APPEND_NO_VALUES", Warning, "The appended exception has no values.";
    ExceptionNameNotUnique = "LOAD_EXCEPTION_NAME_NOT_UNIQUE", Warning, "Two exceptions of the item have the same name.";
    InvalidMacroName = "LOAD_INVALID_MACRO_NAME", Warning, "The macro's name is not an identifier; it cannot be used.";
    InvalidListName = "LOAD_INVALID_LIST_NAME", Warning, "The list's name is not a bare word; it cannot be used.";
    ConditionHint = "LOAD_COMPILE_CONDITION", Warning, "The condition may not mean what it seems to.";
}

impl Diagnostic {
    /// How bad it is.
    pub const fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// The place it was found at.
    pub fn place(&self) -> Option<&Context> {
        self.context.last()
    }

    /// Where to point: the exact spot, else the place.
    pub fn at(&self) -> Option<Spot> {
        let place = || self.place().map(|at| Spot { file: at.file.clone(), line: at.line, column: at.column });
        self.spot.clone().or_else(place)
    }

    /// What it is in, outermost first: `rule "name", condition`.
    pub fn inside(&self) -> String {
        let step = |step: &Context| match step.name.as_str() {
            "" => step.kind.to_owned(),
            name => format!("{} \"{name}\"", step.kind),
        };
        self.context.iter().skip(1).map(step).collect::<Vec<_>>().join(", ")
    }

    /// The innermost rule, macro, list or exception it is about, or nothing.
    pub fn item(&self) -> Option<&Context> {
        self.context.iter().rev().find(|step| matches!(step.kind, "rule" | "macro" | "list" | "exception"))
    }
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: warning LOAD_X: message (rule "name", condition)`, then the line it is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at();
        if let Some(at) = &at {
            write!(f, "{}:{}:{}: ", at.file, at.line, at.column)?;
        }
        write!(f, "{} {}: {}", self.severity().name(), self.code.name(), self.message)?;
        let inside = self.inside();
        if !inside.is_empty() {
            write!(f, " ({inside})")?;
        }
        if let Some(at) = at.filter(|_| !self.snippet.is_empty()) {
            let width = at.line.to_string().len();
            write!(f, "\n{:width$} |\n{} | {}\n", "", at.line, self.snippet)?;
            write!(f, "{:width$} | {:>column$}", "", "^", column = at.column.min(400))?;
        }
        Ok(())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
