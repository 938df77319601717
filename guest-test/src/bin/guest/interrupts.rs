//! Interrupts of the guest: the virtual timer, SGIs, and lines that the mini host raises.

use core::arch::asm;

use guest_test::{check, check_eq, gic, port, tests, timer};

/// The SGI that tests use.
const SGI: u32 = 5;
/// The SGI that a further vCPU sends to vCPU 0.
const GREETING: u64 = 6;

/// Tells vCPU 0 that another one is here.
pub(crate) fn greet_first_cpu() {
    gic::send_sgi(GREETING, 0);
}

/// Lets interrupts in until `intid` was served `times` times, or a second has gone.
fn wait_for(intid: u32, times: u32) -> bool {
    let deadline = timer::now() + timer::milliseconds(1000);
    while gic::count(intid) < times && timer::now() < deadline {
        gic::open_for_a_moment();
    }
    gic::count(intid) >= times
}

/// Serves interrupts without letting them in until `intid` was served `times` times, or a second has gone: a level that stays
/// high would come again before the next instruction.
fn serve_until(intid: u32, times: u32) -> bool {
    let deadline = timer::now() + timer::milliseconds(1000);
    while gic::count(intid) < times && timer::now() < deadline {
        let _served = gic::serve();
    }
    gic::count(intid) >= times
}

tests! { "interrupts":
    /// An SGI to oneself comes through the vector, once, and not before it is let in.
    sgi_to_self {
        gic::start(0);
        gic::enable(0, SGI);
        for round in 1..=3 {
            gic::send_sgi(u64::from(SGI), 0);
            check_eq!(gic::count(SGI), round - 1, "SGIs before interrupts are let in");
            check!(wait_for(SGI, round), "SGI {round} did not come");
            gic::open_for_a_moment();
            check_eq!(gic::count(SGI), round, "SGIs");
        }
    }

    /// The virtual timer fires at its deadline, each time, while the guest computes.
    timer_while_running {
        gic::start(0);
        gic::enable(0, timer::VIRTUAL_INTID);
        for round in 1..=5 {
            let deadline = timer::now() + timer::milliseconds(2);
            timer::arm_virtual(deadline);
            check!(wait_for(timer::VIRTUAL_INTID, round), "timer {round} did not fire");
            check!(timer::now() >= deadline, "timer {round} fired early");
        }
    }

    /// The virtual timer ends a WFI.
    timer_ends_wfi {
        gic::start(0);
        gic::enable(0, timer::VIRTUAL_INTID);
        for round in 1..=3 {
            let deadline = timer::now() + timer::milliseconds(5);
            timer::arm_virtual(deadline);
            let limit = timer::now() + timer::milliseconds(1000);
            while gic::serve().is_none() {
                check!(timer::now() < limit, "timer {round} did not end the WFI");
                aarch64_cpu::asm::wfi();
            }
            check_eq!(gic::count(timer::VIRTUAL_INTID), round, "timer interrupts");
            check!(timer::now() >= deadline, "timer {round} fired early");
        }
    }

    /// A masked timer stays silent, and its condition shows in ISTATUS.
    timer_disabled_is_silent {
        gic::start(0);
        timer::arm_virtual(timer::now());
        let limit = timer::now() + timer::milliseconds(5);
        while timer::now() < limit {
            check!(gic::serve().is_none(), "an interrupt came, though none is enabled");
        }
        let control: u64;
        // SAFETY: reading has no effect.
        unsafe { asm!("mrs {0}, cntv_ctl_el0", out(reg) control, options(nomem, nostack)) };
        check_eq!(control & 7, 5, "CNTV_CTL");
        timer::stop_virtual();
    }

    /// The physical timer is not the guest's.
    physical_timer_is_undefined {
        unsafe extern "C" fn touch(_: u64, _: u64) -> u64 {
            // SAFETY: the probe catches the fault.
            unsafe { asm!("msr cntp_ctl_el0, xzr", options(nomem, nostack)) };
            0
        }
        // SAFETY: one instruction.
        let found = unsafe { guest_test::probe::call(touch, 0, 0) };
        check!(found.is_err_and(guest_test::probe::Fault::is_undefined), "cntp_ctl_el0: {found:x?}");
    }

    /// A line that the host raises comes in, stays while it is up, and goes when it is lowered.
    line {
        let intid = 40;
        gic::start(0);
        gic::enable(0, intid);
        check!(gic::serve().is_none(), "an interrupt before the line is up");
        port::tell(1);
        check!(serve_until(intid, 1), "the line is up, no interrupt came");
        check!(serve_until(intid, 2), "the line is still up, no second interrupt came");
        port::tell(0);
        while gic::serve().is_some() {}
        let seen = gic::count(intid);
        gic::open_for_a_moment();
        check_eq!(gic::count(intid), seen, "interrupts after the line went down");
    }

    /// A line raised before it is enabled comes in when it is.
    line_raised_early {
        let intid = 41;
        gic::start(0);
        port::tell(1);
        gic::open_for_a_moment();
        check_eq!(gic::count(intid), 0, "interrupts before the line is enabled");
        gic::enable(0, intid);
        check!(serve_until(intid, 1), "the line is up, no interrupt came");
        port::tell(0);
    }

    /// A line that the host raised waits until the guest takes it; others run meanwhile.
    keep_pending {
        gic::start(0);
        gic::enable(0, 40);
        port::tell(1);
        port::tell(2);
        check!(serve_until(40, 1), "the interrupt that waited is gone");
        port::tell(3);
    }

    /// All interrupts are enabled, and none comes.
    none_pending {
        gic::start(0);
        for intid in (0..288).filter(|intid| *intid != timer::VIRTUAL_INTID) {
            gic::enable(0, intid);
        }
        for _ in 0..100 {
            let found = gic::serve();
            check!(found.is_none(), "interrupt {found:?}, which is not ours");
            gic::open_for_a_moment();
            port::tell(0);
        }
        for intid in 0..288 {
            check_eq!(gic::count(intid), 0, "interrupts {intid}");
        }
    }

    /// The counter goes on, from one exit to the next.
    time_goes_on {
        let mut last = timer::now();
        for _ in 0..300 {
            port::tell(last);
            let now = timer::now();
            check!(now >= last, "the counter was {last:#x}, and is {now:#x}");
            last = now;
        }
    }
}
