//! The guest: a bare-metal image that runs one test inside a protected VM and reports through the test port.
//!
//! x0 is the boot page (`guest_test::port::BootPage`), which names the test. The verdict goes to the port, then PSCI `SYSTEM_OFF`.
//! Invariant: the guest trusts nobody; each test judges with its own eyes what the hypervisor did to it.

#![no_std]
#![no_main]
#![expect(
    clippy::result_large_err,
    reason = "a failure carries its text; there is one in a test's life"
)]

mod calls;
mod devices;
mod faults;
mod interrupts;
mod matrix;
mod registers;

use core::sync::atomic::{AtomicU64, Ordering};

use guest_test::bytes;
use guest_test::port::{self, BootPage};
use guest_test::smccc::{self, psci};
use guest_test::tap::{Outcome, Test};
use guest_test::{line, start};

/// All tests of the guest, by module.
const SUITES: &[&[Test]] = &[
    calls::TESTS,
    devices::TESTS,
    faults::TESTS,
    interrupts::TESTS,
    matrix::TESTS,
    registers::TESTS,
];

/// How often a further vCPU came up, and where its context argument ended.
static SECONDARY: AtomicU64 = AtomicU64::new(0);

/// Where vCPU 0 begins.
#[unsafe(no_mangle)]
extern "C" fn image_main(boot_page: u64, _x1: u64, _x2: u64, _x3: u64) -> ! {
    let page = core::ptr::with_exposed_provenance::<BootPage>(bytes::size(boot_page));
    // SAFETY: the mini host puts a boot page where x0 says; it is plain words and bytes, whatever they are.
    let page = unsafe { page.read() };
    let name = page.test().unwrap_or("");
    if let Some(test) = SUITES
        .iter()
        .copied()
        .flatten()
        .find(|test| test.name == name)
    {
        conclude(test.name, &(test.run)());
    } else {
        line!("no test is named {name:?}");
        port::verdict(false);
    }
    off()
}

fn conclude(name: &str, outcome: &Outcome) {
    if let Err(failure) = outcome {
        line!("{name}: {}", failure.reason());
    }
    port::verdict(outcome.is_ok());
}

/// Where further vCPUs begin: they say so and go.
#[unsafe(no_mangle)]
extern "C" fn secondary_main(index: u64) -> ! {
    SECONDARY.fetch_add(1 << 32 | index, Ordering::SeqCst);
    interrupts::greet_first_cpu();
    let _answer = smccc::hvc(psci::CPU_OFF, &[]);
    start::park()
}

fn off() -> ! {
    let _answer = smccc::hvc(psci::SYSTEM_OFF, &[]);
    start::park()
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    line!("{info}");
    port::verdict(false);
    off()
}
