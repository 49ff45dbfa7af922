//! Separates the code of a Rust file from its comments, so that a rule about one is not misled by the other.

/// The same text twice, with everything but line ends replaced by spaces where it is not of that kind. Literals are of
/// neither kind.
pub struct Parts {
    /// Code outside of comments and literals.
    pub code: String,
    /// Comments.
    pub comments: String,
}

/// Splits a Rust source text. It has to be right about where comments and strings end, and about nothing else.
pub fn split(text: &str) -> Parts {
    let mut parts = Parts { code: String::with_capacity(text.len()), comments: String::with_capacity(text.len()) };
    let mut rest = text;
    while !rest.is_empty() {
        let (kind, length) = piece(rest, &parts.code);
        let (piece, behind) = rest.split_at(length);
        parts.push(kind, piece);
        rest = behind;
    }
    parts
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

impl Parts {
    fn push(&mut self, kind: Kind, piece: &str) {
        let blank: String = piece.chars().map(|character| if character == '\n' { '\n' } else { ' ' }).collect();
        self.code.push_str(if kind == Kind::Code { piece } else { &blank });
        self.comments.push_str(if kind == Kind::Comment { piece } else { &blank });
    }
}

/// The kind and the length in bytes of what the text starts with.
fn piece(text: &str, code_before: &str) -> (Kind, usize) {
    if text.starts_with("//") {
        return (Kind::Comment, text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return (Kind::Comment, block_comment(text));
    }
    let in_word = code_before.chars().next_back().is_some_and(|before| before.is_alphanumeric() || before == '_');
    if let Some(length) = raw_string(text).filter(|_| !in_word) {
        return (Kind::Literal, length);
    }
    if text.starts_with('"') {
        return (Kind::Literal, quoted(text, '"').unwrap_or(text.len()));
    }
    if let Some(length) = character(text) {
        return (Kind::Literal, length);
    }
    (Kind::Code, text.chars().next().map_or(1, char::len_utf8))
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        at += match rest {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// A raw string ends at a quote with as many hashes as it began with.
fn raw_string(text: &str) -> Option<usize> {
    let prefix = ["br", "cr", "r"].into_iter().find(|prefix| text.starts_with(prefix))?;
    let behind = &text[prefix.len()..];
    let hashes = behind.len() - behind.trim_start_matches('#').len();
    let content = behind[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let start = prefix.len() + hashes + 1;
    Some(content.find(&end).map_or(text.len(), |at| start + at + end.len()))
}

/// The length of a literal that ends at the next quote without a backslash before it.
fn quoted(text: &str, quote: char) -> Option<usize> {
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        if !is_escaped && character == quote {
            return Some(at + 1);
        }
        is_escaped = !is_escaped && character == '\\';
    }
    None
}

/// A character literal, as against a lifetime: one character or an escape between two quotes.
fn character(text: &str) -> Option<usize> {
    let behind = text.strip_prefix('\'')?;
    if behind.starts_with('\\') {
        return quoted(text, '\'');
    }
    let mut characters = behind.chars();
    let length = characters.next()?.len_utf8();
    (characters.next() == Some('\'')).then_some(length + 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_comments_and_literals_are_told_apart() {
        let rows = [
            ("a // b\nc", "a     \nc", "  // b\n "),
            ("a /* b /* c */ d */ e", "a                   e", "  /* b /* c */ d */  "),
            ("f(\"// no\") // yes", "f(       )       ", "           // yes"),
            ("\"\\\"//\" x", "       x", "        "),
            ("r#\"a\"//\"# x", "          x", "           "),
            ("'\"' x '\\'' y", "    x      y", "            "),
            ("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)", "                    "),
            ("for\"x\"", "for   ", "      "),
        ];
        for (text, code, comments) in rows {
            let parts = split(text);
            assert_eq!(parts.code, code, "{text}");
            assert_eq!(parts.comments, comments, "{text}");
        }
    }

    #[test]
    fn text_without_an_end_is_taken_to_its_end() {
        for text in ["/* open", "\"open", "r#\"open", "'", "'\\"] {
            assert_eq!(split(text).code.chars().count(), text.chars().count(), "{text}");
        }
    }
}
