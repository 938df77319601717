//! The test port: how a guest under test and the mini host that made it speak, and where things are in the guest.
//!
//! The port is a page of MMIO outside the guest's RAM, answered by the mini host from MMIO exits: the guest *tells* and *asks* 64-bit words, whose meaning each
//! test fixes, and ends with a verdict. The boot page is the first page of the guest's RAM: which test to run.

use crate::{bytes, mmio};

/// First byte of the guest's RAM.
pub const RAM: u64 = 0x4000_0000;
/// Frames of RAM.
pub const RAM_FRAMES: u64 = 4096;
/// Where the guest image goes: 2 MiB into RAM.
pub const IMAGE: u64 = RAM + 0x20_0000;
/// Frames that the guest image leaves alone, for tests: 8 MiB into RAM up to its end.
pub const SCRATCH: u64 = RAM + 0x80_0000;
/// The port's page.
pub const PORT: u64 = 0x0b00_0000;
/// Register to tell a word (64-bit write).
pub const TELL: u64 = PORT;
/// Register to ask for a word (64-bit read).
pub const ASK: u64 = PORT + 8;
/// Register for the verdict (64-bit write): 0 passed, 1 failed.
pub const VERDICT: u64 = PORT + 16;

/// Marks a boot page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"PINFTEST");

/// What the first page of RAM tells the guest.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct BootPage {
    /// [`MAGIC`].
    pub magic: u64,
    /// Bytes of the name.
    pub length: u64,
    /// Name of the test.
    pub name: [u8; 64],
}

impl BootPage {
    /// A boot page that names a test.
    #[must_use]
    pub fn new(test: &str) -> Self {
        let mut name = [0; 64];
        for (place, byte) in name.iter_mut().zip(test.bytes()) {
            *place = byte;
        }
        Self {
            magic: MAGIC,
            length: bytes::word(test.len().min(64)),
            name,
        }
    }

    /// The test's name, if the page says something sensible.
    #[must_use]
    pub fn test(&self) -> Option<&str> {
        let name = self.name.get(..bytes::size(self.length))?;
        if self.magic == MAGIC {
            core::str::from_utf8(name).ok()
        } else {
            None
        }
    }
}

/// Tells the mini host a word.
pub fn tell(word: u64) {
    // SAFETY: the port is device memory that touches no memory of this image.
    unsafe { mmio::write64(TELL, word) };
}

/// Asks the mini host for a word.
#[must_use]
pub fn ask() -> u64 {
    // SAFETY: as above.
    unsafe { mmio::read64(ASK) }
}

/// Tells the mini host how the test ended.
pub fn verdict(passed: bool) {
    // SAFETY: as above.
    unsafe { mmio::write64(VERDICT, u64::from(!passed)) };
}
