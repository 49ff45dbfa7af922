//! Which licences the crates may have.

use std::collections::BTreeSet;

use spdx::{Expression, LicenseReq, ParseMode};

use super::lock::Locked;
use super::metadata::{PLATFORM, Package};

/// Licences that ask for no more than to be named, and whose texts are in the image. Another one is a decision: write it here
/// with the crate that brings it.
const ALLOWED: [&str; 8] = ["MIT", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Zlib", "Unlicense", "CC0-1.0"];

/// Those of one crate only, and why.
const ALLOWED_FOR: [(&str, &str); 3] = [
    // The tables of Unicode that identifiers are checked by. It is part of compilers' plugins only.
    ("unicode-ident", "Unicode-3.0"),
    // MIT without the duty to name anybody, in a test.
    ("borrow-or-share", "MIT-0"),
    // The licence of LLVM, whose fuzzer it is.
    ("libfuzzer-sys", "NCSA"),
];

/// Takes duties away and adds none.
const LOOSER: &str = "LLVM-exception";

/// A sentence for each package whose licence is missing, unreadable or not allowed.
pub fn faults(packages: &[Package]) -> Vec<String> {
    packages.iter().filter_map(fault).collect()
}

fn fault(package: &Package) -> Option<String> {
    let what = format!("{} {}", package.name, package.version);
    let Some(written) = &package.license else {
        return Some(format!("{what} names no licence in its manifest: ask its authors, or do without it"));
    };
    // `MIT/Apache-2.0` is how it was written before SPDX.
    let expression = match Expression::parse_mode(written, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("{what} has the licence `{written}`, which is no SPDX expression: {error}")),
    };
    let is_allowed = expression.evaluate(|licence| is_allowed(&package.name, licence));
    (!is_allowed).then(|| {
        format!("{what} has the licence `{written}`, which xtask/src/supply/licences.rs does not allow: decide, or do without it")
    })
}

fn is_allowed(package: &str, licence: &LicenseReq) -> bool {
    let Some(id) = licence.license.id() else { return false };
    let is_no_stricter =
        licence.addition.as_ref().is_none_or(|addition| addition.id().is_some_and(|id| id.name == LOOSER));
    is_no_stricter && (ALLOWED.contains(&id.name) || ALLOWED_FOR.contains(&(package, id.name)))
}

/// What was looked at, and what was not.
pub fn looked_at(packages: &[Package], locked: &[Locked]) -> String {
    let seen: BTreeSet<(&str, &str)> = packages.iter().map(|package| (&*package.name, &*package.version)).collect();
    let unseen = locked.iter().filter(|package| !seen.contains(&(&*package.name, &*package.version))).count();
    format!(
        "licences: {} packages of {PLATFORM} as their manifests say; not those of {unseen} packages of Cargo.lock that are compiled \
         for other platforms only, nor what files inside a package say otherwise",
        packages.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_is_allowed_where_one_of_its_choices_is() {
        let rows = [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
            ("(Apache-2.0 OR MIT) AND BSD-3-Clause", true),
            ("GPL-2.0-only OR MIT OR Apache-2.0", true),
            ("GPL-3.0-or-later", false),
            ("MIT AND GPL-2.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("GPL-2.0-only WITH Linux-syscall-note", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", false),
            ("LicenseRef-own", false),
        ];
        for (licence, expected) in rows {
            assert_eq!(fault(&package("a", Some(licence))).is_none(), expected, "{licence}");
        }
        assert_eq!(fault(&package("unicode-ident", Some("(MIT OR Apache-2.0) AND Unicode-3.0"))), None);
    }

    #[test]
    fn a_fault_names_the_package_and_what_to_do() {
        for (licence, parts) in [
            (None, ["a 1.0.0", "names no licence", "do without"]),
            (Some("whatever you like"), ["a 1.0.0", "whatever you like", "no SPDX expression"]),
            (Some("AGPL-3.0-only"), ["a 1.0.0", "AGPL-3.0-only", "licences.rs"]),
        ] {
            let said = fault(&package("a", licence)).unwrap();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }

    fn package(name: &str, license: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: "1.0.0".into(),
            license: license.map(str::to_owned),
            source: None,
            manifest_path: "Cargo.toml".into(),
        }
    }
}
