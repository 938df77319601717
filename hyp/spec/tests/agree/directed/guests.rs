//! Scenarios about what guests do with their memory.

use pinfold_abi::{claim, pin_word};
use pinfold_spec::{GuestEvent, TouchBy};

use super::{FIRST, RELINQUISH, SHARE, UNSHARE, calls};
use crate::host::GICD;
use crate::lockstep::{GUEST, GUEST_FRAMES, Judged, Lockstep};

scenarios! {
    guest_queries, guest_unknown, guest_malformed, share_missing, share_refused, share, share_splits, share_block,
    share_declined, share_stands, share_accepted, unshare_refused, unshare_asks, unshare, unshare_of_larger_pin,
    unshare_repeats, unshare_declined, relinquish, relinquish_block, relinquish_nothing, relinquish_refused,
    relinquish_hides_decoy, dry_relinquish, faults, fault_served, fetch_outside, mmio_read, mmio_write, mmio_answer,
    mmio_answer_signed,
}

/// A device of the VMM's.
const UART: u64 = 0x900_0000;

/// A started VM with one folio of the order, whose vCPU 0 runs.
fn running(order: u8) -> Judged<(Lockstep, claim::Handle)> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, order)?;
    both.guests_write();
    both.run(vm, 0, 0)?;
    Ok((both, vm))
}

impl Lockstep {
    /// vCPU 0 calls a function with the address of a frame.
    fn asks(&mut self, vm: claim::Handle, function: u64, gfn: u64) -> Judged {
        self.guest(vm, 0, [function, gfn << 12, 0, 0], GuestEvent::Call)
    }
}

fn guest_queries() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    let queries = [
        [0x8000_0000, 0, 0, 0],
        [0x8000_0001, 0x8000_0001, 0, 0],
        [0x8000_0001, 0x8000_8000, 0, 0],
        [0x8600_FF01, 0, 0, 0],
        [0x8600_0000, 0, 0, 0],
        [0xC600_0002, 0, 0, 0],
        [0x8400_0000, 0, 0, 0],
        [0x8400_000A, 0x8400_0000, 0, 0],
    ];
    for x in queries {
        both.guest(vm, 0, x, GuestEvent::Call)?;
    }
    Ok(both)
}

fn guest_unknown() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    for function in [
        0,
        0x8600_0001,
        0xC600_0005,
        0xC600_0100,
        0xC600_0140,
        0xC600_0062,
    ] {
        both.guest(vm, 0, [function, 1, 2, 3], GuestEvent::Call)?;
    }
    Ok(both)
}

fn guest_malformed() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    let address = GUEST << 12;
    let arguments = [
        [address + 4, 0, 0],
        [address, 1, 0],
        [address, 0, 1],
        [u64::MAX, 0, 0],
        [1 << 48, 0, 0],
    ];
    for [x1, x2, x3] in arguments {
        both.guest(vm, 0, [SHARE, x1, x2, x3], GuestEvent::Call)?;
        both.guest(vm, 0, [UNSHARE, x1, x2, x3], GuestEvent::Call)?;
        both.guest(vm, 0, [RELINQUISH, x1, x2, x3], GuestEvent::Call)?;
    }
    both.guest(vm, 0, [0xC600_0002, 1, 0, 0], GuestEvent::Call)?;
    Ok(both)
}

fn share_missing() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, SHARE, GUEST + 1)?;
    both.give(vm, GUEST + 1, FIRST + 1, 1, 0)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, SHARE, GUEST + 1)?;
    Ok(both)
}

fn share_refused() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, SHARE, 0)?;
    both.asks(vm, SHARE, GUEST + GUEST_FRAMES)?;
    both.asks(vm, SHARE, 1 << 28)?;
    both.asks(vm, SHARE, GUEST)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, SHARE, GUEST)?;
    Ok(both)
}

fn share() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, SHARE, GUEST)?;
    both.host_writes(FIRST, 0x33);
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn share_splits() -> Judged<Lockstep> {
    let (mut both, vm) = running(3)?;
    both.asks(vm, SHARE, GUEST + 5)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, SHARE, GUEST)?;
    Ok(both)
}

