//! The doorway from the host: the one function that vectors.S calls.
//!
//! [`HostFrame`] is the host's registers on this CPU's stack; x0 to x17 of it are what core calls [`CallRegisters`]. A trap is
//! told apart by its class, put into core's words, and answered; nothing is decided here. What a host may not do, or
//! what nobody knows, it gets back as an exception of its own: EL2 does not die of it.

use core::sync::atomic::{AtomicU32, Ordering};

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, PAR_EL1};
use pinfold_core::addr::Ipa;
use pinfold_core::hypervisor::{CallRegisters, HostAbort, HostAbortOutcome, HostCallOutcome};

use crate::sysreg::{Readable, Writeable, translate_as_el1_reads};
use crate::width::narrow;
use crate::{gic, inject, judged, panic, percpu, psci, trace};

/// x0 to x30 of the host.
#[repr(C, align(16))]
pub(crate) struct HostFrame {
    call: CallRegisters,
    rest: [u64; 13],
}

impl HostFrame {
    /// Xn; nothing for the zero register.
    fn register(&mut self, number: u64) -> Option<&mut u64> {
        let mut general = self.call.x.iter_mut().chain(&mut self.rest);
        general.nth(narrow(number))
    }
}

// vectors.S stores x0 at the start and the others behind it.
const _: () =
    assert!(core::mem::offset_of!(CallRegisters, x) == 0 && size_of::<CallRegisters>() == 18 * 8);
const _: () = assert!(size_of::<HostFrame>() == 32 * 8);

/// Exception classes (DDI 0487, D24.2.37).
mod class {
    pub(super) const HVC64: u64 = 0x16;
    pub(super) const SMC64: u64 = 0x17;
    pub(super) const INSTRUCTION_ABORT: u64 = 0x20;
    pub(super) const DATA_ABORT: u64 = 0x24;
}

/// SMCCC: the function is unknown.
const NOT_SUPPORTED: u64 = u64::MAX;

/// How many decoys are worth a line on the console; a host can make any number.
static DECOY_LINES: AtomicU32 = AtomicU32::new(8);

/// Answers one trap of the host.
pub(crate) extern "C" fn host_trap(frame: &mut HostFrame) {
    panic::park_if_panicking();
    let syndrome = ESR_EL2.get();
    if syndrome >> 26 == class::HVC64 && immediate(syndrome) == 0 {
        host_call(&mut frame.call);
    } else {
        trace::host_trap(&frame.call);
        other_trap(frame, syndrome);
    }
}

/// The number in an HVC or SMC; that of a call is 0 (SMCCC 2.9).
const fn immediate(syndrome: u64) -> u64 {
    syndrome & 0xffff
}

fn other_trap(frame: &mut HostFrame, syndrome: u64) {
    match syndrome >> 26 {
        class::HVC64 => {
            let [answer, ..] = &mut frame.call.x;
            *answer = NOT_SUPPORTED;
        }
        class::SMC64 if immediate(syndrome) != 0 => {
            let [answer, ..] = &mut frame.call.x;
            *answer = NOT_SUPPORTED;
            ELR_EL2.set(ELR_EL2.get().wrapping_add(4));
        }
        class::SMC64 => {
            let [x0, x1, x2, x3, ..] = frame.call.x;
            let [answer, ..] = &mut frame.call.x;
            *answer = psci::host_smc([x0, x1, x2, x3]);
            // A trapped SMC returns to itself (D1.3.6).
            ELR_EL2.set(ELR_EL2.get().wrapping_add(4));
        }
        class::DATA_ABORT if redistributor_access(frame, syndrome) => {
            ELR_EL2.set(ELR_EL2.get().wrapping_add(4));
        }
        class::INSTRUCTION_ABORT | class::DATA_ABORT => host_abort(syndrome),
        _ => inject::undefined(),
    }
}

fn host_call(call: &mut CallRegisters) {
    let cpu = percpu::current();
    let mut mark = trace::call(call);
    let outcome = judged::host_call(call, cpu.index());
    match outcome {
        HostCallOutcome::Return => {}
        HostCallOutcome::Run(vcpu) => mark = crate::guest_trap::run(vcpu, call, mark),
    }
    mark.answer(call);
}

