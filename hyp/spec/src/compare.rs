//! The comparison with what EL2 has: [`Spec::compare`] looks at everything after each step.
//!
//! A difference is the fault of the clause that changed the thing, or of [`Clause::NothingElseChanges`], or, after a
//! refusal, of [`Clause::RefusalChangesNothing`].

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::clause::{Clause, Violation};
use crate::reality::{Leaf, Reality, Rights};
use crate::shadow::BLOCK;
use crate::spec::Spec;
use crate::state::{Owner, State};

/// The leaf that covers a frame, as a page.
fn page_of(leaves: &BTreeMap<u64, Leaf>, frame: u64) -> Option<Leaf> {
    let (_, leaf) = leaves.range(..=frame).next_back()?;
    let offset = frame - leaf.gfn;
    (offset < leaf.frames).then_some(Leaf {
        gfn: frame,
        pfn: leaf.pfn + offset,
        frames: 1,
        ..*leaf
    })
}

/// The first frame about which two lists of leaves differ.
fn first_difference(expected: &[Leaf], seen: &[Leaf]) -> Option<u64> {
    let differs = expected
        .iter()
        .zip(seen)
        .find(|(expected, seen)| expected != seen);
    let longer = || {
        let shorter = expected.len().min(seen.len());
        expected
            .get(shorter)
            .or(seen.get(shorter))
            .map(|leaf| leaf.gfn)
    };
    differs.map_or_else(longer, |(expected, seen)| Some(expected.gfn.min(seen.gfn)))
}

impl Spec {
    /// Compares everything with what EL2 has, after the last step.
    pub fn compare(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        self.check_flush(reality)?;
        self.compare_words(reality)?;
        self.compare_vms(reality)?;
        self.compare_regions(reality)?;
        self.compare_host(reality)?;
        self.compare_guests(reality)?;
        self.compare_hyp(reality)?;
        self.compare_pool(reality)?;
        self.compare_content(reality)?;
        self.compare_decoy(reality)?;
        self.compare_cleaned(reality)?;
        if self.last.refused {
            self.exercised
                .note(Clause::RefusalChangesNothing, self.last.what);
        }
        self.exercised
            .note(Clause::NothingElseChanges, self.last.what);
        Ok(())
    }

    /// Compares what the end of the machine leaves.
    pub fn compare_end(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        if let Some((slot, _)) = reality
            .guest_leaves()
            .iter()
            .find(|(_, leaves)| !leaves.is_empty())
        {
            return Err(Violation::new(
                Clause::MachineEnds,
                format!("the guest in slot {slot} runs on"),
            ));
        }
        self.compare_content(reality)
            .map_err(|violation| Violation {
                clause: Clause::MachineEnds,
                ..violation
            })
    }

    /// The clause that is to blame for a difference: `clause`, unless the step was refused.
    pub(crate) fn blame(&self, clause: Clause, what: String) -> Violation {
        let clause = if self.last.refused {
            Clause::RefusalChangesNothing
        } else {
            clause
        };
        Violation::new(clause, what)
    }

    fn check_flush(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        self.exercised.note(Clause::MachineRules, self.last.what);
        if reality.is_flushed() {
            Ok(())
        } else {
            Err(Violation::new(
                Clause::MachineRules,
                String::from("a TLB still has what the tables have not"),
            ))
        }
    }

    /// The clause that decided about the last step, if that changed something; otherwise the one that says that nothing else changes.
    pub(crate) fn changer(&self, has_changed: bool) -> Clause {
        if has_changed {
            self.last.clause
        } else {
            Clause::NothingElseChanges
        }
    }

    fn compare_words(&self, reality: &dyn Reality) -> Result<(), Violation> {
        for (first, count) in &self.state.boot.ram {
            let words = self.state.words(*first, *count);
            let seen = reality.folio_words(*first, *count);
            for ((frame, expected), seen) in (*first..).zip(words).zip(seen) {
                if !expected.admits(seen) {
                    let clause = self.changer(expected != self.before.word(frame));
                    let what = format!(
                        "the folio word of {frame:#x} is {seen:#x}, not {:#x}",
                        expected.value
                    );
                    return Err(self.blame(clause, what));
                }
            }
        }
        Ok(())
    }

    fn compare_vms(&self, reality: &dyn Reality) -> Result<(), Violation> {
        for handle in &self.state.handles {
            let about = |state: &State| {
                let vm = state.vms.get(handle)?;
                Some((vm.phase, u64::try_from(vm.frames.len()).ok()?))
            };
            let (expected, seen) = (about(&self.state), reality.vm(*handle));
            if expected != seen {
                let clause = self.changer(expected != about(&self.before));
                return Err(self.blame(
                    clause,
                    format!("VM {handle:#x} is {seen:?}, not {expected:?}"),
                ));
            }
        }
        Ok(())
    }

