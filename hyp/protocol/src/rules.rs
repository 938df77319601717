//! Rules of tables: how a frame becomes one, hangs somewhere, changes, and goes.
//!
//! Invariant: a table that walkers find is `Linked` or `Root`, and has been zeroed and published before. What it led to when it was
//! unlinked, entry by entry, is in [`crate::broken::Broken`] until no TLB has it.

use crate::Memory;
use crate::broken::{NoRoom, Target};
use crate::checker::{
    Cached, Checker, Step, Translation, breach, breach_of_entry, breach_of_frame, breach_of_run,
    expect,
};
use crate::descriptor::{Level, Meaning, is_valid, meaning};
use crate::event::{Lock, Regime};
use crate::tables::{ENTRIES, Order, Place, Role, Table};
use crate::violation::{Entry, Rule, Violation};

/// Frames that the first table of a concatenated root speaks for; the next begins behind.
const ROOT_FRAMES: u64 = 512 << 18;

impl<const TABLES: usize, const RUNS: usize> Checker<TABLES, RUNS> {
    fn add(&mut self, cpu: usize, table: Table) -> Step {
        let is_new = self.tables.find(table.frame).is_none();
        let frame = table.frame;
        expect(is_new, breach_of_frame(Rule::AllocatedTwice, cpu, frame))?;
        expect(self.tables.add(table), breach(Rule::Full, cpu))
    }

    pub(crate) fn allocate(&mut self, cpu: usize, frame: u64) -> Step {
        self.expect_unreached(cpu, frame, 1, None)?;
        self.dirty.remove(frame);
        self.add(cpu, Table::new(frame))
    }

    pub(crate) fn zero(&mut self, cpu: usize, frame: u64, memory: &impl Memory) -> Step {
        let no_table = breach_of_frame(Rule::NoTable, cpu, frame);
        let table = self.tables.find_mut(frame).ok_or(no_table)?;
        let was = Violation {
            rule: Rule::TableWritten,
            ..no_table
        };
        expect(table.role == Role::Fresh, was)?;
        let is_zero = (0..ENTRIES).all(|index| memory.read(frame, index) == 0);
        expect(is_zero, breach_of_frame(Rule::NotZeroed, cpu, frame))?;
        table.count_anew(memory);
        table.zeroed = true;
        table.dirty = true;
        table.order = Order::By(cpu);
        Ok(())
    }

    pub(crate) fn make_private(&mut self, cpu: usize, frame: u64) -> Step {
        let no_table = breach_of_frame(Rule::NoTable, cpu, frame);
        self.tables.find_mut(frame).ok_or(no_table)?.private = true;
        Ok(())
    }

    fn name(
        &mut self,
        cpu: usize,
        regime: Regime,
        root: u64,
        frames: u64,
        lock: Option<Lock>,
    ) -> Step {
        let place = self.translation_mut(regime);
        let place = place.ok_or(breach(Rule::Full, cpu))?;
        let rule = match regime {
            Regime::Own => Rule::SharedOwn,
            Regime::Stage2(_) => Rule::SharedVmid,
        };
        expect(place.is_none(), breach_of_frame(rule, cpu, root))?;
        *place = Some(Translation {
            root,
            frames,
            lock,
            cached: Cached::Nothing,
            used: false,
        });
        Ok(())
    }

    pub(crate) fn root(
        &mut self,
        cpu: usize,
        regime: Regime,
        (first, frames): (u64, u64),
        lock: Option<Lock>,
        memory: &impl Memory,
    ) -> Step {
        self.name(cpu, regime, first, frames, lock)?;
        for number in 0..frames {
            let frame = first.saturating_add(number);
            let place = Place {
                regime,
                level: Level::One,
                first: number.wrapping_mul(ROOT_FRAMES),
            };
            let table = self.expect_fresh(cpu, frame, memory)?;
            table.role = Role::Root(place);
            self.enlist_all(cpu, frame, place, memory)?;
        }
        Ok(())
    }

    pub(crate) fn adopt(
        &mut self,
        cpu: usize,
        root: u64,
        lock: Option<Lock>,
        memory: &impl Memory,
    ) -> Step {
        self.name(cpu, Regime::Own, root, 1, lock)?;
        let place = Place {
            regime: Regime::Own,
            level: Level::One,
            first: 0,
        };
        self.adopt_table(cpu, root, Role::Root(place), place, memory)
    }

    fn adopt_table(
        &mut self,
        cpu: usize,
        frame: u64,
        role: Role,
        place: Place,
        memory: &impl Memory,
    ) -> Step {
        let mut table = Table::new(frame);
        table.role = role;
        table.zeroed = true;
        table.count_anew(memory);
        self.add(cpu, table)?;
        for index in 0..ENTRIES {
            if let Meaning::Table(next) = meaning(place.level, memory.read(frame, index)) {
                let below = Place::below(place.entry(index));
                self.adopt_table(cpu, next, Role::Linked(below), below, memory)?;
            }
        }
        Ok(())
    }

