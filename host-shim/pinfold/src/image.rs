//! The arm64 kernel `Image` header, read before anything is started: [`ImageHeader`].
//!
//! Layout and meaning: Linux, `Documentation/arch/arm64/booting.rst`, "Call the kernel image".
//! The loading itself is `linux-loader`'s; this is the check that lets `pinfold run` say what is
//! wrong with a file while nothing has been started yet.

use thiserror::Error;

/// Bytes of the header.
pub const HEADER_SIZE: usize = 64;

const MAGIC: [u8; 4] = *b"ARM\x64";
const FLAG_BIG_ENDIAN: u64 = 1 << 0;

/// Why a file is no kernel that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Shorter than a header.
    #[error("is too short to be an arm64 Image")]
    TooShort,
    /// Compressed, as many distributions ship it.
    #[error("is gzip-compressed; unpack it first (gunzip)")]
    Compressed,
    /// An ELF file, most likely `vmlinux`.
    #[error("is an ELF file; give arch/arm64/boot/Image instead of vmlinux")]
    Elf,
    /// The magic number is missing.
    #[error("is not an arm64 Image (its header lacks the magic number ARM\\x64)")]
    Magic,
    /// The image size is zero: kernels before 3.17.
    #[error("is an Image that does not state its size (older than Linux 3.17)")]
    NoSize,
    /// The kernel is big-endian.
    #[error("is a big-endian Image; Pinfold's guests are little-endian")]
    BigEndian,
}

/// What the header says about the kernel's place in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageHeader {
    /// From a 2 MiB-aligned base to the kernel's first byte.
    pub text_offset: u64,
    /// Bytes the kernel occupies once it runs, .bss included.
    pub image_size: u64,
}

impl ImageHeader {
    /// Reads the header at the start of `file`.
    pub fn parse(file: &[u8]) -> Result<Self, ImageError> {
        if file.starts_with(&[0x1F, 0x8B]) {
            return Err(ImageError::Compressed);
        }
        if file.starts_with(b"\x7FELF") {
            return Err(ImageError::Elf);
        }
        let header = file.get(..HEADER_SIZE).ok_or(ImageError::TooShort)?;
        if header.get(56..60) != Some(&MAGIC) {
            return Err(ImageError::Magic);
        }
        let text_offset = word(header, 8)?;
        let image_size = word(header, 16)?;
        if word(header, 24)? & FLAG_BIG_ENDIAN != 0 {
            return Err(ImageError::BigEndian);
        }
        if image_size == 0 {
            return Err(ImageError::NoSize);
        }
        Ok(Self {
            text_offset,
            image_size,
        })
    }
}

fn word(header: &[u8], at: usize) -> Result<u64, ImageError> {
    header
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map(|bytes| u64::from_le_bytes(*bytes))
        .ok_or(ImageError::TooShort)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> [u8; HEADER_SIZE] {
        let mut header = [0; HEADER_SIZE];
        header[8..16].copy_from_slice(&0_u64.to_le_bytes());
        header[16..24].copy_from_slice(&0x90_0000_u64.to_le_bytes());
        header[24..32].copy_from_slice(&0xA_u64.to_le_bytes());
        header[56..60].copy_from_slice(&MAGIC);
        header
    }

    #[test]
    fn a_good_header_is_read() {
        let header = ImageHeader::parse(&image()).unwrap();
        assert_eq!(header.text_offset, 0);
        assert_eq!(header.image_size, 0x90_0000);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(ImageHeader::parse(b"short"), Err(ImageError::TooShort));
        assert_eq!(
            ImageHeader::parse(&[0x1F, 0x8B, 8]),
            Err(ImageError::Compressed)
        );
        assert_eq!(ImageHeader::parse(b"\x7FELF...."), Err(ImageError::Elf));
        assert_eq!(ImageHeader::parse(&[0; 64]), Err(ImageError::Magic));
        let mut big_endian = image();
        big_endian[24] |= 1;
        assert_eq!(ImageHeader::parse(&big_endian), Err(ImageError::BigEndian));
        let mut sizeless = image();
        sizeless[16..24].fill(0);
        assert_eq!(ImageHeader::parse(&sizeless), Err(ImageError::NoSize));
    }
}
