//! The documents of an image, and the tarball that holds them: an OCI image layout that is also what `docker save` writes, so
//! that containerd, Docker and podman all take it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType};

use super::arch::Arch;
use super::layer::{Layer, append};
use super::stamp::Stamp;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What Kubernetes and Docker make of a name without a host, such as `xlb:0.1.0`.
const USUAL_HOST: &str = "docker.io/library/";

/// An image for one processor: its documents and its layer, each under its digest.
pub struct Image {
    arch: Arch,
    blobs: BTreeMap<String, Vec<u8>>,
    manifest: Value,
    config: String,
    layer: String,
}

impl Image {
    /// Writes the documents of an image with this layer.
    pub fn new(arch: Arch, stamp: &Stamp, layer: Layer) -> Self {
        let mut blobs = BTreeMap::new();
        let config = config(arch, stamp, &digest(&layer.tar));
        let layer = put(&mut blobs, LAYER, layer.gzip);
        let config = put(&mut blobs, CONFIG, bytes(&config));
        let document = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": labels(stamp),
        });
        let mut manifest = put(&mut blobs, MANIFEST, bytes(&document));
        manifest["platform"] = json!({ "architecture": arch.name(), "os": "linux" });
        Self { arch, blobs, manifest, config: text(&config["digest"]), layer: text(&layer["digest"]) }
    }

    /// The processor it is for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// What names the image wherever it is: the digest of its manifest.
    pub fn digest(&self) -> String {
        text(&self.manifest["digest"])
    }

    /// What Docker calls its id: the digest of its configuration.
    pub fn id(&self) -> &str {
        &self.config
    }

    /// Bytes of the layer as it is stored.
    pub fn layer_size(&self) -> usize {
        self.blobs[&self.layer].len()
    }
}

/// The tarball of one image, or of one for each of several processors, under a name such as `xlb:0.1.0`.
pub fn tarball(images: &[Image], name: &str, epoch: u64) -> Result<Vec<u8>> {
    let mut blobs = BTreeMap::new();
    for image in images {
        blobs.extend(image.blobs.clone());
    }
    let mut top = match images {
        [image] => image.manifest.clone(),
        _ => {
            let manifests: Vec<&Value> = images.iter().map(|image| &image.manifest).collect();
            put(&mut blobs, INDEX, bytes(&index(&manifests)))
        }
    };
    top["annotations"] = annotations(name);
    let docker: Vec<Value> = images.iter().take(1).map(|image| docker_entry(image, name)).collect();

    let mut archive = Builder::new(Vec::new());
    for folder in ["blobs/", "blobs/sha256/"] {
        append(&mut archive, folder, EntryType::Directory, 0o755, epoch, &[])?;
    }
    for (digest, blob) in &blobs {
        append(&mut archive, &path_of(digest), EntryType::Regular, 0o644, epoch, blob)?;
    }
    let documents = [
        ("index.json", index(&[&top])),
        ("manifest.json", Value::Array(docker)),
        ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })),
    ];
    for (path, document) in documents {
        append(&mut archive, path, EntryType::Regular, 0o644, epoch, &bytes(&document))?;
    }
    archive.into_inner().context("ending the tarball")
}

/// The digest of bytes as images write it.
pub fn digest(bytes: &[u8]) -> String {
    let hex = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    format!("sha256:{hex}")
}

fn config(arch: Arch, stamp: &Stamp, diff_id: &str) -> Value {
    json!({
        "created": stamp.created,
        "architecture": arch.name(),
        "os": "linux",
        "config": {
            // Root, as capabilities come from the pod. PATH, so that `kubectl exec` finds `xlb`.
            "User": "0:0",
            "Entrypoint": ["/xlb"],
            "Env": ["PATH=/"],
            "WorkingDir": "/",
            "Labels": labels(stamp),
        },
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": stamp.created, "created_by": "cargo xtask image" }],
    })
}

fn labels(stamp: &Stamp) -> Value {
    json!({
        "org.opencontainers.image.title": "xlb",
        "org.opencontainers.image.description": "External-IP load balancer for Kubernetes: the agent of a node",
        "org.opencontainers.image.version": stamp.version,
        "org.opencontainers.image.revision": stamp.revision,
        "org.opencontainers.image.created": stamp.created,
        "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
    })
}

/// containerd takes the whole name from the first, other tools the tag from the second.
fn annotations(name: &str) -> Value {
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    json!({ "io.containerd.image.name": full_name(name), "org.opencontainers.image.ref.name": tag })
}

/// A first part with a dot or a port is a host.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("{}{name}", USUAL_HOST.trim_end_matches("library/")),
        None => format!("{USUAL_HOST}{name}"),
    }
}

/// Docker before version 25 reads this document only. It has room for one processor.
fn docker_entry(image: &Image, name: &str) -> Value {
    json!({ "Config": path_of(&image.config), "RepoTags": [name], "Layers": [path_of(&image.layer)] })
}

fn index(manifests: &[&Value]) -> Value {
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

/// Keeps bytes, and describes them.
fn put(blobs: &mut BTreeMap<String, Vec<u8>>, media_type: &str, bytes: Vec<u8>) -> Value {
    let digest = digest(&bytes);
    let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() });
    blobs.insert(digest, bytes);
    descriptor
}

fn path_of(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

fn bytes(document: &Value) -> Vec<u8> {
    document.to_string().into_bytes()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests;
