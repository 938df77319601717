//! The core on a machine of plain memory as an executor. The specification judges each step and compares all tables after it.

// The specification's own tests use the same, and more of it.
#[path = "../../spec/tests/agree/lockstep.rs"]
#[expect(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "shared with the tests of the specification, which panic"
)]
mod lockstep;

use alloc::format;

use pinfold_abi::claim::Handle;
use pinfold_spec::{GuestEvent, Spec, Touch, TouchSeen, Violation};

use crate::executor::Trouble;
use crate::model::{self, EL2, Explored, FRAMES, HOLE, Model, RAM, TABLE, first_eight};
use crate::program::Program;
use lockstep::Lockstep;

const _: () = assert!(
    lockstep::RAM == RAM
        && lockstep::FRAMES == FRAMES
        && lockstep::EL2 == EL2
        && lockstep::HOLE == HOLE
        && lockstep::TABLE == TABLE
);

/// Runs a program on core and specification side by side, in every order of its parallel lines.
pub fn on_core(program: &Program) -> Result<Explored, Trouble> {
    model::explore(program, || {
        let mut both = Lockstep::boot();
        both.call(model::register_pins()).map_err(broken)?;
        Ok(both)
    })
}

fn broken(Violation { clause, what }: Violation) -> Trouble {
    Trouble::Wrong(format!("core breaks {clause:?}: {what}"))
}

impl Model for Lockstep {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn call(&mut self, x: [u64; 8]) -> Result<Option<[u64; 8]>, Trouble> {
        let [_, vm, vcpu, ..] = x;
        let ran = self.loaded.len();
        let after = self.words(x).map_err(broken)?;
        let entered = self.loaded.len() > ran && self.loaded.contains_key(&(vm, vcpu));
        Ok((!entered).then(|| first_eight(after)))
    }

    fn registers(&self, vm: u64, vcpu: u64) -> Option<([u64; 4], u64)> {
        let (loaded, _) = self.loaded.get(&(vm, vcpu))?;
        let context = &loaded.vcpu.context;
        let [x0, x1, x2, x3, ..] = context.x;
        Some(([x0, x1, x2, x3], context.pc))
    }

    fn event(
        &mut self,
        vm: u64,
        vcpu: u64,
        x: [u64; 4],
        event: GuestEvent,
    ) -> Result<Option<[u64; 8]>, Trouble> {
        let told = self
            .guest_exits(Handle(vm), vcpu, x, event)
            .map_err(broken)?;
        Ok(told.map(first_eight))
    }

    fn touch(&mut self, touch: Touch) -> Result<TouchSeen, Trouble> {
        self.touched(touch.frame, touch.by).map_err(broken)
    }

    fn set_pin_word(&mut self, frame: u64, word: u32) {
        self.pin(frame, word);
    }

    fn write(&mut self, frame: u64, value: u64) {
        self.host_writes(frame, value);
    }
}
