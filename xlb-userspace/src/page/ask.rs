//! Which part of the state somebody wants: `?limit=50&from=100&find=web`.

/// Services of an answer, unless asked for otherwise.
const LIMIT_DEFAULT: usize = 100;
/// Most services of an answer: some 500 KB with ten backends each.
pub const LIMIT_MAX: usize = 1000;
/// Longest text that is looked for, in bytes.
const FIND_MAX: usize = 256;

/// A part of the services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// At most so many.
    pub limit: usize,
    /// Behind so many.
    pub from: usize,
    /// Those in whose name or VIPs this text is, whatever its case; empty: all.
    pub find: String,
}

/// Reads the query of a request.
///
/// # Errors
/// When a value is none, with a sentence that says which and what it may be.
pub fn wanted(query: &str) -> Result<Wanted, String> {
    let mut wanted = Wanted { limit: LIMIT_DEFAULT, from: 0, find: String::new() };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let number = || {
            value
                .parse()
                .map_err(|_| format!("found {name}={value}, expected a number, such as {name}={LIMIT_DEFAULT}"))
        };
        match &*name {
            "limit" => wanted.limit = number()?,
            "from" => wanted.from = number()?,
            "find" if value.len() > FIND_MAX => return Err(format!("find has more than {FIND_MAX} bytes: shorten it")),
            "find" => wanted.find = value.to_lowercase(),
            _ => return Err(format!("found {name:?}, expected limit, from or find, such as ?limit={LIMIT_DEFAULT}")),
        }
    }
    if wanted.limit > LIMIT_MAX {
        return Err(format!(
            "limit is {}, at most {LIMIT_MAX} services are told at once: ask for more with from=",
            wanted.limit
        ));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_asked_for_by_name_and_number() {
        let all = Wanted { limit: LIMIT_DEFAULT, from: 0, find: String::new() };
        for (query, expected) in [
            ("", all.clone()),
            ("limit=5&from=10", Wanted { limit: 5, from: 10, ..all.clone() }),
            ("find=Shop%2FWeb", Wanted { find: "shop/web".into(), ..all.clone() }),
            ("limit=0", Wanted { limit: 0, ..all }),
        ] {
            assert_eq!(wanted(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn what_cannot_be_answered_is_said_with_what_can() {
        for (query, part) in [
            ("limit=all", "expected a number, such as limit=100"),
            ("limit=-1", "expected a number"),
            ("limit=1001", "at most 1000 services"),
            ("from=x", "such as from=100"),
            ("name=web", "found \"name\", expected limit, from or find"),
        ] {
            let error = wanted(query).expect_err(query);
            assert!(error.contains(part), "{query}: {error}");
        }
        assert!(wanted(&format!("find={}", "x".repeat(300))).is_err());
    }
}
