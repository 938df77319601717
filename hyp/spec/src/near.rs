//! The comparison for those who cannot look at everything after each step: [`Spec::compare_near`] asks a [`Glance`].
//!
//! It looks at what the step has changed and at what lies beside that, at what the call named, and at the next few frames and
//! guest frames of a round through all of them. So what a step did wrong near its place is found at once, and what it did
//! elsewhere within one round; [`Spec::compare`] finds it whenever it is called.

use alloc::format;
use alloc::vec::Vec;

use crate::clause::{Clause, Violation};
use crate::reality::Leaf;
use crate::shadow::BLOCK;
use crate::spec::Spec;
use crate::state::{Owner, State, in_ranges};
use crate::vm::Phase;

/// Frames of the round that are looked at after a step.
const FRAMES_PER_STEP: usize = 6;
/// Guest frames of the round that are looked at after a step.
const GFNS_PER_STEP: u64 = 4;

/// EL2's real state, asked for one thing at a time.
pub trait Glance {
    /// The folio word of a frame of RAM.
    fn folio_word(&self, frame: u64) -> u64;
    /// The leaf by which the host finds a frame.
    fn host_leaf(&self, frame: u64) -> Option<Leaf>;
    /// The leaf by which the VM that a handle names finds a frame.
    fn guest_leaf(&self, handle: u64, gfn: u64) -> Option<Leaf>;
    /// Whether EL2 maps a frame that it had not at boot, and may write there.
    fn hyp_access(&self, frame: u64) -> Option<bool>;
    /// Phase and number of frames of the VM that a handle names.
    fn vm(&self, handle: u64) -> Option<(Phase, u64)>;
    /// Whether a frame is guest RAM of the VM that a handle names.
    fn is_guest_ram(&self, handle: u64, gfn: u64) -> bool;
    /// The frames that were wiped in the last step, and were zeroes then.
    fn wiped(&self) -> Vec<u64>;
    /// Free frames of the pool.
    fn pool_free(&self) -> u64;
    /// Frames cleaned to the point of coherency so far, and how often instructions were forgotten.
    fn cleaned(&self) -> (u64, u64);
}

/// How far the round is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    frame: u64,
    vm: u64,
    gfn: u64,
}

/// The part of a leaf that speaks for one frame.
fn page_of(leaf: Leaf, gfn: u64) -> Leaf {
    Leaf {
        gfn,
        pfn: leaf.pfn + (gfn - leaf.gfn),
        frames: 1,
        ..leaf
    }
}

impl State {
    /// The leaf by which a VM must find a frame.
    pub(crate) fn guest_leaf(&self, handle: u64, gfn: u64) -> Option<Leaf> {
        let vm = self.vms.get(&handle)?;
        self.guest_leaf_of(vm, gfn, *vm.frames.get(&gfn)?)
    }

    /// Whether EL2 must map a frame that it had not at boot, and may write there.
    fn hyp_access(&self, frame: u64) -> Option<bool> {
        match self.owner(frame) {
            _ if self.given.contains(&frame) => Some(true),
            Some(Owner::SharedHyp) if frame != self.boot.decoy => Some(false),
            _ => None,
        }
    }

    /// What is known of a VM from outside.
    fn about(&self, handle: u64) -> Option<(Phase, u64)> {
        let vm = self.vms.get(&handle)?;
        Some((vm.phase, u64::try_from(vm.frames.len()).ok()?))
    }
}

impl Spec {
    /// Compares what the last step has changed, what lies near it, what it `named` (any of these words may be the number of a
    /// frame), and some of the rest.
    pub fn compare_near(&mut self, glance: &dyn Glance, named: &[u64]) -> Result<(), Violation> {
        self.near_wiped(glance)?;
        self.near_vms(glance)?;
        let changed = self.changed_frames();
        let mut frames: Vec<_> = changed.iter().flat_map(|frame| around(*frame)).collect();
        frames.extend_from_slice(named);
        frames.extend(self.last.decoy.map(|(frame, _)| frame));
        frames.extend(self.frames_of_round());
        frames.sort_unstable();
        frames.dedup();
        frames.retain(|frame| self.state.is_ram(*frame));
        for frame in frames {
            self.near_word(glance, frame)?;
            self.near_host(glance, frame)?;
            self.near_hyp(glance, frame)?;
        }
        let mut gfns = self.changed_gfns(&changed);
        gfns.extend(self.named_gfns(named));
        gfns.extend(self.gfns_of_round());
        gfns.sort_unstable();
        gfns.dedup();
        for (handle, gfn) in gfns {
            self.near_guest(glance, handle, gfn)?;
        }
        self.require_floor(glance.pool_free())?;
        self.require_cleaned(glance.cleaned())
    }

