//! The specification alone as an executor: what it foretells is what happens.

use alloc::collections::BTreeMap;
use alloc::format;

use pinfold_spec::{
    Foretold, GuestDeed, GuestEvent, GuestRegisters, Spec, Touch, TouchSeen, Violation,
};

use crate::executor::Trouble;
use crate::model::{self, EL2, EL2_FRAMES, Explored, Model, RAM, TABLE, first_eight};
use crate::program::Program;

/// Runs a program on the specification alone, in every order of its parallel lines.
pub fn on_specification(program: &Program) -> Result<Explored, Trouble> {
    model::explore(program, Specified::boot)
}

/// The specification, and the registers of who runs.
struct Specified {
    spec: Spec,
    /// vCPUs that run, with their registers and those of the host that runs them.
    loaded: BTreeMap<(u64, u64), (GuestRegisters, [u64; 18])>,
}

/// A violation by the specification itself.
fn broken(Violation { clause, what }: Violation) -> Trouble {
    Trouble::Wrong(format!("{clause:?}: {what}"))
}

impl Specified {
    fn boot() -> Result<Self, Trouble> {
        // The pool is never dry: how large it is does not matter.
        let mut model = Self {
            spec: Spec::new(model::boot(96, 1, EL2 + EL2_FRAMES - 1)),
            loaded: BTreeMap::new(),
        };
        model.call(model::register_pins().encode())?;
        Ok(model)
    }
}

impl Model for Specified {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn call(&mut self, x: [u64; 8]) -> Result<Option<[u64; 8]>, Trouble> {
        let mut before = [0; 18];
        before
            .iter_mut()
            .zip(x)
            .for_each(|(register, word)| *register = word);
        match self.spec.foretell_call(&before).map_err(broken)? {
            Foretold::Returned(after) => Ok(Some(first_eight(after))),
            Foretold::Entered(registers) => {
                let [_, vm, vcpu, ..] = x;
                self.loaded.insert((vm, vcpu), (registers, before));
                Ok(None)
            }
        }
    }

    fn registers(&self, vm: u64, vcpu: u64) -> Option<([u64; 4], u64)> {
        let (registers, _) = self.loaded.get(&(vm, vcpu))?;
        let [x0, x1, x2, x3, ..] = registers.x;
        Some(([x0, x1, x2, x3], registers.pc))
    }

    fn event(
        &mut self,
        vm: u64,
        vcpu: u64,
        x: [u64; 4],
        event: GuestEvent,
    ) -> Result<Option<[u64; 8]>, Trouble> {
        let Some((mut registers, host)) = self.loaded.remove(&(vm, vcpu)) else {
            return Err(Trouble::Wrong(format!(
                "vCPU {vcpu} of VM {vm:#x} does not run"
            )));
        };
        registers
            .x
            .iter_mut()
            .zip(x)
            .for_each(|(register, value)| *register = value);
        if event == GuestEvent::Call {
            registers.pc = registers.pc.wrapping_add(4);
        }
        let deed = GuestDeed {
            vm,
            vcpu,
            registers: &registers,
            event,
        };
        let told = self.spec.foretell_guest(deed, &host).map_err(broken)?;
        if told.host.is_none() {
            self.loaded.insert((vm, vcpu), (told.guest, host));
        }
        Ok(told.host.map(first_eight))
    }

    fn touch(&mut self, touch: Touch) -> Result<TouchSeen, Trouble> {
        self.spec.foretell_touch(touch).map_err(broken)
    }

    fn set_pin_word(&mut self, frame: u64, word: u32) {
        self.spec
            .host_writes_pin(TABLE + (frame - RAM) / 1024, (frame - RAM) % 1024, word);
    }

    fn write(&mut self, frame: u64, value: u64) {
        self.spec.writes(frame, value);
    }
}
