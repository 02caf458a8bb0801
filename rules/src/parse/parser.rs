//! Text to tree.
//!
//! Parentheses, `and`, `or` and `not` are handled with a stack of our own, so that no nesting can exhaust the thread's.

use std::sync::Arc;

use super::ast::{Expr, Modifier, Op, Operand, Pos, Right, TransformArg};
use super::lexer::{Lexer, Quoted};

/// Nesting limit of conditions in rule files.
pub const MAX_DEPTH: usize = 1000;

/// Nesting limit of transformers.
const MAX_TRANSFORM_DEPTH: usize = 100;

/// Names of the transformers that can be written; `val` only on the right-hand side.
pub(crate) const TRANSFORMERS: [&str; 8] = ["tolower", "toupper", "b64", "basename", "len", "join", "concat", "getopt"];

/// A condition that is not in the language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// What was expected.
    pub message: String,
    /// Where.
    pub pos: Pos,
}

/// Reads a whole condition, nested at most `max_depth` parentheses deep.
///
/// # Errors
/// The text is not in the language.
pub fn parse(text: &[u8], max_depth: usize) -> Result<Arc<Expr>, ParseError> {
    let mut parser = Parser { lexer: Lexer::new(text), depth: 0, brackets: true };
    let expr = parser.condition(max_depth)?;
    parser.lexer.blanks();
    if parser.lexer.is_at_end() {
        return Ok(expr);
    }
    let rest = String::from_utf8_lossy(parser.lexer.rest()).chars().take(20).collect::<String>();
    Err(parser.error(format!("unexpected token after the end of the condition: '{rest}'")))
}

/// Reads a field or a transformed value from the start of a text, as in output formats, and says how many bytes it took.
/// Without `brackets`, a bracket after it is not its argument.
///
/// # Errors
/// The text does not start with one.
pub fn parse_operand_prefix(text: &[u8], brackets: bool) -> Result<(Operand, usize), ParseError> {
    let mut parser = Parser { lexer: Lexer::new(text), depth: 0, brackets };
    match parser.operand(false)? {
        Some(operand) => Ok((operand, parser.lexer.pos().index)),
        None => Err(parser.error("expected a field or a transformer".to_owned())),
    }
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// Nesting of transformers.
    depth: usize,
    /// Whether the outermost operand can have an argument in brackets.
    brackets: bool,
}

/// An expression in parentheses, or the whole condition, that is being read.
struct Level {
    or: Vec<Arc<Expr>>,
    or_pos: Pos,
    and: Vec<Arc<Expr>>,
    and_pos: Pos,
    negated: bool,
    not_pos: Pos,
    role: Role,
}

/// What a parenthesised expression is to the one around it.
#[derive(Clone, Copy)]
enum Role {
    /// A check, subject to the `not` before it.
    Check,
    /// The operand of an `and(`.
    And,
    /// The operand of an `or(`: it cannot be continued with `and`.
    Or,
}

impl Level {
    fn new(pos: Pos, role: Role) -> Self {
        Self { or: Vec::new(), or_pos: pos, and: Vec::new(), and_pos: pos, negated: false, not_pos: pos, role }
    }

    fn take(&mut self, check: Arc<Expr>) {
        let negated = std::mem::take(&mut self.negated);
        self.and.push(if negated { Arc::new(Expr::Not(check, self.not_pos)) } else { check });
    }

    fn close_and(&mut self) {
        if self.and.len() > 1 {
            self.or.push(Arc::new(Expr::And(std::mem::take(&mut self.and), self.and_pos)));
        } else {
            self.or.append(&mut self.and);
        }
    }

    fn close(mut self) -> Option<Arc<Expr>> {
        if self.or.len() > 1 { Some(Arc::new(Expr::Or(self.or, self.or_pos))) } else { self.or.pop() }
    }
}

