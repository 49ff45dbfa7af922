//! Kubernetes manifests in a file or a directory, read again when they change.
//!
//! A file that cannot be read keeps the content that it last had, and so does everything when the directory itself is
//! gone: a mistake in a manifest must not take away what is being served. A file that is removed is meant.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use tracing::{debug, info, warn};

use super::parse::{Located, ManifestError, parse_file};
use super::watch::Watch;
use crate::model::objects::{Object, ObjectKey};

/// Files read from one directory.
const FILES_MAX: usize = 10_000;
/// Size of one file.
const FILE_SIZE_MAX_MIB: u64 = 256;
/// Ends of the names of files that are read from a directory.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The manifests under one path.
pub struct Manifests {
    root: PathBuf,
    found: Found,
    files: BTreeMap<PathBuf, Content>,
    /// Where each object was taken from: who has it keeps it when another file names it too.
    holders: BTreeMap<ObjectKey, PathBuf>,
    reported: Vec<ManifestError>,
    watch: Watch,
}

/// All that the manifests ask for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOutcome {
    /// The objects, each once.
    pub objects: Vec<Object>,
    /// What is wrong with the manifests. What was good before is still among the objects.
    pub errors: Vec<ManifestError>,
}

impl Manifests {
    /// Reads the manifests for the first time. Here any mistake is fatal: nothing is served yet that it could spoil.
    pub fn open(path: &Path) -> Result<Self> {
        let reading = || format!("reading manifests from {}", path.display());
        let metadata = fs::metadata(path).with_context(reading)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut manifests = Self {
            root: path.into(),
            found: Ok(BTreeMap::new()),
            files: BTreeMap::new(),
            holders: BTreeMap::new(),
            reported: Vec::new(),
            watch: Watch::new(if metadata.is_dir() { path } else { parent }),
        };
        let errors = manifests.refresh().errors;
        if !errors.is_empty() {
            let lines: Vec<String> = errors.iter().map(|error| format!("\n  {error}")).collect();
            return Err(anyhow!("{}", lines.concat())).with_context(reading);
        }
        Ok(manifests)
    }

    /// Reads what has changed since the last time, and tells of mistakes that are new.
    pub fn read(&mut self) -> ReadOutcome {
        let outcome = self.refresh();
        for error in outcome.errors.iter().filter(|error| !self.reported.contains(error)) {
            warn!("manifests: {error}; what was served before stays");
        }
        if outcome.errors.is_empty() && !self.reported.is_empty() {
            info!("manifests: no mistakes left in {}", self.root.display());
        }
        self.reported.clone_from(&outcome.errors);
        outcome
    }

    /// Waits until some file differs from what was read last. May be dropped and called again without losing anything.
    pub async fn next_change(&mut self) {
        loop {
            self.watch.settled().await;
            if find(&self.root) != self.found {
                return;
            }
        }
    }

    fn refresh(&mut self) -> ReadOutcome {
        self.found = find(&self.root);
        if let Ok(found) = &mut self.found {
            self.files.retain(|path, _| found.contains_key(path));
            for (path, stamp) in found.iter() {
                let content = self.files.entry(path.clone()).or_default();
                if content.stamp != Some(*stamp) {
                    content.replace(path, *stamp);
                }
            }
            // A file that could not be read is new again at the next look.
            found.retain(|path, stamp| self.files[path].stamp == Some(*stamp));
        }
        self.outcome()
    }

    fn outcome(&mut self) -> ReadOutcome {
        let root_error = self.found.as_ref().err();
        let mut errors: Vec<ManifestError> =
            root_error.map(|why| ManifestError::of_file(&self.root.to_string_lossy(), why)).into_iter().collect();
        errors.extend(self.files.values().flat_map(|content| content.errors.iter().cloned()));

        let mut objects = Vec::new();
        let mut holders = BTreeMap::new();
        for (key, places) in self.places() {
            let before = self.holders.get(&key);
            let chosen = places.iter().position(|(path, _)| Some(*path) == before).unwrap_or(0);
            let (holder, located) = places[chosen];
            objects.push(located.object.clone());
            for (index, (path, twin)) in places.iter().enumerate() {
                if index != chosen {
                    errors.push(repetition(&key, path, twin, holder, located));
                }
            }
            holders.insert(key, holder.clone());
        }
        self.holders = holders;
        ReadOutcome { objects, errors }
    }

