//! Makes diagnostics of trouble: names of files, the line it is about, the word to point at, and what was probably meant.

use std::collections::HashMap;

use super::collection::Trouble;
use super::item::Origin;
use super::locate;
use crate::diagnostic::{Code, Context, Diagnostic, Spot};
use crate::nearest::did_you_mean;
use crate::parse::{self, Op};

/// Spots of warnings are looked for while there are no more warnings than this.
pub(super) const MAX_SPOTS: usize = 100;

/// Turns trouble into diagnostics: looks up names and lines.
pub(super) struct Diagnostics<'t> {
    pub(super) texts: Vec<&'t str>,
    pub(super) names: Vec<String>,
    pub(super) found: Vec<Diagnostic>,
    /// The lines of each file that anything was found in.
    lines: HashMap<usize, Vec<&'t str>>,
}

impl Diagnostics<'_> {
    pub(super) fn new() -> Self {
        Self { texts: Vec::new(), names: Vec::new(), found: Vec::new(), lines: HashMap::new() }
    }

    pub(super) fn add(&mut self, trouble: Trouble) {
        let file = trouble.origin.file;
        let name = self.names.get(file).cloned().unwrap_or_default();
        let at = trouble.origin.at;
        let step = |kind, item: String, line, column| Context { kind, name: item, file: name.clone(), line, column };
        let mut context = vec![step("rules content", String::new(), 1, 1)];
        context
            .extend(trouble.context.into_iter().map(|(kind, item)| step(kind, item, at.line.max(1), at.column.max(1))));
        if context.len() == 1 {
            context[0].line = at.line.max(1);
            context[0].column = at.column.max(1);
        }
        let spot = trouble.spot.or_else(|| self.subject(trouble.code, &trouble.message, &trouble.origin));
        let shown = spot.as_ref().unwrap_or(&trouble.origin);
        let text = self.texts.get(shown.file).copied().unwrap_or_default();
        let lines = self.lines.entry(shown.file).or_insert_with(|| text.lines().collect());
        let line = lines.get(shown.at.line.saturating_sub(1));
        let snippet = line.map(|line| line.chars().take(200).collect()).unwrap_or_default();
        let spot = spot.map(|spot| Spot {
            file: self.names.get(spot.file).cloned().unwrap_or_default(),
            line: spot.at.line,
            column: spot.at.column,
        });
        self.found.push(Diagnostic { code: trouble.code, message: trouble.message, context, snippet, spot });
    }

    /// Where the word is that a message quotes first.
    fn subject(&self, code: Code, message: &str, origin: &Origin) -> Option<Origin> {
        // Errors end the loading, or are few: warnings, of which there can be many, are not looked for.
        let points = [Code::CompileOutput, Code::CompileCondition, Code::Validate];
        if !points.contains(&code) {
            return None;
        }
        let quoted = message.split('\'').nth(1).map(|quoted| quoted.trim_start_matches('%'));
        let quoted = quoted.filter(|quoted| !quoted.is_empty())?;
        let at = locate::word(self.texts.get(origin.file)?, origin.at, quoted)?;
        Some(Origin { file: origin.file, at })
    }
}

/// What was probably meant where a condition cannot be read: an operator, or the transformer before a parenthesis.
pub(super) fn syntax_hint(text: &str, index: usize) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (Some(before), Some(after)) = (text.get(..index), text.get(index..)) else { return String::new() };
    if after.starts_with('(') {
        let name = &before[before.trim_end_matches(is_word).len()..];
        return did_you_mean(name, parse::TRANSFORMERS);
    }
    let word = &after[..after.find(|c| !is_word(c)).unwrap_or(after.len())];
    did_you_mean(word, Op::names())
}
