//! The mini host: a bare-metal EL1 image that takes Linux's place under Pinfold and tests every hypercall.
//!
//! It takes a device tree in x0 (bootargs `test=<part of a name>` chooses tests, `storm=<seconds> seed=<number>` asks for a storm, `scenarios` says that the initrd
//! is their texts) and the guest image as the initrd, keeps a pin table of its own,
//! makes VMs, prints TAP on the PL011, and ends with PSCI `SYSTEM_OFF`. Started without Pinfold it says so and ends.
//!
//! Invariant: each test leaves frames, pins, pool and VMs as it found them, also when it fails.

#![no_std]
#![no_main]
#![expect(
    clippy::result_large_err,
    reason = "a failure carries its text; there is one in a test's life"
)]

extern crate alloc;

mod calls;
mod folio;
mod frames;
mod heap;
mod interrupts;
mod micro;
mod platform;
mod pool;
mod scenarios;
mod smp;
mod storm;
mod suites;
mod vm;

use guest_test::smccc::{self, psci};
use guest_test::{bytes, gic, line, probe, start, tap};

/// Where CPU 0 begins: x0 is the device tree.
#[unsafe(no_mangle)]
extern "C" fn image_main(device_tree: u64, _x1: u64, _x2: u64, _x3: u64) -> ! {
    heap::install();
    if let Err(missing) = platform::read(device_tree) {
        line!("Bail out! {missing}");
        off();
    }
    line!(
        "# mini host at EL{}, device tree at {device_tree:#x}",
        start::exception_level()
    );
    if !calls::pinfold_answers() {
        line!(
            "Bail out! no Pinfold answers the UUID call; start this image under pinfold.img, see guest-test/README.md"
        );
        off();
    }
    gic::start(0);
    gic::enable(0, guest_test::timer::PHYSICAL_INTID);
    let machine = platform::machine();
    if machine.option("scenarios").is_some() {
        scenarios::run();
    } else if storm::is_wanted() {
        let _summary = tap::run(&[storm::TESTS], "");
    } else {
        let _summary = tap::run(suites::ALL, machine.option("test=").unwrap_or(""));
    }
    off()
}

/// Where further CPUs begin.
#[unsafe(no_mangle)]
extern "C" fn secondary_main(index: u64) -> ! {
    smp::serve(index)
}

/// Ends the machine: PSCI by SMC, or by HVC on a machine that was started without EL2.
fn off() -> ! {
    unsafe extern "C" fn by_smc(function: u64, _unused: u64) -> u64 {
        let [x0, ..] = smccc::smc(bytes::low32(function), &[]);
        x0
    }
    // SAFETY: without a level that takes SMCs this is an undefined instruction, which the probe catches.
    if unsafe { probe::call(by_smc, u64::from(psci::SYSTEM_OFF), 0) }.is_err() {
        let _answer = smccc::hvc(psci::SYSTEM_OFF, &[]);
    }
    start::park()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    line!("Bail out! {info}");
    off()
}