fn share_block() -> Judged<Lockstep> {
    let (mut both, vm) = running(9)?;
    both.asks(vm, SHARE, GUEST + 511)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, SHARE, GUEST)?;
    both.tear_down(vm)?;
    Ok(both)
}

fn share_declined() -> Judged<Lockstep> {
    let (mut both, vm) = running(3)?;
    both.asks(vm, SHARE, GUEST + 5)?;
    both.run(vm, 0, 1)?;
    both.asks(vm, SHARE, GUEST + 5)?;
    both.run(vm, 0, u64::MAX)?;
    Ok(both)
}

fn share_stands() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, SHARE, GUEST)?;
    both.pin(FIRST, 1);
    both.run(vm, 0, 1)?;
    Ok(both)
}

/// The host agrees, although it could not use the frame.
fn share_accepted() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, SHARE, GUEST)?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn unshare_refused() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    for gfn in [0, GUEST, GUEST + 1, 1 << 28] {
        both.asks(vm, UNSHARE, gfn)?;
    }
    Ok(both)
}

fn unshare_asks() -> Judged<Lockstep> {
    for word in [0, 1, 0xC000_0002, 0xC100_0001, 0x4000_0001, 0x8000_0001] {
        let (mut both, vm) = running(0)?;
        both.asks(vm, SHARE, GUEST)?;
        both.run(vm, 0, 0)?;
        both.pin(FIRST, word);
        both.asks(vm, UNSHARE, GUEST)?;
    }
    Lockstep::with_pins()
}

fn unshare() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, SHARE, GUEST)?;
    both.host_writes(FIRST, 0x2222);
    both.run(vm, 0, 0)?;
    both.asks(vm, UNSHARE, GUEST)?;
    Ok(both)
}

/// The host's folio is larger than what the guest shares, and its pin speaks for all of it.
fn unshare_of_larger_pin() -> Judged<Lockstep> {
    let (mut both, vm) = running(3)?;
    both.asks(vm, SHARE, GUEST + 5)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, UNSHARE, GUEST + 5)?;
    both.asks(vm, SHARE, GUEST + 6)?;
    both.run(vm, 0, 0)?;
    // The host split its folio: the head's word does not speak for the tail any more.
    both.pin(FIRST, pin_word::donatable(0));
    both.asks(vm, UNSHARE, GUEST + 6)?;
    both.pin(FIRST + 6, pin_word::donatable(0));
    both.run(vm, 0, 0)?;
    both.asks(vm, UNSHARE, GUEST + 6)?;
    Ok(both)
}

fn unshare_repeats() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, SHARE, GUEST)?;
    both.run(vm, 0, 0)?;
    both.pin(FIRST, 1);
    both.asks(vm, UNSHARE, GUEST)?;
    // It agrees, but lies.
    both.run(vm, 0, 0)?;
    both.asks(vm, UNSHARE, GUEST)?;
    both.pin_folio(FIRST, 0);
    both.run(vm, 0, 0)?;
    both.asks(vm, UNSHARE, GUEST)?;
    Ok(both)
}

fn unshare_declined() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, SHARE, GUEST)?;
    both.run(vm, 0, 0)?;
    both.pin(FIRST, 1);
    both.asks(vm, UNSHARE, GUEST)?;
    both.run(vm, 0, 1)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn relinquish() -> Judged<Lockstep> {
    let (mut both, vm) = running(3)?;
    both.asks(vm, RELINQUISH, GUEST + 5)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, RELINQUISH, GUEST + 4)?;
    both.host_writes(FIRST + 5, 0x77);
    both.give(vm, GUEST + 4, FIRST + 5, 1, 0)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, SHARE, GUEST + 4)?;
    both.tear_down(vm)?;
    Ok(both)
}

fn relinquish_block() -> Judged<Lockstep> {
    let (mut both, vm) = running(9)?;
    for offset in [511, 0, 17] {
        both.asks(vm, RELINQUISH, GUEST + offset)?;
        both.run(vm, 0, 0)?;
    }
    both.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
    both.tear_down(vm)?;
    Ok(both)
}

fn relinquish_nothing() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    both.asks(vm, RELINQUISH, GUEST + 1)?;
    both.asks(vm, RELINQUISH, GUEST)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, RELINQUISH, GUEST)?;
    Ok(both)
}

