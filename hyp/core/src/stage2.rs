//! Stage-2 tables: [`Stage2`], one regime, and the only code that writes descriptors.
//!
//! A regime has 40-bit IPAs, a 4 KiB granule and two concatenated tables at level 1 (DDI 0487, D8.2.2). [`Stage2::set`] makes the
//! entries of one 2 MiB chunk say something else: it splits what is too large, breaks before it makes, flushes, and puts back
//! the largest entries once a table says nothing that its parent could not say. What stands where nothing was ever changed is
//! the regime's background: identity RAM for the host, nothing for a guest. The folio word of a table counts the
//! entries that differ from it, so that no table is ever scanned.
//!
//! Invariant: a valid entry is never replaced by another valid one without a flush in between (DDI 0487, D8.16.1), except that a
//! split or a collapse does so too. Table frames come out of a [`Reserve`] that the check has filled, and go back to the pool
//! only after the flush of [`Stage2::set`].

use crate::addr::{Frame, FrameRange, Gfn, Intermediate, Order, Pfn};
use crate::folio::{FolioArray, GFN_BITS};
use crate::machine::{Machine, OutOfMemory, RootTables, Scope, Table, TableIndex, Vmid};

pub mod descriptor;
pub mod reserve;
#[cfg(test)]
mod tests;

pub use descriptor::{Access, Descriptor, Entry, Level, Mapping};
pub use reserve::{FLOOR, Need, Reserve};

/// What stands in a regime where nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Background {
    /// Nothing: a guest's.
    Vacant,
    /// RAM at its own address: the host's.
    Identity,
}

impl Background {
    const fn descriptor(self, level: Level, gfn: Gfn) -> Descriptor {
        match self {
            Self::Vacant => Descriptor::VACANT,
            Self::Identity => Descriptor::leaf(level, gfn.identity(), Mapping::Ram),
        }
    }
}

/// What the entries of a chunk are to say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Nothing.
    Vacant,
    /// Maps to the frames from this one on.
    Map(Pfn, Mapping),
    /// Nothing to the walker, and which frames were there.
    Park(Pfn),
}

impl Content {
    /// What the entry of `level` for the first frame of the chunk is to say.
    const fn descriptor(self, level: Level) -> Descriptor {
        match self {
            Self::Vacant => Descriptor::VACANT,
            Self::Map(first, mapping) => Descriptor::leaf(level, first, mapping),
            Self::Park(first) => Descriptor::parked(first),
        }
    }
}

/// The size of the entries that a chunk is to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Grain {
    /// Entries of level 3.
    Pages,
    /// One entry of level 2; the chunk is all of it.
    Block,
}

impl Grain {
    /// The grain in which folios of `order` are mapped.
    #[must_use]
    pub fn of(order: Order) -> Self {
        if order == Order::BLOCK {
            Self::Block
        } else {
            Self::Pages
        }
    }
}

/// The entry that a frame meets in a walk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lookup {
    /// What it says; a frame in it is the one asked for, not the first of a block.
    pub entry: Entry,
    /// Its level.
    pub level: Level,
}

/// What writing descriptors takes: the hardware, the words of the table frames, and frames for new tables.
#[derive(Debug)]
pub struct Tables<'a, M: Machine> {
    /// The hardware.
    pub machine: &'a mut M,
    /// Where the entries in use are counted.
    pub folios: &'a mut FolioArray,
    /// Frames for new tables.
    pub reserve: &'a mut Reserve,
}

/// Entries of a table.
const ENTRIES: u64 = 512;

/// One place in one table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cell {
    table: Table,
    index: TableIndex,
    level: Level,
    /// The first frame that it speaks for.
    first: Gfn,
}

impl Cell {
    fn of(table: Table, level: Level, gfn: Gfn) -> Self {
        let index = TableIndex::of(gfn.raw() >> level.shift());
        let first = Frame::new(gfn.raw() >> level.shift() << level.shift()).unwrap_or(gfn);
        Self {
            table,
            index,
            level,
            first,
        }
    }

