//! Memory that a disk can read from and write to directly.

use std::ops::{Deref, DerefMut};

/// Alignment of every [`Sectors`] in bytes: enough for the largest logical block in use.
pub const SECTORS_ALIGNMENT: usize = 4096;

#[derive(Clone, Copy)]
#[repr(C, align(4096))]
struct Page([u8; SECTORS_ALIGNMENT]);

/// Zeroed memory of whole pages, allocated once and used again for every transfer.
pub struct Sectors {
    pages: Box<[Page]>,
}

impl Sectors {
    /// Allocates `bytes`, rounded up to whole multiples of [`SECTORS_ALIGNMENT`], filled with
    /// zeros.
    #[must_use]
    pub fn new(bytes: usize) -> Sectors {
        let pages = bytes.div_ceil(SECTORS_ALIGNMENT);
        Sectors {
            pages: vec![Page([0; SECTORS_ALIGNMENT]); pages].into_boxed_slice(),
        }
    }
}

impl Deref for Sectors {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let length = self.pages.len() * SECTORS_ALIGNMENT;
        // SAFETY: a Page is exactly SECTORS_ALIGNMENT initialised bytes, so the slice of pages is
        // these many bytes, borrowed as long as self is.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), length) }
    }
}

impl DerefMut for Sectors {
    fn deref_mut(&mut self) -> &mut [u8] {
        let length = self.pages.len() * SECTORS_ALIGNMENT;
        // SAFETY: as for deref, and self is borrowed mutably; any bytes make a valid Page.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), length) }
    }
}

impl std::fmt::Debug for Sectors {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sectors({} bytes)", self.len())
    }
}