    fn places(&self) -> BTreeMap<ObjectKey, Vec<(&PathBuf, &Located)>> {
        let mut places: BTreeMap<ObjectKey, Vec<(&PathBuf, &Located)>> = BTreeMap::new();
        for (path, content) in &self.files {
            for located in &content.good {
                places.entry(located.object.key()).or_default().push((path, located));
            }
        }
        places
    }
}

/// What is known of one file.
#[derive(Default)]
struct Content {
    stamp: Option<Stamp>,
    good: Vec<Located>,
    errors: Vec<ManifestError>,
}

impl Content {
    /// Reads the file. The stamp was taken before, so a change meanwhile is seen next time.
    fn replace(&mut self, path: &Path, stamp: Stamp) {
        let name = path.to_string_lossy();
        let bytes = match read_bytes(path, stamp) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.errors = vec![ManifestError::of_file(&name, format!("{error:#}"))];
                return;
            }
        };
        match text(&name, bytes).and_then(|text| parse_file(&name, &text)) {
            Ok(parsed) => {
                debug!("read {name}: {} objects, {} of other kinds", parsed.objects.len(), parsed.ignored);
                (self.good, self.errors) = (parsed.objects, Vec::new());
            }
            Err(errors) => self.errors = errors,
        }
        self.stamp = Some(stamp);
    }
}

fn read_bytes(path: &Path, stamp: Stamp) -> Result<Vec<u8>> {
    ensure!(
        stamp.size_b <= FILE_SIZE_MAX_MIB << 20,
        "larger than {FILE_SIZE_MAX_MIB} MiB; split it into several files in a directory"
    );
    Ok(fs::read(path)?)
}

fn text(name: &str, bytes: Vec<u8>) -> Result<String, Vec<ManifestError>> {
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.split(|byte| *byte == b'\n').count();
        let error = ManifestError::of_file(name, "not UTF-8 text, expected YAML or JSON");
        vec![ManifestError { line: Some(line), ..error }]
    })
}

fn repetition(key: &ObjectKey, path: &Path, twin: &Located, holder: &Path, located: &Located) -> ManifestError {
    let why = format!(
        "{key} is in {}, document {}, too, and taken from there; remove one of the two",
        holder.display(),
        located.document
    );
    ManifestError { file: path.to_string_lossy().into(), document: Some(twin.document), line: None, why }
}

/// The files under a path, or why it could not be listed.
type Found = Result<BTreeMap<PathBuf, Stamp>, String>;

/// Tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_b: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

fn find(root: &Path) -> Found {
    find_files(root).map_err(|error| format!("{error:#}"))
}

fn find_files(root: &Path) -> Result<BTreeMap<PathBuf, Stamp>> {
    let metadata = fs::metadata(root)?;
    if !metadata.is_dir() {
        ensure!(metadata.is_file(), "neither a file nor a directory");
        return Ok(BTreeMap::from([(root.into(), stamp(&metadata))]));
    }
    // By its descriptor: a directory that is renamed meanwhile must not look like one whose files were removed.
    let directory = File::open(root)?;
    let held = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&held)? {
        let entry = entry?;
        let path = root.join(entry.file_name());
        if !is_manifest(&path) {
            continue;
        }
        let metadata = match fs::metadata(entry.path()) {
            Ok(metadata) => metadata,
            // A link whose target is gone, or a file that vanished just now, is not there.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("looking at {}", path.display())),
        };
        if metadata.is_file() {
            files.insert(path, stamp(&metadata));
        }
        if files.len() > FILES_MAX {
            bail!("holds more than {FILES_MAX} files; put more objects into each");
        }
    }
    Ok(files)
}

/// Hidden files are editors' and ConfigMap mounts' own.
fn is_manifest(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(|extension| extension.to_str());
    !is_hidden && extension.is_some_and(|extension| EXTENSIONS.contains(&extension))
}

fn stamp(metadata: &fs::Metadata) -> Stamp {
    Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        size_b: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}

#[cfg(test)]
#[path = "manifests_tests.rs"]
mod tests;
