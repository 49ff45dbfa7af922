//! Arrays of 64-bit words, mapped into memory: one aligned store changes a word, and no packet sees half of it.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};

/// `SLOTS`, or one of `DIRECTORY`.
#[derive(Debug)]
pub struct Words {
    memory: MmapRaw,
    words: u32,
}

impl Words {
    /// Maps an array of the kernel's.
    ///
    /// # Errors
    /// When the kernel refuses: the map was not made with BPF_F_MMAPABLE, or the limits are too low.
    pub fn map(map: &MapData) -> Result<Self> {
        let words = map.info().context("reading the size of an array of words")?.max_entries();
        let length = words as usize * size_of::<u64>();
        let memory = MmapOptions::new().len(length).map_raw(map.fd().as_fd().as_raw_fd());
        Ok(Self { memory: memory.context("mapping an array of words into memory")?, words })
    }

    /// How many there are.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.words
    }

    /// A word; none beyond the end.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<u64> {
        self.word(index).map(|word| word.load(Ordering::Relaxed))
    }

    /// Changes a word at once for every CPU. False beyond the end.
    #[must_use]
    pub fn set(&self, index: u32, word: u64) -> bool {
        self.word(index).map(|cell| cell.store(word, Ordering::Release)).is_some()
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        if index >= self.words {
            return None;
        }
        let words = self.memory.as_mut_ptr().cast::<u64>();
        // SAFETY: the mapping is page-aligned, `words` long, lives as long as `self`, and is only used atomically here.
        Some(unsafe { AtomicU64::from_ptr(words.add(index as usize)) })
    }
}
