//! [`Watched`]: the hardware, and notes of what core asked of it that leaves no trace in tables.

use alloc::vec::Vec;

use crate::lock::SpinMutex;
use pinfold_core::addr::{FrameRange, Pfn, Physical};
use pinfold_core::machine::{
    HypAccess, Machine, OutOfMemory, RootTables, Scope, Table, TableIndex, Vmid,
};
use pinfold_core::trace::Ring;

use crate::heap::aside;
use crate::machine::{self, El2Machine};
use crate::width::wide;

/// A pin word as core read it: frame of the table, index there, word.
pub(super) type PinRead = (u64, u64, u32);

/// The hardware under observation.
#[derive(Debug)]
pub(crate) struct Watched {
    hardware: El2Machine,
    /// Words of the host may change at any time: what core saw is what counts.
    pins: SpinMutex<Vec<PinRead>>,
    /// Frames that were wiped, and were zeroes when core came back from it.
    wiped: Vec<u64>,
    /// Frames that are tables, or set aside for them.
    pub(super) tables: u64,
    /// Frames cleaned.
    pub(super) cleaned: u64,
    /// How often instructions were forgotten.
    pub(super) forgotten: u64,
}

/// The hardware, watched.
pub(crate) const fn hardware() -> Watched {
    Watched {
        hardware: El2Machine::new(),
        pins: SpinMutex::new(Vec::new()),
        wiped: Vec::new(),
        tables: 0,
        cleaned: 0,
        forgotten: 0,
    }
}

impl Watched {
    /// Forgets what was noted of the last step.
    pub(super) fn begin(&mut self) {
        self.pins.lock().clear();
        self.wiped.clear();
    }

    /// The pin words that core read in this step.
    pub(super) fn pins(&self) -> Vec<PinRead> {
        self.pins.lock().clone()
    }

    /// The frames that became zeroes in this step.
    pub(super) fn wiped(&self) -> &[u64] {
        &self.wiped
    }
}

impl Machine for Watched {
    fn allocate_table(&mut self) -> Option<Table> {
        let table = self.hardware.allocate_table()?;
        self.tables += 1;
        Some(table)
    }

    fn allocate_root(&mut self) -> Option<RootTables> {
        let root = self.hardware.allocate_root()?;
        self.tables += 2;
        Some(root)
    }

    fn name_root(&mut self, root: RootTables, vmid: Vmid) {
        self.hardware.name_root(root, vmid);
    }

    fn free_table(&mut self, table: Table) {
        self.hardware.free_table(table);
        self.tables -= 1;
    }

    fn free_root(&mut self, root: RootTables) {
        self.hardware.free_root(root);
        self.tables -= 2;
    }

    fn read(&self, table: Table, index: TableIndex) -> u64 {
        self.hardware.read(table, index)
    }

    fn write(&mut self, table: Table, index: TableIndex, descriptor: u64) {
        self.hardware.write(table, index, descriptor);
    }

    fn publish(&mut self) {
        self.hardware.publish();
    }

    fn invalidate(&mut self, scope: Scope) {
        self.hardware.invalidate(scope);
    }

    fn wipe(&mut self, frame: Pfn) {
        self.hardware.wipe(frame);
        if machine::is_zero(frame) {
            aside::with(|| self.wiped.push(frame.raw()));
        }
    }

    fn forces_write_back(&self) -> bool {
        self.hardware.forces_write_back()
    }

    fn clean(&mut self, frame: Pfn) {
        self.hardware.clean(frame);
        self.cleaned += 1;
    }

    fn forget_instructions(&mut self) {
        self.hardware.forget_instructions();
        self.forgotten += 1;
    }

    fn prepare_hyp(&mut self, frames: FrameRange<Physical>) -> Result<(), OutOfMemory> {
        self.hardware.prepare_hyp(frames)
    }

    fn map_hyp(&mut self, frame: Pfn, access: HypAccess) {
        self.hardware.map_hyp(frame, access);
    }

    fn unmap_hyp(&mut self, frame: Pfn) {
        self.hardware.unmap_hyp(frame);
    }

    fn read_pin_word(&self, frame: Pfn, index: usize) -> u32 {
        let word = self.hardware.read_pin_word(frame, index);
        aside::with(|| self.pins.lock().push((frame.raw(), wide(index), word)));
        word
    }

    fn pool_insert(&mut self, frame: Pfn) {
        self.hardware.pool_insert(frame);
    }

    fn pool_remove(&mut self) -> Option<Pfn> {
        self.hardware.pool_remove()
    }

    fn pool_free(&self) -> u64 {
        self.hardware.pool_free()
    }

    fn trace(&self, cpu: usize) -> Option<&Ring> {
        self.hardware.trace(cpu)
    }
}
