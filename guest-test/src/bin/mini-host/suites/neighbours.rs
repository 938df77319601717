//! Between one guest and another, and between the host and a guest on the same CPU: nothing of the one is left for the other.

use core::arch::asm;

use aarch64_cpu::registers::{ID_AA64DFR0_EL1, ID_AA64ISAR1_EL1, Readable};
use guest_test::bytes::FRAME;
use guest_test::tap::{Failure, Outcome};
use guest_test::{canary, check, check_eq, gic, tests, timer};
use pinfold_abi::GuestFunction;

use crate::calls::{self, ExitReason};
use crate::vm::{Event, RAM_GFN, SCRATCH_GFN, Vm};

/// A place of guests in which each keeps its own word.
const PLACE: u64 = SCRATCH_GFN * FRAME;
/// The SPI that tests raise.
const INTID: u64 = 40;

/// Runs the guest until it tells a word.
fn until_told(vm: &mut Vm) -> Result<u64, Failure> {
    match vm.next(0, 0)? {
        Event::Told(word) => Ok(word),
        event @ (Event::Asked | Event::Verdict(_) | Event::Exit(_)) => {
            Err(Failure::new(format_args!("{event:x?}")))
        }
    }
}

/// Writes a debug register pair 0 of the host: a breakpoint at `breakpoint`, a watchpoint on the eight bytes at `watchpoint`, both for EL1 and EL0.
fn set_debug(breakpoint: u64, watchpoint: u64, on: bool) {
    /// `E`, `PMC` and `PAC` = EL1 and EL0, all bytes; `LSC` = loads and stores.
    const BREAKPOINT: u64 = 1 | 0b11 << 1 | 0xf << 5;
    const WATCHPOINT: u64 = 1 | 0b11 << 1 | 0b11 << 3 | 0xff << 5;
    /// `MDSCR_EL1.MDE` and `KDE`.
    const EVENTS: u64 = 1 << 15 | 1 << 13;
    let [breaks, watches, events] = if on {
        [BREAKPOINT, WATCHPOINT, EVENTS]
    } else {
        [0; 3]
    };
    // SAFETY: debug exceptions of this CPU are masked, and no code of the image lies at the addresses.
    unsafe {
        asm!("msr oslar_el1, xzr", "msr dbgbvr0_el1, {0}", "msr dbgbcr0_el1, {1}", "msr dbgwvr0_el1, {2}", "msr dbgwcr0_el1, {3}",
            "msr mdscr_el1, {4}", "isb", in(reg) breakpoint, in(reg) breaks, in(reg) watchpoint, in(reg) watches, in(reg) events,
            options(nostack));
    }
}

/// Runs a test of the guest image to its verdict and its end; `turn` is one turn of it.
fn to_the_end(vm: &mut Vm, mut turn: impl FnMut(&mut Vm) -> Result<Event, Failure>) -> Outcome {
    let mut passed = false;
    loop {
        match turn(vm)? {
            Event::Told(_) | Event::Asked => (),
            Event::Verdict(verdict) => passed = verdict,
            Event::Exit(exit) => {
                check_eq!(exit.reason, ExitReason::SystemOff, "exit");
                check!(passed, "the guest's verdict (it says why above)");
                return Ok(());
            }
        }
    }
}

/// A guest that computes for a while, and comes back by the host's alarm.
fn computing() -> Result<Vm, Failure> {
    let mut vm = Vm::puppet()?;
    check_eq!(vm.next(0, 0)?, Event::Asked, "the puppet's question");
    check_eq!(vm.next(0, 5)?, Event::Asked, "the puppet's second question");
    Ok(vm)
}

/// The host's cycle counter over something, in cycles.
fn cycles_of(what: impl FnOnce() -> Outcome) -> Result<u64, Failure> {
    // `PMCR_EL0.LC`, `C` and `E`; the cycle counter's bit of `PMCNTENSET_EL0` and `PMCNTENCLR_EL0`.
    const CONTROL: u64 = 1 << 6 | 1 << 2 | 1;
    const CYCLES: u64 = 1 << 31;
    // SAFETY: the counters are the host's, and it uses none else.
    unsafe {
        asm!("msr pmcr_el0, {0}", "msr pmcntenset_el0, {1}", "isb", in(reg) CONTROL, in(reg) CYCLES, options(nostack));
    }
    let before = cycles();
    let outcome = what();
    let spent = cycles().wrapping_sub(before);
    // SAFETY: as above.
    unsafe { asm!("msr pmcntenclr_el0, {0}", "isb", in(reg) CYCLES, options(nostack)) };
    outcome.map(|()| spent)
}