    /// The edges of every region are guest RAM, and what lies beyond them is not.
    fn compare_regions(&self, reality: &dyn Reality) -> Result<(), Violation> {
        for (handle, vm) in &self.state.vms {
            for (first, count) in &vm.regions {
                let edges = [
                    first.saturating_sub(1),
                    *first,
                    first + count - 1,
                    first + count,
                ];
                let odd = edges
                    .iter()
                    .find(|gfn| reality.is_guest_ram(*handle, **gfn) != vm.is_ram(**gfn, 1));
                if let Some(gfn) = odd {
                    let before = self.before.vms.get(handle).map(|vm| &vm.regions);
                    let clause = self.changer(before != Some(&vm.regions));
                    return Err(self.blame(clause, format!("{gfn:#x} of VM {handle:#x}")));
                }
            }
        }
        Ok(())
    }

    fn compare_host(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        let mut seen = reality.host_leaves();
        let decoy = self.state.boot.decoy;
        for leaf in seen.iter().filter(|leaf| leaf.pfn == decoy) {
            self.check_decoy(leaf)?;
        }
        seen.retain(|leaf| leaf.pfn != decoy);
        let expected = self.state.host_leaves();
        let Some(frame) = first_difference(&expected, &seen) else {
            self.note_host();
            return Ok(());
        };
        let by_gfn = |leaves: &[Leaf]| {
            leaves
                .iter()
                .map(|leaf| (leaf.gfn, *leaf))
                .collect::<BTreeMap<_, _>>()
        };
        let (expected, seen) = (by_gfn(&expected), by_gfn(&seen));
        let holes = self
            .state
            .boot
            .holes
            .iter()
            .flat_map(|(first, count)| *first..first + count);
        let mut frames = (frame..frame + BLOCK).chain(self.state.ram()).chain(holes);
        let odd = frames.find(|frame| page_of(&expected, *frame) != page_of(&seen, *frame));
        let (clause, frame) = odd.map_or((Clause::LargestEntries, frame), |odd| {
            (self.state.host_clause(odd), odd)
        });
        let (expected, seen) = (page_of(&expected, frame), page_of(&seen, frame));
        Err(self.blame(
            clause,
            format!("the host finds {seen:x?} at {frame:#x}, not {expected:x?}"),
        ))
    }

    fn note_host(&mut self) {
        let State { owners, boot, .. } = &self.state;
        let clauses: Vec<_> = owners
            .keys()
            .map(|frame| self.state.host_clause(*frame))
            .collect();
        let has_holes = !boot.holes.is_empty();
        for clause in clauses {
            self.exercised.note(clause, "tables");
        }
        self.exercised.note(Clause::HostReaches, "tables");
        self.exercised.note(Clause::LargestEntries, "tables");
        if has_holes {
            self.exercised.note(Clause::HostDevices, "tables");
        }
    }

    /// A decoy is a page, to read and write, where one may be.
    pub(crate) fn check_decoy(&self, leaf: &Leaf) -> Result<(), Violation> {
        if self.state.decoys.contains(&leaf.gfn) {
            let is_right = leaf.frames == 1 && leaf.rights == Rights::SharedRam;
            return if is_right {
                Ok(())
            } else {
                Err(Violation::new(
                    Clause::TouchDecoy,
                    format!("a decoy is {leaf:x?}"),
                ))
            };
        }
        let had_one = self.before.decoys.contains(&leaf.gfn);
        let clause = match (had_one, self.last.what) {
            (true, "VCPU_RUN") => Clause::DecoyGoesByRun,
            (true, _) => Clause::DecoyGoesByMove,
            (false, _) => self.state.host_clause(leaf.gfn),
        };
        Err(self.blame(clause, format!("there is a decoy at {:#x}", leaf.gfn)))
    }

    /// What was just touched has its decoy, and a new one shows nothing.
    fn compare_decoy(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        let went = self
            .before
            .decoys
            .difference(&self.state.decoys)
            .next()
            .is_some();
        if went {
            let clause = if self.last.what == "VCPU_RUN" {
                Clause::DecoyGoesByRun
            } else {
                Clause::DecoyGoesByMove
            };
            self.exercised.note(clause, self.last.what);
        }
        let Some((frame, is_new)) = self.last.decoy else {
            return Ok(());
        };
        let page = self.state.boot.decoy;
        let is_there = reality
            .host_leaves()
            .iter()
            .any(|leaf| leaf.gfn == frame && leaf.pfn == page);
        if !is_there {
            return Err(Violation::new(
                Clause::TouchDecoy,
                format!("there is no decoy at {frame:#x}"),
            ));
        }
        let shows = reality.content().iter().any(|(frame, _)| *frame == page);
        if is_new {
            self.exercised.note(Clause::DecoyIsZero, self.last.what);
        }
        if is_new && shows {
            return Err(Violation::new(
                Clause::DecoyIsZero,
                format!("the decoy at {frame:#x} is used"),
            ));
        }
        Ok(())
    }

