//! `PIN_TABLE_REGISTER`: how EL2 comes to read the host's pins.

use pinfold_abi::{Status, limit};

use super::is_range;
use crate::calls::Seen;
use crate::clause::Clause;
use crate::ruling::{Ruling, done, refuse, require};
use crate::state::{FRAME_LIMIT, Owner, Pins, State};

/// The most frames that one call shares.
const STEP: u64 = 64;

impl State {
    /// One call may do a part of it: how large a part is EL2's choice.
    pub(crate) fn register_pins(
        &mut self,
        table: u64,
        first: u64,
        count: u64,
        seen: Seen,
    ) -> Ruling {
        let new = Pins {
            table,
            first,
            count,
            shared: 0,
        };
        let total = new.table_frames();
        let is_sound = is_range(first, count, FRAME_LIMIT) && is_range(table, total, FRAME_LIMIT);
        require(is_sound, refuse(Clause::PinsMalformed, Status::Invalid))?;
        let overlaps =
            |known: &Pins| known.first < first + count && first < known.first + known.count;
        let place = self.pins.iter().position(overlaps);
        let known = place.and_then(|place| self.pins.get(place).copied());
        let shared = match known {
            None => 0,
            Some(known)
                if !known.is_complete()
                    && known
                        == (Pins {
                            shared: known.shared,
                            ..new
                        }) =>
            {
                known.shared
            }
            Some(_) => return Err(refuse(Clause::PinsTaken, Status::Exists)),
        };
        let is_full = known.is_none() && self.pins.len() >= limit::MAX_PIN_RANGES;
        require(!is_full, refuse(Clause::PinsLimit, Status::Limit))?;
        let most = total.min(shared + STEP);
        let odd = (shared..most).find(|index| !self.is_hosts(table + index));
        let is_past = |index: &u64| *index == shared || !seen.is_done() || seen.result > *index;
        if let Some(index) = odd.filter(is_past) {
            return Err(self.refuse_state(Clause::PinsNotHosts, index, table + index));
        }
        let shared = seen.result.clamp(shared + 1, odd.unwrap_or(most));
        let range = Pins { shared, ..new };
        match place.and_then(|place| self.pins.get_mut(place)) {
            Some(known) => *known = range,
            None => self.pins.push(range),
        }
        (table..table + shared).for_each(|frame| self.give(frame, Owner::SharedHyp));
        if range.is_complete() {
            Ok(done(Clause::PinsDone, &[shared]))
        } else {
            Ok(done(Clause::PinsStep, &[shared]).again())
        }
    }
}
