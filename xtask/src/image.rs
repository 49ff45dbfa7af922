//! Makes the container image: one static binary on an empty base, packed without a container engine.

mod arch;

mod stamp;

mod toolchain;

mod elf;

mod binary;

mod files;

mod layer;

mod oci;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::checkout::Checkout;
use binary::Build;
use oci::Image;

pub use arch::Arch;
pub use stamp::{Stamp, git};
pub use toolchain::Toolchain;

/// What is asked for.
pub struct Wanted {
    /// One image for each; none: for this machine's processor.
    pub arches: Vec<Arch>,
    /// `release`, or `dev` for tests.
    pub profile: String,
    /// What the image is called, with its tag; none: `xlb:VERSION`.
    pub name: Option<String>,
    /// Where the tarball goes; none: into `target/image`.
    pub output: Option<PathBuf>,
}

impl Wanted {
    /// The image that tests run: of a debug build, which is made sooner.
    pub fn for_tests() -> Self {
        Self { arches: Vec::new(), profile: "dev".to_owned(), name: None, output: None }
    }
}

/// What was made.
pub struct Made {
    /// The tarball.
    pub path: PathBuf,
    /// The images in it.
    pub images: Vec<Image>,
}

/// Makes the images, writes their tarball, and prints what names them.
pub fn make(checkout: &Checkout, wanted: &Wanted) -> Result<Made> {
    let stamp = Stamp::of(checkout)?;
    let place = Place::of(checkout);
    let arches = if wanted.arches.is_empty() { vec![Arch::of_this_machine()] } else { wanted.arches.clone() };
    let images = arches
        .iter()
        .map(|&arch| image(checkout, checkout.root(), &place, arch, &wanted.profile, &stamp))
        .collect::<Result<Vec<Image>>>()?;
    let name = wanted.name.clone().unwrap_or_else(|| format!("xlb:{}", stamp.version));
    let tarball = oci::tarball(&images, &name, stamp.epoch)?;
    let path = wanted.output.clone().unwrap_or_else(|| usual_path(checkout, &stamp, &arches, &wanted.profile));
    publish(&tarball, &path)?;
    print(&path, &tarball, &images, &name);
    Ok(Made { path, images })
}

/// Makes an image, and then once more from a copy of the sources in another folder: both must be the same to the last byte. With
/// `is_whole`, the second time every crate is compiled again, too.
pub fn prove(checkout: &Checkout, arch: Arch, profile: &str, is_whole: bool) -> Result<()> {
    let stamp = Stamp::of(checkout)?;
    let place = Place::of(checkout);
    let first = image(checkout, checkout.root(), &place, arch, profile, &stamp)?;
    binary::copy_sources(checkout, &place.copy)?;
    let elsewhere =
        Place { target: if is_whole { place.copy.join("target/image") } else { place.target.clone() }, ..place };
    let second = image(checkout, &elsewhere.copy, &elsewhere, arch, profile, &stamp)?;
    ensure!(
        first.digest() == second.digest(),
        "two builds of the same sources differ: {} in {}, {} in {}",
        first.digest(),
        checkout.root().display(),
        second.digest(),
        elsewhere.copy.display()
    );
    println!("{} twice, from two folders", first.digest());
    fs::remove_dir_all(&elsewhere.copy).with_context(|| format!("removing {}", elsewhere.copy.display()))
}

/// Where images are made.
struct Place {
    target: PathBuf,
    copy: PathBuf,
}

impl Place {
    fn of(checkout: &Checkout) -> Self {
        let target = checkout.target().join("image");
        Self { copy: target.join("copy"), target }
    }
}

/// What its crates are, and their licences, is asked of the checkout: a copy says the same.
fn image(
    checkout: &Checkout,
    sources: &Path,
    place: &Place,
    arch: Arch,
    profile: &str,
    stamp: &Stamp,
) -> Result<Image> {
    let places = [checkout.root().to_owned(), place.copy.clone()];
    let build = Build { sources, places: &places, target: &place.target, arch, profile };
    let binary = build.run(stamp)?;
    let files = files::all(checkout, arch, stamp, binary)?;
    Ok(Image::new(arch, stamp, layer::pack(&files, stamp.epoch)?))
}

/// `xlb-0.1.0-amd64.tar`, or without a processor for several of them; a debug build says so.
fn usual_path(checkout: &Checkout, stamp: &Stamp, arches: &[Arch], profile: &str) -> PathBuf {
    let arch = if let [arch] = arches { format!("-{}", arch.name()) } else { String::new() };
    let profile = if profile == "release" { String::new() } else { format!("-{profile}") };
    checkout.target().join("image").join(format!("xlb-{}{arch}{profile}.tar", stamp.version))
}

/// By renaming, so that nobody reads half of it.
fn publish(bytes: &[u8], path: &Path) -> Result<()> {
    let unfinished = path.with_extension(format!("tar.{}", std::process::id()));
    fs::create_dir_all(path.parent().unwrap_or(path))
        .and_then(|()| fs::write(&unfinished, bytes))
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("writing {}", path.display()))
}

fn print(path: &Path, tarball: &[u8], images: &[Image], name: &str) {
    println!("{}: {name}, {} bytes, {}", path.display(), tarball.len(), oci::digest(tarball));
    for image in images {
        let (arch, size) = (image.arch().name(), image.layer_size());
        println!("  {arch}: {} (id {}, layer of {size} bytes)", image.digest(), image.id());
    }
}
