//! Cases about fields, compiled conditions, values, event sets and outputs.

use purser_rules::format::{Format, render};
use purser_rules::{
    EventSet, Filter, Outcome, PathSet, PrintFormat, Type, Value, condition_events, parse, suspicions, transform_type,
    transform_values,
};
use serde_json::{Map, Value as Json, json};

use crate::facts::{CaseFacts, catalogue, latin1};
use crate::{Corpus, Verdict, same, shown, text};

const DEPTH: usize = 100;

pub(crate) fn compile(corpus: &Corpus, case: &Json) -> Verdict {
    let catalogue = catalogue(corpus, case["catalog"].as_str().unwrap_or("core"));
    let expr = text(&case["expr"]);
    let result = parse::parse(&expr, DEPTH)
        .map_err(|error| error.to_string())
        .and_then(|tree| Filter::new(&tree, &catalogue).map_err(|error| error.to_string()));
    match (result, case["expect"] == "ok") {
        (Ok((_, hints)), true) => match case["warnings"].as_u64() {
            Some(count) => same(&format!("{}: warnings {hints:?}", shown(&expr)), &(hints.len() as u64), &count),
            None => Ok(()),
        },
        (Err(_), false) => Ok(()),
        (Ok(_), false) => Err(format!("{}: accepted", shown(&expr))),
        (Err(error), true) => Err(format!("{}: {error}", shown(&expr))),
    }
}

pub(crate) fn field(corpus: &Corpus, case: &Json) -> Verdict {
    let catalogue = catalogue(corpus, "core");
    let name = case["field"].as_str().unwrap_or_default();
    let format = Format::parse(format!("%{name}").as_bytes(), &catalogue);
    same(name, &format.is_ok(), &(case["expect"] == "ok"))?;
    let base = name.split('[').next().unwrap_or_default();
    let takes = catalogue.get(base).is_none_or(|field| field.arg != purser_rules::catalogue::ArgKind::None);
    same("takes an argument", &takes, &(case["takes_argument"] == true))
}

pub(crate) fn eval(corpus: &Corpus, case: &Json) -> Verdict {
    let catalogue = catalogue(corpus, case["catalog"].as_str().unwrap_or("core"));
    let expr = text(&case["expr"]);
    let got = match parse::parse(&expr, DEPTH)
        .map_err(|error| error.to_string())
        .and_then(|tree| Filter::new(&tree, &catalogue).map_err(|error| error.to_string()))
    {
        Ok((filter, _)) => match filter.evaluate(&CaseFacts::of(corpus, case, &catalogue)) {
            Outcome::True => json!(true),
            Outcome::False => json!(false),
            Outcome::Pending => json!("pending"),
        },
        Err(error) if case["expect"] != "error" => return Err(format!("{}: {error}", shown(&expr))),
        Err(_) => json!("error"),
    };
    same(&format!("{} on {}", shown(&expr), case["fields"]), &got, &case["expect"])
}

fn events_of(expr: &Json) -> Result<EventSet, String> {
    let tree = parse::parse(&text(expr), DEPTH).map_err(|error| error.to_string())?;
    condition_events(&tree).map_err(|error| error.to_string())
}

fn named(names: &Json) -> EventSet {
    names.as_array().into_iter().flatten().fold(EventSet::EMPTY, |set, name| {
        let name = name.as_str().unwrap_or_default();
        set.union(&EventSet::named(if name == "generic" { "uname" } else { name }))
    })
}

fn used(set: EventSet) -> Vec<String> {
    set.iter().filter(|code| code.event().is_used()).map(|code| format!("{code:?}")).collect()
}

pub(crate) fn events(case: &Json) -> Verdict {
    if case["expect"] == "error" {
        return same("error", &events_of(&case["expr"]).is_err(), &true);
    }
    let got = events_of(&case["expr"])?;
    let want = match case["expect"].get("only") {
        Some(names) => named(names),
        None => named(&case["expect"]["all_except"]).complement(),
    };
    same(&case["expr"].to_string(), &used(got), &used(want))
}

pub(crate) fn events_equal(case: &Json) -> Verdict {
    let (a, b) = (events_of(&case["a"])?, events_of(&case["b"])?);
    same("equal", &(a == b), &(case["expect"].is_null() || case["expect"] == true))
}

pub(crate) fn events_valid(case: &Json) -> Verdict {
    same(&case["expr"].to_string(), &events_of(&case["expr"]).is_ok(), &(case["expect"] == "ok"))
}

pub(crate) fn condition_warning(case: &Json) -> Verdict {
    let tree = parse::parse(&text(&case["expr"]), DEPTH).map_err(|error| error.to_string())?;
    let codes: Vec<_> = suspicions(&tree).into_iter().map(|(code, _)| json!(code.name())).collect();
    same("codes", &Json::Array(codes), &case["expect"])
}

pub(crate) fn transform_type_case(case: &Json) -> Verdict {
    let ty = Type::by_name(case["type"].as_str().unwrap_or_default()).ok_or("unknown type")?;
    let got = transform_type(case["transformer"].as_str().unwrap_or_default(), ty, case["is_list"] == true);
    same("accepted", &got.is_ok(), &(case["expect"] != "error"))
}

pub(crate) fn transform(case: &Json) -> Verdict {
    let ty = Type::by_name(case["type"].as_str().unwrap_or_default()).ok_or("unknown type")?;
    let name = case["transformer"].as_str().unwrap_or_default();
    let input: Vec<(Vec<u8>, Option<u64>)> = case["input"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|value| (value.as_str().map(latin1).unwrap_or_default(), value.as_u64()))
        .collect();
    let values: Vec<Value<'_>> =
        input.iter().map(|(text, number)| number.map_or(Value::Text(text), Value::U64)).collect();
    let is_list = case["is_list"] == true;
    let got = transform_values(name, ty, is_list, &values).map_err(|error| error.to_string())?;
    same("values", &got.map_or(Json::Null, Json::Array), &case["expect"])?;
    let (ty, is_list) = transform_type(name, ty, is_list).map_err(|error| error.to_string())?;
    same("type", &json!([ty.name(), is_list]), &json!([case["expect_type"], case["expect_list"]]))
}

