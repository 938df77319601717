//! Virtual machines: [`Vm`], the table of them, and the handles that name them.
//!
//! A VM is `Created` until it is started, `Live` until its teardown begins, then `Dying` until it owns no frame. Its
//! configuration (regions, vCPUs, interrupt controller) changes in `Created` only; frames come to it in `Created` and
//! `Live`, and leave it in `Dying`.
//!
//! It is *protected*: the host donates its memory and has none of it; or *ordinary*: its memory stays the host's.
//!
//! Invariant: a [`VmHandle`] whose generation is not that of the slot names nothing; generations are never 0 and a slot's
//! generation changes with each VM that takes it.

use crate::addr::{FrameRange, Gfn, Intermediate};
use crate::machine::Vmid;
use crate::refusal::{Found, Refusal};
use crate::stage2::Stage2;
use crate::vcpus::Vcpus;
use alloc::vec::Vec;
use pinfold_abi::limit;

use crate::owned::{Owned, make_room};

/// What a caller says names a VM: bits 7:0 the slot, bits 31:8 the generation. A claim until [`VmTable::get`] has looked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VmHandle(u32);

impl VmHandle {
    /// The handle `raw`, if it can be one at all.
    #[must_use]
    pub fn new(raw: u64) -> Option<Self> {
        u32::try_from(raw)
            .ok()
            .filter(|raw| raw >> 8 != 0)
            .map(Self)
    }

    /// The number itself.
    #[must_use]
    pub fn raw(self) -> u64 {
        u64::from(self.0)
    }

    /// The slot that it names.
    #[must_use]
    pub const fn slot(self) -> VmSlot {
        let [slot, ..] = self.0.to_le_bytes();
        VmSlot(slot)
    }
}

/// The position of a VM in the table: what the folio array stores.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VmSlot(u8);

impl VmSlot {
    /// The slot `raw`, if the table has it.
    #[must_use]
    pub fn new(raw: u8) -> Option<Self> {
        (u64::from(raw) < limit::MAX_VMS).then_some(Self(raw))
    }

    /// The number itself.
    #[must_use]
    pub const fn raw(self) -> u8 {
        self.0
    }

    /// The VMID that the VM in this slot has: one above, since 0 is the host's.
    #[must_use]
    pub fn vmid(self) -> Vmid {
        Vmid(u16::from(self.0) + 1)
    }
}

/// Where in its life a VM is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Being configured; no vCPU runs.
    Created,
    /// Started; its configuration is sealed.
    Live,
    /// Being torn down; no vCPU runs, and frames only leave.
    Dying,
}

/// Whose memory a VM uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Its own, which the host has donated.
    Protected,
    /// The host's, which is shared with it.
    Ordinary,
}

/// The memory of a VM: its stage 2, the ranges of guest RAM, and how many frames it has.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct GuestMemory {
    pub(crate) kind: Kind,
    pub(crate) slot: VmSlot,
    pub(crate) stage2: Stage2,
    pub(crate) owned: u64,
    regions: Vec<FrameRange<Intermediate>>,
}

impl GuestMemory {
    /// An empty memory.
    pub(crate) const fn new(kind: Kind, slot: VmSlot, stage2: Stage2) -> Self {
        Self {
            kind,
            slot,
            stage2,
            owned: 0,
            regions: Vec::new(),
        }
    }

    /// Whether `gfn` is guest RAM: an abort there is a missing frame, elsewhere it is MMIO.
    #[must_use]
    pub fn is_ram(&self, gfn: Gfn) -> bool {
        self.regions.iter().any(|region| region.contains(gfn))
    }

    /// How many frames the VM owns, shared ones and those being wiped included; of an ordinary one, how many are shared with it.
    #[must_use]
    pub const fn owned_frames(&self) -> u64 {
        self.owned
    }

    /// Its stage 2.
    #[must_use]
    pub const fn stage2(&self) -> &Stage2 {
        &self.stage2
    }

    /// The slot of the VM.
    #[must_use]
    pub const fn slot(&self) -> VmSlot {
        self.slot
    }

    /// Whether one region covers the whole of `range`.
    pub(crate) fn is_ram_range(&self, range: FrameRange<Intermediate>) -> bool {
        self.regions.iter().any(|region| region.covers(range))
    }

    /// Makes `region`, which is within reach, guest RAM.
    fn add_region(&mut self, region: FrameRange<Intermediate>) -> Result<(), Refusal> {
        let is_taken = self.regions.iter().any(|other| other.overlaps(region));
        if is_taken && !mutant!(RegionsOverlap) {
            return Err(Refusal::Exists(Found::default()));
        }
        if self.regions.len() >= limit::MAX_REGIONS && !mutant!(SeventeenRegions) {
            return Err(Refusal::Limit);
        }
        make_room(&mut self.regions).ok_or(Refusal::OutOfMemory)?;
        if !mutant!(RegionForgotten) {
            self.regions.push(region);
        }
        Ok(())
    }
}

/// A virtual machine.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct Vm {
    /// The handle that names it.
    pub handle: VmHandle,
    /// Where in its life it is.
    pub(crate) phase: Phase,
    /// Its memory.
    pub memory: GuestMemory,
    /// Its vCPUs, with their power states and the interrupt controller.
    pub vcpus: Vcpus,
}

impl Vm {
    /// A VM that owns nothing yet.
    pub(crate) const fn new(kind: Kind, handle: VmHandle, stage2: Stage2, vcpus: Vcpus) -> Self {
        Self {
            handle,
            phase: Phase::Created,
            memory: GuestMemory::new(kind, handle.slot(), stage2),
            vcpus,
        }
    }