    pub(crate) fn free(&mut self, cpu: usize, frame: u64, memory: &impl Memory) -> Step {
        let no_table = breach_of_frame(Rule::NoTable, cpu, frame);
        let table = *self.tables.find(frame).ok_or(no_table)?;
        if let Some(run) = self.broken.through(frame) {
            let breach = breach_of_run(Rule::FreedTooSoon, cpu, &run);
            return Err(Violation {
                frame: Some(frame),
                ..breach
            });
        }
        let linked = breach_of_frame(Rule::FreedLinked, cpu, frame);
        match table.role {
            Role::Fresh | Role::Unlinked(_) => {}
            Role::Linked(_) => return Err(linked),
            Role::Root(place) => {
                expect(table.valid == 0, linked)?;
                self.retire(cpu, place.regime)?;
            }
        }
        let unseen = breach_of_frame(Rule::ChangedUnseen, cpu, frame);
        expect(table.is_as_reported(memory), unseen)?;
        self.tables.remove(frame);
        Ok(())
    }

    /// A frame of a root goes.
    fn retire(&mut self, cpu: usize, regime: Regime) -> Step {
        let Some(known) = self.translation(regime).copied() else {
            return Ok(());
        };
        let root = known.root;
        expect(
            !self.is_selected(root),
            breach_of_frame(Rule::RetiredInUse, cpu, root),
        )?;
        if let Some(run) = self.broken.shared_of(|other| other == regime) {
            return Err(breach_of_run(Rule::RetiredTooSoon, cpu, &run));
        }
        let missing = Self::missing_of(&known);
        expect(
            missing.is_none(),
            Violation {
                missing,
                ..breach_of_frame(Rule::RetiredTooSoon, cpu, root)
            },
        )?;
        let all = self.tables.all();
        if let Some(leaked) = all
            .iter()
            .find(|table| table.role == Role::Unlinked(regime))
        {
            return Err(breach_of_frame(Rule::Leaked, cpu, leaked.frame));
        }
        if let Some(place) = self.translation_mut(regime) {
            let left = known.frames.saturating_sub(1);
            *place = (left != 0).then_some(Translation {
                frames: left,
                ..known
            });
        }
        Ok(())
    }

    pub(crate) fn store(
        &mut self,
        cpu: usize,
        frame: u64,
        index: u16,
        value: u64,
        memory: &impl Memory,
    ) -> Step {
        let no_table = breach_of_frame(Rule::NoTable, cpu, frame);
        let table = *self.tables.find(frame).ok_or(no_table)?;
        let old = memory.read(frame, index);
        match table.role {
            Role::Fresh => {}
            Role::Unlinked(_) => return Err(no_table),
            Role::Linked(place) | Role::Root(place) => {
                let entry = place.entry(index);
                self.may_store(cpu, &table, entry, index)?;
                if old != value {
                    self.change(cpu, entry, (old, value), table.private, memory)?;
                }
            }
        }
        if let Some(table) = self.tables.find_mut(frame)
            && (old != value || table.role == Role::Fresh)
        {
            table.note(cpu, index, old, value);
        }
        Ok(())
    }

    fn may_store(&self, cpu: usize, table: &Table, entry: Entry, index: u16) -> Step {
        if table.private {
            let is_own = usize::from(index) == cpu;
            return expect(is_own, breach_of_entry(Rule::NotPrivate, cpu, entry));
        }
        let lock = self.translation(entry.regime).and_then(|known| known.lock);
        expect(
            lock.is_none_or(|lock| self.holds(cpu, lock)),
            breach_of_entry(Rule::Unlocked, cpu, entry),
        )?;
        let other = self.broken.of_another(entry, cpu);
        expect(other.is_none(), breach_of_entry(Rule::Race, cpu, entry))
    }

    /// A live entry changes.
    fn change(
        &mut self,
        cpu: usize,
        entry: Entry,
        (old, new): (u64, u64),
        private: bool,
        memory: &impl Memory,
    ) -> Step {
        expect(
            !(is_valid(old) && is_valid(new)),
            breach_of_entry(Rule::NoBreak, cpu, entry),
        )?;
        if let Some(Some(known)) = self.translation_mut(entry.regime) {
            known.cached = Cached::Perhaps;
        }
        if is_valid(old) {
            self.break_entry(cpu, entry, old, private, memory)
        } else {
            self.enlist(cpu, entry, new, memory)
        }
    }

