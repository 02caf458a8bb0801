//! What loading says about rule files: errors and warnings with the place they were found at.

use std::fmt;

use serde::Serialize;

/// An error or warning of a rule file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// What kind of trouble.
    pub code: Code,
    /// The trouble, and where it helps what to do about it.
    pub message: String,
    /// Where, from the file down to the part of an item.
    pub context: Vec<Context>,
    /// The line of the file the innermost context begins on.
    pub snippet: String,
}

/// One step from the file to the place of a diagnostic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

    /// The innermost rule, macro, list or exception it is about, or nothing.
    pub fn item(&self) -> Option<&Context> {
        self.context.iter().rev().find(|step| matches!(step.kind, "rule" | "macro" | "list" | "exception"))
    }
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: warning LOAD_X: message (rule "name", condition)`, then the line it is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = self.place() {
            write!(f, "{}:{}:{}: ", place.file, place.line, place.column)?;
        }
        let severity = match self.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{severity} {}: {}", self.code.name(), self.message)?;
        for (nth, step) in self.context.iter().skip(1).enumerate() {
            f.write_str(if nth == 0 { " (" } else { ", " })?;
            if step.name.is_empty() { f.write_str(step.kind)? } else { write!(f, "{} \"{}\"", step.kind, step.name)? }
        }
        if self.context.len() > 1 {
            f.write_str(")")?;
        }
        if let Some(place) = self.place().filter(|_| !self.snippet.is_empty()) {
            let width = place.line.to_string().len();
            write!(f, "\n{:width$} |\n{} | {}\n", "", place.line, self.snippet)?;
            write!(f, "{:width$} | {:>column$}", "", "^", column = place.column.min(400))?;
        }
        Ok(())
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
