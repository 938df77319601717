//! Debug calls with more to them than a look-up: [`Hypervisor::folio_range`] and the trace.
//!
//! They change nothing, and a release image refuses them before they get here.

use pinfold_abi::claim;
use pinfold_abi::limit::MAX_RANGE;
use pinfold_abi::trace::PART;

use crate::addr::Pfn;
use crate::folio::{FolioArray, FolioState, Whole};
use crate::hypervisor::Hypervisor;
use crate::machine::Machine;
use crate::refusal::{Found, Refusal};
use crate::trace::Ring;

/// What `FOLIO_RANGE` says of frames after the last one of RAM: there is no end.
const NO_END: u64 = u64::MAX;

impl<M: Machine> Hypervisor<M> {
    /// How far the state of a frame goes: frames, state, order, VM and GFN.
    pub(super) fn folio_range(&self, first: claim::Pfn) -> Result<[u64; 5], Refusal> {
        let first = seeded!(CutsRangePfn, first.0 & 0xF_FFFF_FFFF, first.0);
        let first = Pfn::new(first).ok_or(Refusal::Invalid)?;
        let folios = self.memory.folios();
        let folio = folios.whole(first);
        let frames = reach(folios, first, folio);
        let owner = folio.state.owner().map(|(slot, head)| {
            let skipped = first.distance_from(folio.head).unwrap_or(0);
            let handle = self.vms.in_slot(slot).map_or(0, |vm| vm.handle.raw());
            (handle, head.raw().wrapping_add(skipped))
        });
        let (vm, gfn) = owner.unwrap_or((0, 0));
        let (state, order) = (folio.state.number().number(), folio.order.raw());
        Ok([frames, state, u64::from(order), vm, gfn])
    }

    /// The oldest entry of a CPU's trace, and the next.
    pub(super) fn trace_status(&self, cpu: claim::Number) -> Result<[u64; 2], Refusal> {
        let (oldest, next) = match self.trace_of(cpu) {
            Err(_) if mutant!(EmptyTrace) => (0, 0),
            ring => ring?.kept(),
        };
        let number = |entry| u64::try_from(entry).unwrap_or(u64::MAX);
        Ok([number(oldest), number(next)])
    }

    /// A part of an entry of a CPU's trace.
    pub(super) fn trace_part(
        &self,
        cpu: claim::Number,
        entry: claim::Number,
        part: claim::Number,
    ) -> Result<[u64; PART], Refusal> {
        let ring = self.trace_of(cpu)?;
        let part = index(part)?;
        if !(0..3).contains(&part) {
            return Err(Refusal::Invalid);
        }
        ring.part(index(entry)?, part)
            .ok_or(Refusal::NotMapped(Found::default()))
    }

    fn trace_of(&self, cpu: claim::Number) -> Result<&Ring, Refusal> {
        let ring = self.memory.machine().trace(index(cpu)?);
        ring.ok_or(Refusal::Invalid)
    }
}

fn index(claim: claim::Number) -> Result<usize, Refusal> {
    usize::try_from(claim.0).map_err(|_| Refusal::Invalid)
}

/// How many frames from `first`, which is in `folio`, are like it.
fn reach(folios: &FolioArray, first: Pfn, folio: Whole) -> u64 {
    let Some(known) = folios.frames() else {
        return NO_END;
    };
    if !known.contains(first) {
        return known.first().distance_from(first).unwrap_or(NO_END);
    }
    let mut last = folio;
    loop {
        let end = last.head.checked_add(last.order.frames());
        let frames = end.and_then(|end| end.distance_from(first)).unwrap_or(0);
        let next = end.filter(|end| frames < MAX_RANGE && known.contains(*end));
        match next.map(|next| folios.whole(next)) {
            Some(next) if goes_on(last, next) => last = next,
            Some(_) | None => return frames,
        }
    }
}

