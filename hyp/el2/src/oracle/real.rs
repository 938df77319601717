//! [`Real`]: what there is, for the specification to compare: folio words, and tables as the hardware's walkers read them.

use alloc::vec::Vec;

use pinfold_abi::limit;
use pinfold_core::addr::{Frame, FrameRange, Pfn};
use pinfold_core::hypervisor::Hypervisor;
use pinfold_core::machine::{Machine, RootTables, Table, TableIndex};
use pinfold_core::vm::{self, VmHandle, VmSlot};
use pinfold_spec::{Glance, Leaf, Phase, Reality, Rights};

use super::Watched;
use crate::heap;
use crate::mmu::stage1;
use crate::width::{narrow, wide};

const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const OUTPUT: u64 = 0x0000_ffff_ffff_f000;
/// Guest frame numbers have 28 bits: 40-bit addresses.
const GFN_LIMIT: u64 = 1 << 28;

/// The hypervisor's state.
#[derive(Clone, Copy)]
pub(super) struct Real<'a> {
    pub(super) hypervisor: &'a Hypervisor<Watched>,
    /// What EL2 mapped at its boot: first frames and counts.
    pub(super) at_boot: &'a [(u64, u64)],
}

/// An entry of a table of stage 2 that says anything.
enum Entry {
    Table(Table),
    Leaf(Leaf),
}

/// What a descriptor of the level with `shift` says of the frames from `gfn` (DDI 0487, D8.3).
fn entry(raw: u64, shift: u32, gfn: u64) -> Option<Entry> {
    let is_table_or_page = raw & TABLE_OR_PAGE != 0;
    let output = (raw & OUTPUT) >> 12;
    match (raw & VALID != 0, shift) {
        (true, 1..) if is_table_or_page => Some(Entry::Table(Table::vouch(Pfn::new(output)?))),
        (true, _) if is_table_or_page == (shift == 0) => Some(Entry::Leaf(Leaf {
            gfn,
            pfn: output >> shift << shift,
            frames: 1 << shift,
            rights: Rights::of_descriptor(raw, false),
        })),
        _ => None,
    }
}

impl Real<'_> {
    fn machine(&self) -> &Watched {
        self.hypervisor.memory.machine()
    }

    fn named(&self, handle: u64) -> Option<&vm::Vm> {
        let handle = VmHandle::new(handle)?;
        let vm = self.hypervisor.vms.in_slot(handle.slot())?;
        (vm.handle == handle).then_some(vm)
    }

    /// The leaf that covers a frame.
    fn walk(&self, root: RootTables, gfn: u64) -> Option<Leaf> {
        if gfn >= GFN_LIMIT {
            return None;
        }
        let is_low = gfn < GFN_LIMIT / 2;
        let (mut table, mut shift) = (if is_low { root.low } else { root.high }, 18);
        loop {
            let raw = self.machine().read(table, TableIndex::of(gfn >> shift));
            match entry(raw, shift, gfn >> shift << shift)? {
                Entry::Leaf(leaf) => return Some(leaf),
                Entry::Table(next) => (table, shift) = (next, shift - 9),
            }
        }
    }

    /// All leaves of a regime, in order.
    fn leaves(&self, root: RootTables) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        self.collect(root.low, 18, 0, &mut leaves);
        self.collect(root.high, 18, GFN_LIMIT / 2, &mut leaves);
        leaves
    }

    fn collect(&self, table: Table, shift: u32, first: u64, leaves: &mut Vec<Leaf>) {
        for index in 0..512 {
            let gfn = first + (index << shift);
            let raw = self.machine().read(table, TableIndex::of(index));
            match entry(raw, shift, gfn) {
                Some(Entry::Table(next)) => self.collect(next, shift - 9, gfn, leaves),
                Some(Entry::Leaf(leaf)) => leaves.push(leaf),
                None => {}
            }
        }
    }

    fn host_root(&self) -> RootTables {
        self.hypervisor.memory.host().root()
    }

    fn was_mapped_at_boot(&self, frame: u64) -> bool {
        let after = self.at_boot.partition_point(|(first, _)| *first <= frame);
        let range = after.checked_sub(1).and_then(|last| self.at_boot.get(last));
        range.is_some_and(|(first, count)| frame < first + count)
    }
}