fn cycles() -> u64 {
    let word: u64;
    // SAFETY: reading has no effect.
    unsafe { asm!("isb", "mrs {0}, pmccntr_el0", out(reg) word, options(nomem, nostack)) };
    word
}

tests! { "neighbours":
    /// Two guests with the same addresses, in turn on one CPU: each finds its own words, also after one was replaced.
    guests_with_the_same_addresses {
        let mut guests = [Vm::puppet()?, Vm::puppet()?];
        for round in 0..20_u64 {
            for (index, guest) in (1..).zip(&mut guests) {
                if round > 0 {
                    check_eq!(guest.reads(PLACE)?, index << 32 | (round - 1), "guest {index} in round {round}");
                }
                guest.writes(PLACE, index << 32 | round)?;
            }
        }
        let [first, mut second] = guests;
        first.end()?;
        let mut third = Vm::puppet()?;
        third.writes(PLACE, 0x3333)?;
        check_eq!(second.reads(PLACE)?, 2 << 32 | 0x13, "the guest that stayed");
        check_eq!(third.reads(PLACE)?, 0x3333, "the guest that came");
        third.end()?;
        second.end()?;
    }

    /// A vCPU by the handle of another VM is that VM's, and the frames of one are none of the other's.
    a_handle_names_the_whole {
        let mut first = Vm::puppet()?;
        let second = Vm::configured(2)?;
        first.writes(PLACE, 1)?;
        calls::vcpu_run(second.handle(), 0, 0).refused(calls::Status::WrongPhase, "VCPU_RUN of a VM that is not started")?;
        calls::vcpu_run(first.handle(), 1, 0).refused(calls::Status::NoSuchVcpu, "VCPU_RUN of the other VM's vCPU")?;
        calls::vm_teardown_begin(second.handle()).done("VM_TEARDOWN_BEGIN")?;
        calls::mem_reclaim(second.handle(), SCRATCH_GFN, 1).done("MEM_RECLAIM of a hole")?;
        check_eq!(first.reads(PLACE)?, 1, "the first guest's view");
        second.end_after_teardown()?;
        first.end()?;
    }

    /// An interrupt that waits in a list register of one guest comes neither to another one nor to the host.
    list_registers_stay_with_their_guest {
        let mut first = Vm::image("interrupts::keep_pending", 1)?;
        check_eq!(until_told(&mut first)?, 1, "the guest is ready");
        calls::irq_line(first.handle(), INTID, 1).done("IRQ_LINE")?;
        check_eq!(until_told(&mut first)?, 2, "the guest has it pending");
        check!(gic::serve().is_none(), "the host took an interrupt of the guest");
        let mut second = Vm::image("interrupts::none_pending", 1)?;
        to_the_end(&mut second, |second| {
            let event = second.next(0, 0)?;
            check!(gic::serve().is_none_or(|intid| u64::from(intid) != INTID), "the host took an interrupt of the guest");
            Ok(event)
        })?;
        second.end()?;
        // It is still there for whom it is for.
        check_eq!(until_told(&mut first)?, 3, "the guest took it");
        first.end()?;
    }

    /// Lines of every number up and down, more often than there are list registers, while the guest runs and while it does not.
    a_storm_of_lines {
        let vm = computing()?;
        vm.run(0, 1 << 40)?;
        for round in 0..4 {
            for intid in pinfold_abi::limit::MIN_SPI..=pinfold_abi::limit::MAX_SPI {
                for level in [1, 1, round & 1, 0, 0, 1] {
                    calls::irq_line(vm.handle(), intid, level).done("IRQ_LINE")?;
                }
            }
            check_eq!(vm.run(0, 0)?.reason, ExitReason::Interrupt, "exit of a guest that computes");
        }
        vm.end()?;
    }

    /// Breakpoints and watchpoints of the host at a guest's addresses do not stop the guest, and are the host's again afterwards.
    breakpoints_of_the_host {
        let mut vm = Vm::puppet()?;
        vm.writes(PLACE, 0x1234)?;
        for breakpoint in (RAM_GFN * FRAME..RAM_GFN * FRAME + 0x40).step_by(4) {
            set_debug(breakpoint, PLACE, true);
            let found = vm.reads(PLACE);
            let kept: u64;
            // SAFETY: reading has no effect.
            unsafe { asm!("mrs {0}, mdscr_el1", out(reg) kept, options(nomem, nostack)) };
            set_debug(0, 0, false);
            check_eq!(found?, 0x1234, "the guest's view, with a breakpoint of the host at {breakpoint:#x}");
            check_eq!(kept & (1 << 15 | 1 << 13), 1 << 15 | 1 << 13, "the host's MDSCR_EL1");
        }
        vm.end()?;
    }

    /// The host's cycle counter does not count what a guest does.
    counters_of_the_host {
        if ID_AA64DFR0_EL1.read(ID_AA64DFR0_EL1::PMUVer) == 0 {
            return Err(Failure::skip(format_args!("this CPU has no counters")));
        }
        let vm = computing()?;
        let own = cycles_of(|| {
            let end = timer::now() + timer::milliseconds(100);
            while timer::now() < end {
                core::hint::spin_loop();
            }
            Ok(())
        })?;
        let others = cycles_of(|| {
            check_eq!(vm.run(0, 1 << 40)?.reason, ExitReason::Interrupt, "exit of a guest that computes");
            Ok(())
        })?;
        check!(own > 1000, "the counter counts nothing");
        check!(others < own / 2, "{others} cycles of a guest were counted, and {own} of the host in the same time");
        vm.end()?;
    }

    /// Keys of pointer authentication: a guest has its own, and the host finds its own again.
    keys_of_the_host {
        if (ID_AA64ISAR1_EL1.get() >> 4).trailing_zeros() >= 8 {
            return Err(Failure::skip(format_args!("this CPU authenticates no pointers")));
        }
        let kept = canary::read_keys();
        let mut mine = [0; canary::KEYS.len()];
        for (number, key) in (0x500..).zip(&mut mine) {
            *key = canary::value(0x4057, number);
        }
        let mut vm = Vm::image("registers::keys", 1)?;
        to_the_end(&mut vm, |vm| {
            // SAFETY: this image authenticates no pointer.
            unsafe { canary::write_keys(&mine) };
            let event = vm.next(0, 0);
            let found = canary::read_keys();
            // SAFETY: as above.
            unsafe { canary::write_keys(&kept) };
            check_eq!(found, mine, "the host's keys");
            event
        })?;
        vm.end()?;
    }

    /// The guest's counter never goes back, whatever the host does to its own timers between the guest's turns.
    time_of_a_guest {
        let mut vm = Vm::image("interrupts::time_goes_on", 1)?;
        to_the_end(&mut vm, |vm| {
            timer::arm_virtual(timer::now().wrapping_sub(1 << 40));
            let event = vm.next(0, 0);
            timer::stop_virtual();
            event
        })?;
        vm.end()?;
    }

    /// A guest that shares and takes back without end is served one call at a time; the host, which looks at the page meanwhile, finds it or an abort.
    a_flood_of_shares {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 1)?;
        for round in 0..50 {
            check_eq!(vm.calls(GuestFunction::MemShare.number(), PLACE)?, 0, "MEM_SHARE in round {round}");
            check!(vm.folio(SCRATCH_GFN)?.read(0).is_ok(), "the host lost a shared page in round {round}");
            check_eq!(vm.calls(GuestFunction::MemUnshare.number(), PLACE)?, 0, "MEM_UNSHARE in round {round}");
            check!(vm.folio(SCRATCH_GFN)?.read(0).is_err(), "the host has a page that is not shared in round {round}");
        }
        vm.end()?;
    }
}