    fn read<M: Machine>(self, machine: &M) -> Descriptor {
        Descriptor::from_raw(machine.read(self.table, self.index))
    }

    fn entry<M: Machine>(self, machine: &M) -> Entry {
        self.read(machine).entry(self.level)
    }
}

/// The parts of `range` that each lie within one entry of level 2, in order.
pub fn chunks(range: FrameRange<Intermediate>) -> impl Iterator<Item = FrameRange<Intermediate>> {
    let last = range.last();
    let mut next = Some(range.first());
    core::iter::from_fn(move || {
        let first = next?;
        let block = FrameRange::folio(first, Order::BLOCK);
        let end = block.last().min(last);
        next = end.checked_add(1).filter(|frame| *frame <= last);
        FrameRange::new(first, end.distance_from(first)?.checked_add(1)?)
    })
}

/// Where the entries of `chunk`, which lies within one entry of level 2, stand in their table of level 3.
fn indices(chunk: FrameRange<Intermediate>) -> impl Iterator<Item = TableIndex> {
    let first = chunk.first().raw();
    (first..first.saturating_add(chunk.count())).map(TableIndex::of)
}

/// One regime.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct Stage2 {
    root: RootTables,
    vmid: Vmid,
    background: Background,
}

impl Stage2 {
    /// The regime with these root tables, which say what they say.
    #[must_use]
    pub const fn new(root: RootTables, vmid: Vmid, background: Background) -> Self {
        Self {
            root,
            vmid,
            background,
        }
    }

    /// Whether all of `range` is within 40-bit addresses.
    #[must_use]
    pub const fn reaches(range: FrameRange<Intermediate>) -> bool {
        range.last().raw() >> GFN_BITS == 0
    }

    /// The regime's name in the TLB.
    #[must_use]
    pub const fn vmid(&self) -> Vmid {
        self.vmid
    }

    /// Its root tables.
    #[must_use]
    pub const fn root(&self) -> RootTables {
        self.root
    }

    /// What `VTTBR_EL2` must hold for it.
    #[must_use]
    pub fn translation(&self) -> u64 {
        self.root.low.frame().address().raw() | u64::from(self.vmid.0) << 48
    }

    /// Makes everything device memory at its own address: where the host's regime starts from.
    pub(crate) fn fill_with_devices<M: Machine>(&self, machine: &mut M) {
        for block in 0..1 << (GFN_BITS - Level::One.shift()) {
            let Some(gfn) = Gfn::new(block << Level::One.shift()) else {
                break;
            };
            let cell = self.root_cell(gfn);
            machine.write(
                cell.table,
                cell.index,
                Descriptor::leaf(Level::One, gfn.identity(), Mapping::Device).raw(),
            );
        }
        machine.publish();
    }

    /// Leaves nothing reachable through this regime, on any CPU. Its tables stay where they are, and are never used again.
    pub(crate) fn sever<M: Machine>(&self, machine: &mut M) {
        for table in [self.root.low, self.root.high] {
            for index in 0..512 {
                machine.write(table, TableIndex::of(index), Descriptor::VACANT.raw());
            }
        }
        machine.invalidate(Scope::All(self.vmid));
    }

    fn root_cell(&self, gfn: Gfn) -> Cell {
        let upper = gfn.raw() >> (GFN_BITS - 1) & 1 != 0;
        Cell::of(
            if upper { self.root.high } else { self.root.low },
            Level::One,
            gfn,
        )
    }

