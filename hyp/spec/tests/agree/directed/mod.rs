//! Scenarios: each does a few things that a clause or two are about. What must come of them says the specification.

use pinfold_abi::claim;
use pinfold_spec::GuestEvent;

use crate::lockstep::{Judged, Lockstep, RAM};

/// Lists scenarios by their names.
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        /// All of this file.
        pub(crate) const SCENARIOS: &[super::Scenario] = &[$((stringify!($name), $name),)*];
    };
}

mod gic;
mod guests;
mod memory;
mod ordinary;
mod power;
mod registers;
mod touches;
mod vms;

/// A scenario by its name.
pub(crate) type Scenario = (&'static str, fn() -> Judged<Lockstep>);

/// All scenarios.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    [
        vms::SCENARIOS,
        memory::SCENARIOS,
        ordinary::SCENARIOS,
        guests::SCENARIOS,
        touches::SCENARIOS,
        power::SCENARIOS,
        registers::SCENARIOS,
        gic::SCENARIOS,
    ]
    .into_iter()
    .flatten()
}

/// The first frame of a block that is the host's.
pub(crate) const FIRST: u64 = RAM + 2 * 512;

/// `MEM_SHARE` and `MEM_UNSHARE`.
pub(crate) const SHARE: u64 = 0xC600_0003;
pub(crate) const UNSHARE: u64 = 0xC600_0004;
/// `MEM_RELINQUISH`.
pub(crate) const RELINQUISH: u64 = 0xC600_0009;

/// Makes vCPU 0 of a new VM call with these arguments.
fn calls(x: [u64; 4]) -> Judged<(Lockstep, claim::Handle)> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, x, GuestEvent::Call)?;
    Ok((both, vm))
}
