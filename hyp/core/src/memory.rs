//! The ownership of memory: [`Memory`], and one file for each way in which a frame changes hands.
//!
//! Each way is one straight function that checks and returns a value (`Donation`, `Share`, `Reclaim` ...), and that value's
//! `commit`, which cannot fail. A value that is dropped instead has changed nothing: the table frames that it had in hand go back
//! to the pool.
//!
//! Order within a commit, for G2: the giver's entries are broken and flushed, the folio words change, the taker's entries are
//! made. What leaves a guest is wiped in between.

use crate::addr::{FrameRange, Gfn, Order, Pfn, Physical};
use crate::folio::{Folio, FolioArray, FolioState};
use crate::machine::{Machine, OutOfMemory, RootTables, Scope, Vmid};
use crate::pin_word::PinTable;
use crate::refusal::Refusal;
use crate::stage2::{
    self, Background, Content, Grain, Mapping, Need, Reserve, Stage2, Tables, chunks,
};
use crate::vm::{GuestMemory, VmSlot};
use decoy::Decoys;

pub mod decoy;
mod donate;
mod ordinary;
mod part;
mod pins;
mod poison;
mod pool;
mod reclaim;
mod relinquish;
mod share;
#[cfg(test)]
mod tests;

pub use donate::{CLEANS_PER_CALL, Donation, FolioClaim, MOVES_PER_CALL};
pub use ordinary::{GuestShare, SharedChange, SharedRange};
pub use pins::PinTableShare;
pub use poison::Poisoning;
pub use pool::PoolDonation;
pub use reclaim::{Progress, Reclaim, WIPES_PER_CALL};
pub use relinquish::Relinquishment;
pub use share::{Share, Unshare};

/// Which memory there is, as the device tree and the image say.
#[derive(Clone, Copy, Debug)]
pub struct Layout<'a> {
    /// RAM.
    pub ram: &'a [FrameRange<Physical>],
    /// The part of RAM that is EL2's: image, stacks, folio array, pool.
    pub hyp: &'a [FrameRange<Physical>],
    /// What the host may not reach although it is not RAM: bus masters that write wherever they are told.
    pub holes: &'a [FrameRange<Physical>],
}

/// How much has changed hands since boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Frames donated to VMs.
    pub donated: u64,
    /// Frames that VMs gave back.
    pub reclaimed: u64,
    /// Frames wiped.
    pub wiped: u64,
    /// Decoys mapped.
    pub decoys: u64,
}

/// Who may use which frame, and the tables that say so to the hardware.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct Memory<M: Machine> {
    pub(crate) machine: M,
    pub(crate) folios: FolioArray,
    pub(crate) host: Stage2,
    pub(crate) pins: PinTable,
    pub(crate) tally: Tally,
    decoys: Decoys,
    given_to_pool: u64,
}

/// What the entries of a folio count where they are all written, in frames that could be cleaned or wiped meanwhile: an eighth each.
fn moving(order: Order) -> u64 {
    match Grain::of(order) {
        Grain::Pages => order.frames() / 8,
        Grain::Block => 0,
    }
}

/// Memory, with table frames in hand until it is dropped.
#[derive(Debug)]
struct Lent<'a, M: Machine> {
    memory: &'a mut Memory<M>,
    reserve: Reserve,
}

impl<'a, M: Machine> Lent<'a, M> {
    /// Takes `tables` frames for tables in hand.
    fn new(memory: &'a mut Memory<M>, tables: usize, need: Need) -> Result<Self, Refusal> {
        let reserve = Reserve::take_from(&mut memory.machine, tables, need)?;
        Ok(Self { memory, reserve })
    }

    /// Makes the host's entries for `range` say `content`.
    fn set_host(&mut self, range: FrameRange<Physical>, grain: Grain, content: Content) {
        self.memory
            .set_host(range, grain, content, &mut self.reserve);
    }

    /// What it takes to write a guest's tables.
    fn tables(&mut self) -> Tables<'_, M> {
        Tables {
            machine: &mut self.memory.machine,
            folios: &mut self.memory.folios,
            reserve: &mut self.reserve,
        }
    }
}

impl<M: Machine> Drop for Lent<'_, M> {
    fn drop(&mut self) {
        core::mem::take(&mut self.reserve).release(&mut self.memory.machine);
    }
}

impl<M: Machine> Memory<M> {
    /// Takes over the machine: builds the folio array in `folios`, the first of which speaks for `first`, and the host's stage 2.
    pub fn new(
        machine: M,
        first: Pfn,
        folios: &'static mut [Folio],
        layout: &Layout<'_>,
    ) -> Result<Self, OutOfMemory> {
        let mut machine = machine;
        let root = machine.allocate_root().ok_or(OutOfMemory)?;
        machine.name_root(root, Vmid::HOST);
        let host = Stage2::new(root, Vmid::HOST, Background::Identity);
        let mut folios = FolioArray::new(first, folios);
        for ram in layout.ram {
            folios.change(
                *ram,
                FolioState::NotRam.number(),
                Order::FRAME,
                FolioState::Host,
            );
        }
        for hyp in layout.hyp {
            folios.change(
                *hyp,
                FolioState::Host.number(),
                Order::FRAME,
                FolioState::Hyp { entries: 0 },
            );
        }
        host.fill_with_devices(&mut machine);
        let decoys = Decoys::new(&mut machine, &mut folios).ok_or(OutOfMemory)?;
        let mut memory = Self {
            machine,
            folios,
            host,
            pins: PinTable::default(),
            tally: Tally::default(),
            decoys,
            given_to_pool: 0,
        };
        for ram in layout.ram {
            memory.map_at_boot(*ram, true)?;
        }
        for range in layout
            .hyp
            .iter()
            .chain(seeded!(HolesStay, &[], layout.holes))
        {
            memory.map_at_boot(*range, false)?;
        }
        Ok(memory)
    }

