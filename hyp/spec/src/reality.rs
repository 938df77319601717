//! What EL2 really has, as whoever runs the specification can see it: [`Reality`].

use alloc::vec::Vec;
use pinfold_abi::{ACCESS_EXECUTE, ACCESS_WRITE};

use crate::vm::Phase;

/// What a leaf lets its party do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    /// RAM: read, write, execute.
    Ram,
    /// RAM: read and write.
    SharedRam,
    /// RAM: read.
    ReadOnly,
    /// RAM: read and execute.
    ReadExecute,
    /// Device registers: read and write.
    Device,
    /// Anything else.
    Odd(u64),
}

impl Rights {
    /// What a valid stage-2 block or page descriptor says (DDI 0487, D8.3.2): bits 5:2 `MemAttr`, 7:6 `S2AP`, 9:8 SH, 10 AF, 54:53 XN.
    /// `forces_write_back` is `HCR_EL2.FWB`.
    #[must_use]
    pub const fn of_descriptor(descriptor: u64, forces_write_back: bool) -> Self {
        let attributes = descriptor & 0xFFFF_0000_0000_0FFC;
        let execute_never = attributes >> 53;
        let access = attributes & 0x7C0;
        let memory = attributes >> 2 & 0xF;
        let is_ram =
            memory == 0b1111 && !forces_write_back || memory == 0b0110 && forces_write_back;
        match (execute_never, access) {
            // Inner shareable, accessed; read and write, or read.
            (0, 0x7C0) if is_ram => Self::Ram,
            (0b10, 0x7C0) if is_ram => Self::SharedRam,
            (0, 0x740) if is_ram => Self::ReadExecute,
            (0b10, 0x740) if is_ram => Self::ReadOnly,
            // Device-nGnRE; shareability is fixed for devices.
            (0b10, _) if access & !0x300 == 0x4C0 && memory == 0b0001 => Self::Device,
            _ => Self::Odd(attributes),
        }
    }

    /// RAM of the host's, as it may be used by whom it is shared with: bit 1 to write, bit 2 to execute.
    pub(crate) const fn of_access(access: u64) -> Self {
        match (access & ACCESS_WRITE != 0, access & ACCESS_EXECUTE != 0) {
            (true, true) => Self::Ram,
            (true, false) => Self::SharedRam,
            (false, true) => Self::ReadExecute,
            (false, false) => Self::ReadOnly,
        }
    }
}

/// A block or page of a stage-2 regime.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leaf {
    /// The first frame that goes in.
    pub gfn: u64,
    /// The first frame that comes out.
    pub pfn: u64,
    /// How many.
    pub frames: u64,
    /// What may be done.
    pub rights: Rights,
}

/// EL2's real state, for a comparison.
pub trait Reality {
    /// No CPU has cached what is not in the tables any more.
    fn is_flushed(&self) -> bool;
    /// The folio words of this many frames.
    fn folio_words(&self, first: u64, count: u64) -> Vec<u64>;
    /// Phase and number of frames of the VM that a handle names.
    fn vm(&self, handle: u64) -> Option<(Phase, u64)>;
    /// Whether a frame is guest RAM of the VM that a handle names.
    fn is_guest_ram(&self, handle: u64, gfn: u64) -> bool;
    /// The host's leaves, by GFN.
    fn host_leaves(&self) -> Vec<Leaf>;
    /// The regimes of guests, by the slot of their VM, with their leaves by GFN.
    fn guest_leaves(&self) -> Vec<(u64, Vec<Leaf>)>;
    /// What EL2 maps besides what it had at boot, and whether it may write there.
    fn hyp_frames(&self) -> Vec<(u64, bool)>;
    /// Frames of the pool that are free, or hold objects if it has any; and those that are stage-2 tables or set aside for them, the
    /// decoy page among them.
    fn pool(&self) -> (u64, u64);
    /// What frames hold, if that is not 0, by frame.
    fn content(&self) -> Vec<(u64, u64)>;
    /// Frames cleaned to the point of coherency so far, and how often instructions were forgotten.
    fn cleaned(&self) -> (u64, u64);
}
