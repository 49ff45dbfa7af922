//! A capture file that is never larger than it may be, and that can be read whatever happens while it is written.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::event::Event;
use super::pcapng::{AFTER, BEFORE, head, packet};

/// Where packets go.
pub struct CaptureFile {
    output: Box<dyn Output>,
    name: String,
    /// Bytes that are written, in whole blocks.
    written: u64,
    bytes_max: u64,
    snap_bytes: u32,
    packets: u64,
}

/// Something that can be cut back to what is whole.
trait Output: Write {
    fn cut(&mut self, length: u64) -> io::Result<()>;
}

impl Output for File {
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)?;
        self.seek(SeekFrom::Start(length)).map(drop)
    }
}

impl Output for io::Stdout {
    fn cut(&mut self, _length: u64) -> io::Result<()> {
        Ok(())
    }
}

/// What a capture came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// There is more.
    More,
    /// The file is as large as it may be, or nobody reads it any more.
    Full,
}

impl CaptureFile {
    /// Makes the file, or writes to the standard output if it is called `-`. One that is there is left alone, unless told.
    ///
    /// # Errors
    /// When it is there, or cannot be made or written.
    pub fn make(path: &Path, replaces: bool, bytes_max: u64, snap_bytes: u32) -> Result<Self> {
        let name = path.display().to_string();
        let output: Box<dyn Output> = match path == Path::new("-") {
            true => Box::new(io::stdout()),
            false => Box::new(open(path, replaces)?),
        };
        let mut file = Self { output, name, written: 0, bytes_max, snap_bytes, packets: 0 };
        file.write(&head(concat!("xlb ", env!("CARGO_PKG_VERSION")), snap_bytes))?;
        Ok(file)
    }

    /// Adds a packet, and what became of it.
    ///
    /// # Errors
    /// When it cannot be written; what was written before can be read.
    pub fn add(&mut self, event: &Event) -> Result<Room> {
        let comment = event.comment();
        let mut blocks = packet(BEFORE, event.time, (&event.before, event.missing), self.snap_bytes, &comment);
        if let Some(after) = &event.after {
            blocks.extend(packet(AFTER, event.time, (after, event.missing), self.snap_bytes, &comment));
        }
        if self.written + blocks.len() as u64 > self.bytes_max {
            return Ok(Room::Full);
        }
        let room = self.write(&blocks)?;
        self.packets += u64::from(room == Room::More);
        Ok(room)
    }

    /// How many packets are in it, those before translation.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// How many bytes.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    fn write(&mut self, blocks: &[u8]) -> Result<Room> {
        match self.output.write_all(blocks).and_then(|()| self.output.flush()) {
            Ok(()) => {
                self.written += blocks.len() as u64;
                Ok(Room::More)
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Room::Full),
            Err(error) => {
                // What is left of a block would keep the whole file from being read. A device cannot be cut.
                let _ = self.output.cut(self.written);
                let so_far = match self.packets {
                    0 => "nothing is in it".into(),
                    packets => format!("the {packets} packets before are in it, and can be read"),
                };
                Err(error).with_context(|| format!("writing a packet to {}: {so_far}", self.name))
            }
        }
    }
}

fn open(path: &Path, replaces: bool) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    match replaces {
        true => options.create(true).truncate(true),
        false => options.create_new(true),
    };
    match options.open(path) {
        Ok(file) => Ok(file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already: name another file, or say --force to replace it", path.display())
        }
        Err(error) => {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).map_or(".".into(), PathBuf::from);
            Err(error).with_context(|| {
                format!(
                    "making {}: name a file in a folder that can be written, {} cannot",
                    path.display(),
                    folder.display()
                )
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_stays_and_one_that_cannot_be_made_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.pcapng");
        std::fs::write(&path, "mine").unwrap();
        let said = CaptureFile::make(&path, false, 1000, 96).err().unwrap().to_string();
        assert!(said.contains("is there already") && said.contains("--force"), "{said}");
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        assert!(CaptureFile::make(&path, true, 1000, 96).is_ok());
        let nowhere = folder.path().join("none/a.pcapng");
        let said = format!("{:#}", CaptureFile::make(&nowhere, false, 1000, 96).err().unwrap());
        assert!(said.contains("none/a.pcapng") && said.contains("No such file"), "{said}");
    }

    #[test]
    fn a_device_without_room_says_that_nothing_is_in_the_file() {
        let said = format!("{:#}", CaptureFile::make(Path::new("/dev/full"), true, 1000, 96).err().unwrap());
        assert!(said.contains("nothing is in it") && said.contains("No space left"), "{said}");
    }
}
