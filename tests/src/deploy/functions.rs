//! Those of Helm's template functions that the chart uses. A template with another one is refused when it is parsed.

use std::sync::Arc;

use gotmpl::{Result, Template, TemplateError, Value};

use super::values::unseen;

/// Teaches a template the functions, but for `include`, which belongs to a set of templates.
pub fn known_by(template: Template) -> Template {
    template
        .func("quote", |args| Ok(text_of(&format!("{:?}", text(args, 0)?))))
        .func("trim", |args| Ok(text_of(text(args, 0)?.trim())))
        .func("nindent", |args| Ok(text_of(&format!("\n{}", indented(whole(args, 0)?, text(args, 1)?)))))
        .func("toYaml", |args| Ok(text_of(yaml(argument(args, 0)?)?.trim_end())))
        .func("default", |args| {
            let (default, given) = (argument(args, 0)?, argument(args, 1)?);
            Ok(if given.is_truthy() { given.clone() } else { default.clone() })
        })
        .func("int64", |args| Ok(Value::Int(whole(args, 0)?)))
        .func("kindIs", |args| Ok(Value::Bool(text(args, 0)? == kind(argument(args, 1)?))))
        .func("list", |args| Ok(Value::List(args.into())))
        .func("last", |args| Ok(items(args, 0)?.last().cloned().unwrap_or(Value::Nil)))
        .func("has", |args| {
            let needle = unseen(argument(args, 0)?);
            Ok(Value::Bool(items(args, 1)?.iter().any(|item| unseen(item) == needle)))
        })
        .func("join", |args| {
            let words: Vec<String> = items(args, 1)?.iter().map(ToString::to_string).collect();
            Ok(text_of(&words.join(text(args, 0)?)))
        })
        .func("splitList", |args| Ok(Value::List(text(args, 1)?.split(text(args, 0)?).map(text_of).collect())))
        .func("contains", |args| Ok(Value::Bool(text(args, 1)?.contains(text(args, 0)?))))
        .func("hasPrefix", |args| Ok(Value::Bool(text(args, 1)?.starts_with(text(args, 0)?))))
        .func("trimPrefix", |args| {
            let (prefix, whole) = (text(args, 0)?, text(args, 1)?);
            Ok(text_of(whole.strip_prefix(prefix).unwrap_or(whole)))
        })
        .func("trimSuffix", |args| {
            let (suffix, whole) = (text(args, 0)?, text(args, 1)?);
            Ok(text_of(whole.strip_suffix(suffix).unwrap_or(whole)))
        })
        .func("fail", |args| Err(TemplateError::Exec(text(args, 0)?.to_owned())))
}

/// A string for templates.
pub fn text_of(text: &str) -> Value {
    Value::String(Arc::from(text))
}

/// An argument that is a string.
///
/// # Errors
/// When it is missing or something else, as Go's templates refuse it.
pub fn text(args: &[Value], at: usize) -> Result<&str> {
    let found = argument(args, at)?;
    found.as_str().ok_or_else(|| TemplateError::Exec(format!("argument {at} is a {}, no string", kind(found))))
}

/// An argument.
///
/// # Errors
/// When it is missing.
pub fn argument(args: &[Value], at: usize) -> Result<&Value> {
    args.get(at).ok_or_else(|| TemplateError::Exec(format!("argument {at} is missing")))
}

fn whole(args: &[Value], at: usize) -> Result<i64> {
    match argument(args, at)? {
        Value::Int(number) => Ok(*number),
        Value::Float(number) => Ok(*number as i64),
        other => Err(TemplateError::Exec(format!("argument {at} is a {}, no number", kind(other)))),
    }
}

fn items(args: &[Value], at: usize) -> Result<&[Value]> {
    match argument(args, at)? {
        Value::List(items) => Ok(items),
        other => Err(TemplateError::Exec(format!("argument {at} is a {}, no list", kind(other)))),
    }
}

/// As Go's reflection calls it.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "bool",
        Value::Int(_) => "int64",
        Value::Uint(_) => "uint64",
        Value::Float(_) => "float64",
        Value::String(_) => "string",
        Value::List(_) => "slice",
        Value::Map(_) => "map",
        Value::Function(_) => "func",
        _ => "invalid",
    }
}

fn indented(spaces: i64, text: &str) -> String {
    let margin = " ".repeat(usize::try_from(spaces).unwrap_or(0));
    let lines: Vec<String> = text.split('\n').map(|line| format!("{margin}{line}")).collect();
    lines.join("\n")
}

fn yaml(value: &Value) -> Result<String> {
    serde_yaml_ng::to_string(&unseen(value)).map_err(|error| TemplateError::Exec(error.to_string()))
}