    /// Finds the entry that decides about `gfn`.
    pub fn lookup<M: Machine>(&self, gfn: Gfn, machine: &M) -> Lookup {
        if !Self::reaches(FrameRange::folio(gfn, Order::FRAME)) {
            return Lookup {
                entry: Entry::Vacant,
                level: Level::One,
            };
        }
        let cell = self.deciding_cell(gfn, machine);
        let within = |frame: Pfn| {
            gfn.distance_from(cell.first)
                .and_then(|offset| frame.checked_add(offset))
        };
        let entry = match cell.entry(machine) {
            Entry::Leaf(frame) => within(frame).map_or(Entry::Vacant, Entry::Leaf),
            Entry::Parked(frame) => within(frame).map_or(Entry::Vacant, Entry::Parked),
            Entry::Vacant | Entry::Table(_) => Entry::Vacant,
        };
        Lookup {
            entry,
            level: cell.level,
        }
    }

    fn deciding_cell<M: Machine>(&self, gfn: Gfn, machine: &M) -> Cell {
        let mut cell = self.root_cell(gfn);
        for level in [Level::Two, Level::Three] {
            match cell.entry(machine) {
                Entry::Table(table) => cell = Cell::of(table, level, gfn),
                Entry::Vacant | Entry::Parked(_) | Entry::Leaf(_) => break,
            }
        }
        cell
    }

    /// The first frame of `range` at which something stands, if any does.
    pub fn first_occupied<M: Machine>(
        &self,
        range: FrameRange<Intermediate>,
        machine: &M,
    ) -> Option<Gfn> {
        let mut cell = self.deciding_cell(range.first(), machine);
        let mut gfn = range.first();
        loop {
            if cell.entry(machine) != Entry::Vacant {
                return Some(gfn);
            }
            gfn = cell
                .first
                .checked_add(cell.level.frames())
                .filter(|next| *next <= range.last())?;
            // Within a table of pages the next entry is the next one to look at.
            cell = if cell.level == Level::Three && !gfn.raw().is_multiple_of(ENTRIES) {
                Cell::of(cell.table, Level::Three, gfn)
            } else {
                self.deciding_cell(gfn, machine)
            };
        }
    }

    /// How many new tables [`Stage2::set`] may take for `range`.
    pub fn tables_needed<M: Machine>(
        &self,
        range: FrameRange<Intermediate>,
        grain: Grain,
        machine: &M,
    ) -> usize {
        let mut needed = 0_usize;
        let mut last_missing = None;
        for chunk in chunks(range) {
            let root = self.root_cell(chunk.first());
            let pages = match root.entry(machine) {
                Entry::Table(table) => {
                    let cell = Cell::of(table, Level::Two, chunk.first());
                    usize::from(
                        grain == Grain::Pages && !matches!(cell.entry(machine), Entry::Table(_)),
                    )
                }
                Entry::Vacant | Entry::Parked(_) | Entry::Leaf(_) => {
                    let is_new = last_missing.replace(root) != Some(root);
                    usize::from(is_new).saturating_add(usize::from(grain == Grain::Pages))
                }
            };
            needed = needed.saturating_add(pages);
        }
        needed
    }

    /// Makes the entries of `chunk`, which lies within one entry of level 2, say `content`.
    ///
    /// The reserve must hold what [`Stage2::tables_needed`] said. If it did not, less would be mapped than asked for, never more.
    pub fn set<M: Machine>(
        &self,
        chunk: FrameRange<Intermediate>,
        grain: Grain,
        content: Content,
        tables: &mut Tables<'_, M>,
    ) {
        let Some(level_two) = self.level_two(chunk.first(), tables) else {
            return;
        };
        let cell = Cell::of(level_two, Level::Two, chunk.first());
        match grain {
            Grain::Block => self.replace(cell, content.descriptor(Level::Two), tables),
            Grain::Pages => self.set_pages(cell, chunk, content, tables),
        }
        self.collapse(cell, tables);
        self.collapse(self.root_cell(chunk.first()), tables);
        tables.machine.publish();
    }

