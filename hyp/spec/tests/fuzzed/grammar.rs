//! Bytes as what host and guests do, for fuzzers: [`play`] for calls that are nearly right, [`decode`] for registers that hold anything.
//!
//! A byte says what is done: the number of a call of the ABI table, or else a pin, a deed of a guest, a touch. A byte for each argument says what it is, by
//! the kind that the table states for it. So most inputs are long lives of VMs, and a change of one byte is a small change.
//! The first byte chooses the machine: a small one, or one with blocks.

use std::cell::OnceCell;

use pinfold_abi::describe::CallInfo;
use pinfold_abi::{FUNCTION_BASE, HostCall, claim, pin_word};
use pinfold_core::exit::{Exit, Syndrome};
use pinfold_core::machine::test::Plan;
use pinfold_core::run::Resumption;
use pinfold_spec::{Clause, GuestEvent, TouchBy, Violation};

use crate::host::GICD;
use crate::lockstep::{FRAMES, GUEST, Judged, Lockstep, RAM};

/// Deeds that are not calls of the table.
const DEEDS: u64 = 9;
/// The most steps of one input.
const MOST_STEPS: u64 = 256;
/// The first frames of EL2 in the small machine, and how many it has.
const SMALL_EL2: (u64, u64) = (RAM + 16, 80);

/// Numbers at the edge of something.
const ODD: [u64; 16] = [
    0,
    1,
    u64::MAX,
    1 << 36,
    (1 << 36) - 1,
    1 << 28,
    (1 << 28) - 1,
    1 << 52,
    1 << 63,
    RAM - 1,
    RAM + FRAMES,
    RAM + 16 + 80,
    RAM + 512,
    513,
    1025,
    0x1_0000_0000,
];

/// What is left of an input.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn next(&mut self) -> Option<u64> {
        self.0.next().map(|byte| u64::from(*byte))
    }

    /// The next byte, or 0 when there is none.
    fn byte(&mut self) -> u64 {
        self.next().unwrap_or(0)
    }

    /// The next eight bytes.
    fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | self.byte())
    }

    /// One of these, as a byte says.
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let byte = usize::try_from(self.byte()).unwrap();
        choices[byte % choices.len()]
    }
}

/// A machine, and who is on it.
struct Player<'a> {
    both: Lockstep,
    bytes: Bytes<'a>,
    vms: Vec<claim::Handle>,
}

/// Plays an input; tells `note` the outline of each state, and returns how many steps were judged.
pub(crate) fn play(input: &[u8], note: &mut dyn FnMut(u64)) -> Judged<u64> {
    let mut player = Player::new(input)?;
    for _ in 0..MOST_STEPS {
        if !player.step()? {
            break;
        }
        note(player.both.spec.outline());
    }
    player.end()?;
    Ok(player.both.spec.steps())
}

/// A machine with a VM that runs.
type Start = (Lockstep, claim::Handle);

std::thread_local! {
    /// The machines that inputs begin with; the small one first.
    static STARTS: [OnceCell<Start>; 2] = const { [const { OnceCell::new() }; 2] };
}

fn start(is_small: bool) -> Judged<Start> {
    let mut both = if is_small {
        let plan = Plan {
            frames: 96,
            el2: SMALL_EL2,
            pool: 76,
            hole: None,
        };
        let mut both = Lockstep::boot_on(plan, RAM + 15);
        both.register(RAM + 15, RAM, 96)?;
        both
    } else {
        Lockstep::with_pins()?
    };
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    Ok((both, vm))
}

impl<'a> Player<'a> {
    fn new(input: &'a [u8]) -> Judged<Self> {
        let mut bytes = Bytes(input.iter());
        let place = usize::from(!bytes.byte().is_multiple_of(2));
        let (both, vm) = STARTS.with(|starts| {
            if let Some(start) = starts[place].get() {
                return Ok(start.clone());
            }
            let start = start(place == 0)?;
            Ok(starts[place].get_or_init(|| start).clone())
        })?;
        let vms = vec![vm];
        Ok(Self { both, bytes, vms })
    }

    fn step(&mut self) -> Judged<bool> {
        let Some(what) = self.bytes.next() else {
            return Ok(false);
        };
        // By number, so that a call that joins the table changes no seed.
        let number = what & 0x7F;
        match HostCall::TABLE.iter().find(|info| info.number == number) {
            Some(info) => self.call(info)?,
            None => self.deed(what % DEEDS)?,
        }
        self.both.guests_write();
        Ok(true)
    }