impl Parser<'_> {
    fn condition(&mut self, max_depth: usize) -> Result<Arc<Expr>, ParseError> {
        let mut outer: Vec<Level> = Vec::new();
        let mut level = Level::new(self.lexer.pos(), Role::Check);
        'operand: loop {
            if outer.len() > max_depth {
                return Err(self.error(format!("the condition is nested more than {max_depth} levels deep")));
            }
            self.lexer.blanks();
            if level.and.is_empty() {
                level.and_pos = self.lexer.pos();
            }
            level.not_pos = self.lexer.pos();
            while self.lexer.eat_with_blank("not") {
                level.negated = !level.negated;
            }
            let opens = if self.lexer.eat("not(") {
                level.negated = !level.negated;
                true
            } else {
                self.lexer.eat("(")
            };
            if opens {
                self.open(&mut outer, &mut level, Role::Check);
                continue;
            }
            let check = self.check()?;
            level.take(check);
            loop {
                self.lexer.blanks();
                if !level.and.is_empty() && self.lexer.eat("and") {
                    if !self.lexer.blanks() {
                        self.expect_open("and")?;
                        self.open(&mut outer, &mut level, Role::And);
                    }
                    continue 'operand;
                }
                level.close_and();
                if self.lexer.eat("or") {
                    if !self.lexer.blanks() {
                        self.expect_open("or")?;
                        self.open(&mut outer, &mut level, Role::Or);
                    }
                    continue 'operand;
                }
                let Some(mut around) = outer.pop() else {
                    return level.close().ok_or_else(|| self.error("the condition is empty".to_owned()));
                };
                if !self.lexer.eat(")") {
                    return Err(self.error("expected a ')'".to_owned()));
                }
                let role = level.role;
                let Some(value) = level.close() else {
                    return Err(self.error("the parentheses are empty".to_owned()));
                };
                match role {
                    Role::Check => around.take(value),
                    Role::And => around.and.push(value),
                    Role::Or => around.or.push(value),
                }
                level = around;
            }
        }
    }

    /// Goes into parentheses that were just opened.
    fn open(&mut self, outer: &mut Vec<Level>, level: &mut Level, role: Role) {
        self.lexer.blanks();
        outer.push(std::mem::replace(level, Level::new(self.lexer.pos(), role)));
    }

    fn check(&mut self) -> Result<Arc<Expr>, ParseError> {
        let pos = self.lexer.pos();
        if let Some(left) = self.operand(false)? {
            return self.test(left, pos);
        }
        match self.lexer.identifier() {
            Some(name) => Ok(Arc::new(Expr::Macro(name.to_owned(), pos))),
            None => Err(self.error("expected a '(', a field check or the name of a macro".to_owned())),
        }
    }

    fn test(&mut self, left: Operand, pos: Pos) -> Result<Arc<Expr>, ParseError> {
        self.lexer.blanks();
        if self.lexer.eat("exists") {
            return Ok(Arc::new(Expr::Exists(left, pos)));
        }
        let (op, modifier, right) = if let Some(op) = self.operator(&Op::NUMERIC) {
            self.lexer.blanks();
            let value_pos = self.lexer.pos();
            let right = match self.lexer.number() {
                Some(number) => Right::Value(number.to_vec(), value_pos),
                None => self.right_operand("expected a number or a transformer")?,
            };
            (op, None, right)
        } else if let Some(op) = self.operator(&Op::TEXT) {
            if let Some((modifier, list)) = self.modified_list()? {
                (op, Some(modifier), list)
            } else {
                self.lexer.blanks();
                let value_pos = self.lexer.pos();
                let right = match self.operand(true)? {
                    Some(operand) => Right::Operand(operand),
                    None => Right::Value(self.string()?, value_pos),
                };
                (op, None, right)
            }
        } else if let Some(op) = self.operator(&Op::LIST) {
            self.lexer.blanks();
            let value_pos = self.lexer.pos();
            let right = if let Some(list) = self.list()? {
                Right::List(list, value_pos)
            } else if let Some(operand) = self.operand(true)? {
                Right::Operand(operand)
            } else if let Some(name) = self.lexer.identifier() {
                Right::Value(name.as_bytes().to_vec(), value_pos)
            } else {
                return Err(self.error("expected a list, a transformer or a name".to_owned()));
            };
            (op, None, right)
        } else {
            return Err(self.error("expected a valid check operator: one of exists, <, <=, >=, >, =, ==, !=, glob, iglob, contains, icontains, bcontains, startswith, bstartswith, endswith, regex, in, intersects, pmatch".to_owned()));
        };
        Ok(Arc::new(Expr::Check { left, op, modifier, right, pos }))
    }

    /// The first operator of `among` that the text starts with. A word needs a blank after it, unless it takes a list.
    fn operator(&mut self, among: &[Op]) -> Option<Op> {
        among.iter().copied().find(|op| {
            let before = self.lexer;
            let found = self.lexer.eat(op.text());
            let blank = || matches!(before.rest().get(op.text().len()), Some(b' ' | b'\t' | b'\n' | b'\r' | 8));
            if found && (!op.is_word() || Op::LIST.contains(op) || blank()) {
                return true;
            }
            self.lexer = before;
            false
        })
    }

    /// A modifier with its list. Anything that merely looks like one is text.
    fn modified_list(&mut self) -> Result<Option<(Modifier, Right)>, ParseError> {
        let before = self.lexer;
        if self.lexer.blanks() {
            for modifier in Modifier::ALL {
                if !self.lexer.eat_with_blank(modifier.text()) {
                    continue;
                }
                let pos = self.lexer.pos();
                if let Some(list) = self.list()? {
                    return Ok(Some((modifier, Right::List(list, pos))));
                }
                match self.lexer.identifier() {
                    Some("and" | "or" | "not") | None => {}
                    Some(name) => {
                        return Ok(Some((modifier, Right::Value(name.as_bytes().to_vec(), pos))));
                    }
                }
                break;
            }
        }
        self.lexer = before;
        Ok(None)
    }

    /// `(a, "b", c)`
    fn list(&mut self) -> Result<Option<Vec<Vec<u8>>>, ParseError> {
        if !self.lexer.eat("(") {
            return Ok(None);
        }
        let mut items = Vec::new();
        self.lexer.blanks();
        if let Some(first) = self.first_item()? {
            items.push(first);
            self.lexer.blanks();
            while self.lexer.eat(",") {
                self.lexer.blanks();
                items.push(self.string()?);
                self.lexer.blanks();
            }
        }
        if self.lexer.eat(")") { Ok(Some(items)) } else { Err(self.error("expected a ')' or a ','".to_owned())) }
    }

    /// The first element of a list. Upstream swallows a bad escape here, and so the whole element; the list must end
    /// right after it.
    fn first_item(&mut self) -> Result<Option<Vec<u8>>, ParseError> {
        match self.lexer.quoted() {
            Quoted::Text(text) => Ok(Some(text)),
            Quoted::BadEscape => Ok(None),
            Quoted::Unclosed => Err(self.error("the closing quote is missing".to_owned())),
            Quoted::None => Ok(self.lexer.bare().map(<[u8]>::to_vec)),
        }
    }

    fn string(&mut self) -> Result<Vec<u8>, ParseError> {
        match self.lexer.quoted() {
            Quoted::Text(text) => Ok(text),
            Quoted::BadEscape => Err(self.error("the quoted string has an invalid escape sequence".to_owned())),
            Quoted::Unclosed => Err(self.error("the closing quote is missing".to_owned())),
            Quoted::None => match self.lexer.bare() {
                Some(text) => Ok(text.to_vec()),
                None => Err(self.error("expected a value".to_owned())),
            },
        }
    }

    fn right_operand(&mut self, expected: &str) -> Result<Right, ParseError> {
        match self.operand(true)? {
            Some(operand) => Ok(Right::Operand(operand)),
            None => Err(self.error(expected.to_owned())),
        }
    }

    /// A field or transformer on the left, `val(...)` or a transformer on the right.
    fn operand(&mut self, on_the_right: bool) -> Result<Option<Operand>, ParseError> {
        self.operand_at(on_the_right, self.lexer.pos())
    }

    fn operand_at(&mut self, on_the_right: bool, pos: Pos) -> Result<Option<Operand>, ParseError> {
        if on_the_right {
            if self.lexer.eat("val(") {
                self.lexer.blanks();
                let field_pos = self.lexer.pos();
                let Some(field) = self.field(field_pos)? else {
                    return Err(self.error("expected a field".to_owned()));
                };
                self.lexer.blanks();
                if !self.lexer.eat(")") {
                    return Err(self.error("expected a ')' after the field".to_owned()));
                }
                let args = vec![TransformArg::Operand(field)];
                return Ok(Some(Operand::Transform { name: "val", args, arg: None, pos }));
            }
        } else if let Some(field) = self.field(pos)? {
            return Ok(Some(field));
        }
        self.transform(pos)
    }

    fn field(&mut self, pos: Pos) -> Result<Option<Operand>, ParseError> {
        let Some(name) = self.lexer.field_name() else { return Ok(None) };
        let arg = self.argument()?;
        Ok(Some(Operand::Field { name: name.to_owned(), arg, pos }))
    }

    /// `[...]` right after a field or transformer.
    fn argument(&mut self) -> Result<Option<Vec<u8>>, ParseError> {
        if (self.depth == 0 && !self.brackets) || !self.lexer.eat("[") {
            return Ok(None);
        }
        let arg = match self.lexer.quoted() {
            Quoted::Text(text) => text,
            Quoted::BadEscape => return Err(self.error("the argument has an invalid escape sequence".to_owned())),
            Quoted::Unclosed => return Err(self.error("the closing quote is missing".to_owned())),
            Quoted::None => match self.lexer.bare_argument() {
                Some(text) => text.to_vec(),
                None => return Err(self.error("expected an argument".to_owned())),
            },
        };
        if self.lexer.eat("]") { Ok(Some(arg)) } else { Err(self.error("expected a ']'".to_owned())) }
    }

    fn transform(&mut self, pos: Pos) -> Result<Option<Operand>, ParseError> {
        let before = self.lexer;
        let Some(name) = TRANSFORMERS.into_iter().find(|name| {
            self.lexer = before;
            self.lexer.eat(name) && self.lexer.eat("(")
        }) else {
            self.lexer = before;
            return Ok(None);
        };
        self.depth += 1;
        if self.depth > MAX_TRANSFORM_DEPTH {
            return Err(self.error(format!("transformers are nested more than {MAX_TRANSFORM_DEPTH} levels deep")));
        }
        let mut args = Vec::new();
        self.lexer.blanks();
        loop {
            args.push(self.transform_argument()?);
            self.lexer.blanks();
            if !self.lexer.eat(",") {
                break;
            }
        }
        if !self.lexer.eat(")") {
            return Err(self.error(format!("expected a ')' or a ',' in the arguments of '{name}'")));
        }
        self.depth -= 1;
        let arg = self.argument()?;
        Ok(Some(Operand::Transform { name, args, arg, pos }))
    }

    /// An argument. Its place is where the comma before it ends, and that of a list is the place of its elements, too.
    fn transform_argument(&mut self) -> Result<TransformArg, ParseError> {
        let pos = self.lexer.pos();
        self.lexer.blanks();
        if !self.lexer.eat("(") {
            return self.transform_item(pos);
        }
        let mut items = Vec::new();
        self.lexer.blanks();
        if self.lexer.eat(")") {
            return Ok(TransformArg::List(items, pos));
        }
        loop {
            self.lexer.blanks();
            items.push(self.transform_item(pos)?);
            self.lexer.blanks();
            if !self.lexer.eat(",") {
                break;
            }
        }
        if self.lexer.eat(")") {
            Ok(TransformArg::List(items, pos))
        } else {
            Err(self.error("expected a ')' or a ',' in the list".to_owned()))
        }
    }

    fn transform_item(&mut self, pos: Pos) -> Result<TransformArg, ParseError> {
        if let Some(number) = self.lexer.number() {
            return Ok(TransformArg::Value(number.to_vec(), pos));
        }
        match self.lexer.quoted() {
            Quoted::Text(text) => return Ok(TransformArg::Value(text, pos)),
            Quoted::BadEscape => return Err(self.error("the quoted string has an invalid escape sequence".to_owned())),
            Quoted::Unclosed => return Err(self.error("the closing quote is missing".to_owned())),
            Quoted::None => {}
        }
        match self.operand_at(false, pos)? {
            Some(operand) => Ok(TransformArg::Operand(operand)),
            None => Err(self.error("expected a field, a transformer, a number or a quoted string".to_owned())),
        }
    }

    fn expect_open(&mut self, word: &str) -> Result<(), ParseError> {
        if self.lexer.eat("(") { Ok(()) } else { Err(self.error(format!("expected a blank or a '(' after '{word}'"))) }
    }

    fn error(&self, message: String) -> ParseError {
        ParseError { message, pos: self.lexer.pos() }
    }
}