    /// Makes every entry of `range` say `content`, chunk by chunk.
    pub fn set_range<M: Machine>(
        &self,
        range: FrameRange<Intermediate>,
        grain: Grain,
        content: Content,
        tables: &mut Tables<'_, M>,
    ) {
        for chunk in chunks(range) {
            let offset = chunk.first().distance_from(range.first()).unwrap_or(0);
            let moved = match content {
                Content::Vacant => Some(Content::Vacant),
                Content::Map(first, mapping) => first
                    .checked_add(offset)
                    .map(|first| Content::Map(first, mapping)),
                Content::Park(first) => first.checked_add(offset).map(Content::Park),
            };
            self.set(chunk, grain, moved.unwrap_or(Content::Vacant), tables);
        }
    }

    /// The table of level 2 that speaks for `gfn`, made if there is none.
    fn level_two<M: Machine>(&self, gfn: Gfn, tables: &mut Tables<'_, M>) -> Option<Table> {
        let cell = self.root_cell(gfn);
        match cell.entry(tables.machine) {
            Entry::Table(table) => Some(table),
            Entry::Vacant | Entry::Parked(_) | Entry::Leaf(_) => self.split(cell, None, tables),
        }
    }

    fn set_pages<M: Machine>(
        &self,
        cell: Cell,
        chunk: FrameRange<Intermediate>,
        content: Content,
        tables: &mut Tables<'_, M>,
    ) {
        let (table, is_said) = match cell.entry(tables.machine) {
            Entry::Table(table) => (Some(table), self.break_pages(table, chunk, tables)),
            Entry::Vacant | Entry::Parked(_) | Entry::Leaf(_) => {
                (self.split(cell, Some(chunk), tables), true)
            }
        };
        if let Some(table) = table
            && !(is_said && content == Content::Vacant)
        {
            self.write_pages(table, chunk, content, tables);
        }
    }

    /// Empties the entries of `chunk` in a table of level 3 and flushes, if one of them is valid; returns whether it did.
    fn break_pages<M: Machine>(
        &self,
        table: Table,
        chunk: FrameRange<Intermediate>,
        tables: &mut Tables<'_, M>,
    ) -> bool {
        let machine = &*tables.machine;
        let is_valid = |index| Descriptor::from_raw(machine.read(table, index)).is_valid();
        let any_valid = indices(chunk).any(is_valid);
        if any_valid {
            self.write_pages(table, chunk, Content::Vacant, tables);
            if !mutant!(SkipsFlush) {
                self.flush(chunk, tables.machine);
            }
        }
        any_valid
    }

    /// Writes the entries of `chunk` in a table of level 3 and keeps its count.
    fn write_pages<M: Machine>(
        &self,
        table: Table,
        chunk: FrameRange<Intermediate>,
        content: Content,
        tables: &mut Tables<'_, M>,
    ) {
        let mut entries = tables.folios.entries(table);
        let background = self.background.descriptor(Level::Three, chunk.first());
        let pages = content.descriptor(Level::Three).pages();
        for (index, (new, background)) in indices(chunk).zip(pages.zip(background.pages())) {
            let old = Descriptor::from_raw(tables.machine.read(table, index));
            entries = entries
                .wrapping_add(u16::from(new != background))
                .wrapping_sub(u16::from(old != background));
            tables.machine.write(table, index, new.raw());
        }
        tables.folios.set_entries(table, entries);
    }

    /// Replaces the entry of `cell`, a block or nothing, by a table that says the same, except nothing within `hole`.
    fn split<M: Machine>(
        &self,
        cell: Cell,
        hole: Option<FrameRange<Intermediate>>,
        tables: &mut Tables<'_, M>,
    ) -> Option<Table> {
        let whole = cell.read(tables.machine);
        let Some(table) = tables.reserve.take() else {
            self.replace(cell, Descriptor::VACANT, tables);
            return None;
        };
        // A part of what is the background is the background, too; a new table says nothing yet.
        let old = if whole.is_valid() {
            whole
        } else {
            Descriptor::VACANT
        };
        let is_odd = old != self.background.descriptor(cell.level, cell.first);
        let hole_is_odd = self.background != Background::Vacant;
        let hole = hole.map_or(0..0, |hole| {
            let first = hole.first().distance_from(cell.first).unwrap_or(0);
            first..first.saturating_add(hole.count()).min(ENTRIES)
        });
        if old.is_valid() {
            let around = (0..hole.start).chain(hole.end..ENTRIES);
            // Twice as fast as a loop over both parts.
            around.for_each(|index| {
                let part = old.part(cell.level, index).raw();
                tables.machine.write(table, TableIndex::of(index), part);
            });
        }
        let in_hole = hole.end.saturating_sub(hole.start);
        let others = ENTRIES.saturating_sub(in_hole);
        let in_use = others * u64::from(is_odd) + in_hole * u64::from(hole_is_odd);
        let in_use = u16::try_from(in_use).unwrap_or(0);
        tables.folios.set_entries(table, in_use);
        self.replace(cell, Descriptor::table(table), tables);
        Some(table)
    }

