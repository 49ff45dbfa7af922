//! Facts about the conventions, on small texts.

use super::*;

#[test]
fn a_finished_file_has_no_fault() {
    assert_eq!(rust("xlb-common/src/path.rs", "//! A path.\nfn path() {}\n"), Vec::<String>::new());
}

#[test]
fn unsafe_outside_the_listed_files_is_a_fault() {
    let text = "// SAFETY: fine.\nlet x = unsafe { read(p) };\n";
    assert_eq!(rust("tests/src/lab/netns.rs", text), Vec::<String>::new());
    let faults = rust("xlb-common/src/path.rs", text);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with("xlb-common/src/path.rs:2: has `unsafe`"), "{faults:?}");
}

#[test]
fn the_word_unsafe_in_a_comment_or_a_string_is_no_fault() {
    let text = "// unsafe is not here\nlet x = \"unsafe {\";\nlet unsafe_count = 1;\n";
    assert_eq!(rust("xlb-common/src/path.rs", text), Vec::<String>::new());
}

#[test]
fn unsafe_needs_its_reason_right_above() {
    let rows = [
        ("// SAFETY: fine.\nlet x = unsafe { read(p) };\n", true),
        ("let x = unsafe { read(p) }; // SAFETY: fine.\n", true),
        ("// SAFETY: a sentence\n// on two lines.\nlet x =\n    unsafe { read(p) };\n", true),
        ("// SAFETY: fine.\nunsafe impl Send for Map {}\n", true),
        ("#[unsafe(no_mangle)]\nstatic LICENSE: u8 = 0;\n", true),
        ("unsafe fn read(p: *const u8) {}\n", true),
        ("let x = unsafe { read(p) };\n", false),
        ("// SAFETY: of another.\nlet y = unsafe { read(q) };\nlet x = unsafe { read(p) };\n", false),
        ("// SAFETY: too far.\n\nlet x = unsafe { read(p) };\n", false),
        ("unsafe impl Send for Map {}\n", false),
        ("let x = unsafe\n{ read(p) };\n", false),
    ];
    for (text, is_good) in rows {
        assert_eq!(rust("xlb-ebpf/src/main.rs", text).is_empty(), is_good, "{text}");
    }
}

#[test]
fn unfinished_code_and_comments_are_faults() {
    for text in
        ["todo!()", "unimplemented!(\"later\")", "#[ignore]\nfn f() {}", "#[ignore = \"slow\"]", "// TODO: more"]
    {
        assert_eq!(rust("xlb-common/src/path.rs", text).len(), 1, "{text}");
    }
    assert_eq!(rust("xlb-common/src/path.rs", "let x = \"TODO todo!\";"), Vec::<String>::new());
}

#[test]
fn a_long_rust_file_is_a_fault() {
    let longest = "fn f() {}\n".repeat(FILE_LINES_MAX);
    assert_eq!(rust("a.rs", &longest), Vec::<String>::new());
    assert_eq!(rust("a.rs", &format!("{longest}\n")), ["a.rs:401: has 401 lines: 400 is the limit"]);
    assert_eq!(rust("a.md", &format!("{longest}\n")), Vec::<String>::new());
}

#[test]
fn paths_of_one_machine_are_faults_in_any_text() {
    let rows = [
        ("see /build/me/xlb/docs", true),
        ("cd '/build/me/other'", true),
        ("HOME is /users/me/.cargo", true),
        ("see docs/build/me/x", false),
        ("https://example.com/build/me/x", false),
        ("/build/mean", false),
        ("$checkout/users/me/x", false),
    ];
    for (text, is_fault) in rows {
        assert_eq!(!rust("docs/README.md", text).is_empty(), is_fault, "{text}");
    }
}

#[test]
fn folders_of_every_machine_are_not_machine_paths() {
    let paths = MachinePaths::of(Path::new("/tmp/a-checkout"), Some("/".to_owned()));
    assert_eq!(check("a.md", "in /tmp/other and /etc/hosts", &paths), Vec::<String>::new());
    assert_eq!(check("a.md", "in /tmp/a-checkout/docs", &paths).len(), 1);
}

fn rust(path: &str, text: &str) -> Vec<String> {
    let paths = MachinePaths::of(Path::new("/build/me/xlb"), Some("/users/me".to_owned()));
    check(path, text, &paths)
}
