//! The state in one number, for fuzzers: [`Spec::outline`].
//!
//! It says how much of what there is, and what happened last; not which frame or address. Two states with the same outline are alike
//! enough that a fuzzer need not keep both.

use alloc::collections::BTreeMap;

use crate::spec::Spec;
use crate::state::Owner;
use crate::vm::{Awaits, Phase, Power, Vcpu, Vm};

/// 64-bit FNV-1a, with a number as the unit.
struct Outline(u64);

impl Outline {
    const fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x0100_0000_01b3);
    }

    /// How many, roughly: none, one, two, up to four, eight ...
    fn add_count(&mut self, count: u64) {
        self.add(count.checked_ilog2().map_or(0, |log| u64::from(log) + 1));
    }

    fn add_vm(&mut self, vm: &Vm) {
        self.add(match vm.phase {
            Phase::Created => 1,
            Phase::Live => 2,
            Phase::Dying => 3,
        });
        self.add_count(u64::try_from(vm.frames.len()).unwrap_or(0));
        self.add(vm.ended.map_or(0, |(reason, _)| reason + 1));
        vm.vcpus.values().for_each(|vcpu| self.add_vcpu(vcpu));
    }

    fn add_vcpu(&mut self, vcpu: &Vcpu) {
        let power = match vcpu.power {
            Power::Off => 0,
            Power::Starting { .. } => 1,
            Power::On => 2,
        };
        let awaits = match vcpu.awaits {
            Awaits::Nothing => 0,
            Awaits::Load { .. } => 1,
            Awaits::Share { .. } => 2,
            Awaits::Unshare => 3,
        };
        let flags = u64::from(vcpu.ran) | u64::from(vcpu.loaded) << 1;
        self.add(flags | u64::from(vcpu.crashed.is_some()) << 2 | power << 3 | awaits << 5);
    }
}

/// The kind of an owner, and the order of its folio.
fn kind(owner: Owner) -> (u8, u8) {
    let kind = match owner {
        Owner::Hyp => 0,
        Owner::SharedHyp => 1,
        Owner::Guest(_) => 2,
        Owner::GuestShared(_) => 3,
        Owner::Wiping { .. } => 4,
        Owner::SharedGuest(_) => 5,
        Owner::Arriving { .. } => 6,
        Owner::Poisoned => 7,
    };
    (kind, owner.held().map_or(0, |held| held.order))
}

impl Spec {
    /// The outline of the state, and of what the last step was.
    #[must_use]
    pub fn outline(&self) -> u64 {
        let mut outline = Outline::new();
        let mut owners = BTreeMap::new();
        for owner in self.state.owners.values() {
            *owners.entry(kind(*owner)).or_insert(0_u64) += 1;
        }
        for ((kind, order), count) in owners {
            outline.add(u64::from(kind) << 8 | u64::from(order));
            outline.add_count(count);
        }
        self.state.vms.values().for_each(|vm| outline.add_vm(vm));
        outline.add_count(u64::try_from(self.state.given.len()).unwrap_or(0));
        outline.add_count(u64::try_from(self.state.decoys.len()).unwrap_or(0));
        outline.add(u64::try_from(self.state.pins.len()).unwrap_or(0));
        self.last
            .what
            .bytes()
            .for_each(|byte| outline.add(u64::from(byte)));
        outline.add(u64::from(self.last.refused));
        outline.0
    }
}
