//! `kustomize build`, of that which the folder uses: resources, components, JSON patches, images and a namespace. A
//! kustomization with anything else is refused, so that nothing in it goes unread.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::{documents, read};

/// A `kustomization.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kustomization {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    components: Vec<String>,
    #[serde(default)]
    patches: Vec<PatchEntry>,
    #[serde(default)]
    images: Vec<Image>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchEntry {
    target: Target,
    path: Option<String>,
    patch: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    kind: String,
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Image {
    name: String,
    new_name: Option<String>,
    new_tag: Option<String>,
}

/// The objects of the kustomization in a folder.
///
/// # Errors
/// When it uses what this does not know, or a patch does not apply.
pub fn build(folder: &Path) -> Result<Vec<Value>> {
    let context = || format!("building {}", folder.display());
    let kustomization = parse(folder).with_context(context)?;
    ensure!(kustomization.kind == "Kustomization", "{} is a {}", folder.display(), kustomization.kind);
    apply(&kustomization, folder, Vec::new()).with_context(context)
}

/// The objects of a kustomization, and what a component makes of them.
///
/// # Errors
/// As of [`build`].
pub fn with_component(base: &Path, component: &Path) -> Result<Vec<Value>> {
    add(component, build(base)?)
}

fn add(component: &Path, objects: Vec<Value>) -> Result<Vec<Value>> {
    let parsed = parse(component).with_context(|| format!("reading {}", component.display()))?;
    ensure!(parsed.kind == "Component", "{} is a {}", component.display(), parsed.kind);
    apply(&parsed, component, objects).with_context(|| format!("applying {}", component.display()))
}

fn parse(folder: &Path) -> Result<Kustomization> {
    let kustomization: Kustomization = serde_yaml_ng::from_str(&read(&folder.join("kustomization.yaml"))?)?;
    let version = match kustomization.kind.as_str() {
        "Kustomization" => "kustomize.config.k8s.io/v1beta1",
        "Component" => "kustomize.config.k8s.io/v1alpha1",
        kind => bail!("the kind {kind} is unknown"),
    };
    ensure!(kustomization.api_version == version, "{} is no version of it", kustomization.api_version);
    Ok(kustomization)
}

/// In kustomize's order: resources, components, then what changes all of them.
fn apply(kustomization: &Kustomization, folder: &Path, mut objects: Vec<Value>) -> Result<Vec<Value>> {
    for resource in &kustomization.resources {
        let path = folder.join(resource);
        objects.extend(if path.is_dir() { build(&path)? } else { documents(&read(&path)?)? });
    }
    for component in &kustomization.components {
        objects = add(&folder.join(component), objects)?;
    }
    for entry in &kustomization.patches {
        let text = match (&entry.path, &entry.patch) {
            (Some(path), None) => read(&folder.join(path))?,
            (None, Some(text)) => text.clone(),
            _ => bail!("a patch has either a path or a text"),
        };
        patch(&mut objects, &entry.target, &text)?;
    }
    for image in &kustomization.images {
        rename(&mut objects, image)?;
    }
    Ok(objects)
}

fn patch(objects: &mut [Value], target: &Target, text: &str) -> Result<()> {
    let operations: json_patch::Patch = serde_yaml_ng::from_str(text).context("reading a JSON patch")?;
    let is_meant = |object: &&mut Value| {
        object["kind"] == target.kind.as_str()
            && target.name.as_ref().is_none_or(|name| object["metadata"]["name"] == name.as_str())
    };
    let mut meant = objects.iter_mut().filter(is_meant).peekable();
    ensure!(meant.peek().is_some(), "a patch is for {target:?}, which is not there");
    for object in meant {
        json_patch::patch(object, &operations).with_context(|| format!("patching {target:?}"))?;
    }
    Ok(())
}

fn rename(objects: &mut [Value], image: &Image) -> Result<()> {
    let mut is_found = false;
    for object in objects {
        let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let Some((name, tag)) = container["image"].as_str().and_then(|image| image.split_once(':')) else {
                continue;
            };
            if name == image.name {
                let (new_name, new_tag) = (image.new_name.as_deref(), image.new_tag.as_deref());
                let renamed = format!("{}:{}", new_name.unwrap_or(name), new_tag.unwrap_or(tag));
                container["image"] = renamed.into();
                is_found = true;
            }
        }
    }
    ensure!(is_found, "no container has the image {}", image.name);
    Ok(())
}