    /// The frames that have another owner now, or may have a decoy.
    fn changed_frames(&self) -> Vec<u64> {
        let (before, now) = (&self.before, &self.state);
        let mut changed = before.owners.changes(&now.owners);
        changed.extend(before.decoys.changes(&now.decoys));
        changed.extend(before.given.changes(&now.given));
        changed
    }

    /// Where guests have, or had, the frames that changed.
    fn changed_gfns(&self, changed: &[u64]) -> Vec<(u64, u64)> {
        let states = [&self.before, &self.state];
        let held = changed.iter().flat_map(|frame| {
            let owners = states.map(|state| state.owner(*frame).and_then(Owner::held));
            owners.into_iter().flatten()
        });
        let held = held.flat_map(|held| around(held.gfn).map(|gfn| (held.vm, gfn)));
        held.chain(self.changed_grants()).collect()
    }

    /// Where something else is shared with ordinary VMs now.
    fn changed_grants(&self) -> Vec<(u64, u64)> {
        let vms = self
            .before
            .vms
            .range(0..u64::MAX)
            .filter_map(|(handle, before)| {
                let grants = before.grants.changes(&self.state.vms.get(handle)?.grants);
                Some(grants.into_iter().map(|gfn| (*handle, gfn)))
            });
        vms.flatten().collect()
    }

    /// The guest frames that a call may have meant.
    fn named_gfns(&self, named: &[u64]) -> Vec<(u64, u64)> {
        let handles = named
            .iter()
            .filter(|word| self.state.vms.contains_key(word));
        handles
            .flat_map(|handle| named.iter().map(|gfn| (*handle, *gfn)))
            .filter(|(handle, gfn)| self.is_ram_of(*handle, *gfn))
            .collect()
    }

    fn is_ram_of(&self, handle: u64, gfn: u64) -> bool {
        let vm = self.state.vms.get(&handle);
        gfn >> 28 == 0 && vm.is_some_and(|vm| vm.is_ram(gfn, 1))
    }

    /// The next frames of the round through RAM.
    fn frames_of_round(&mut self) -> Vec<u64> {
        let from = self.cursor.frame;
        let boot = &self.state.boot;
        let ahead = boot.ram.iter().flat_map(|(first, count)| {
            let start = from.clamp(*first, first + count);
            start..first + count
        });
        let frames: Vec<_> = ahead.take(FRAMES_PER_STEP).collect();
        self.cursor.frame = frames.last().map_or(0, |last| last + 1);
        frames
    }

    /// The next frames of the round through the RAM of guests.
    fn gfns_of_round(&mut self) -> Vec<(u64, u64)> {
        let Cursor { vm, gfn, .. } = self.cursor;
        let mut handles = self.state.vms.range(vm..u64::MAX);
        let Some((handle, found)) = handles.next() else {
            (self.cursor.vm, self.cursor.gfn) = (0, 0);
            return Vec::new();
        };
        let from = if *handle == vm { gfn } else { 0 };
        let region = found
            .regions
            .iter()
            .filter(|(first, count)| from < first + count);
        let (next, gfns) = match region.min() {
            None => ((handle + 1, 0), 0..0),
            Some((first, count)) => {
                let start = from.max(*first);
                let end = (start + GFNS_PER_STEP).min(first + count);
                ((*handle, end), start..end)
            }
        };
        let gfns = gfns.map(|gfn| (*handle, gfn)).collect();
        (self.cursor.vm, self.cursor.gfn) = next;
        gfns
    }

    fn near_wiped(&self, glance: &dyn Glance) -> Result<(), Violation> {
        let (mut expected, mut seen) = (self.wiped.clone(), glance.wiped());
        // What EL2 does to its own frames is nobody's concern.
        let concerns = |frame: &u64| {
            *frame != self.state.boot.decoy && self.state.owner(*frame) != Some(Owner::Hyp)
        };
        seen.retain(concerns);
        expected.sort_unstable();
        seen.sort_unstable();
        if let Some(frame) = expected
            .iter()
            .find(|frame| seen.binary_search(frame).is_err())
        {
            return Err(self.blame(Clause::ContentWiped, format!("{frame:#x} is not wiped")));
        }
        match seen
            .iter()
            .find(|frame| expected.binary_search(frame).is_err())
        {
            Some(frame) => Err(self.blame(Clause::ContentStays, format!("{frame:#x} is wiped"))),
            None => Ok(()),
        }
    }

