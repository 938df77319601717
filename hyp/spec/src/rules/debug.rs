//! The debug calls: what EL2 shows of its state.

use pinfold_abi::limit::MAX_RANGE;
use pinfold_abi::{Counter, State as StateNumber, Status, limit};

use super::is_range;
use crate::calls::Seen;
use crate::clause::Clause;
use crate::ruling::{Done, Ruling, done, refuse, require};
use crate::state::{FRAME_LIMIT, Owner, State, Word};

impl State {
    pub(crate) fn query(&self, pfn: u64) -> Ruling {
        require(
            pfn < FRAME_LIMIT,
            refuse(Clause::QueryMalformed, Status::Invalid),
        )?;
        let held = self.owner(pfn).and_then(Owner::held);
        let (order, vm, gfn) = held.map_or((0, 0, 0), |held| (held.order, held.vm, held.gfn));
        let pin = self.pin_word(pfn).unwrap_or(0);
        let state = self.state_number(pfn).number();
        let rest = done(
            Clause::Query,
            &[state, u64::from(order), vm, gfn, u64::from(pin)],
        );
        let word = core::iter::once(self.word(pfn));
        Ok(Done {
            results: word.chain(rest.results).collect(),
            ..rest
        })
    }

    pub(crate) fn census(&self) -> Done {
        let others = [
            StateNumber::Hyp,
            StateNumber::HostSharedHyp,
            StateNumber::Guest,
            StateNumber::GuestSharedHost,
            StateNumber::HostSharedGuest,
            StateNumber::Arriving,
            StateNumber::Wiping,
            StateNumber::Poisoned,
        ];
        let numbers = self.owners.keys().map(|frame| self.state_number(*frame));
        let others = numbers.fold(others.map(|state| (state, 0)), |sums, number| {
            sums.map(|(state, sum)| (state, sum + u64::from(state == number)))
        });
        let ram: u64 = self.boot.ram.iter().map(|(_, count)| count).sum();
        let [hyp, shared_hyp, guest, guest_shared, moving @ ..] = others.map(|(_, sum)| sum);
        let other = moving.iter().sum();
        let host = ram - (hyp + shared_hyp + guest + guest_shared + other);
        let frames = [host, hyp, shared_hyp, guest, guest_shared, other];
        done(Clause::Census, &frames)
    }

    /// The first frame of RAM, and the one after the last.
    fn known(&self) -> (u64, u64) {
        let ram = self.boot.ram.iter();
        let lowest = ram.clone().map(|(first, _)| *first).min();
        let end = ram.map(|(first, count)| first + count).max();
        (lowest.unwrap_or(0), end.unwrap_or(0))
    }

    pub(crate) fn range(&self, first: u64) -> Ruling {
        require(
            first < FRAME_LIMIT,
            refuse(Clause::RangeMalformed, Status::Invalid),
        )?;
        let (lowest, end) = self.known();
        let frames = if first >= end {
            u64::MAX
        } else if first < lowest {
            lowest - first
        } else {
            let mut others = first + 1..end;
            let stop = others.find(|frame| !self.is_like(first, *frame));
            stop.unwrap_or(end) - first
        };
        let held = self.owner(first).and_then(Owner::held);
        let (order, vm, gfn) = held.map_or((0, 0, 0), |held| (held.order, held.vm, held.gfn));
        let state = self.state_number(first).number();
        let results = [frames, state, u64::from(order), vm, gfn];
        Ok(done(Clause::Range, &results))
    }

    /// Whether a range that begins with `first` and has come to `frame` goes on with it.
    fn is_like(&self, first: u64, frame: u64) -> bool {
        let skipped = frame - first;
        let follows = match [first, frame].map(|frame| self.owner(frame).and_then(Owner::held)) {
            [Some(one), Some(other)] => {
                let is_same = (one.vm, one.order) == (other.vm, other.order);
                // A folio is not cut by the limit.
                let is_in_folio = !frame.is_multiple_of(1 << other.order);
                is_same && one.gfn + skipped == other.gfn && (skipped < MAX_RANGE || is_in_folio)
            }
            [None, None] => skipped < MAX_RANGE,
            _ => false,
        };
        follows && self.state_number(first) == self.state_number(frame)
    }

    /// The words of EL2's own frames are not wholly specified, so neither is a digest of them.
    pub(crate) fn digest(&self, first: u64, count: u64, seen: Seen) -> Ruling {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let (lowest, end) = self.known();
        let is_sound = is_range(first, count, end) && lowest <= first && count <= limit::MAX_DIGEST;
        require(is_sound, refuse(Clause::DigestMalformed, Status::Invalid))?;
        let mut words = self.words(first, count);
        let is_known = words.all(|word| word.mask == Word::exactly(0).mask);
        let digest = self
            .words(first, count)
            .fold(OFFSET, |hash, word| (hash ^ word.value).wrapping_mul(PRIME));
        Ok(done(
            Clause::Digest,
            &[if is_known { digest } else { seen.result }],
        ))
    }

    pub(crate) fn read_counter(&self, counter: u64) -> Ruling {
        let counter = Counter::from_number(counter);
        let counter = counter.ok_or(refuse(Clause::CounterMalformed, Status::Invalid))?;
        Ok(done(Clause::CounterValue, &[self.counter(counter)]))
    }
}
