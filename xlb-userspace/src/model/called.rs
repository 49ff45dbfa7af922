//! How people call a Service on the command line, where others have its whole name: `namespace/name:port/udp/ipv6`.

/// Whether a service has this name: any first part of its whole one that names a Service, with or without its namespace:
/// `shop/web:http/udp`, `shop/web:http`, `shop/web`, `web:http`, `web`.
#[must_use]
pub fn is_called(full: &str, name: &str) -> bool {
    let (namespace, port) = full.split_once('/').unwrap_or(("", full));
    let is_first_part = |name: &str| {
        let rest = port.strip_prefix(name).filter(|_| !name.is_empty());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/']))
    };
    let within = name.strip_prefix(namespace).and_then(|rest| rest.strip_prefix('/'));
    is_first_part(name) || within.is_some_and(is_first_part)
}

/// What to say when nothing has a name.
#[must_use]
pub fn no_such(name: &str, known: &[&str]) -> String {
    let likeness = |full: &&&str| {
        let object = full.split_once('/').map_or(**full, |(_, port)| port);
        let of = |text: &str| strsim::jaro_winkler(text, name);
        (of(full).max(of(object)) * 1000.0) as u32
    };
    match known.iter().max_by_key(likeness) {
        Some(nearest) => {
            format!("no service on this node is called {name}; the nearest is {nearest}, `xlb services` lists all")
        }
        None => format!("no service on this node is called {name}: none is served here, `xlb status` may say why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_called_by_any_first_part_of_its_name_or_without_its_namespace() {
        let full = "shop/web:http/udp/ipv6";
        for name in ["web:http/udp/ipv6", "web:http/udp", "web:http", "web"] {
            assert!(is_called(full, name) && is_called(full, &format!("shop/{name}")), "{name}");
        }
        for name in ["shop", "shop/", "http", "other/web", "we", "shop/we", "web:h", "web-2", ""] {
            assert!(!is_called(full, name), "{name}");
        }
        assert!(is_called("shop/dns", "dns") && is_called("shop/dns/udp", "shop/dns"), "an unnamed port");
        assert!(is_called("udp/udp/udp", "udp") && is_called("web/web", "web"), "of a name that others have, too");
    }

    #[test]
    fn a_name_that_nothing_has_is_answered_with_the_nearest() {
        let said = no_such("wbe", &["shop/dns/udp", "shop/web:http"]);
        assert!(said.contains("wbe; the nearest is shop/web:http"), "{said}");
        assert!(no_such("web", &[]).contains("none is served here"));
    }
}