    /// Puts the background back where the table that `cell` points to says nothing else.
    fn collapse<M: Machine>(&self, cell: Cell, tables: &mut Tables<'_, M>) {
        if let Entry::Table(table) = cell.entry(tables.machine)
            && tables.folios.entries(table) == 0
            && !mutant!(NeverCollapses)
        {
            self.replace(
                cell,
                self.background.descriptor(cell.level, cell.first),
                tables,
            );
        }
    }

    /// Writes an entry of level 1 or 2: breaks what was there, flushes, frees a table that hung there, then makes.
    fn replace<M: Machine>(&self, cell: Cell, new: Descriptor, tables: &mut Tables<'_, M>) {
        let mut old = cell.entry(tables.machine);
        let reach = match old {
            Entry::Vacant | Entry::Parked(_) => 0,
            // Any address in a block finds its cached entry (DDI 0487, D8.17.5).
            Entry::Leaf(_) => 1,
            Entry::Table(_) => cell.level.frames(),
        };
        if let Some(range) = FrameRange::new(cell.first, reach)
            && !mutant!(SkipsBreak)
        {
            self.write(cell, Descriptor::VACANT, tables);
            if let (Entry::Table(table), true) = (old, mutant!(FreesBeforeFlush)) {
                tables.machine.free_table(table);
                old = Entry::Vacant;
            }
            self.flush(range, tables.machine);
        }
        if let Entry::Table(table) = old {
            tables.folios.set_entries(table, 0);
            if !mutant!(LeaksTables) {
                tables.machine.free_table(table);
            }
        }
        if !mutant!(SkipsPublish) {
            tables.machine.publish();
        }
        self.write(cell, new, tables);
    }

    /// Removes what was made from the entries of `range` from every TLB.
    fn flush<M: Machine>(&self, range: FrameRange<Intermediate>, machine: &mut M) {
        let vmid = seeded!(FlushesOtherVmid, Vmid(self.vmid.0 ^ 1), self.vmid);
        let range = seeded!(FlushesOneLess, range.shorter(), range);
        machine.invalidate(Scope::Range(vmid, range));
    }

    /// Writes an entry of level 1 or 2 and keeps the count of its table. Root tables have no count: they never go.
    fn write<M: Machine>(&self, cell: Cell, new: Descriptor, tables: &mut Tables<'_, M>) {
        let background = self.background.descriptor(cell.level, cell.first);
        let before = u16::from(cell.read(tables.machine) != background);
        let after = u16::from(new != background);
        tables.machine.write(cell.table, cell.index, new.raw());
        if cell.level != Level::One && before != after {
            let entries = tables.folios.entries(cell.table);
            tables
                .folios
                .set_entries(cell.table, entries.wrapping_add(after).wrapping_sub(before));
        }
    }
}

/// Takes two adjoining tables for the root of a new regime, leaving the pool its floor.
pub fn allocate_root<M: Machine>(machine: &mut M) -> Result<RootTables, OutOfMemory> {
    if machine.pool_free() < FLOOR {
        return Err(OutOfMemory);
    }
    machine.allocate_root().ok_or(OutOfMemory)
}
