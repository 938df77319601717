//! What the host touches although stage 2 says no, and the end of the machine.

use pinfold_abi::Counter;

use crate::clause::Clause;
use crate::state::{GFN_LIMIT, Owner, State, in_ranges};

/// Who touched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchBy {
    /// A process.
    Process,
    /// The kernel, at a process's address.
    KernelForProcess,
    /// The kernel, at its own address.
    Kernel,
    /// Whoever wants to execute it.
    Fetch,
}

/// An access of the host that stage 2 stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Touch {
    /// The frame, which is at its own address.
    pub frame: u64,
    /// Who touched it.
    pub by: TouchBy,
}

/// What came of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TouchSeen {
    /// It is made again.
    Retry,
    /// It is made again, and finds a decoy page.
    Decoy,
    /// The host gets the abort.
    Inject,
}

impl State {
    /// Which outcomes are right, and by which clause.
    pub(crate) fn touch(&self, touch: Touch) -> (Clause, &'static [TouchSeen]) {
        use TouchSeen::{Decoy, Inject, Retry};
        let Touch { frame, by } = touch;
        let is_data = by != TouchBy::Fetch;
        let owner = self.owner(frame);
        let is_device =
            frame < GFN_LIMIT && !self.is_ram(frame) && !in_ranges(&self.boot.holes, frame);
        let is_shared = match owner {
            Some(Owner::GuestShared(_)) => true,
            Some(Owner::SharedHyp) => frame != self.boot.decoy,
            Some(Owner::SharedGuest(_)) => return (Clause::TouchRetry, &[Retry]),
            Some(
                Owner::Hyp
                | Owner::Poisoned
                | Owner::Arriving { .. }
                | Owner::Guest(_)
                | Owner::Wiping { .. },
            ) => false,
            None => is_device,
        };
        if self.is_hosts(frame) || is_shared && is_data {
            return (Clause::TouchRetry, &[Retry]);
        }
        // An earlier decoy may be there still: EL2 keeps as many as it likes.
        let may_have_one = self.decoys.contains(&frame) && is_data;
        let hides = owner.is_some_and(Owner::is_a_guests)
            || owner == Some(Owner::Poisoned)
            || self.given.contains(&frame);
        match (by, owner) {
            (TouchBy::Kernel, Some(_)) if hides && may_have_one => {
                (Clause::TouchDecoy, &[Decoy, Retry])
            }
            (TouchBy::Kernel, Some(_)) if hides => (Clause::TouchDecoy, &[Decoy]),
            (_, Some(_)) if may_have_one => (Clause::TouchInject, &[Inject, Retry]),
            // Whether the kernel survives a touch of EL2's own memory is not said.
            (TouchBy::Kernel, Some(_)) => (Clause::TouchInject, &[Inject, Decoy]),
            _ => (Clause::TouchInject, &[Inject]),
        }
    }

    /// Notes what came of a touch.
    pub(crate) fn note_touch(&mut self, touch: Touch, seen: TouchSeen) {
        match seen {
            TouchSeen::Retry => {}
            TouchSeen::Inject => self.count(Counter::HostAborts, 1),
            TouchSeen::Decoy => {
                self.decoys.insert(touch.frame);
                self.count(Counter::Decoys, 1);
            }
        }
    }

    /// Whether some frame of the folio that holds `frame` may have a decoy.
    pub(crate) fn folio_has_decoy(&self, frame: u64) -> bool {
        let order = self
            .owner(frame)
            .and_then(Owner::held)
            .map_or(0, |held| held.order);
        Self::folio(frame, order).any(|frame| self.decoys.contains(&frame))
    }

    /// The end of the machine: what no party but a guest could reach is wiped.
    pub(crate) fn end(&mut self) {
        let gone = self.owners.iter().filter(|(_, owner)| owner.is_a_guests());
        for (frame, _) in gone {
            self.content.remove(frame);
        }
    }
}
