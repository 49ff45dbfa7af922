//! The text of a manifest file becomes objects, or sentences that say where it is wrong.

use std::collections::BTreeMap;
use std::fmt;

use super::documents::{Document, documents};
use super::objects::{DocumentError, objects_of};
use crate::model::objects::Object;
use crate::plan::desired::Refusal;

/// An object, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Number of the document within its file, from 1.
    pub document: usize,
    /// The object.
    pub object: Object,
}

/// What a file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    /// The objects of the kinds that matter.
    pub objects: Vec<Located>,
    /// How many objects of other kinds there were.
    pub ignored: usize,
}

/// Something wrong with the manifests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ManifestError {
    /// The file or directory.
    pub file: String,
    /// Number of the document within the file, from 1.
    pub document: Option<usize>,
    /// Line of the file, from 1.
    pub line: Option<usize>,
    /// What was found, and what was expected.
    pub why: String,
}

impl ManifestError {
    /// About a file as a whole.
    pub fn of_file(file: &str, why: impl Into<String>) -> Self {
        Self { file: file.into(), document: None, line: None, why: why.into() }
    }

    /// The same for those who read what a node does not do.
    pub fn refusal(&self) -> Refusal {
        Refusal { object: self.place(), why: self.why.clone() }
    }

    fn place(&self) -> String {
        let document = self.document.map(|number| format!(", document {number}")).unwrap_or_default();
        let line = self.line.map(|line| format!(", line {line}")).unwrap_or_default();
        format!("{}{document}{line}", self.file)
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.why)
    }
}

/// Reads all documents of a file, or tells every one that is wrong.
pub fn parse_file(name: &str, text: &str) -> Result<Parsed, Vec<ManifestError>> {
    let mut parsed = Parsed::default();
    let mut errors = Vec::new();
    // Editors on Windows put a byte order mark in front.
    for document in documents(text.trim_start_matches('\u{feff}')) {
        match objects_of(document.text) {
            Ok((objects, ignored)) => {
                let located = objects.into_iter().map(|object| Located { document: document.number, object });
                parsed.objects.extend(located);
                parsed.ignored += ignored;
            }
            Err(error) => errors.push(locate(name, &document, error)),
        }
    }
    errors.extend(repetitions(name, &parsed.objects));
    if errors.is_empty() { Ok(parsed) } else { Err(errors) }
}

/// Puts an error where it belongs in the file. The parser counted lines within the document: it is asked again, with as
/// many empty lines above, so that all line numbers in its sentence are those of the file.
fn locate(name: &str, document: &Document, error: DocumentError) -> ManifestError {
    let located =
        |line, why| ManifestError { file: name.into(), document: Some(document.number), line: Some(line), why };
    let padded = "\n".repeat(document.first_line - 1) + document.text;
    match (error, objects_of(&padded)) {
        (DocumentError::Yaml(_), Err(DocumentError::Yaml(error))) => {
            let line = error.location().map_or(document.content_line(), |location| location.line());
            located(line, without_position(&error))
        }
        (DocumentError::Yaml(error), _) => located(document.content_line(), error.to_string()),
        (DocumentError::Content(why), _) => located(document.content_line(), why),
    }
}

/// The sentence without the position of the mistake, which is said in front of it.
fn without_position(error: &serde_yaml_ng::Error) -> String {
    let sentence = error.to_string();
    let Some(location) = error.location() else { return sentence };
    let position = format!(" at line {} column {}", location.line(), location.column());
    sentence.replacen(&position, "", 1)
}

fn repetitions(name: &str, objects: &[Located]) -> Vec<ManifestError> {
    let mut places = BTreeMap::new();
    let mut errors = Vec::new();
    for Located { document, object } in objects {
        if let Some(first) = places.insert(object.key(), *document) {
            let why = format!("{} is in document {first} too; remove one of the two", object.key());
            errors.push(ManifestError { file: name.into(), document: Some(*document), line: None, why });
        }
    }
    errors
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
