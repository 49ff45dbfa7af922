//! Entries of maps as bytes, and calls about them that aya has none for: many at once, one that is taken out.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result};
use aya::maps::{MapData, MapInfo, MapType};

/// `BPF_MAP_UPDATE_ELEM`, `BPF_MAP_LOOKUP_AND_DELETE_ELEM` and `BPF_MAP_LOOKUP_BATCH` (include/uapi/linux/bpf.h).
const UPDATE: libc::c_long = 2;
const TAKE: libc::c_long = 21;
const LOOKUP_BATCH: libc::c_long = 24;
/// The flag of an update that leaves an entry alone which is there.
const NOEXIST: u64 = 1;

/// The part `batch` of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// The part of `union bpf_attr` that is about one element.
#[repr(C)]
#[derive(Default)]
struct Element {
    map_fd: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Bytes of a map's keys and values, as they cross to the kernel and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Of a key.
    pub key: usize,
    /// Of a value, or of one CPU's part of it.
    pub value: usize,
    /// Parts of a value: more than one if each CPU has its own.
    pub parts: usize,
    /// From one value, or part of it, to the next.
    pub stride: usize,
}

impl Shape {
    /// Of a map that the kernel describes.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn of(info: &MapInfo) -> Result<Self> {
        let (key, value) = (info.key_size() as usize, info.value_size() as usize);
        let is_per_cpu =
            matches!(info.map_type(), Ok(MapType::PerCpuArray | MapType::PerCpuHash | MapType::LruPerCpuHash));
        if !is_per_cpu {
            return Ok(Self { key, value, parts: 1, stride: value });
        }
        let parts = aya::util::nr_cpus().map_err(|(_, error)| error).context("counting the CPUs")?;
        Ok(Self { key, value, parts, stride: value.next_multiple_of(8) })
    }

    /// Bytes of a value with all of its parts.
    #[must_use]
    pub const fn whole(&self) -> usize {
        self.stride * self.parts
    }
}

/// Some entries of a map, and where the next ones begin.
pub struct Page {
    shape: Shape,
    /// A bucket's number, or for maps that are no hash tables a key.
    cursor: Vec<u8>,
    keys: Vec<u8>,
    values: Vec<u8>,
    entries: usize,
    has_begun: bool,
    is_last: bool,
}

impl Page {
    /// With room for so many entries: more than any bucket has.
    #[must_use]
    pub fn new(shape: Shape, entries_max: u32) -> Self {
        let room = entries_max as usize;
        Self {
            shape,
            cursor: vec![0; shape.key.max(size_of::<u64>())],
            keys: vec![0; shape.key * room],
            values: vec![0; shape.whole() * room],
            entries: 0,
            has_begun: false,
            is_last: false,
        }
    }

    /// Begins with a bucket of a hash table, or anew.
    pub fn begin_at(&mut self, bucket: Option<u32>) {
        self.cursor[..size_of::<u32>()].copy_from_slice(&bucket.unwrap_or_default().to_ne_bytes());
        self.has_begun = bucket.is_some();
    }

    /// Whether no entries come behind these.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.is_last
    }

    /// How many entries there are.
    #[must_use]
    pub const fn entries(&self) -> usize {
        self.entries
    }

    /// The bucket of a hash table at which the next entries begin.
    #[must_use]
    pub fn next_bucket(&self) -> u32 {
        self.cursor.first_chunk().copied().map_or(0, u32::from_ne_bytes)
    }

    /// Keys with their values, parts and all.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.keys.chunks(self.shape.key).zip(self.values.chunks(self.shape.whole())).take(self.entries)
    }

    /// Reads the next entries, none behind the last. What changes meanwhile may be among them, or not.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(&mut self, map: &MapData) -> Result<()> {
        let mut next = vec![0; self.cursor.len()];
        let mut batch = Batch {
            in_batch: if self.has_begun { self.cursor.as_ptr() as u64 } else { 0 },
            out_batch: next.as_mut_ptr() as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: (self.keys.len() / self.shape.key) as u32,
            map_fd: map.fd().as_fd().as_raw_fd() as u32,
            ..Batch::default()
        };
        // SAFETY: every pointer in `batch` leads to memory that outlives the call: keys and values with room for `count`
        // entries of the sizes that the kernel itself named for this map, and cursors that are as long as a key and no
        // shorter than the u32 that hash maps write.
        let failed = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP_BATCH, &raw mut batch, size_of::<Batch>()) } != 0;
        let error = io::Error::last_os_error();
        if failed && error.raw_os_error() != Some(libc::ENOENT) {
            return Err(error).context("reading many entries");
        }
        (self.has_begun, self.is_last, self.entries, self.cursor) = (true, failed, batch.count as usize, next);
        Ok(())
    }
}

/// Takes an entry out of a hash map, whole, as it was at that moment; none: there was none.
///
/// # Errors
/// When key and value are not of the map's sizes, or the kernel refuses.
pub fn take<V: bytemuck::Pod>(map: &MapData, shape: Shape, key: &[u8]) -> Result<Option<V>> {
    anyhow::ensure!(key.len() == shape.key && size_of::<V>() == shape.whole(), "an entry of another map");
    let mut value = V::zeroed();
    let map_fd = map.fd().as_fd().as_raw_fd() as u32;
    let mut element = Element { map_fd, key: key.as_ptr() as u64, value: (&raw mut value) as u64, flags: 0 };
    // SAFETY: the kernel reads the key and writes the value, which are as long as it named them for this map; all of them
    // outlive the call, and any bytes are a value.
    let failed = unsafe { libc::syscall(libc::SYS_bpf, TAKE, &raw mut element, size_of::<Element>()) } != 0;
    let error = io::Error::last_os_error();
    match failed {
        false => Ok(Some(value)),
        true if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        true => Err(error).context("taking an entry out"),
    }
}

/// Writes an entry as it is, unless there is one with its key that is to stay. False: there was.
///
/// # Errors
/// When the kernel refuses, for example because the map is full.
pub fn put(map: &MapData, shape: Shape, (key, value): (&[u8], &[u8]), keeps_present: bool) -> Result<bool> {
    anyhow::ensure!(key.len() == shape.key && value.len() == shape.whole(), "an entry of another map");
    let flags = if keeps_present { NOEXIST } else { 0 };
    let map_fd = map.fd().as_fd().as_raw_fd() as u32;
    let element = Element { map_fd, key: key.as_ptr() as u64, value: value.as_ptr() as u64, flags };
    // SAFETY: the kernel only reads `element`, the key and the value, which are as long as it named them for this map; all of
    // them outlive the call.
    let failed = unsafe { libc::syscall(libc::SYS_bpf, UPDATE, &raw const element, size_of::<Element>()) } != 0;
    let error = io::Error::last_os_error();
    match failed {
        false => Ok(true),
        true if keeps_present && error.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        true => Err(error).context("writing an entry"),
    }
}