fn relinquish_refused() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    for gfn in [0, GUEST - 1, GUEST + GUEST_FRAMES, 1 << 28] {
        both.asks(vm, RELINQUISH, gfn)?;
    }
    both.guest(
        vm,
        0,
        [RELINQUISH, (GUEST << 12) + 8, 0, 0],
        GuestEvent::Call,
    )?;
    both.asks(vm, SHARE, GUEST)?;
    both.run(vm, 0, 0)?;
    both.asks(vm, RELINQUISH, GUEST)?;
    Ok(both)
}

fn relinquish_hides_decoy() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, 9)?;
    both.run(vm, 0, 0)?;
    both.touch(FIRST + 3, TouchBy::Kernel)?;
    both.asks(vm, RELINQUISH, GUEST + 4)?;
    both.tear_down(vm)?;
    Ok(both)
}

/// A folio of 2 MiB cannot be split without tables.
fn dry_relinquish() -> Judged<Lockstep> {
    let (mut both, vm) = running(9)?;
    for _ in 0..64 {
        both.create(1, 1)?;
    }
    both.asks(vm, RELINQUISH, GUEST)?;
    Ok(both)
}

/// A 32-bit access of X2.
fn access(ipa: u64, write: bool) -> GuestEvent {
    GuestEvent::Access {
        ipa,
        width: 4,
        write,
        register: 2,
    }
}

fn faults() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    let (first, last) = ((GUEST << 12) + 8, (GUEST + GUEST_FRAMES - 1) << 12);
    for event in [
        access(first, true),
        access(last, false),
        GuestEvent::Fetch { ipa: first },
    ] {
        both.run(vm, 0, 0)?;
        both.guest(vm, 0, [1, 2, 3, 4], event)?;
    }
    Ok(both)
}

fn fault_served() -> Judged<Lockstep> {
    let (mut both, vm) = running(0)?;
    for event in [
        access(GUEST << 12, true),
        GuestEvent::Fetch { ipa: GUEST << 12 },
    ] {
        both.guest(vm, 0, [0; 4], event)?;
    }
    both.asks(vm, SHARE, GUEST)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], access(GUEST << 12, false))?;
    Ok(both)
}

fn fetch_outside() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0, 0, 0, 0])?;
    for ipa in [UART, GICD, (GUEST - 1) << 12] {
        both.guest(vm, 0, [1, 2, 3, 4], GuestEvent::Fetch { ipa })?;
    }
    Ok(both)
}

fn mmio_read() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0, 0, 0, 0])?;
    both.guest(vm, 0, [0; 4], access(UART, false))?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], access((GUEST + GUEST_FRAMES) << 12, false))?;
    Ok(both)
}

fn mmio_write() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0, 0, 0, 0])?;
    for width in [1, 2, 4, 8] {
        let event = GuestEvent::Access {
            ipa: UART,
            width,
            write: true,
            register: 1,
        };
        both.guest(vm, 0, [0, 0x1122_3344_5566_7788, 0, 0], event)?;
        both.run(vm, 0, 0x99)?;
    }
    Ok(both)
}

fn mmio_answer() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0, 0, 0, 0])?;
    for (width, register) in [(1, 0), (2, 30), (4, 3), (8, 2), (8, 31)] {
        both.guest(
            vm,
            0,
            [1, 2, 3, 4],
            GuestEvent::Access {
                ipa: UART,
                width,
                write: false,
                register,
            },
        )?;
        both.run(vm, 0, 0x1122_3344_5566_7788)?;
    }
    Ok(both)
}

/// Loads of a negative and of a positive number, to 32 and to 64 bits.
fn mmio_answer_signed() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0, 0, 0, 0])?;
    for (width, answer) in [1, 2, 4].into_iter().flat_map(|width| {
        [0x1122_3344_8090_F0A0, 0x1122_3344_5566_7778].map(|answer| (width, answer))
    }) {
        for wide in [false, true] {
            let event = GuestEvent::SignedLoad {
                ipa: UART,
                width,
                register: 3,
                wide,
            };
            both.guest(vm, 0, [1, 2, 3, 4], event)?;
            both.run(vm, 0, answer)?;
        }
    }
    Ok(both)
}