    fn call(&mut self, info: &CallInfo) -> Judged {
        let mut words = [FUNCTION_BASE + info.number; 8];
        for (word, field) in words[1..].iter_mut().zip(info.arguments) {
            *word = self.argument(field.unit);
        }
        let x = self.both.words(words)?;
        let is_new = matches!(HostCall::decode(words), Some(HostCall::VmCreate { .. }));
        if is_new && x[1] == 0 {
            self.vms.push(claim::Handle(x[2]));
        }
        Ok(())
    }

    fn argument(&mut self, unit: &str) -> u64 {
        let byte = self.bytes.byte();
        if let Some(odd) = byte.checked_sub(0xF0) {
            return ODD[usize::try_from(odd).unwrap()];
        }
        match unit {
            claim::Handle::UNIT => {
                let vm = self.vms[usize::try_from(byte & 0x3F).unwrap() % self.vms.len()].0;
                if byte < 0xC0 { vm } else { vm ^ 0x100 }
            }
            claim::Pfn::UNIT => frame(byte),
            claim::Gfn::UNIT => GUEST + (byte & 0x1F) + (byte >> 5 & 1) * 512,
            claim::Ipa::UNIT => byte << 16,
            claim::Order::UNIT => byte % 11,
            claim::VcpuIndex::UNIT | claim::Flags::UNIT => byte % 3,
            claim::Count::UNIT if byte >= 0x80 => 512,
            claim::Count::UNIT => byte & 0x1F,
            _ => byte,
        }
    }

    fn deed(&mut self, deed: u64) -> Judged {
        match deed {
            0 => {
                let (pfn, order) = (
                    frame(self.bytes.byte()),
                    self.bytes.pick(&[0, 0, 1, 2, 3, 9]),
                );
                self.pin_folio(pfn & !((1 << order) - 1), order);
            }
            1 => {
                let words = [0, 1, 0x4000_0001, 0x8000_0001, 0xC000_0002, u32::MAX];
                let (pfn, word) = (frame(self.bytes.byte()), self.bytes.pick(&words));
                self.pin(pfn, word);
            }
            2 => {
                let gfn = self.frame_of_guest(false).0;
                return self.guest([0xC600_0003, gfn << 12, 0, 0], GuestEvent::Call);
            }
            3 => {
                let (gfn, pfn) = self.frame_of_guest(true);
                let word = self.bytes.pick(&[pin_word::donatable(0), 1]);
                self.pin(pfn, word);
                return self.guest([0xC600_0004, gfn << 12, 0, 0], GuestEvent::Call);
            }
            4 => return self.guest_call(),
            5 => return self.access(),
            6 => {
                let events = [
                    GuestEvent::Interrupt,
                    GuestEvent::Impossible { class: 0x0E << 26 },
                    GuestEvent::Fetch { ipa: GUEST << 12 },
                    GuestEvent::Fetch { ipa: 0x900_0000 },
                ];
                let event = self.bytes.pick(&events);
                return self.guest([0; 4], event);
            }
            7 => {
                let by = self.bytes.pick(&[
                    TouchBy::Process,
                    TouchBy::KernelForProcess,
                    TouchBy::Kernel,
                    TouchBy::Fetch,
                ]);
                let pfn = frame(self.bytes.byte());
                return self.both.touch(pfn, by);
            }
            _ => {
                let number = self.bytes.byte();
                let rest = std::array::from_fn::<u64, 8, _>(|_| self.argument("value"));
                let mut words = rest;
                words[0] = FUNCTION_BASE.wrapping_add(number);
                // A VM that is made so is nobody's to end, and a call of the table is made above.
                if HostCall::decode(words).is_none() {
                    self.both.words(words)?;
                }
            }
        }
        Ok(())
    }

    fn guest_call(&mut self) -> Judged {
        let functions = [
            0xC400_0003,
            0x8400_0003,
            0x8400_0002,
            0x8400_0008,
            0x8400_0009,
            0x8600_0000,
            0xC600_0002,
            0xC600_0003,
            0xC600_0004,
            0x8400_0000,
            u64::MAX,
        ];
        let byte = self.bytes.byte();
        // From 0xF0 on, one of the hypervisor's own by number, so that one that joins them changes no seed.
        let function = match byte.checked_sub(0xF0) {
            Some(number) => 0xC600_0000 + number,
            None => functions[usize::try_from(byte).unwrap() % functions.len()],
        };
        let x1 = self.argument("value");
        let x1 = if self.bytes.byte().is_multiple_of(2) {
            x1
        } else {
            GUEST.wrapping_add(x1) << 12
        };
        self.guest([function, x1, 0, 0], GuestEvent::Call)
    }

