//! What was found to say about the files: collected as trouble with an origin, handed out as diagnostics with names and lines.

use super::item::Origin;
use crate::diagnostic::{Code, Context, Diagnostic};

/// An error or warning before its place is looked up in the text.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) code: Code,
    pub(crate) message: String,
    pub(crate) origin: Origin,
    pub(crate) context: Vec<(&'static str, String)>,
}

impl Trouble {
    pub(crate) fn new(code: Code, message: String, origin: Origin) -> Self {
        Self { code, message, origin, context: Vec::new() }
    }

    /// With the items it is about, outermost first.
    pub(super) fn within(mut self, context: &[(&'static str, &str)]) -> Self {
        let context = context.iter().filter(|(kind, _)| !kind.is_empty());
        self.context = context.map(|(kind, name)| (*kind, (*name).to_owned())).collect();
        self
    }
}

/// Most warnings that are kept of one file. What one can read is far below; a hostile file has one for each of its bytes.
const MAX_WARNINGS: usize = 10_000;

/// Warnings of one file.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    found: Vec<Trouble>,
    /// How many there were beyond those that are kept.
    more: usize,
}

impl Warnings {
    pub(super) fn push(&mut self, warning: Trouble) {
        if self.found.len() < MAX_WARNINGS {
            self.found.push(warning);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn append(&mut self, other: Self) {
        self.more += other.more;
        other.found.into_iter().for_each(|warning| self.push(warning));
    }

    /// All of them; the last says how many are not listed.
    fn into_listed(mut self) -> Vec<Trouble> {
        if let Some(last) = self.found.last_mut().filter(|_| self.more > 0) {
            last.message.push_str(&format!(" (and {} more warnings that are not listed)", self.more));
        }
        self.found
    }
}

/// Turns trouble into diagnostics: looks up names and lines.
#[derive(Default)]
pub(super) struct Diagnostics<'t> {
    files: Vec<File<'t>>,
    pub(super) found: Vec<Diagnostic>,
}

struct File<'t> {
    name: String,
    text: &'t str,
    /// Where each line begins, once that was asked for.
    lines: Vec<u32>,
}

impl<'t> Diagnostics<'t> {
    /// Adds the next file.
    pub(super) fn file(&mut self, name: &str, text: &'t str) {
        self.files.push(File { name: name.to_owned(), text, lines: Vec::new() });
    }

    pub(super) fn add_all(&mut self, warnings: Warnings) {
        warnings.into_listed().into_iter().for_each(|warning| self.add(warning));
    }

    pub(super) fn add(&mut self, trouble: Trouble) {
        let at = trouble.origin.at;
        let (line, column) = (at.line.max(1) as usize, at.column.max(1) as usize);
        let file = self.files.get_mut(trouble.origin.file);
        let name = file.as_ref().map(|file| file.name.clone()).unwrap_or_default();
        let step = |kind, item: String, line, column| Context { kind, name: item, file: name.clone(), line, column };
        let mut context = vec![step("rules content", String::new(), 1, 1)];
        context.extend(trouble.context.into_iter().map(|(kind, item)| step(kind, item, line, column)));
        if let [only] = context.as_mut_slice() {
            (only.line, only.column) = (line, column);
        }
        let snippet = file.map(|file| file.line(line).chars().take(200).collect()).unwrap_or_default();
        self.found.push(Diagnostic { code: trouble.code, message: trouble.message, context, snippet });
    }
}

impl File<'_> {
    /// Line number `line`, from 1, without its end; empty if there is none.
    fn line(&mut self, line: usize) -> &str {
        if self.lines.is_empty() {
            self.lines.push(0);
            self.lines.extend(memchr::memchr_iter(b'\n', self.text.as_bytes()).map(|at| at as u32 + 1));
        }
        let start = self.lines.get(line - 1).map_or(self.text.len(), |start| *start as usize);
        self.text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default()
    }
}
