//! `SLOTS`, mapped into memory: one aligned 64-bit store changes a slot, and no packet sees half of it.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use memmap2::{MmapOptions, MmapRaw};
use xlb_common::slot::SlotWord;

/// The slot array of the kernel.
#[derive(Debug)]
pub struct Slots {
    memory: MmapRaw,
    words: u32,
}

impl Slots {
    /// Maps the array behind `map`, which has `words` entries.
    ///
    /// # Errors
    /// When the kernel refuses: the map was not made with BPF_F_MMAPABLE, or the limits are too low.
    pub fn map(map: &impl AsFd, words: u32) -> Result<Self> {
        let length = words as usize * size_of::<u64>();
        let descriptor = std::os::fd::AsRawFd::as_raw_fd(&map.as_fd());
        let memory =
            MmapOptions::new().len(length).map_raw(descriptor).context("mapping the slot array into memory")?;
        Ok(Self { memory, words })
    }

    /// A word; none beyond the end.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<SlotWord> {
        self.word(index).map(|word| SlotWord(word.load(Ordering::Relaxed)))
    }

    /// Changes a word at once for every CPU. False beyond the end.
    #[must_use]
    pub fn set(&self, index: u32, word: SlotWord) -> bool {
        self.word(index).map(|cell| cell.store(word.0, Ordering::Release)).is_some()
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
