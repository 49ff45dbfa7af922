//! `helm template`: values are laid over the chart's own, have to fit the schema, and fill the templates.
//!
//! Go's template language is a library's; of Helm's functions there are those that the chart uses. With `XLB_HELM` tests
//! compare with what Helm itself makes of the same.

use std::fs;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use anyhow::{Context, Result, ensure};
use gotmpl::{Template, TemplateError};
use serde_json::{Value, json};

use super::functions::{argument, known_by, text, text_of};
use super::values::{laid_over, seen};
use super::{documents, read};

/// What is shown to a person at the end, and is no object.
const NOTES: &str = "NOTES.txt";

/// A chart.
pub struct Chart {
    about: Value,
    /// The values that it has by itself.
    pub values: Value,
    /// What values have to fit.
    pub schema: Value,
    templates: Vec<(String, String)>,
}

/// Where a chart is installed.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
}

/// What came of a chart.
#[derive(Debug)]
pub struct Rendered {
    /// The objects, in the order of the files.
    pub objects: Vec<Value>,
    /// What is shown at the end.
    pub notes: String,
}

impl Chart {
    /// Reads a chart's folder.
    ///
    /// # Errors
    /// When a part is missing, or is not what it should be.
    pub fn load(folder: &Path) -> Result<Chart> {
        let yaml = |name: &str| -> Result<Value> {
            let path = folder.join(name);
            serde_yaml_ng::from_str(&read(&path)?).with_context(|| format!("reading {}", path.display()))
        };
        let schema = serde_json::from_str(&read(&folder.join("values.schema.json"))?).context("reading the schema")?;
        let mut templates = Vec::new();
        for entry in fs::read_dir(folder.join("templates")).context("listing the templates")? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            templates.push((name, read(&path)?));
        }
        templates.sort();
        Ok(Chart { about: yaml("Chart.yaml")?, values: yaml("values.yaml")?, schema, templates })
    }

    /// Fills the templates.
    ///
    /// # Errors
    /// When the values do not fit the schema, with each place that does not, or a template fails.
    pub fn render(&self, release: Release, values: &Value) -> Result<Rendered> {
        let values = laid_over(&self.values, values);
        self.check(&values)?;
        let data = seen(&json!({
            "Values": values,
            "Release": { "Name": release.name, "Namespace": release.namespace, "Service": "Helm" },
            "Chart": {
                "Name": self.about["name"], "Version": self.about["version"], "AppVersion": self.about["appVersion"],
            },
        }));
        let set = self.parsed()?;
        let (mut objects, mut notes) = (Vec::new(), String::new());
        for (name, _) in self.templates.iter().filter(|(name, _)| !name.starts_with('_')) {
            let filled = set.execute_template_to_string(name, &data).with_context(|| format!("filling {name}"))?;
            ensure!(!filled.contains("<no value>"), "{name} names a value that is not there:\n{filled}");
            match name.as_str() {
                NOTES => notes = filled,
                _ => objects.extend(documents(&filled)?),
            }
        }
        Ok(Rendered { objects, notes })
    }

    /// Whether values fit the schema.
    fn check(&self, values: &Value) -> Result<()> {
        let schema = jsonschema::draft7::new(&self.schema).context("the schema is none")?;
        let errors: Vec<String> =
            schema.iter_errors(values).map(|error| format!("{}: {error}", error.instance_path())).collect();
        ensure!(errors.is_empty(), "the values do not fit values.schema.json:\n{}", errors.join("\n"));
        Ok(())
    }

    /// All templates in one set, in which one can include another.
    fn parsed(&self) -> Result<Arc<Template>> {
        let whole: Arc<OnceLock<Weak<Template>>> = Arc::default();
        let of_include = Arc::clone(&whole);
        let mut set = known_by(Template::new("chart")).func("include", move |args| {
            let whole = of_include.get().and_then(Weak::upgrade);
            let whole = whole.ok_or_else(|| TemplateError::Exec("include outside of a chart".into()))?;
            Ok(text_of(&whole.execute_template_to_string(text(args, 0)?, argument(args, 1)?)?))
        });
        for (name, text) in &self.templates {
            let defined = match name.starts_with('_') {
                true => text.clone(),
                false => format!("{{{{define {name:?}}}}}{text}{{{{end}}}}"),
            };
            set = set.parse(&defined).with_context(|| format!("reading the template {name}"))?;
        }
        let set = Arc::new(set);
        let _ = whole.set(Arc::downgrade(&set));
        Ok(set)
    }
}