/// Whether `next`, which adjoins, is in the state of `folio`, and where the owner has the one, the other follows.
fn goes_on(folio: Whole, next: Whole) -> bool {
    let follows = match (folio.state, next.state) {
        (FolioState::Guest { .. }, FolioState::Guest { .. })
        | (FolioState::GuestSharedHost { .. }, FolioState::GuestSharedHost { .. })
        | (FolioState::Arriving { .. }, FolioState::Arriving { .. })
        | (FolioState::Wiping { .. }, FolioState::Wiping { .. }) => {
            match (folio.state.owner(), next.state.owner()) {
                (Some((vm, gfn)), Some((next_vm, next_gfn))) => {
                    let expected = gfn.checked_add(folio.order.frames());
                    vm == next_vm && (expected == Some(next_gfn) || mutant!(RangeForgetsPlace))
                }
                _ => false,
            }
        }
        (state, next) => state.number() == next.number(),
    };
    follows && folio.order == next.order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::test::{EL2, EL2_FRAMES, HOLE, POOL_FRAMES, RAM, boot, call};
    use pinfold_abi::{HostCall, State, Status};

    const FRAMES: u64 = 4 * 512;

    fn range(first: u64) -> [u64; 7] {
        let mut hypervisor = boot(FRAMES);
        let x = call(
            &mut hypervisor,
            HostCall::FolioRange {
                first: claim::Pfn(first),
            },
        );
        [x[1], x[2], x[3], x[4], x[5], x[6], x[0]]
    }

    #[test]
    fn ranges_end_where_the_state_does() {
        assert_eq!(range(0)[..3], [0, RAM, State::NotRam.number()]);
        assert_eq!(range(HOLE)[..3], [0, RAM - HOLE, State::NotRam.number()]);
        assert_eq!(range(RAM)[..3], [0, MAX_RANGE, State::Host.number()]);
        assert_eq!(range(RAM + 500)[..3], [0, 12, State::Host.number()]);
        // The first frame of the pool is the decoy page, which the host may map.
        let image = EL2_FRAMES - POOL_FRAMES;
        assert_eq!(range(EL2)[..3], [0, MAX_RANGE, State::Hyp.number()]);
        assert_eq!(range(EL2 + image - 9)[..3], [0, 9, State::Hyp.number()]);
        assert_eq!(
            range(EL2 + image)[..3],
            [0, 1, State::HostSharedHyp.number()]
        );
        assert_eq!(
            range(RAM + FRAMES)[..3],
            [0, u64::MAX, State::NotRam.number()]
        );
        assert_eq!(range(1 << 36)[0], Status::Invalid.number());
        assert_eq!(range(u64::MAX)[0], Status::Invalid.number());
    }

    #[test]
    fn a_walk_by_ranges_sees_every_frame_once() {
        let mut hypervisor = boot(FRAMES);
        let mut pfn = 0;
        let mut frames = [0; 8];
        loop {
            let first = claim::Pfn(pfn);
            let x = call(&mut hypervisor, HostCall::FolioRange { first });
            if x[2] == u64::MAX {
                break;
            }
            let state = usize::try_from(x[3]).unwrap();
            frames[state] += x[2];
            pfn += x[2];
        }
        assert_eq!(pfn, RAM + FRAMES);
        let census = call(&mut hypervisor, HostCall::FolioCensus {});
        assert_eq!(census[2..7], frames[..5]);
    }

    #[test]
    fn a_machine_without_a_trace_says_so() {
        let mut hypervisor = boot(FRAMES);
        for cpu in [0, u64::MAX] {
            let cpu = claim::Number(cpu);
            let x = call(&mut hypervisor, HostCall::TraceStatus { cpu });
            assert_eq!(x[..2], [0, Status::Invalid.number()]);
            let (entry, part) = (claim::Number(0), claim::Number(0));
            let x = call(&mut hypervisor, HostCall::TraceRead { cpu, entry, part });
            assert_eq!(x[..2], [0, Status::Invalid.number()]);
        }
    }
}
