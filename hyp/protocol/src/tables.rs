//! The frames that are tables: [`Tables`], what each is for, and a sum of what it holds.
//!
//! Invariant: sorted by frame. The sum of a table follows from the stores that were reported, so that a store which was not shows.

use crate::Memory;
use crate::descriptor::{Level, is_valid};
use crate::event::Regime;
use crate::violation::Entry;

/// Entries of a table.
pub(crate) const ENTRIES: u16 = 512;

/// Where a table hangs: whose it is, the level of its entries, and the first frame that it speaks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) regime: Regime,
    pub(crate) level: Level,
    pub(crate) first: u64,
}

impl Place {
    /// The entry `index`.
    pub(crate) fn entry(self, index: u16) -> Entry {
        let offset = u64::from(index).wrapping_mul(self.level.frames());
        Entry {
            regime: self.regime,
            level: self.level,
            first: self.first.wrapping_add(offset),
        }
    }

    /// Where a table hangs that `entry` points to.
    pub(crate) const fn below(entry: Entry) -> Self {
        Self {
            regime: entry.regime,
            level: entry.level.below(),
            first: entry.first,
        }
    }
}

/// What a table is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// It was allocated, and nothing points to it yet.
    Fresh,
    /// An entry points to it.
    Linked(Place),
    /// It is a root.
    Root(Place),
    /// An entry of this regime pointed to it.
    Unlinked(Regime),
}

impl Role {
    /// Where it hangs, if walkers find it.
    pub(crate) const fn place(self) -> Option<Place> {
        match self {
            Self::Linked(place) | Self::Root(place) => Some(place),
            Self::Fresh | Self::Unlinked(_) => None,
        }
    }
}

/// Whether all walkers see what was stored in a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    /// They do.
    Ordered,
    /// This CPU has had no DSB since.
    By(usize),
    /// The CPU that stored has released a lock since: a DSB of the next that takes one will do.
    Passed,
}

/// One table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) frame: u64,
    pub(crate) role: Role,
    pub(crate) order: Order,
    pub(crate) zeroed: bool,
    pub(crate) dirty: bool,
    pub(crate) private: bool,
    /// How many entries are valid.
    pub(crate) valid: u16,
    sum: u64,
}

/// What an entry adds to the sum of its table.
fn share(index: u16, value: u64) -> u64 {
    let odd = u64::from(index).wrapping_mul(2).wrapping_add(1);
    value.wrapping_mul(odd).rotate_left(u32::from(index % 61))
}

impl Table {
    const NONE: Self = Self::new(0);

    /// A table that nobody has written yet.
    pub(crate) const fn new(frame: u64) -> Self {
        Self {
            frame,
            role: Role::Fresh,
            order: Order::Ordered,
            zeroed: false,
            dirty: false,
            private: false,
            valid: 0,
            sum: 0,
        }
    }

    /// Takes what stands in the table for what was reported.
    pub(crate) fn count_anew(&mut self, memory: &impl Memory) {
        (self.valid, self.sum) = self.counted(memory);
    }

    fn counted(&self, memory: &impl Memory) -> (u16, u64) {
        (0..ENTRIES).fold((0, 0_u64), |(valid, sum), index| {
            let value = memory.read(self.frame, index);
            let valid = u16::from(is_valid(value)).saturating_add(valid);
            (valid, sum.wrapping_add(share(index, value)))
        })
    }

    /// Whether the table holds what was reported.
    pub(crate) fn is_as_reported(&self, memory: &impl Memory) -> bool {
        !self.zeroed || self.counted(memory) == (self.valid, self.sum)
    }

    /// Notes a store.
    pub(crate) fn note(&mut self, cpu: usize, index: u16, old: u64, new: u64) {
        self.sum = self
            .sum
            .wrapping_sub(share(index, old))
            .wrapping_add(share(index, new));
        self.valid = self
            .valid
            .wrapping_sub(u16::from(is_valid(old)))
            .wrapping_add(u16::from(is_valid(new)));
        self.order = Order::By(cpu);
        self.dirty = true;
    }
}

/// Up to `N` tables.
#[derive(Clone)]
pub(crate) struct Tables<const N: usize> {
    all: [Table; N],
    count: usize,
}

impl<const N: usize> Tables<N> {
    pub(crate) const fn new() -> Self {
        Self {
            all: [Table::NONE; N],
            count: 0,
        }
    }

    pub(crate) fn all(&self) -> &[Table] {
        self.all.get(..self.count).unwrap_or_default()
    }

    pub(crate) fn all_mut(&mut self) -> &mut [Table] {
        self.all.get_mut(..self.count).unwrap_or_default()
    }

    fn position(&self, frame: u64) -> Result<usize, usize> {
        self.all().binary_search_by_key(&frame, |table| table.frame)
    }

    pub(crate) fn find(&self, frame: u64) -> Option<&Table> {
        let place = self.position(frame).ok()?;
        self.all().get(place)
    }

    pub(crate) fn find_mut(&mut self, frame: u64) -> Option<&mut Table> {
        let place = self.position(frame).ok()?;
        self.all_mut().get_mut(place)
    }

    /// Adds a table that is none yet; says whether there was room.
    pub(crate) fn add(&mut self, table: Table) -> bool {
        let (Err(place), true) = (self.position(table.frame), self.count < N) else {
            return false;
        };
        self.count = self.count.saturating_add(1);
        if let Some(later) = self.all_mut().get_mut(place..) {
            later.rotate_right(1);
            if let Some(vacant) = later.first_mut() {
                *vacant = table;
            }
        }
        true
    }

    /// Forgets a table.
    pub(crate) fn remove(&mut self, frame: u64) {
        let Ok(place) = self.position(frame) else {
            return;
        };
        if let Some(later) = self.all_mut().get_mut(place..) {
            later.rotate_left(1);
            self.count = self.count.saturating_sub(1);
        }
    }

    /// The tables among `count` frames from `first`.
    pub(crate) fn within(&self, first: u64, count: u64) -> impl Iterator<Item = &Table> {
        let (Ok(place) | Err(place)) = self.position(first);
        let later = self.all().get(place..).unwrap_or_default();
        later
            .iter()
            .take_while(move |table| table.frame.wrapping_sub(first) < count)
    }
}
