//! The container image, as `cargo xtask image` made it for tests, unpacked as an engine would.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tempfile::TempDir;

/// An image's root file system, and what its configuration says. The folder goes with this value.
pub struct UnpackedImage {
    folder: TempDir,
    /// The configuration.
    pub config: Value,
}

impl UnpackedImage {
    /// Unpacks the image under test: `XLB_IMAGE`, or what `cargo xtask test lab` made.
    pub fn new() -> Result<UnpackedImage> {
        let tarball = tarball();
        ensure!(
            tarball.is_file(),
            "there is no image {}: make it with `cargo xtask image --profile dev`, as `cargo xtask test lab` does",
            tarball.display()
        );
        let folder = tempfile::Builder::new().prefix("xlb-image-").tempdir().context("making a directory")?;
        let layout = TempDir::new().context("making a directory")?;
        untar(&tarball, layout.path())?;
        let index = document(&layout.path().join("index.json"))?;
        let manifest = document(&blob(layout.path(), &index["manifests"][0])?)?;
        let config = document(&blob(layout.path(), &manifest["config"])?)?;
        let image = UnpackedImage { folder, config };
        fs::create_dir(image.root()).context("making the root")?;
        for layer in manifest["layers"].as_array().context("an image without layers")? {
            untar(&blob(layout.path(), layer)?, &image.root())?;
        }
        Ok(image)
    }

    /// The root file system.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The program that a container of this image runs.
    pub fn program(&self) -> Result<&str> {
        self.config["config"]["Entrypoint"][0].as_str().context("an image without an entrypoint")
    }
}

fn tarball() -> PathBuf {
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let name = format!("../target/image/xlb-{}-{arch}-dev.tar", env!("CARGO_PKG_VERSION"));
    env::var_os("XLB_IMAGE").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(name), PathBuf::from)
}

/// tar sees by itself whether it is compressed.
fn untar(archive: &Path, to: &Path) -> Result<()> {
    let output = Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(to).output().context("starting tar")?;
    ensure!(output.status.success(), "unpacking {}: {}", archive.display(), String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The file that a descriptor names, which has the digest that it says.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("a descriptor without a digest")?;
    let hex = digest.strip_prefix("sha256:").with_context(|| format!("{digest} is no SHA-256"))?;
    let path = layout.join("blobs/sha256").join(hex);
    let output = Command::new("sha256sum").arg(&path).output().context("starting sha256sum")?;
    let found = String::from_utf8_lossy(&output.stdout);
    ensure!(found.starts_with(hex), "{} hashes to {found}", path.display());
    Ok(path)
}

fn document(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}
