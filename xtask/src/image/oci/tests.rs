use std::collections::BTreeMap;
use std::io::Read as _;

use super::*;
use crate::image::layer::{File, pack};

fn stamp() -> Stamp {
    Stamp {
        version: "1.2.3".into(),
        revision: "abc".into(),
        epoch: 1_700_000_000,
        created: "2023-11-14T22:13:20Z".into(),
    }
}

fn image(arch: Arch) -> Image {
    let file = File { path: "xlb".into(), is_executable: true, bytes: arch.name().as_bytes().to_vec() };
    Image::new(arch, &stamp(), pack(&[file], stamp().epoch).unwrap())
}

fn unpacked(tarball: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(tarball);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        (entry.path().unwrap().display().to_string(), bytes)
    });
    entries.collect()
}

fn document(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Value {
    serde_json::from_slice(&files[path]).unwrap()
}

/// The blob that a descriptor names, which has the digest and the size that it says.
fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> &'a [u8] {
    let named = descriptor["digest"].as_str().unwrap();
    let bytes = &files[&path_of(named)];
    assert_eq!((digest(bytes), bytes.len() as u64), (named.to_owned(), descriptor["size"].as_u64().unwrap()));
    bytes
}

fn parsed(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn a_reader_that_follows_the_digests_gets_to_the_binary() {
    let files = unpacked(&tarball(&[image(Arch::Amd64)], "xlb:1.2.3", 0).unwrap());
    assert_eq!(document(&files, "oci-layout")["imageLayoutVersion"], "1.0.0");
    let top = document(&files, "index.json")["manifests"][0].clone();
    assert_eq!(top["platform"], json!({ "architecture": "amd64", "os": "linux" }));
    assert_eq!(top["annotations"]["io.containerd.image.name"], "docker.io/library/xlb:1.2.3");
    assert_eq!(top["annotations"]["org.opencontainers.image.ref.name"], "1.2.3");

    let manifest = parsed(blob(&files, &top));
    let config = parsed(blob(&files, &manifest["config"]));
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(blob(&files, &manifest["layers"][0])).read_to_end(&mut tar).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&tar)]));
    assert_eq!(unpacked(&tar)["xlb"], b"amd64");

    assert_eq!(config["config"]["Entrypoint"], json!(["/xlb"]));
    assert_eq!(config["config"]["User"], "0:0");
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.revision"], "abc");
    assert_eq!(config["config"]["Labels"]["org.opencontainers.image.licenses"], "MIT OR Apache-2.0");
    assert_eq!((&config["architecture"], &config["created"]), (&json!("amd64"), &json!("2023-11-14T22:13:20Z")));
}

#[test]
fn docker_s_own_document_leads_to_the_same_blobs() {
    let image = image(Arch::Amd64);
    let (id, digest) = (image.id().to_owned(), image.digest());
    let files = unpacked(&tarball(&[image], "xlb:1.2.3", 0).unwrap());
    let entry = document(&files, "manifest.json")[0].clone();
    assert_eq!(entry["RepoTags"], json!(["xlb:1.2.3"]));
    assert_eq!(entry["Config"], path_of(&id));
    let manifest = document(&files, &path_of(&digest));
    assert_eq!(entry["Layers"], json!([path_of(manifest["layers"][0]["digest"].as_str().unwrap())]));
}

#[test]
fn images_for_two_processors_are_behind_one_name() {
    let files = unpacked(&tarball(&[image(Arch::Amd64), image(Arch::Arm64)], "xlb:1.2.3", 0).unwrap());
    let top = document(&files, "index.json")["manifests"].clone();
    assert_eq!(top.as_array().unwrap().len(), 1);
    let both = parsed(blob(&files, &top[0]));
    let platforms: Vec<&Value> =
        both["manifests"].as_array().unwrap().iter().map(|one| &one["platform"]["architecture"]).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    for one in both["manifests"].as_array().unwrap() {
        let manifest = parsed(blob(&files, one));
        let config = parsed(blob(&files, &manifest["config"]));
        assert_eq!(config["architecture"], one["platform"]["architecture"]);
        blob(&files, &manifest["layers"][0]);
    }
}

#[test]
fn names_get_the_host_that_engines_give_them() {
    let rows = [
        ("xlb:1.0", "docker.io/library/xlb:1.0"),
        ("team/xlb:1.0", "docker.io/team/xlb:1.0"),
        ("registry.example:5000/xlb:1.0", "registry.example:5000/xlb:1.0"),
        ("localhost/xlb:1.0", "localhost/xlb:1.0"),
    ];
    for (name, expected) in rows {
        assert_eq!(full_name(name), expected);
    }
}
