//! Decoys: a page of zeroes where the host's kernel touches a frame that is not its own (G7).
//!
//! The kernel then neither dies nor sees or harms what is there. A decoy stays until the owner runs again or the folio changes
//! hands. There is one page for all of them and room for [`MOST`] folios at a time; the oldest makes way. EL2 keeps a table
//! frame for each, because a folio of 2 MiB left no table behind in the host's regime.

use pinfold_abi::State;

use super::Memory;
use crate::addr::{FrameRange, Order, Pfn};
use crate::folio::{FolioArray, FolioState, Whole};
use crate::machine::{Machine, Table};
use crate::refusal::Refusal;
use crate::stage2::{Content, Entry, Grain, Level, Lookup, Mapping, Reserve};
use crate::vm::VmSlot;

/// Folios that can have a decoy at a time.
pub const MOST: usize = 4;

/// The decoy page, and where it is mapped.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct Decoys {
    page: Pfn,
    folios: [Option<Whole>; MOST],
    spare: [Option<Table>; MOST],
    next: usize,
}

impl Decoys {
    /// Takes the page and the spare tables out of the pool.
    pub(super) fn new<M: Machine>(machine: &mut M, folios: &mut FolioArray) -> Option<Self> {
        let page = machine.allocate_table()?.frame();
        folios.change(
            FrameRange::folio(page, Order::FRAME),
            State::Hyp,
            Order::FRAME,
            FolioState::HostSharedHyp { pins: 1 },
        );
        let mut spare = [None; MOST];
        for place in &mut spare {
            *place = Some(machine.allocate_table()?);
        }
        Some(Self {
            page,
            folios: [None; MOST],
            spare,
            next: 0,
        })
    }
}

impl<M: Machine> Memory<M> {
    /// The page that stands in for frames that are not the host's.
    #[must_use]
    pub const fn decoy_page(&self) -> Pfn {
        self.decoys.page
    }

    /// Whether the folio that holds `pfn` has a decoy.
    #[must_use]
    pub fn has_decoy(&self, pfn: Pfn) -> bool {
        self.decoys
            .folios
            .iter()
            .flatten()
            .any(|folio| folio.frames().contains(pfn))
    }

    /// Lets the host's kernel find a page of zeroes at `pfn`.
    pub(crate) fn map_decoy(&mut self, pfn: Pfn) -> Result<(), Refusal> {
        let folio = self.folios.whole(pfn);
        let Lookup { entry, level } = self.host.lookup(pfn.identity(), &self.machine);
        let may_have_one = match folio.state {
            FolioState::Arriving { .. } | FolioState::Guest { .. } | FolioState::Wiping { .. } => {
                level != Level::One
            }
            FolioState::Hyp { .. } | FolioState::Poisoned => level == Level::Three,
            FolioState::Host
            | FolioState::HostSharedHyp { .. }
            | FolioState::HostSharedGuest { .. }
            | FolioState::GuestSharedHost { .. }
            | FolioState::NotRam => false,
        };
        if !may_have_one || matches!(entry, Entry::Leaf(_)) {
            return Err(self.folios.refusal(0, pfn));
        }
        let mut reserve = Reserve::of(if level == Level::Three {
            None
        } else {
            self.take_spare()?
        });
        if !self.has_decoy(pfn) {
            self.make_room(folio);
        }
        let content = Content::Map(self.decoys.page, Mapping::SharedRam);
        self.set_host(
            FrameRange::folio(pfn, Order::FRAME),
            Grain::Pages,
            content,
            &mut reserve,
        );
        reserve.release(&mut self.machine);
        self.tally.decoys = self.tally.decoys.wrapping_add(1);
        Ok(())
    }

    /// A spare table: one that was put aside, or a new one.
    fn take_spare(&mut self) -> Result<Option<Table>, Refusal> {
        let spare = self
            .decoys
            .spare
            .iter_mut()
            .find_map(Option::take)
            .or_else(|| self.machine.allocate_table());
        if spare.is_some() {
            Ok(spare)
        } else {
            Err(Refusal::OutOfMemory)
        }
    }

    /// Notes that `folio` has a decoy now; the oldest one makes way if there are as many as there can be.
    fn make_room(&mut self, folio: Whole) {
        // What the host's kernel wrote into another folio's decoy must not be seen in this one's.
        if mutant!(UsedDecoy) {
            self.machine.clean(self.decoys.page);
        } else {
            self.machine.wipe(self.decoys.page);
        }
        let place = self.decoys.next % MOST;
        self.decoys.next = place.wrapping_add(1);
        if let Some(oldest) = self
            .decoys
            .folios
            .get_mut(place)
            .and_then(|place| place.replace(folio))
        {
            self.unmap_decoy(oldest);
        }
    }

    /// Takes the decoys away that lie in `folio`, which is about to change hands.
    pub(super) fn forget_decoys_in(&mut self, folio: Whole) {
        self.forget_decoys_where(|decoy| decoy.head == folio.head);
    }

    /// Takes the decoys away that hide frames of the VM in `slot`, which is about to run, and those that hide EL2's.
    pub(crate) fn forget_decoys_of(&mut self, slot: VmSlot) {
        self.forget_decoys_where(|decoy| decoy.state.owner().is_none_or(|(vm, _)| vm == slot));
    }

    fn forget_decoys_where(&mut self, is_over: impl Fn(Whole) -> bool) {
        for index in 0..MOST {
            let place = self.decoys.folios.get_mut(index);
            if let Some(folio) = place.and_then(|place| place.take_if(|folio| is_over(*folio))) {
                self.unmap_decoy(folio);
            }
        }
    }

    /// Leaves nothing in the host's regime where the folio is, and puts a table aside if one became free.
    fn unmap_decoy(&mut self, folio: Whole) {
        let mut reserve = Reserve::default();
        self.set_host(
            folio.frames(),
            Grain::of(folio.order),
            Content::Vacant,
            &mut reserve,
        );
        let table_became_free = folio.order == Order::BLOCK && !mutant!(SpareLost);
        let place = self.decoys.spare.iter_mut().find(|place| place.is_none());
        if let Some(place) = place.filter(|_| table_became_free) {
            *place = self.machine.allocate_table();
        }
    }
}
