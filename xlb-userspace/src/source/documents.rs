//! The documents of a YAML file.

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// The line of the file, from 1, on which `text` begins.
    pub first_line: usize,
    /// Its text, with the `---` above it.
    pub text: &'a str,
}

impl Document<'_> {
    /// The line of the file that holds the first word of the document, or its first line if it has none.
    pub fn content_line(&self) -> usize {
        let before = self.text.lines().position(|line| has_content(line) && !is_marker(line));
        self.first_line + before.unwrap_or(0)
    }
}

/// Splits a file at the lines that begin with `---`, as kubectl does.
///
/// Parsing each document by itself reports the errors of all of them at once: a YAML parser gives up at the first.
pub fn documents(text: &str) -> Vec<Document<'_>> {
    let mut pieces = pieces(text);
    // What stands above the first marker is a document only if it says something.
    if pieces.len() > 1 && !pieces[0].1.lines().any(has_content) {
        pieces.remove(0);
    }
    let numbered = pieces.into_iter().zip(1..);
    numbered.map(|((first_line, text), number)| Document { number, first_line, text }).collect()
}

/// The text cut above each marker, each piece with the number of its first line.
fn pieces(text: &str) -> Vec<(usize, &str)> {
    let mut pieces = Vec::new();
    let (mut first_line, mut start, mut end) = (1, 0, 0);
    for (line, number) in text.split_inclusive('\n').zip(1..) {
        if is_marker(line) {
            pieces.push((first_line, &text[start..end]));
            (first_line, start) = (number, end);
        }
        end += line.len();
    }
    pieces.push((first_line, &text[start..]));
    pieces
}

fn is_marker(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with(['#', '%'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_split_and_numbered_and_know_their_lines() {
        for (text, expected) in [
            ("", "1@1:1"),
            ("# nothing\n", "1@1:1"),
            ("a: 1", "1@1:1"),
            ("---\na: 1\n", "1@1:2"),
            ("# head\n---\na: 1\n", "1@2:3"),
            ("%YAML 1.2\n---\na: 1\n", "1@2:3"),
            ("a: 1\n---\nb: 2\n", "1@1:1 2@2:3"),
            ("a: 1\r\n---\r\nb: 2\r\n", "1@1:1 2@2:3"),
            ("---\n---\n# comment\n\na: 1\n", "1@1:1 2@2:5"),
            ("a: 1\n---\n", "1@1:1 2@2:2"),
            ("a: 1\n--- # comment\n\nb: 2", "1@1:1 2@2:4"),
            ("a: |\n  ---\n  text\n", "1@1:1"),
            ("a: 1\n----\n", "1@1:1"),
        ] {
            let found: Vec<String> = documents(text).iter().map(describe).collect();
            assert_eq!(found.join(" "), expected, "{text:?}");
        }
    }

    /// `number@first line:line of the first word`.
    fn describe(document: &Document) -> String {
        format!("{}@{}:{}", document.number, document.first_line, document.content_line())
    }
}
