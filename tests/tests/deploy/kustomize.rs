//! Kustomizations: what the builder refuses, and the one that docs/INSTALL.md tells operators to write.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use xlb_tests::deploy::{build, folder, only, read};

use crate::container::container;

const HEAD: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [thing.yaml]\n";

#[test]
fn what_a_kustomization_asks_for_is_done_or_refused() -> Result<()> {
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("thing.yaml"), "kind: Thing\nmetadata: {name: t}\nspec: {a: 1}\n")?;
    let patch = |target: &str, operations: &str| {
        format!("{HEAD}patches: [{{target: {{kind: {target}}}, patch: '{operations}'}}]\n")
    };
    for (text, expected) in [
        (patch("Thing", "[{op: replace, path: /spec/a, value: 2}]"), "2"),
        (patch("Thing", "[{op: test, path: /spec/a, value: 3}]"), "patching"),
        (patch("Other", "[{op: add, path: /spec/b, value: 3}]"), "which is not there"),
        (format!("{HEAD}namePrefix: x-\n"), "unknown field `namePrefix`"),
        (format!("{HEAD}images: [{{name: xlb, newTag: x}}]\n"), "no container has the image xlb"),
        (HEAD.replace("v1beta1", "v1"), "is no version of it"),
    ] {
        fs::write(directory.path().join("kustomization.yaml"), &text)?;
        let outcome = match build(directory.path()) {
            Ok(objects) => objects[0]["spec"]["a"].to_string(),
            Err(error) => format!("{error:#}"),
        };
        assert!(outcome.contains(expected), "{text}: {outcome}");
    }
    Ok(())
}

/// The example in the text names the folders as they are beside it.
#[test]
fn the_overlay_of_the_install_page_builds() -> Result<()> {
    let page = read(&folder().join("../docs/INSTALL.md"))?;
    let example =
        page.split("```yaml\n").find(|text| text.starts_with("# kustomization.yaml")).context("no example")?;
    let example = example.split("```").next().context("it does not end")?;
    let directory = tempfile::tempdir()?;
    let example = example.replace("xlb/deploy/", &format!("{}/", folder().canonicalize()?.display()));
    fs::write(directory.path().join("kustomization.yaml"), example)?;
    let objects = build(directory.path())?;
    let container = container(only(&objects, "DaemonSet")?).clone();
    assert_eq!(container["image"], "registry.example/xlb:0.1.0");
    let arguments = container["args"].to_string();
    assert!(arguments.contains("--uplink=ens3,ens4") && !arguments.contains("eth0"), "{arguments}");
    assert!(arguments.contains("--max-flows=4194304"), "{arguments}");
    Ok(())
}

#[test]
fn every_folder_of_kustomizations_is_one_that_tests_build() -> Result<()> {
    let mut found = Vec::new();
    collect(&folder().join("kustomize"), &mut found)?;
    found.sort();
    assert_eq!(found, ["base", "components/metrics", "components/xdp", "privileged"]);
    Ok(())
}

fn collect(at: &Path, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(at)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, found)?;
        } else if path.ends_with("kustomization.yaml") {
            found.push(at.strip_prefix(folder().join("kustomize"))?.display().to_string());
        }
    }
    Ok(())
}
