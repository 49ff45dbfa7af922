use super::*;

fn advisory(patched: &[&str], unaffected: &[&str]) -> Advisory {
    let owned = |list: &[&str]| list.iter().map(|&range| range.to_owned()).collect();
    Advisory {
        id: "RUSTSEC-2099-0001".into(),
        package: "a".into(),
        date: "2099-01-01".into(),
        kind: "vulnerability".into(),
        title: "It breaks".into(),
        patched: owned(patched),
        unaffected: owned(unaffected),
    }
}

fn snapshot(advisories: Vec<Advisory>, covers: Option<&[&str]>) -> Snapshot {
    let covers = covers.map(|names| names.iter().map(|&name| name.to_owned()).collect());
    Snapshot { source: String::new(), taken: "2099-01-02".into(), covers, advisories }
}

fn locked(name: &str, version: &str) -> Locked {
    Locked { name: name.into(), version: version.into(), source: Some("registry".into()), checksum: None }
}

#[test]
fn a_version_is_concerned_unless_it_is_patched_or_never_was() {
    let rows: [(&[&str], &[&str], &str, bool); 8] = [
        (&[">=1.2.3"], &[], "1.2.2", true),
        (&[">=1.2.3"], &[], "1.2.3", false),
        (&[">=1.2.3, <1.3.0", ">=1.4.1"], &[], "1.3.5", true),
        (&[">=1.2.3, <1.3.0", ">=1.4.1"], &[], "1.2.9", false),
        (&[], &["<0.5.0"], "0.4.9", false),
        (&[], &["<0.5.0"], "0.5.0", true),
        (&[], &[], "1.0.0+build", true),
        (&["^1.2"], &[], "what is this", true),
    ];
    for (patched, unaffected, version, expected) in rows {
        assert_eq!(advisory(patched, unaffected).concerns(version), expected, "{patched:?} {unaffected:?} {version}");
    }
}

#[test]
fn a_fault_names_the_crate_and_the_version_that_mends_it() {
    let faults =
        snapshot(vec![advisory(&[">=1.2.3"], &[])], None).faults(&[locked("a", "1.0.0"), locked("b", "1.0.0")]);
    assert_eq!(
        faults,
        ["RUSTSEC-2099-0001 (vulnerability) concerns a 1.0.0: It breaks; patched in >=1.2.3: `cargo update -p a`"]
    );
    let unpatched = snapshot(vec![advisory(&[], &[])], None).faults(&[locked("a", "1.0.0")]);
    assert!(unpatched.len() == 1 && unpatched[0].contains("no version is patched"), "{unpatched:?}");
}

#[test]
fn an_accepted_advisory_is_quiet_while_it_concerns_something() {
    let snapshot = snapshot(vec![advisory(&[">=2.0.0"], &[])], None);
    let accepted = [("RUSTSEC-2099-0001", "for a test")];
    assert_eq!(snapshot.faults_but(&[locked("a", "1.0.0")], &accepted), [""; 0]);
    let in_vain = snapshot.faults_but(&[locked("a", "2.0.0")], &accepted);
    assert!(in_vain.len() == 1 && in_vain[0].contains("take it out"), "{in_vain:?}");
}

#[test]
fn crates_that_nobody_asked_for_are_counted() {
    let locked = [locked("a", "1.0.0"), locked("b", "1.0.0")];
    let partly = snapshot(Vec::new(), Some(&["a"]));
    assert_eq!(partly.uncovered(&locked), BTreeSet::from(["b"]));
    assert!(partly.looked_at(&locked).contains("without 1 crates"), "{}", partly.looked_at(&locked));
    assert!(snapshot(Vec::new(), None).uncovered(&locked).is_empty());
}

#[test]
fn a_clone_of_the_database_becomes_a_snapshot() {
    let clone = std::env::temp_dir().join(format!("xlb-advisories-{}", std::process::id()));
    let folder = clone.join("crates/a");
    fs::create_dir_all(&folder).unwrap();
    let text = |id: &str, more: &str| {
        format!(
            "```toml\n[advisory]\nid = \"{id}\"\npackage = \"a\"\ndate = \"2099-01-01\"\n{more}\n[versions]\n\
             patched = [\">=1.2.3\"]\n```\n\n# It breaks\n\nIn some way.\n"
        )
    };
    fs::write(folder.join("RUSTSEC-2099-0001.md"), text("RUSTSEC-2099-0001", "")).unwrap();
    fs::write(folder.join("RUSTSEC-2099-0002.md"), text("RUSTSEC-2099-0002", "withdrawn = \"2099-01-02\"")).unwrap();
    fs::write(folder.join("RUSTSEC-2099-0003.md"), text("RUSTSEC-2099-0003", "informational = \"unsound\"")).unwrap();
    fs::write(folder.join("RUSTSEC-0000-0000.md"), "a template").unwrap();
    let read = database::read(&clone, "2099-01-02");

    fs::write(folder.join("RUSTSEC-2099-0004.md"), "no data").unwrap();
    let broken = format!("{:#}", database::read(&clone, "2099-01-02").unwrap_err());
    fs::remove_dir_all(&clone).unwrap();
    let elsewhere = database::read(&clone, "2099-01-02").unwrap_err().to_string();

    let read = read.unwrap();
    let unsound = Advisory { id: "RUSTSEC-2099-0003".into(), kind: "unsound".into(), ..advisory(&[">=1.2.3"], &[]) };
    assert_eq!(read.advisories, [advisory(&[">=1.2.3"], &[]), unsound]);
    assert_eq!(read.taken(), "2099-01-02");
    assert!(broken.contains("RUSTSEC-2099-0004.md") && broken.contains("does not begin with its data"), "{broken}");
    assert!(elsewhere.contains("advisory-db"), "{elsewhere}");
}