    fn access(&mut self) -> Judged {
        let place = self.bytes.byte();
        let ipa = match place % 3 {
            0 => (GUEST + place) << 12,
            1 => GICD + place * 4,
            _ => 0x900_0000 + place,
        };
        let event = GuestEvent::Access {
            ipa,
            width: self.bytes.pick(&[1, 2, 4, 8]),
            write: self.bytes.pick(&[false, true]),
            register: self.bytes.pick(&[0, 1, 2, 30, 31]),
        };
        self.guest([1, 2, 3, u64::MAX], event)
    }

    /// Lets a vCPU that runs do something, if one runs.
    fn guest(&mut self, x: [u64; 4], event: GuestEvent) -> Judged {
        let running: Vec<_> = self.both.loaded.keys().copied().collect();
        if running.is_empty() {
            return Ok(());
        }
        let (vm, vcpu) = self.bytes.pick(&running);
        self.both.guest(claim::Handle(vm), vcpu, x, event)
    }

    /// A frame that a VM has, or shares.
    fn frame_of_guest(&mut self, shared: bool) -> (u64, u64) {
        let vm = self.bytes.pick(&self.vms.clone());
        let frames = self.both.spec.frames_of(vm.0, shared);
        if frames.is_empty() {
            (GUEST, RAM)
        } else {
            self.bytes.pick(&frames)
        }
    }

    fn pin(&mut self, pfn: u64, word: u32) {
        let is_known = self.both.hypervisor.memory.folios().frames();
        let frame = pinfold_core::addr::Frame::new(pfn);
        if frame
            .zip(is_known)
            .is_some_and(|(frame, known)| known.contains(frame))
        {
            self.both.pin(pfn, word);
        }
    }

    fn pin_folio(&mut self, pfn: u64, order: u8) {
        self.pin(pfn, pin_word::donatable(order));
        (1..1 << order).for_each(|tail| self.pin(pfn + tail, 0));
    }

    /// Stops everybody and tears every VM down.
    fn end(&mut self) -> Judged {
        while let Some((vm, vcpu)) = self.both.loaded.keys().next().copied() {
            self.both
                .guest(claim::Handle(vm), vcpu, [0; 4], GuestEvent::Interrupt)?;
        }
        for vm in std::mem::take(&mut self.vms) {
            self.both.tear_down(vm)?;
        }
        Ok(())
    }
}

/// A frame of the host, of EL2, or a table of pins, in one of four blocks.
const fn frame(byte: u64) -> u64 {
    RAM + (byte & 0x1F) + (byte >> 5 & 3) * 512
}

/// Gives host and guest registers that hold anything. The host's are judged; of the guest's, core must make something without a
/// panic and without a rule of the machine broken, and its end must leave the host's memory whole.
pub(crate) fn decode(input: &[u8]) -> Judged<u64> {
    let mut bytes = Bytes(input.iter());
    let mut host = Lockstep::with_pins()?;
    let mut wild = host.clone();
    let vm = wild.live_vm()?;
    wild.give(vm, GUEST, RAM, 4, 0)?;
    wild.run(vm, 0, 0)?;
    let mut steps = 0;
    while let Some(whose) = bytes.next() {
        steps += 1;
        if whose.is_multiple_of(2) {
            let number = FUNCTION_BASE + bytes.byte();
            let mut words = std::array::from_fn(|_| bytes.word());
            words[0] = if whose & 2 == 0 { number } else { words[0] };
            host.words(words)?;
        } else if let Some((mut loaded, mut registers)) = wild.loaded.remove(&(vm.0, 0)) {
            let syndrome = Syndrome {
                esr: bytes.word(),
                far: bytes.word(),
                hpfar: bytes.word(),
            };
            let x = &mut loaded.vcpu.context.x;
            x[..4].fill_with(|| bytes.word());
            let exit = Exit::decode(syndrome);
            match wild
                .hypervisor
                .guest_exit(&mut loaded, exit, &wild.processor)
            {
                Resumption::Guest | Resumption::GuestWithFloatingPoint => {
                    wild.loaded.insert((vm.0, 0), (loaded, registers));
                }
                Resumption::Host(exit) => {
                    wild.hypervisor.finish_run(loaded, exit, &mut registers);
                }
            }
            if !wild.hypervisor.memory.machine().is_flushed() {
                let what = "a TLB still has what the tables have not".to_owned();
                return Err(Violation::new(Clause::MachineRules, what));
            }
        }
    }
    Ok(steps)
}