    /// An entry goes, and what hangs below with it.
    fn break_entry(
        &mut self,
        cpu: usize,
        entry: Entry,
        value: u64,
        private: bool,
        memory: &impl Memory,
    ) -> Step {
        let target = match meaning(entry.level, value) {
            Meaning::Invalid => return Ok(()),
            Meaning::Leaf(output) => Target::Leaf(output),
            Meaning::Table(next) => Target::Table(next),
        };
        self.broken
            .add(cpu, entry, target, private)
            .map_err(|NoRoom| breach(Rule::Full, cpu))?;
        let Target::Table(next) = target else {
            return Ok(());
        };
        let no_table = breach_of_frame(Rule::NoTable, cpu, next);
        let table = self.tables.find_mut(next).ok_or(no_table)?;
        let unseen = breach_of_frame(Rule::ChangedUnseen, cpu, next);
        expect(table.is_as_reported(memory), unseen)?;
        table.role = Role::Unlinked(entry.regime);
        if table.valid == 0 {
            return Ok(());
        }
        let place = Place::below(entry);
        for index in 0..ENTRIES {
            let value = memory.read(next, index);
            self.break_entry(cpu, place.entry(index), value, private, memory)?;
        }
        Ok(())
    }

    /// An entry becomes valid, and what hangs below with it.
    fn enlist(&mut self, cpu: usize, entry: Entry, value: u64, memory: &impl Memory) -> Step {
        let meaning = meaning(entry.level, value);
        if meaning == Meaning::Invalid {
            return Ok(());
        }
        if let Some(run) = self.broken.overlapping(entry) {
            return Err(breach_of_run(Rule::MadeTooSoon, cpu, &run));
        }
        match meaning {
            Meaning::Table(next) => {
                let place = Place::below(entry);
                let table = self.expect_fresh(cpu, next, memory)?;
                let unseen = breach_of_frame(Rule::Unpublished, cpu, next);
                expect(table.order == Order::Ordered, unseen)?;
                table.role = Role::Linked(place);
                self.enlist_all(cpu, next, place, memory)
            }
            Meaning::Leaf(output) if entry.regime != Regime::Own => {
                self.expect_unreached(cpu, output, entry.level.frames(), Some(entry))?;
                if self.is_used(entry.regime) {
                    self.may_map(cpu, entry, output)
                } else {
                    Ok(())
                }
            }
            Meaning::Leaf(_) | Meaning::Invalid => Ok(()),
        }
    }

    fn enlist_all(&mut self, cpu: usize, frame: u64, place: Place, memory: &impl Memory) -> Step {
        let is_empty = self.tables.find(frame).is_none_or(|table| table.valid == 0);
        if is_empty {
            return Ok(());
        }
        for index in 0..ENTRIES {
            self.enlist(cpu, place.entry(index), memory.read(frame, index), memory)?;
        }
        Ok(())
    }

    /// The frame is a table that nothing points to.
    fn expect_fresh(
        &mut self,
        cpu: usize,
        frame: u64,
        memory: &impl Memory,
    ) -> Result<&mut Table, Violation> {
        let breach = |rule| breach_of_frame(rule, cpu, frame);
        let table = self.tables.find_mut(frame).ok_or(breach(Rule::NoTable))?;
        match table.role {
            Role::Fresh => {}
            Role::Linked(_) | Role::Root(_) => return Err(breach(Rule::LinkedTwice)),
            Role::Unlinked(_) => return Err(breach(Rule::NoTable)),
        }
        expect(table.zeroed, breach(Rule::NotZeroed))?;
        expect(table.is_as_reported(memory), breach(Rule::ChangedUnseen))?;
        Ok(table)
    }

    /// No TLB leads anybody into `count` frames from `first`.
    fn expect_unreached(&self, cpu: usize, first: u64, count: u64, entry: Option<Entry>) -> Step {
        match self.broken.reaching(first, count) {
            None => Ok(()),
            Some(run) => Err(Violation {
                frame: entry.is_none().then_some(first),
                ..breach_of_run(Rule::ReusedTooSoon, cpu, &run)
            }),
        }
    }

    /// Walkers may find these frames: none is a table, or holds what EL2 wrote and did not clean.
    fn may_map(&self, cpu: usize, entry: Entry, output: u64) -> Step {
        let breach = |rule, frame| Violation {
            frame: Some(frame),
            ..breach_of_entry(rule, cpu, entry)
        };
        let count = entry.level.frames();
        if let Some(frame) = self.dirty.within(output, count) {
            return Err(breach(Rule::Dirty, frame));
        }
        for table in self.tables.within(output, count) {
            expect(
                table.role == Role::Fresh,
                breach(Rule::TableMapped, table.frame),
            )?;
            expect(!table.dirty, breach(Rule::Dirty, table.frame))?;
        }
        Ok(())
    }

    /// A regime is used for the first time: all of it is in order, and walkers see it.
    pub(crate) fn begin_use(&mut self, cpu: usize, regime: Regime, memory: &impl Memory) -> Step {
        for table in self.tables.all() {
            let Some(place) = table.role.place().filter(|place| place.regime == regime) else {
                continue;
            };
            let unseen = breach_of_frame(Rule::Unpublished, cpu, table.frame);
            expect(table.order == Order::Ordered, unseen)?;
            for index in 0..ENTRIES {
                if let Meaning::Leaf(output) = meaning(place.level, memory.read(table.frame, index))
                {
                    self.may_map(cpu, place.entry(index), output)?;
                }
            }
        }
        Ok(())
    }
}
