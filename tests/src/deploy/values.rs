//! A chart's values: how Helm lays a file over the defaults, and what templates see of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::Value as Seen;
use serde_json::Value;

/// The defaults with these values over them: maps by key, all else as a whole, and a null removes.
pub fn laid_over(defaults: &Value, values: &Value) -> Value {
    let (Value::Object(defaults), Value::Object(values)) = (defaults, values) else { return values.clone() };
    let mut both = defaults.clone();
    for (key, value) in values {
        match (value, defaults.get(key)) {
            (Value::Null, _) => drop(both.remove(key)),
            (value, Some(default)) => drop(both.insert(key.clone(), laid_over(default, value))),
            (value, None) => drop(both.insert(key.clone(), value.clone())),
        }
    }
    Value::Object(both)
}

/// As a template sees it. Every number of a values file is a float: a template that prints one as it is prints 1048576 as
/// 1.048576e+06.
pub fn seen(value: &Value) -> Seen {
    match value {
        Value::Null => Seen::Nil,
        Value::Bool(is) => Seen::Bool(*is),
        Value::Number(number) => Seen::Float(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => Seen::String(Arc::from(text.as_str())),
        Value::Array(items) => Seen::List(items.iter().map(seen).collect()),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (Arc::from(key.as_str()), seen(value)));
            Seen::Map(Arc::new(fields.collect::<BTreeMap<Arc<str>, Seen>>()))
        }
    }
}

/// What a template has, as a value again.
pub fn unseen(value: &Seen) -> Value {
    match value {
        Seen::Bool(is) => Value::Bool(*is),
        Seen::Int(number) => (*number).into(),
        Seen::Uint(number) => (*number).into(),
        // Go writes a float that is whole without a point.
        Seen::Float(number) if number.fract() == 0.0 => (*number as i64).into(),
        Seen::Float(number) => (*number).into(),
        Seen::String(text) => Value::String(text.to_string()),
        Seen::List(items) => items.iter().map(unseen).collect(),
        Seen::Map(fields) => fields.iter().map(|(key, value)| (key.to_string(), unseen(value))).collect(),
        _ => Value::Null,
    }
}
