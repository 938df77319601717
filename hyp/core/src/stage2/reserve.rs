//! Frames for new tables, taken before the first descriptor is written: [`Reserve`].
//!
//! Invariant: a frame is in the pool, in a reserve, or a table that is linked; [`Reserve::release`] gives back what was not used.

use crate::machine::{Machine, OutOfMemory, Table};

/// The most tables that one call takes: a call touches two chunks each in the host's regime and in a guest's, and each
/// chunk may want a table of level 2 and one of level 3.
const MOST: usize = 8;

/// Frames that the pool keeps back from everything but donations to itself, which need tables to unmap and map what comes in.
pub const FLOOR: u64 = 32;

/// Which calls may take the last frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// It must leave the pool its floor.
    Ordinary,
    /// It fills the pool.
    Replenishing,
}

/// Frames of zeroes for tables.
#[derive(Debug, Default)]
pub struct Reserve {
    tables: [Option<Table>; MOST],
}

impl Reserve {
    /// Takes `count` frames out of the pool, or none.
    pub fn take_from<M: Machine>(
        machine: &mut M,
        count: usize,
        need: Need,
    ) -> Result<Self, OutOfMemory> {
        let floor = match need {
            Need::Ordinary => seeded!(NoFloor, 0, FLOOR),
            Need::Replenishing => 0,
        };
        let mut reserve = Self::default();
        if count == 0 {
            return Ok(reserve);
        }
        let wanted = u64::try_from(count)
            .map_err(|_| OutOfMemory)?
            .saturating_add(floor);
        if count > MOST || machine.pool_free() < wanted {
            return Err(OutOfMemory);
        }
        for place in reserve.tables.iter_mut().take(count) {
            *place = machine.allocate_table();
        }
        if reserve.tables.iter().flatten().count() < count {
            if !mutant!(ReserveLeaks) {
                reserve.release(machine);
            }
            return Err(OutOfMemory);
        }
        Ok(reserve)
    }

    /// Holds just these frames.
    #[must_use]
    pub const fn of(table: Option<Table>) -> Self {
        let mut tables = [None; MOST];
        let [first, ..] = &mut tables;
        *first = table;
        Self { tables }
    }

    /// Takes one frame out.
    pub fn take(&mut self) -> Option<Table> {
        self.tables.iter_mut().find_map(Option::take)
    }

    /// Gives what is left back to the pool.
    pub fn release<M: Machine>(mut self, machine: &mut M) {
        while let Some(table) = self.take() {
            machine.free_table(table);
        }
    }
}
