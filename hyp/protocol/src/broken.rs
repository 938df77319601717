//! Entries that were broken and may be in a TLB still: [`Broken`], the automaton between valid and invalid.
//!
//! ```text
//! stage 2:  Stored --DSB--> Ordered --TLBI IPA--> ByIpa --DSB--> Combined --TLBI VMALLE1--> Removed --DSB--> gone
//!                                   --TLBI VMALLS12E1 or ALLE1--------------------------->
//! stage 1:  Stored --DSB--> Ordered --TLBI VAE2------------------------------------------> Removed --DSB--> gone
//! ```
//!
//! Each step counts only if the CPU that it has to come from does it, in scope: a DSB comes from the CPU whose store or TLBI it
//! waits for, a TLBI reaches all CPUs, unless the entry is one CPU's own. Neighbours in the same state are one [`Run`].

use crate::descriptor::Level;
use crate::event::{Dsb, Regime, Tlbi};
use crate::violation::{Entry, Missing};

/// Where a removal stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Stored,
    Ordered,
    ByIpa,
    Combined,
    Removed,
}

/// What an entry led to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// Frames from this one on.
    Leaf(u64),
    /// A table.
    Table(u64),
}

/// Entries of one level, side by side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Run {
    regime: Regime,
    level: Level,
    first: u64,
    frames: u64,
    target: Target,
    /// The only CPU that can have it.
    private: bool,
    stage: Stage,
    /// Who did the last step.
    cpu: usize,
    /// A step that would have counted, had it been another.
    near: Option<Missing>,
}

/// How a TLBI meets a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reach {
    Nothing,
    Near(Missing),
    Page(u64),
    Whole,
}

impl Run {
    pub(crate) fn entry(&self) -> Entry {
        Entry {
            regime: self.regime,
            level: self.level,
            first: self.first,
        }
    }

    pub(crate) fn missing(&self) -> Missing {
        match self.stage {
            Stage::Stored => Missing::DsbAfterStore,
            Stage::Ordered => self.near.unwrap_or(Missing::Tlbi),
            Stage::ByIpa => Missing::DsbAfterIpa,
            Stage::Combined => Missing::TlbiOfCombined,
            Stage::Removed => Missing::DsbAfterTlbi,
        }
    }

    fn end(&self) -> u64 {
        self.first.saturating_add(self.frames)
    }

    fn contains(&self, frame: u64) -> bool {
        (self.first..self.end()).contains(&frame)
    }

    fn overlaps(&self, entry: Entry) -> bool {
        self.regime == entry.regime
            && self.first < entry.first.saturating_add(entry.level.frames())
            && entry.first < self.end()
    }

    /// Whether a walk that uses it ends in one of `count` frames from `first`, or goes through one.
    fn reaches(&self, first: u64, count: u64) -> bool {
        let end = first.saturating_add(count);
        match self.target {
            Target::Leaf(output) => output < end && first < output.saturating_add(self.frames),
            Target::Table(table) => (first..end).contains(&table),
        }
    }

    /// Whether it and `next`, which begins where it ends, are in the same state.
    fn adjoins(&self, next: &Self) -> bool {
        let (Target::Leaf(output), Target::Leaf(_)) = (self.target, next.target) else {
            return false;
        };
        let like = Self {
            first: self.end(),
            frames: next.frames,
            target: Target::Leaf(output.saturating_add(self.frames)),
            ..*self
        };
        like == *next
    }

    /// The part from `first` on, of as many frames.
    fn part(&self, first: u64, frames: u64) -> Self {
        let target = match self.target {
            Target::Leaf(output) => {
                Target::Leaf(output.saturating_add(first.saturating_sub(self.first)))
            }
            Target::Table(table) => Target::Table(table),
        };
        Self {
            first,
            frames,
            target,
            ..*self
        }
    }

    fn after_dsb(&self, cpu: usize, dsb: Dsb) -> Option<Stage> {
        let is_wide = dsb == Dsb::Inner || dsb == Dsb::System;
        let orders = is_wide || dsb == Dsb::InnerStores || self.private;
        let waits = is_wide || self.private && dsb == Dsb::Local;
        match self.stage {
            _ if self.cpu != cpu => Some(self.stage),
            Stage::Stored if orders => Some(Stage::Ordered),
            Stage::ByIpa if waits => Some(Stage::Combined),
            Stage::Removed if waits => None,
            Stage::Stored | Stage::Ordered | Stage::ByIpa | Stage::Combined | Stage::Removed => {
                Some(self.stage)
            }
        }
    }