/// Fault status codes (D24.2.37, ISS of a data abort): the upper four bits tell the kind, the lower two the level.
mod status {
    pub(super) const ADDRESS_SIZE: u64 = 0b0000;
    pub(super) const TRANSLATION: u64 = 0b0001;
    pub(super) const ACCESS_FLAG: u64 = 0b0010;
    pub(super) const PERMISSION: u64 = 0b0011;
}

/// The ISS of a data abort with a valid syndrome (D24.2.37): ISV, SAS, SRT, SF, S1PTW, WnR.
mod iss {
    pub(super) const ISV: u64 = 1 << 24;
    pub(super) const WORD: u64 = 0b10;
    pub(super) const DOUBLEWORD: u64 = 0b11;
    pub(super) const WALK: u64 = 1 << 7;
    pub(super) const WRITE: u64 = 1 << 6;
}

/// Does the host's access if it is one to the control frame of a redistributor; says whether it was.
fn redistributor_access(frame: &mut HostFrame, syndrome: u64) -> bool {
    let size = (syndrome >> 22) & 0b11;
    let is_plain = syndrome & (iss::ISV | iss::WALK) == iss::ISV;
    if !is_plain || (size != iss::WORD && size != iss::DOUBLEWORD) {
        return false;
    }
    let address = (HPFAR_EL2.get() >> 4 & 0xfff_ffff_ffff) << 12 | FAR_EL2.get() & 0xfff;
    // Register 31 is the zero register.
    let register = frame.register((syndrome >> 16) & 0x1f);
    let is_write = syndrome & iss::WRITE != 0;
    let stored = is_write.then(|| register.as_deref().copied().unwrap_or(0));
    let Some(read) = gic::control_access(address, size == iss::WORD, stored) else {
        return false;
    };
    if let (Some(register), false) = (register, is_write) {
        *register = read;
    }
    true
}

fn host_abort(syndrome: u64) {
    let far = FAR_EL2.get();
    let walk = syndrome & 1 << 7 != 0;
    let page = match (syndrome >> 2) & 0xf {
        status::PERMISSION if !walk => match translate(far) {
            Some(page) => page,
            // By the host's own table there is nothing, now or for a read of EL1: it sees for itself. Trying again might never end.
            None => return inject::abort(syndrome, far),
        },
        status::ADDRESS_SIZE | status::TRANSLATION | status::ACCESS_FLAG | status::PERMISSION => {
            (HPFAR_EL2.get() >> 4 & 0xfff_ffff_ffff) << 12
        }
        _ => return inject::abort(syndrome, far),
    };
    let outcome = Ipa::new(page | far & 0xfff).map(|ipa| {
        let abort = HostAbort {
            ipa,
            far_is_kernel: far & 1 << 55 != 0,
            from_el0: inject::is_from_el0(),
            write: syndrome >> 26 == class::DATA_ABORT && syndrome & 1 << 6 != 0,
            instruction: syndrome >> 26 == class::INSTRUCTION_ABORT,
            pc: ELR_EL2.get(),
        };
        (abort, judged::host_abort(abort))
    });
    match outcome {
        Some((_, HostAbortOutcome::Retry)) => {}
        Some((abort, HostAbortOutcome::Decoy)) => tell_of_decoy(&abort),
        Some((_, HostAbortOutcome::Inject)) | None => inject::stage2_abort(syndrome, far),
    }
}

/// Where the host's stage 1 sends `far`, by whole frames; a permission fault of stage 2 does not say (HPFAR_EL2, D24.2.56).
fn translate(far: u64) -> Option<u64> {
    let kept = PAR_EL1.get();
    translate_as_el1_reads(far);
    let answer = PAR_EL1.get();
    PAR_EL1.set(kept);
    (answer & 1 == 0).then_some(answer & 0x000f_ffff_ffff_f000)
}

fn tell_of_decoy(abort: &HostAbort) {
    let left = DECOY_LINES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    });
    if left.is_ok() {
        log::warn!(
            "the host kernel at {:#x} touched {:#x}, which is not its own: it sees zeroes",
            abort.pc,
            abort.ipa.raw()
        );
    }
}