    /// Makes a range RAM, or nothing, in the host's stage 2, in the largest entries.
    fn map_at_boot(
        &mut self,
        range: FrameRange<Physical>,
        is_ram: bool,
    ) -> Result<(), OutOfMemory> {
        let range = range.identity();
        for chunk in chunks(range) {
            let grain = if chunk.count() == Order::BLOCK.frames() {
                Grain::Block
            } else {
                Grain::Pages
            };
            let content = if is_ram {
                Content::Map(chunk.first().identity(), Mapping::Ram)
            } else {
                Content::Vacant
            };
            let needed = self.host.tables_needed(chunk, grain, &self.machine);
            let mut reserve = Reserve::take_from(&mut self.machine, needed, Need::Replenishing)?;
            let mut tables = Tables {
                machine: &mut self.machine,
                folios: &mut self.folios,
                reserve: &mut reserve,
            };
            self.host.set(chunk, grain, content, &mut tables);
            reserve.release(&mut self.machine);
        }
        Ok(())
    }

    /// The folio array.
    #[must_use]
    pub const fn folios(&self) -> &FolioArray {
        &self.folios
    }

    /// The machine.
    #[must_use]
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The machine, to be set up.
    pub const fn machine_mut(&mut self) -> &mut M {
        &mut self.machine
    }

    /// The host's stage 2.
    #[must_use]
    pub const fn host(&self) -> &Stage2 {
        &self.host
    }

    /// How much has changed hands since boot.
    #[must_use]
    pub const fn tally(&self) -> Tally {
        self.tally
    }

    /// The pin word of a frame, or 0.
    #[must_use]
    pub fn pin_word(&self, pfn: Pfn) -> u32 {
        self.pins.word(pfn, &self.machine).unwrap_or(0)
    }

    /// Whether a guest's stage 2 maps `gfn`.
    #[must_use]
    pub fn guest_maps(&self, guest: &GuestMemory, gfn: Gfn) -> bool {
        matches!(
            guest.stage2.lookup(gfn, &self.machine).entry,
            stage2::Entry::Leaf(_)
        )
    }

    /// Refuses when the pool has no room for an object and its floor.
    pub(crate) fn expect_room(&self, frames: u64) -> Result<(), Refusal> {
        let wanted = stage2::FLOOR.saturating_add(frames);
        if self.machine.pool_free() < wanted || mutant!(NoRoom) {
            Err(Refusal::OutOfMemory)
        } else {
            Ok(())
        }
    }

    /// Makes an empty stage 2 for the VM in `slot`.
    pub(crate) fn create_stage2(&mut self, slot: VmSlot) -> Result<Stage2, Refusal> {
        let root = stage2::allocate_root(&mut self.machine)?;
        self.machine.name_root(root, slot.vmid());
        // A VM may run before it has memory: walkers must see that there is nothing.
        self.machine.publish();
        Ok(Stage2::new(root, slot.vmid(), Background::Vacant))
    }

    /// Destroys the stage 2 of a VM that owns no frame any more: flushes, then frees.
    pub(crate) fn destroy_root(&mut self, root: RootTables, vmid: Vmid) {
        self.machine.invalidate(Scope::All(vmid));
        self.machine.free_root(root);
    }

    /// How a guest's own RAM is mapped.
    fn guest_mapping(&self) -> Mapping {
        if self.machine.forces_write_back() {
            Mapping::ForcedRam
        } else {
            Mapping::Ram
        }
    }

    fn set_host(
        &mut self,
        range: FrameRange<Physical>,
        grain: Grain,
        content: Content,
        reserve: &mut Reserve,
    ) {
        let mut tables = Tables {
            machine: &mut self.machine,
            folios: &mut self.folios,
            reserve,
        };
        self.host
            .set_range(range.identity(), grain, content, &mut tables);
    }

    /// Wipes every frame that only a VM could reach. No VM can any more: their regimes were severed.
    pub(crate) fn wipe_what_guests_own(&mut self) {
        let frames = self.folios.frames();
        for pfn in frames.iter().flat_map(|frames| frames.frames()) {
            match self.folios.whole(pfn).state {
                FolioState::Arriving { .. }
                | FolioState::Guest { .. }
                | FolioState::Wiping { .. } => self.wipe(pfn),
                FolioState::Host
                | FolioState::Hyp { .. }
                | FolioState::HostSharedHyp { .. }
                | FolioState::HostSharedGuest { .. }
                | FolioState::GuestSharedHost { .. }
                | FolioState::Poisoned
                | FolioState::NotRam => {}
            }
        }
    }

    /// Wipes one frame.
    fn wipe(&mut self, frame: Pfn) {
        if !mutant!(SkipsWipe) {
            self.machine.wipe(frame);
        }
        self.tally.wiped = self.tally.wiped.wrapping_add(1);
    }
}