    /// What the TLBI of a CPU whose VTTBR_EL2 names `vmid` does to it.
    fn reach(&self, cpu: usize, tlbi: Tlbi, vmid: u16) -> Reach {
        match self.regime {
            Regime::Own => self.reach_own(cpu, tlbi),
            Regime::Stage2(own) => self.reach_stage2(tlbi, own == vmid),
        }
    }

    fn reach_own(&self, cpu: usize, tlbi: Tlbi) -> Reach {
        let (page, is_local) = match tlbi {
            Tlbi::Own(page) => (page, false),
            Tlbi::OwnLocal(page) => (page, true),
            Tlbi::Ipa(_)
            | Tlbi::Combined
            | Tlbi::CombinedLocal
            | Tlbi::Vmid
            | Tlbi::El1
            | Tlbi::El1Local => return Reach::Nothing,
        };
        match self.stage {
            Stage::Ordered if !self.contains(page) => Reach::Near(Missing::TlbiOfItsAddress),
            Stage::Ordered if is_local && !(self.private && self.cpu == cpu) => {
                Reach::Near(Missing::TlbiOnAllCpus)
            }
            Stage::Ordered => Reach::Page(page),
            Stage::Stored | Stage::ByIpa | Stage::Combined | Stage::Removed => Reach::Nothing,
        }
    }

    fn reach_stage2(&self, tlbi: Tlbi, is_own_vmid: bool) -> Reach {
        let is_stored = self.stage == Stage::Stored;
        let is_ordered = self.stage == Stage::Ordered;
        let is_cached = is_ordered || self.stage == Stage::ByIpa || self.stage == Stage::Combined;
        match tlbi {
            // The walker may read the old entry after it.
            Tlbi::Ipa(page) if is_stored && is_own_vmid && self.contains(page) => {
                Reach::Near(Missing::DsbAfterStore)
            }
            Tlbi::Vmid if is_stored && is_own_vmid => Reach::Near(Missing::DsbAfterStore),
            Tlbi::El1 if is_stored => Reach::Near(Missing::DsbAfterStore),
            Tlbi::El1 if is_cached => Reach::Whole,
            Tlbi::El1Local | Tlbi::CombinedLocal if is_ordered => {
                Reach::Near(Missing::TlbiOnAllCpus)
            }
            Tlbi::Ipa(_) | Tlbi::Vmid if is_ordered && !is_own_vmid => {
                Reach::Near(Missing::TlbiOfItsVmid)
            }
            Tlbi::Ipa(page) if is_ordered && !self.contains(page) => {
                Reach::Near(Missing::TlbiOfItsAddress)
            }
            Tlbi::Ipa(page) if is_ordered => Reach::Page(page),
            Tlbi::Vmid if is_cached && is_own_vmid => Reach::Whole,
            Tlbi::Combined if self.stage == Stage::Combined && is_own_vmid => Reach::Whole,
            Tlbi::Ipa(_)
            | Tlbi::Combined
            | Tlbi::CombinedLocal
            | Tlbi::Vmid
            | Tlbi::El1
            | Tlbi::El1Local
            | Tlbi::Own(_)
            | Tlbi::OwnLocal(_) => Reach::Nothing,
        }
    }
}

/// There is no room for another run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoRoom;

/// Up to `N` runs, in no order.
#[derive(Clone)]
pub(crate) struct Broken<const N: usize> {
    runs: [Run; N],
    count: usize,
}

impl<const N: usize> Broken<N> {
    pub(crate) const fn new() -> Self {
        const NONE: Run = Run {
            regime: Regime::Own,
            level: Level::One,
            first: 0,
            frames: 0,
            target: Target::Leaf(0),
            private: false,
            stage: Stage::Stored,
            cpu: 0,
            near: None,
        };
        Self {
            runs: [NONE; N],
            count: 0,
        }
    }

    fn runs(&self) -> &[Run] {
        self.runs.get(..self.count).unwrap_or_default()
    }

    /// The first run of this kind.
    fn find(&self, is_it: impl Fn(&Run) -> bool) -> Option<Run> {
        self.runs().iter().find(|run| is_it(run)).copied()
    }

    /// One that speaks for a part of what `entry` speaks for.
    pub(crate) fn overlapping(&self, entry: Entry) -> Option<Run> {
        self.find(|run| run.overlaps(entry))
    }

    /// One of stage 2 that leads into `count` frames from `first`.
    pub(crate) fn reaching(&self, first: u64, count: u64) -> Option<Run> {
        self.find(|run| run.regime != Regime::Own && run.reaches(first, count))
    }

