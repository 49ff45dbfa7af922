//! The page itself: one document with its style and its script, and a policy by which a browser runs nothing else.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

const DOCUMENT: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// A document that a browser can show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Html {
    /// Its text.
    pub body: String,
    /// Its `Content-Security-Policy`.
    pub policy: String,
}

/// The page.
#[must_use]
pub fn page() -> Html {
    let body = DOCUMENT.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT);
    let policy = format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    Html { body, policy }
}

/// What names a text in a policy.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(digest(&SHA256, text.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_one_document_that_asks_nobody_else() {
        let Html { body, policy } = page();
        assert!(body.contains(STYLE) && body.contains(SCRIPT) && !body.contains("{{"));
        let allowed = body.replace("http://www.w3.org/2000/svg", "").replace("http%3A//www.w3.org/2000/svg", "");
        for part in ["http:", "https:", "src=", "@import", "url(", "<iframe", "<form"] {
            assert!(!allowed.contains(part), "{part}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[test]
    fn what_tenants_named_becomes_text_and_never_html() {
        for part in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            "DOMParser",
            "style=",
        ] {
            assert!(!SCRIPT.contains(part), "{part}");
        }
        for part in ["onclick", "onload", "javascript:", "style="] {
            assert!(!DOCUMENT.contains(part), "{part}");
        }
    }

    #[test]
    fn a_text_is_named_as_browsers_name_it() {
        // RFC 6234, 8.5: "abc".
        assert_eq!(hash("abc"), "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
    }
}
