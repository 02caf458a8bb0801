//! Cases about text and tree: parse, ast, positions, print, escape.

use std::sync::Arc;

use purser_rules::parse::{self, Expr, Operand, Pos, Right, TransformArg};
use serde_json::{Value as Json, json};

use crate::{Verdict, same, shown, text};

/// The nesting limit of the stand-alone parser.
const DEPTH: usize = 100;

pub(crate) fn parse_case(case: &Json) -> Verdict {
    let expr = text(&case["expr"]);
    let wants_ok = case["expect"] == "ok";
    let tree = match (parse::parse(&expr, DEPTH), wants_ok) {
        (Ok(tree), true) => tree,
        (Err(_), false) => return Ok(()),
        (Err(error), true) => return Err(format!("{}: {error}", shown(&expr))),
        (Ok(tree), false) => return Err(format!("{}: accepted as {}", shown(&expr), shown(&parse::print(&tree)))),
    };
    if !case["canon"].is_null() {
        same("canonical print", &shown(&parse::print(&tree)), &shown(&text(&case["canon"])))?;
        same("canonical bytes", &parse::print(&tree), &text(&case["canon"]))?;
    }
    if case["ws_variants"] == true {
        let mut padded = b" \t".to_vec();
        padded.extend(&expr);
        padded.extend(b" \n");
        let replaced = |with: u8| expr.iter().map(|byte| if *byte == b' ' { with } else { *byte }).collect();
        for variant in [padded, replaced(b'\n'), replaced(b'\t')] {
            parse::parse(&variant, DEPTH).map_err(|error| format!("{:?}: {error}", shown(&variant)))?;
        }
    }
    Ok(())
}

pub(crate) fn ast(case: &Json) -> Verdict {
    let tree = parse::parse(&text(&case["expr"]), DEPTH).map_err(|error| error.to_string())?;
    same("tree", &tree_of(&tree), &case["expect"])
}

pub(crate) fn ast_equal(case: &Json) -> Verdict {
    let tree = |key: &str| parse::parse(&text(&case[key]), DEPTH).map(|tree| tree_of(&tree));
    let (a, b) = (tree("a").map_err(|e| e.to_string())?, tree("b").map_err(|e| e.to_string())?);
    same("equal", &Json::Bool(a == b), &case["expect"])
}

pub(crate) fn positions(case: &Json) -> Verdict {
    let tree = parse::parse(&text(&case["expr"]), DEPTH).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    positions_of(&tree, &mut out);
    same("positions", &Json::Array(out), &case["expect"])
}

pub(crate) fn print_case(case: &Json) -> Verdict {
    let tree = parse::parse(&text(&case["expr"]), DEPTH).map_err(|error| error.to_string())?;
    same("print", &shown(&parse::print(&tree)), &shown(&text(&case["expect"])))
}

pub(crate) fn roundtrip(case: &Json) -> Verdict {
    let tree = parse::parse(&text(&case["expr"]), DEPTH).map_err(|error| error.to_string())?;
    let again = parse::parse(&parse::print(&tree), DEPTH).map_err(|error| error.to_string())?;
    same("tree", &tree_of(&again), &tree_of(&tree))
}

pub(crate) fn escape_case(case: &Json) -> Verdict {
    same("escaped", &shown(&parse::escape(&text(&case["input"]))), &shown(&text(&case["expect"])))
}

pub(crate) fn escape_roundtrip(case: &Json) -> Verdict {
    let input = text(&case["input"]);
    let escaped = parse::escape(&input);
    let back = if escaped == input { Some(input.clone()) } else { parse::unescape(&escaped) };
    same("round trip", &back, &Some(input))
}

pub(crate) fn unescape_case(case: &Json) -> Verdict {
    let got = parse::unescape(&text(&case["input"]));
    let want = if case["expect"] == "error" { None } else { Some(text(&case["expect"])) };
    same("unescaped", &got, &want)
}

fn tree_of(expr: &Arc<Expr>) -> Json {
    match expr.as_ref() {
        Expr::And(children, _) | Expr::Or(children, _) => {
            let word = if matches!(expr.as_ref(), Expr::And(..)) { "and" } else { "or" };
            std::iter::once(json!(word)).chain(children.iter().map(tree_of)).collect()
        }
        Expr::Not(child, _) => json!(["not", tree_of(child)]),
        Expr::Macro(name, _) => json!(["identifier", name]),
        Expr::Exists(operand, _) => json!(["unary", operand_of(operand), "exists"]),
        Expr::Check { left, op, modifier, right, .. } => {
            let op = match modifier {
                Some(modifier) => format!("{} {}", op.text(), modifier.text()),
                None => op.text().to_owned(),
            };
            let right = match right {
                Right::Value(value, _) => json!(["value", shown(value)]),
                Right::List(items, _) => {
                    std::iter::once(json!("list")).chain(items.iter().map(|item| json!(shown(item)))).collect()
                }
                Right::Operand(operand) => operand_of(operand),
            };
            json!(["binary", operand_of(left), op, right])
        }
    }
}

fn operand_of(operand: &Operand) -> Json {
    match operand {
        Operand::Field { name, arg, .. } => json!(["field", name, arg.as_deref().map(shown)]),
        Operand::Transform { name, args, arg, .. } => {
            let args: Vec<_> = args.iter().map(arg_of).collect();
            json!(["transformer", name, args, arg.as_deref().map(shown)])
        }
    }
}

fn arg_of(arg: &TransformArg) -> Json {
    match arg {
        TransformArg::Operand(operand) => operand_of(operand),
        TransformArg::Value(value, _) => json!(["value", shown(value)]),
        TransformArg::List(items, _) => std::iter::once(json!("list")).chain(items.iter().map(arg_of)).collect(),
    }
}

fn positions_of(expr: &Arc<Expr>, out: &mut Vec<Json>) {
    let kind = match expr.as_ref() {
        Expr::And(..) => "and",
        Expr::Or(..) => "or",
        Expr::Not(..) => "not",
        Expr::Macro(..) => "identifier",
        Expr::Exists(..) => "unary",
        Expr::Check { .. } => "binary",
    };
    out.push(position(kind, expr.pos()));
    match expr.as_ref() {
        Expr::And(children, _) | Expr::Or(children, _) => {
            for child in children {
                positions_of(child, out);
            }
        }
        Expr::Not(child, _) => positions_of(child, out),
        Expr::Macro(..) => {}
        Expr::Exists(operand, _) => operand_positions(operand, out),
        Expr::Check { left, right, .. } => {
            operand_positions(left, out);
            match right {
                Right::Value(_, pos) => out.push(position("value", *pos)),
                Right::List(_, pos) => out.push(position("list", *pos)),
                Right::Operand(operand) => operand_positions(operand, out),
            }
        }
    }
}

fn operand_positions(operand: &Operand, out: &mut Vec<Json>) {
    match operand {
        Operand::Field { pos, .. } => out.push(position("field", *pos)),
        Operand::Transform { args, pos, .. } => {
            out.push(position("transformer", *pos));
            for arg in args {
                arg_positions(arg, out);
            }
        }
    }
}

fn arg_positions(arg: &TransformArg, out: &mut Vec<Json>) {
    match arg {
        TransformArg::Operand(operand) => operand_positions(operand, out),
        TransformArg::Value(_, pos) => out.push(position("value", *pos)),
        TransformArg::List(items, pos) => {
            out.push(position("list", *pos));
            for item in items {
                arg_positions(item, out);
            }
        }
    }
}

fn position(kind: &str, pos: Pos) -> Json {
    json!([kind, pos.index, pos.line, pos.column])
}
