//! The one layer of an image: the same files give the same bytes, wherever and whenever.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// A file of an image. It belongs to root.
pub struct File {
    /// Its path, without the first slash.
    pub path: String,
    /// Whether it is a program.
    pub is_executable: bool,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// A layer, as it is and as it is stored.
pub struct Layer {
    /// The archive.
    pub tar: Vec<u8>,
    /// The same, compressed.
    pub gzip: Vec<u8>,
}

/// Packs files, with the folders above them, in the order of their paths.
pub fn pack(files: &[File], epoch: u64) -> Result<Layer> {
    let mut sorted: Vec<&File> = files.iter().collect();
    sorted.sort_by(|one, other| one.path.cmp(&other.path));
    let mut archive = Builder::new(Vec::new());
    for folder in folders(files) {
        append(&mut archive, &format!("{folder}/"), EntryType::Directory, 0o755, epoch, &[])?;
    }
    for file in sorted {
        let mode = if file.is_executable { 0o755 } else { 0o644 };
        append(&mut archive, &file.path, EntryType::Regular, mode, epoch, &file.bytes)?;
    }
    let tar = archive.into_inner().context("ending the layer")?;
    let gzip = compress(&tar)?;
    Ok(Layer { tar, gzip })
}

/// Every folder above a file, those above others first.
fn folders(files: &[File]) -> BTreeSet<String> {
    let above = files.iter().flat_map(|file| Path::new(&file.path).ancestors().skip(1));
    let names = above.map(|folder| folder.to_string_lossy().into_owned());
    names.filter(|name| !name.is_empty()).collect()
}

/// Appends an entry of which nothing depends on who makes it, or on the file that it was made of.
pub fn append(
    archive: &mut Builder<Vec<u8>>,
    path: &str,
    kind: EntryType,
    mode: u32,
    epoch: u64,
    bytes: &[u8],
) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(epoch);
    header.set_size(bytes.len() as u64);
    archive.append_data(&mut header, path, bytes).with_context(|| format!("packing {path}"))
}

/// Without a name or a time in the header.
fn compress(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).context("compressing the layer")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn files() -> Vec<File> {
        vec![
            File { path: "xlb".into(), is_executable: true, bytes: b"binary".to_vec() },
            File { path: "usr/share/xlb/LICENSE".into(), is_executable: false, bytes: b"text".to_vec() },
            File { path: "etc/nsswitch.conf".into(), is_executable: false, bytes: b"hosts".to_vec() },
        ]
    }

    #[test]
    fn the_order_of_the_files_changes_nothing() {
        let one = pack(&files(), 1_700_000_000).unwrap();
        let other = pack(&files().into_iter().rev().collect::<Vec<_>>(), 1_700_000_000).unwrap();
        assert_eq!((one.tar, one.gzip), (other.tar, other.gzip));
    }

    #[test]
    fn entries_are_roots_have_the_time_they_were_told_and_their_folders_first() {
        let layer = pack(&files(), 1_700_000_000).unwrap();
        let mut archive = tar::Archive::new(&layer.tar[..]);
        let seen = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 1_700_000_000));
            format!("{:o} {}", header.mode().unwrap(), entry.path().unwrap().display())
        });
        let expected = [
            "755 etc/",
            "755 usr/",
            "755 usr/share/",
            "755 usr/share/xlb/",
            "644 etc/nsswitch.conf",
            "644 usr/share/xlb/LICENSE",
            "755 xlb",
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_stored_unpacks_to_what_it_is() {
        let layer = pack(&files(), 0).unwrap();
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&layer.gzip[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, layer.tar);
        assert_eq!(layer.gzip[4..8], [0; 4], "no time in the header");
    }
}