impl Reality for Real<'_> {
    /// Nobody can look into a TLB.
    fn is_flushed(&self) -> bool {
        true
    }

    fn folio_words(&self, first: u64, count: u64) -> Vec<u64> {
        let range = Frame::new(first).and_then(|first| FrameRange::new(first, count));
        let words = range.map_or(&[][..], |range| {
            self.hypervisor.memory.folios().words(range)
        });
        words.iter().map(|folio| folio.word()).collect()
    }

    fn vm(&self, handle: u64) -> Option<(Phase, u64)> {
        let vm = self.named(handle)?;
        let phase = match vm.phase() {
            vm::Phase::Created => Phase::Created,
            vm::Phase::Live => Phase::Live,
            vm::Phase::Dying => Phase::Dying,
        };
        Some((phase, vm.memory.owned_frames()))
    }

    fn is_guest_ram(&self, handle: u64, gfn: u64) -> bool {
        let vm = self.named(handle).zip(Frame::new(gfn));
        vm.is_some_and(|(vm, gfn)| vm.memory.is_ram(gfn))
    }

    fn host_leaves(&self) -> Vec<Leaf> {
        self.leaves(self.host_root())
    }

    fn guest_leaves(&self) -> Vec<(u64, Vec<Leaf>)> {
        let slots = (0..limit::MAX_VMS).filter_map(|slot| u8::try_from(slot).ok());
        let vms = slots.filter_map(|slot| {
            let vm = self.hypervisor.vms.in_slot(VmSlot::new(slot)?)?;
            Some((u64::from(slot), self.leaves(vm.memory.stage2().root())))
        });
        vms.collect()
    }

    fn hyp_frames(&self) -> Vec<(u64, bool)> {
        let mut frames = Vec::new();
        for (address, bytes, writes) in stage1().leaves() {
            let first = wide(address) >> 12;
            let new = (first..first + (wide(bytes) >> 12))
                .filter(|frame| !self.was_mapped_at_boot(*frame));
            frames.extend(new.map(|frame| (frame, writes)));
        }
        frames
    }

    /// What is not a table is free, or an object.
    fn pool(&self) -> (u64, u64) {
        let tables = self.machine().tables;
        (heap::all_frames() - tables, tables)
    }

    /// Nobody tells the specification what is written.
    fn content(&self) -> Vec<(u64, u64)> {
        Vec::new()
    }

    fn cleaned(&self) -> (u64, u64) {
        (self.machine().cleaned, self.machine().forgotten)
    }
}

impl Glance for Real<'_> {
    fn folio_word(&self, frame: u64) -> u64 {
        let pfn = Frame::new(frame);
        pfn.map_or(0, |pfn| self.hypervisor.memory.folios().word(pfn).word())
    }

    fn host_leaf(&self, frame: u64) -> Option<Leaf> {
        self.walk(self.host_root(), frame)
    }

    fn guest_leaf(&self, handle: u64, gfn: u64) -> Option<Leaf> {
        self.walk(self.named(handle)?.memory.stage2().root(), gfn)
    }

    fn hyp_access(&self, frame: u64) -> Option<bool> {
        if self.was_mapped_at_boot(frame) {
            return None;
        }
        stage1().access(narrow(frame << 12))
    }

    fn vm(&self, handle: u64) -> Option<(Phase, u64)> {
        Reality::vm(self, handle)
    }

    fn is_guest_ram(&self, handle: u64, gfn: u64) -> bool {
        Reality::is_guest_ram(self, handle, gfn)
    }

    fn wiped(&self) -> Vec<u64> {
        self.machine().wiped().to_vec()
    }

    fn pool_free(&self) -> u64 {
        self.machine().pool_free()
    }

    fn cleaned(&self) -> (u64, u64) {
        Reality::cleaned(self)
    }
}
