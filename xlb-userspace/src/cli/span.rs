//! Spans of time on the command line.

use std::str::FromStr;
use std::time::Duration;

/// A number with its unit: `90s`, `15m`, `1h`; or `0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
        let unit_s = match &text[digits.len()..] {
            "s" => Some(1),
            "m" => Some(60),
            "h" => Some(3600),
            "" if digits == "0" => Some(0),
            _ => None,
        };
        // As many hours as fit 32 bits do not overflow 64 bits of milliseconds.
        let seconds = unit_s.and_then(|unit_s| Some(u64::from(digits.parse::<u32>().ok()?) * unit_s));
        let seconds = seconds.ok_or_else(|| format!("found {text:?}, expected a time such as 90s, 15m or 1h; or 0"))?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_a_number_with_its_unit() {
        let seconds = |text: &str| text.parse::<Span>().ok().map(|span| span.0.as_secs());
        for (text, expected) in [("0", 0), ("0s", 0), ("90s", 90), ("15m", 900), ("1h", 3600), ("24h", 86_400)] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in ["", "h", "5", "1d", "-1s", "1.5h", "1h30m", "1 h", "99999999999s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