    /// Where in its life it is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// Refuses unless the VM is still being configured.
    pub(crate) fn expect_created(&mut self) -> Result<&mut Self, Refusal> {
        match self.phase {
            Phase::Created => Ok(self),
            Phase::Live | Phase::Dying if mutant!(ConfiguresStarted) => Ok(self),
            Phase::Live | Phase::Dying => Err(Refusal::WrongPhase),
        }
    }

    /// Refuses unless the VM may run and get frames back from its guest.
    pub(crate) fn expect_live(&mut self) -> Result<&mut Self, Refusal> {
        match self.phase {
            Phase::Live => Ok(self),
            Phase::Created | Phase::Dying if mutant!(RunsAnyPhase) => Ok(self),
            Phase::Created | Phase::Dying => Err(Refusal::WrongPhase),
        }
    }

    /// Refuses a VM that is being torn down.
    pub(crate) fn expect_not_dying(&mut self) -> Result<&mut Self, Refusal> {
        match self.phase {
            Phase::Created | Phase::Live => Ok(self),
            Phase::Dying if mutant!(GivesToDying) => Ok(self),
            Phase::Dying => Err(Refusal::WrongPhase),
        }
    }

    /// Refuses a VM of the other kind.
    pub(crate) fn expect_kind(&mut self, kind: Kind) -> Result<&mut Self, Refusal> {
        if self.memory.kind == kind || mutant!(AnyKind) {
            Ok(self)
        } else {
            Err(Refusal::WrongKind)
        }
    }

    /// Refuses unless the VM is being torn down.
    pub(crate) fn expect_dying(&mut self) -> Result<&mut Self, Refusal> {
        match self.phase {
            Phase::Dying => Ok(self),
            Phase::Created | Phase::Live if mutant!(ReclaimsFromLiving) => Ok(self),
            Phase::Created | Phase::Live => Err(Refusal::WrongPhase),
        }
    }

    /// Makes `region` guest RAM.
    pub(crate) fn add_region(&mut self, region: FrameRange<Intermediate>) -> Result<(), Refusal> {
        self.expect_created()?.memory.add_region(region)
    }

    /// Seals the configuration.
    pub(crate) fn start(&mut self) -> Result<(), Refusal> {
        self.expect_created()?.phase = seeded!(StartsNothing, Phase::Created, Phase::Live);
        Ok(())
    }

    /// Begins the teardown. Beginning it again is no error, so that a driver may repeat it.
    pub(crate) fn begin_teardown(&mut self) -> Result<(), Refusal> {
        if self.vcpus.any_loaded() && !mutant!(TeardownWhileLoaded) {
            if mutant!(DyingThoughBusy) {
                self.phase = Phase::Dying;
            }
            return Err(Refusal::Busy(Found::default()));
        }
        self.phase = seeded!(TeardownForgotten, self.phase, Phase::Dying);
        Ok(())
    }
}

/// One place in the table.
#[derive(Debug, Default)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
struct Slot {
    generation: u32,
    vm: Option<Owned<Vm>>,
}

/// All VMs.
#[derive(Debug, Default)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct VmTable {
    slots: Vec<Slot>,
}

/// Generations have 24 bits.
const LAST_GENERATION: u32 = (1 << 24) - 1;

impl VmTable {
    /// An empty table, or nothing if the pool has no room for it.
    #[must_use]
    pub fn try_new() -> Option<Self> {
        let mut slots = Vec::new();
        let count = usize::try_from(limit::MAX_VMS).ok()?;
        slots.try_reserve_exact(count).ok()?;
        slots.resize_with(count, Slot::default);
        Some(Self { slots })
    }

    /// The VM that `handle` names.
    pub fn get(&mut self, handle: VmHandle) -> Result<&mut Vm, Refusal> {
        let slot = self
            .slots
            .get_mut(usize::from(handle.slot().raw()))
            .ok_or(Refusal::NoSuchVm)?;
        match &mut slot.vm {
            Some(vm) if vm.handle == handle || mutant!(TakesStaleHandle) => Ok(vm),
            Some(_) | None => Err(Refusal::NoSuchVm),
        }
    }

    /// The VM in `slot`, to be looked at.
    #[must_use]
    pub fn in_slot(&self, slot: VmSlot) -> Option<&Vm> {
        self.slots.get(usize::from(slot.raw()))?.vm.as_deref()
    }

    /// A handle for the next VM, in the lowest free slot.
    pub(crate) fn vacancy(&self) -> Result<VmHandle, Refusal> {
        let (slot, place) = (0_u32..)
            .zip(&self.slots)
            .find(|(_, place)| place.vm.is_none())
            .ok_or(seeded!(FullIsInvalid, Refusal::Invalid, Refusal::Limit))?;
        let generation = if place.generation >= LAST_GENERATION {
            1
        } else {
            seeded!(HandleComesBack, 1, place.generation.wrapping_add(1))
        };
        Ok(VmHandle(generation << 8 | slot))
    }

    /// Puts a new VM where its handle says.
    pub(crate) fn insert(&mut self, vm: Owned<Vm>) {
        if let Some(slot) = self.slots.get_mut(usize::from(vm.handle.slot().raw())) {
            slot.generation = vm.handle.0 >> 8;
            slot.vm = Some(vm);
        }
    }

    /// All VMs.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Vm> {
        let slots = self.slots.iter_mut();
        slots.filter_map(|slot| slot.vm.as_deref_mut())
    }

    /// Takes the VM that `handle` names out.
    pub(crate) fn remove(&mut self, handle: VmHandle) -> Option<Owned<Vm>> {
        let slot = self.slots.get_mut(usize::from(handle.slot().raw()))?;
        slot.vm.take_if(|vm| vm.handle == handle)
    }
}