    /// One that leads through this table.
    pub(crate) fn through(&self, table: u64) -> Option<Run> {
        self.find(|run| run.target == Target::Table(table))
    }

    /// One of these regimes that is not one CPU's own.
    pub(crate) fn shared_of(&self, is_theirs: impl Fn(Regime) -> bool) -> Option<Run> {
        self.find(|run| !run.private && is_theirs(run.regime))
    }

    /// One of `entry` that another CPU is about to remove.
    pub(crate) fn of_another(&self, entry: Entry, cpu: usize) -> Option<Run> {
        self.find(|run| run.cpu != cpu && run.overlaps(entry))
    }

    /// Notes an entry that `cpu` breaks.
    pub(crate) fn add(
        &mut self,
        cpu: usize,
        entry: Entry,
        target: Target,
        private: bool,
    ) -> Result<(), NoRoom> {
        self.insert(Run {
            regime: entry.regime,
            level: entry.level,
            first: entry.first,
            frames: entry.level.frames(),
            target,
            private,
            stage: Stage::Stored,
            cpu,
            near: None,
        })
    }

    /// Adds a run, or makes one that it adjoins longer.
    fn insert(&mut self, run: Run) -> Result<(), NoRoom> {
        let all = self.runs.get_mut(..self.count).unwrap_or_default();
        if let Some(before) = all.iter_mut().find(|other| other.adjoins(&run)) {
            before.frames = before.frames.saturating_add(run.frames);
            return Ok(());
        }
        if let Some(after) = all.iter_mut().find(|other| run.adjoins(other)) {
            let frames = after.frames.saturating_add(run.frames);
            *after = Run { frames, ..run };
            return Ok(());
        }
        let place = self.runs.get_mut(self.count).ok_or(NoRoom)?;
        *place = run;
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Takes a run out; the last one comes to its place.
    fn remove(&mut self, index: usize) {
        if let Some(last) = self.count.checked_sub(1).filter(|last| index <= *last) {
            self.runs.swap(index, last);
            self.count = last;
        }
    }

    /// A DSB of `cpu`.
    pub(crate) fn dsb(&mut self, cpu: usize, dsb: Dsb) {
        let mut index = 0;
        while let Some(run) = self.runs().get(index).copied() {
            match run.after_dsb(cpu, dsb) {
                Some(stage) => {
                    if let Some(place) = self.runs.get_mut(index) {
                        place.stage = stage;
                    }
                    index = index.saturating_add(1);
                }
                None => self.remove(index),
            }
        }
    }

    /// A TLBI of `cpu`, whose VTTBR_EL2 names `vmid`.
    pub(crate) fn tlbi(&mut self, cpu: usize, tlbi: Tlbi, vmid: u16) -> Result<(), NoRoom> {
        // From the end, so that what comes to the place of a run that is split was looked at.
        for index in (0..self.count).rev() {
            let Some(run) = self.runs().get(index).copied() else {
                continue;
            };
            match run.reach(cpu, tlbi, vmid) {
                Reach::Nothing => {}
                Reach::Near(missing) => self.put(
                    index,
                    Run {
                        near: Some(missing),
                        ..run
                    },
                ),
                Reach::Whole => {
                    let stage = Stage::Removed;
                    self.put(index, Run { stage, cpu, ..run });
                }
                Reach::Page(page) => {
                    self.remove(index);
                    self.split(run, cpu, page)?;
                }
            }
        }
        Ok(())
    }

    fn put(&mut self, index: usize, run: Run) {
        if let Some(place) = self.runs.get_mut(index) {
            *place = run;
        }
    }

    /// Puts `run` back, with the entry that speaks for `page` one step on.
    fn split(&mut self, run: Run, cpu: usize, page: u64) -> Result<(), NoRoom> {
        let unit = match run.target {
            Target::Leaf(_) => run.level.frames(),
            Target::Table(_) => run.frames,
        };
        let at = page & !unit.saturating_sub(1);
        let stage = match run.regime {
            Regime::Own => Stage::Removed,
            Regime::Stage2(_) => Stage::ByIpa,
        };
        let hit = Run {
            stage,
            cpu,
            near: None,
            ..run.part(at, unit)
        };
        self.insert(hit)?;
        let run = Run {
            near: Some(Missing::TlbiOfItsAddress),
            ..run
        };
        let after = at.saturating_add(unit);
        if run.first < at {
            self.insert(run.part(run.first, at.saturating_sub(run.first)))?;
        }
        if after < run.end() {
            self.insert(run.part(after, run.end().saturating_sub(after)))?;
        }
        Ok(())
    }
}
