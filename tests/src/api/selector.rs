//! Label and field selectors, as list and watch take them in their query.

use serde_json::Value;

use super::refusal::Refusal;
use super::resource::Resource;

/// What a list or a watch shows: the objects of one namespace, or of all, that match both selectors.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    namespace: Option<String>,
    labels: Vec<LabelRule>,
    fields: Vec<FieldRule>,
}

impl Selection {
    /// Reads the selectors of a query; an unknown field is refused with 400.
    pub fn parse(
        resource: &Resource,
        namespace: Option<&str>,
        labels: &str,
        fields: &str,
    ) -> Result<Selection, Refusal> {
        Ok(Selection {
            namespace: namespace.map(str::to_owned),
            labels: requirements(labels).into_iter().map(LabelRule::parse).collect::<Result<_, _>>()?,
            fields: requirements(fields)
                .into_iter()
                .map(|text| FieldRule::parse(resource, text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether nothing but the namespace narrows the selection.
    pub fn has_no_selector(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether an object belongs to the selection.
    pub fn matches(&self, object: &Value) -> bool {
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str);
        self.namespace.as_deref().is_none_or(|wanted| namespace == Some(wanted))
            && self.labels.iter().all(|rule| rule.matches(object))
            && self.fields.iter().all(|rule| rule.matches(object))
    }
}

/// The parts between commas that stand outside parentheses.
fn requirements(text: &str) -> Vec<&str> {
    let mut depth = 0;
    text.split(|c| {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
    .collect()
}

#[derive(Debug, Clone)]
enum LabelRule {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

impl LabelRule {
    fn parse(text: &str) -> Result<LabelRule, Refusal> {
        if let Some(key) = text.strip_prefix('!') {
            return Ok(LabelRule::Absent(label_key(key)?));
        }
        if let Some((key, set)) = text.split_once(" notin ") {
            return Ok(LabelRule::NotIn(label_key(key)?, value_set(set)?));
        }
        if let Some((key, set)) = text.split_once(" in ") {
            return Ok(LabelRule::In(label_key(key)?, value_set(set)?));
        }
        if let Some((key, value)) = text.split_once("!=") {
            return Ok(LabelRule::NotIn(label_key(key)?, vec![value.trim().to_owned()]));
        }
        if let Some((key, value)) = equality(text) {
            return Ok(LabelRule::In(label_key(key)?, vec![value.to_owned()]));
        }
        Ok(LabelRule::Exists(label_key(text)?))
    }

    /// As in Kubernetes, an object without the label satisfies `!=` and `notin`.
    fn matches(&self, object: &Value) -> bool {
        let labels = object.pointer("/metadata/labels");
        let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
        match self {
            LabelRule::Exists(key) => label(key).is_some(),
            LabelRule::Absent(key) => label(key).is_none(),
            LabelRule::In(key, values) => label(key).is_some_and(|label| values.iter().any(|v| v == label)),
            LabelRule::NotIn(key, values) => label(key).is_none_or(|label| values.iter().all(|v| v != label)),
        }
    }
}

fn label_key(text: &str) -> Result<String, Refusal> {
    let key = text.trim();
    let is_key = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || "./-_".contains(c));
    is_key.then(|| key.to_owned()).ok_or_else(|| Refusal::bad_request(format!("unable to parse requirement: {text}")))
}

fn value_set(text: &str) -> Result<Vec<String>, Refusal> {
    let inner = text.trim().strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    let inner = inner.ok_or_else(|| Refusal::bad_request(format!("unable to parse requirement: {text}")))?;
    Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
}

fn equality(text: &str) -> Option<(&str, &str)> {
    let (key, value) = text.split_once("==").or_else(|| text.split_once('='))?;
    Some((key.trim(), value.trim()))
}

#[derive(Debug, Clone)]
struct FieldRule {
    pointer: &'static str,
    value: String,
    is_equal: bool,
}

impl FieldRule {
    fn parse(resource: &Resource, text: &str) -> Result<FieldRule, Refusal> {
        let (field, value, is_equal) = match text.split_once("!=") {
            Some((field, value)) => (field.trim(), value.trim(), false),
            None => {
                let (field, value) =
                    equality(text).ok_or_else(|| Refusal::bad_request(format!("invalid field selector: {text}")))?;
                (field, value, true)
            }
        };
        let pointer = match field {
            "metadata.name" => "/metadata/name",
            "metadata.namespace" => "/metadata/namespace",
            _ => {
                let known = resource.fields.iter().find(|(name, _)| *name == field);
                known.map(|(_, pointer)| *pointer).ok_or_else(|| unknown_field(field))?
            }
        };
        Ok(FieldRule { pointer, value: value.to_owned(), is_equal })
    }

    fn matches(&self, object: &Value) -> bool {
        let found = match object.pointer(self.pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(bit)) => bit.to_string(),
            _ => String::new(),
        };
        (found == self.value) == self.is_equal
    }
}

fn unknown_field(field: &str) -> Refusal {
    Refusal::bad_request(format!("field label not supported: {field}"))
}