pub(crate) fn pmatch(case: &Json) -> Verdict {
    let set = path_set(case);
    same("pmatch", &json!(set.matches(&text(&case["value"]))), &case["expect"])
}

pub(crate) fn pmatch_reduce(case: &Json) -> Verdict {
    let paths: Vec<_> = path_set(case).paths().iter().map(|path| json!(shown(path))).collect();
    let mut want = case["expect"].as_array().cloned().unwrap_or_default();
    want.sort_by_key(ToString::to_string);
    same("paths", &paths, &want)
}

fn path_set(case: &Json) -> PathSet {
    let paths: Vec<Vec<u8>> = case["paths"].as_array().into_iter().flatten().map(text).collect();
    PathSet::new(paths.iter().map(Vec::as_slice))
}

pub(crate) fn format_valid(corpus: &Corpus, case: &Json) -> Verdict {
    let catalogue = catalogue(corpus, case["catalog"].as_str().unwrap_or("core"));
    let format = Format::parse(&text(&case["format"]), &catalogue);
    same(&case["format"].to_string(), &format.is_ok(), &(case["expect"] != "error"))
}

pub(crate) fn format(corpus: &Corpus, case: &Json) -> Verdict {
    let catalogue = catalogue(corpus, case["catalog"].as_str().unwrap_or("core"));
    let format = Format::parse(&text(&case["format"]), &catalogue).map_err(|error| error.to_string())?;
    let facts = CaseFacts::of(corpus, case, &catalogue);
    let transformed = case["include_transformed"] == true;
    let want = &case["expect"];
    let is_text = case["mode"] == "text";
    let text_out = format.text(&facts);
    let json_out = format.json(&facts, transformed);
    let got_ok = if is_text { text_out.is_some() } else { json_out.is_some() };
    same("ok", &got_ok, &(want["ok"] == true))?;
    if !got_ok {
        return Ok(());
    }
    if is_text {
        if let Some(output) = want["output"].as_str() {
            same("output", &shown(&text_out.unwrap_or_default()), &output.to_owned())?;
        }
    } else if let Some(output) = want.get("output_json") {
        same("json", &json_out.unwrap_or_default(), output)?;
    }
    let values = format.texts(&facts, transformed).unwrap_or_default();
    if let Some(count) = want["values_count"].as_u64() {
        same("number of values", &(values.len() as u64), &count)?;
    }
    match want["values"].as_object() {
        // The case lists some of them, and counts all.
        Some(wanted) => {
            wanted.iter().try_for_each(|(key, value)| same(key, values.get(key).unwrap_or(&Json::Null), value))
        }
        None => Ok(()),
    }
}

pub(crate) fn format_typed(corpus: &Corpus, case: &Json) -> Verdict {
    let catalogue = catalogue(corpus, case["catalog"].as_str().unwrap_or("fmt"));
    let format = Format::parse(&text(&case["format"]), &catalogue).map_err(|error| error.to_string())?;
    let facts = CaseFacts::of(corpus, case, &catalogue);
    let want = &case["expect"];
    let what = format!("{} on {}", case["format"], case["fields"]);
    let got = format.text(&facts);
    same(&format!("{what}: ok"), &got.is_some(), &(want["ok"] == true))?;
    if let Some(got) = got
        && !want["text"].is_null()
    {
        same(&what, &shown(&got), &shown(&text(&want["text"])))?;
    }
    let got = format.json(&facts, case["include_transformed"] == true);
    if let Some(json_ok) = want["json_ok"].as_bool() {
        same(&format!("{what}: json ok"), &got.is_some(), &json_ok)?;
        if json_ok {
            same(&format!("{what}: json"), &got.unwrap_or_default(), &want["json"])?;
        }
    }
    Ok(())
}

pub(crate) fn render_case(corpus: &Corpus, case: &Json) -> Verdict {
    if case["value"]["list"].is_array() {
        let catalogue = catalogue(corpus, "core");
        let field = case["field"].as_str().unwrap_or_default();
        let inline = json!({"fields": {field: case["value"]}});
        let format = Format::parse(format!("%{field}").as_bytes(), &catalogue).map_err(|error| error.to_string())?;
        let got = format.text(&CaseFacts::of(corpus, &inline, &catalogue));
        return same("text", &json!(got.map(|text| shown(&text))), &case["expect"]);
    }
    let value = &case["value"];
    let ty = match value["t"].as_str().unwrap_or_default() {
        "i8" => Type::I8,
        "i16" => Type::I16,
        "i32" => Type::I32,
        "i64" => Type::I64,
        "u8" => Type::U8,
        "u16" => Type::U16,
        "u32" => Type::U32,
        _ => Type::U64,
    };
    let held = match value["v"].as_u64() {
        Some(number) => Value::U64(number),
        None => Value::I64(value["v"].as_i64().unwrap_or_default()),
    };
    let print = PrintFormat::by_name(case["print_format"].as_str().unwrap_or_default()).ok_or("no print format")?;
    same("text", &render(held, ty, print).map(Json::from).unwrap_or_default(), &case["expect"])
}

pub(crate) fn sorted(map: &Map<String, Json>) -> Vec<String> {
    let mut keys: Vec<_> = map.keys().cloned().collect();
    keys.sort();
    keys
}