    fn near_vms(&self, glance: &dyn Glance) -> Result<(), Violation> {
        for handle in self.before.vms.changes(&self.state.vms) {
            let (expected, seen) = (self.state.about(handle), glance.vm(handle));
            if expected != seen {
                let clause = self.changer(expected != self.before.about(handle));
                let what = format!("VM {handle:#x} is {seen:?}, not {expected:?}");
                return Err(self.blame(clause, what));
            }
            self.near_regions(glance, handle)?;
        }
        Ok(())
    }

    /// The edges of every region are guest RAM, and what lies beyond them is not.
    fn near_regions(&self, glance: &dyn Glance, handle: u64) -> Result<(), Violation> {
        let Some(vm) = self.state.vms.get(&handle) else {
            return Ok(());
        };
        let ends = vm.regions.iter().flat_map(|(first, count)| {
            let last = first + count - 1;
            [first.saturating_sub(1), *first, last, last + 1]
        });
        let mut ends = ends.filter(|gfn| glance.is_guest_ram(handle, *gfn) != vm.is_ram(*gfn, 1));
        let Some(gfn) = ends.next() else {
            return Ok(());
        };
        let before = self.before.vms.get(&handle).map(|vm| &vm.regions);
        let clause = self.changer(before != Some(&vm.regions));
        Err(self.blame(clause, format!("{gfn:#x} of VM {handle:#x}")))
    }

    fn near_word(&self, glance: &dyn Glance, frame: u64) -> Result<(), Violation> {
        let (expected, seen) = (self.state.word(frame), glance.folio_word(frame));
        if expected.admits(seen) {
            return Ok(());
        }
        let clause = self.changer(expected != self.before.word(frame));
        let value = expected.value;
        let what = format!("the folio word of {frame:#x} is {seen:#x}, not {value:#x}");
        Err(self.blame(clause, what))
    }

    fn near_host(&self, glance: &dyn Glance, frame: u64) -> Result<(), Violation> {
        let whole = glance.host_leaf(frame);
        let seen = whole.map(|leaf| page_of(leaf, frame));
        if let Some(leaf) = seen.filter(|leaf| leaf.pfn == self.state.boot.decoy) {
            return self.check_decoy(&leaf);
        }
        let touched = self.last.decoy.map(|(frame, _)| frame);
        if touched == Some(frame) {
            let what = format!("there is no decoy at {frame:#x}");
            return Err(Violation::new(Clause::TouchDecoy, what));
        }
        let expected = self.state.host_view(frame).map(|rights| Leaf {
            gfn: frame,
            pfn: frame,
            frames: 1,
            rights,
        });
        if seen != expected {
            let clause = self.state.host_clause(frame);
            let what = format!("the host finds {seen:x?} at {frame:#x}, not {expected:x?}");
            return Err(self.blame(clause, what));
        }
        let is_block = self.state.is_hosts_block(frame - frame % BLOCK);
        match whole {
            Some(leaf) if is_block != (leaf.frames >= BLOCK) => {
                let what = format!("the host finds {frame:#x} by {leaf:x?}");
                Err(self.blame(Clause::LargestEntries, what))
            }
            _ => Ok(()),
        }
    }

    fn near_hyp(&self, glance: &dyn Glance, frame: u64) -> Result<(), Violation> {
        if in_ranges(&self.state.boot.hyp, frame) {
            return Ok(());
        }
        let (expected, seen) = (self.state.hyp_access(frame), glance.hyp_access(frame));
        if seen == expected {
            return Ok(());
        }
        let what = format!("EL2 may write {frame:#x}: {seen:?}, not {expected:?}");
        Err(self.blame(Clause::HypReaches, what))
    }

    fn near_guest(&self, glance: &dyn Glance, handle: u64, gfn: u64) -> Result<(), Violation> {
        let (expected, seen) = (
            self.state.guest_leaf(handle, gfn),
            glance.guest_leaf(handle, gfn),
        );
        if seen == expected {
            return Ok(());
        }
        let clause = if expected.is_some() {
            Clause::GuestReaches
        } else {
            Clause::GuestReachesNoMore
        };
        let what = format!("VM {handle:#x} has {seen:x?} at {gfn:#x}, not {expected:x?}");
        Err(self.blame(clause, what))
    }
}

/// A number and its neighbours.
fn around(number: u64) -> [u64; 3] {
    [number.saturating_sub(1), number, number + 1]
}