    fn compare_guests(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        let seen = reality.guest_leaves();
        let slots: Vec<_> = seen.iter().map(|(slot, _)| *slot).collect();
        let expected: Vec<_> = self.state.slots().into_iter().collect();
        if slots != expected {
            let clause = self.changer(self.before.slots() != self.state.slots());
            return Err(self.blame(
                clause,
                format!("there are tables for slots {slots:?}, not {expected:?}"),
            ));
        }
        for handle in self.state.vms.keys() {
            let expected = self.state.guest_leaves(*handle);
            let leaves = seen
                .iter()
                .find(|(slot, _)| *slot == handle & 0xFF)
                .map_or(&[][..], |(_, leaves)| leaves);
            self.exercised.note(Clause::GuestReachesNoMore, "tables");
            if !expected.is_empty() {
                self.exercised.note(Clause::GuestReaches, "tables");
            }
            let has = |leaves: &[Leaf], leaf: &Leaf| {
                let place = leaves.binary_search_by_key(&leaf.gfn, |other| other.gfn);
                place.ok().and_then(|place| leaves.get(place)) == Some(leaf)
            };
            if let Some(lost) = expected.iter().find(|leaf| !has(leaves, leaf)) {
                let clause = if self.last.clause == Clause::ProtectGuestSays {
                    self.last.clause
                } else {
                    Clause::GuestReaches
                };
                return Err(self.blame(clause, format!("VM {handle:#x} has not {lost:x?}")));
            }
            if let Some(more) = leaves.iter().find(|leaf| !has(&expected, leaf)) {
                return Err(self.blame(
                    Clause::GuestReachesNoMore,
                    format!("VM {handle:#x} has {more:x?}"),
                ));
            }
        }
        Ok(())
    }

    fn compare_hyp(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        let seen: BTreeMap<_, _> = reality.hyp_frames().into_iter().collect();
        let tables = self.state.owners.iter().filter(|(frame, owner)| {
            **owner == Owner::SharedHyp && **frame != self.state.boot.decoy
        });
        let mut expected: BTreeMap<_, _> = tables.map(|(frame, _)| (*frame, false)).collect();
        expected.extend(self.state.given.iter().map(|frame| (*frame, true)));
        self.exercised.note(Clause::HypReaches, "tables");
        if seen == expected {
            return Ok(());
        }
        let differs = |frame: &&u64| seen.get(*frame) != expected.get(*frame);
        let odd = seen.keys().chain(expected.keys()).find(differs);
        Err(self.blame(
            Clause::HypReaches,
            format!("EL2 has {odd:x?} otherwise than it must"),
        ))
    }

    fn compare_pool(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        let (free, used) = reality.pool();
        let given = u64::try_from(self.state.given.len()).unwrap_or(u64::MAX);
        let tables = self.state.tables() + self.state.boot.set_aside;
        self.exercised.note(Clause::PoolBalance, "pool");
        if free + used != self.state.boot.pool + given || used != tables {
            let what = format!("{free} frames are free, and {used} are tables, not {tables}");
            return Err(self.blame(Clause::PoolBalance, what));
        }
        self.require_floor(free)
    }

    /// What only a gift may take is left, unless it was not there before.
    pub(crate) fn require_floor(&mut self, free: u64) -> Result<(), Violation> {
        let Some((before, floor)) = self.last.pool else {
            return Ok(());
        };
        self.exercised.note(Clause::PoolFloor, self.last.what);
        if free < before && free < floor {
            return Err(self.blame(
                Clause::PoolFloor,
                format!("{free} frames are left of {before}"),
            ));
        }
        Ok(())
    }

    /// What EL2 leaves in its own frames is nobody's concern.
    fn compare_content(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        let concerns = |frame: u64| {
            frame != self.state.boot.decoy && self.state.owner(frame) != Some(Owner::Hyp)
        };
        let seen: BTreeMap<_, _> = reality
            .content()
            .into_iter()
            .filter(|(frame, _)| concerns(*frame))
            .collect();
        let content = &self.state.content;
        let expected: BTreeMap<_, _> = content
            .iter()
            .map(|(frame, value)| (*frame, *value))
            .filter(|(frame, _)| concerns(*frame))
            .collect();
        self.exercised.note(Clause::ContentWiped, "content");
        self.exercised.note(Clause::ContentStays, "content");
        if let Some((frame, value)) = seen.iter().find(|(frame, _)| !expected.contains_key(frame)) {
            return Err(self.blame(Clause::ContentWiped, format!("{frame:#x} holds {value:#x}")));
        }
        if let Some((frame, value)) = expected
            .iter()
            .find(|(frame, value)| seen.get(frame) != Some(value))
        {
            return Err(self.blame(
                Clause::ContentStays,
                format!("{frame:#x} does not hold {value:#x}"),
            ));
        }
        Ok(())
    }

    fn compare_cleaned(&mut self, reality: &dyn Reality) -> Result<(), Violation> {
        self.require_cleaned(reality.cleaned())
    }

    pub(crate) fn require_cleaned(&mut self, seen: (u64, u64)) -> Result<(), Violation> {
        let (cleaned, forgotten) = seen;
        let wanted = self.state.cleaned;
        if self.last.clause == Clause::DonateGives {
            self.exercised.note(Clause::DonateCleans, self.last.what);
        }
        if cleaned < wanted || forgotten < self.state.forgotten {
            let what = format!(
                "{cleaned} of {wanted} frames are cleaned, instructions forgotten {forgotten} times"
            );
            return Err(Violation::new(Clause::DonateCleans, what));
        }
        Ok(())
    }
}
