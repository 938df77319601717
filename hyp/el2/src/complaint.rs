//! Why EL2 cannot start, as one line: what is wrong; what to change.
//!
//! Everything that a person can get wrong around EL2 (the machine, the device tree, the modules) ends in a [`Complaint`],
//! never in a panic. [`stop`] prints it and powers off.

use core::fmt::{self, Write};

use crate::console::Uart;
use crate::{psci, semihosting};

/// What is wrong, and what to change.
#[derive(Debug)]
pub(crate) enum Complaint {
    Image { start: usize },
    Cpu(&'static str),
    NoDeviceTree { address: usize },
    DeviceTree(&'static str),
    NodeMissing(&'static str, &'static str),
    Gic,
    Psci,
    Cpus { found: usize },
    TooLittleMemory { mebibytes: u64 },
    MemoryTooHigh,
    NoKernel,
    NotAnImage { start: u64 },
    KernelMisplaced { start: u64 },
    Overlap(&'static str, &'static str),
    OutsideMemory(&'static str),
    OutOfFrames,
}

impl fmt::Display for Complaint {
    #[expect(
        clippy::too_many_lines,
        reason = "one arm for each line that can be printed"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image { start } => {
                write!(
                    f,
                    "the image lies at {start:#x}; load it at a multiple of 2 MiB, as QEMU's -kernel does"
                )
            }
            Self::Cpu(lacks) => write!(
                f,
                "the CPU has {lacks}; give QEMU -cpu cortex-a76 or -cpu max"
            ),
            Self::NoDeviceTree { address } => {
                write!(
                    f,
                    "no device tree at {address:#x}; start the image with QEMU's -kernel, which passes one in x0"
                )
            }
            Self::DeviceTree(what) => write!(
                f,
                "the device tree is damaged: {what}; give the one that QEMU makes"
            ),
            Self::NodeMissing(what, change) => write!(f, "the device tree has no {what}; {change}"),
            Self::Gic => write!(
                f,
                "the interrupt controller is not a GICv3; give QEMU -M virt,gic-version=3"
            ),
            Self::Psci => write!(
                f,
                "PSCI is not called by SMC; give QEMU -M virt,virtualization=on,secure=off"
            ),
            Self::Cpus { found } => write!(
                f,
                "the machine has {found} CPUs, EL2 knows 1 to 8; change QEMU's -smp"
            ),
            Self::TooLittleMemory { mebibytes } => {
                write!(
                    f,
                    "the machine has {mebibytes} MiB of RAM, 512 MiB are needed; give QEMU -m 512M or more"
                )
            }
            Self::MemoryTooHigh => write!(f, "RAM lies at or above 512 GiB; give QEMU less of it"),
            Self::NoKernel => write!(
                f,
                "no host kernel: /chosen has no multiboot,kernel module; give QEMU -device guest-loader,addr=0x41000000,kernel=Image"
            ),
            Self::NotAnImage { start } => {
                write!(
                    f,
                    "the host kernel at {start:#x} is not an arm64 Image; load arch/arm64/boot/Image, uncompressed"
                )
            }
            Self::KernelMisplaced { start } => {
                write!(
                    f,
                    "the host kernel lies at {start:#x}; load it at a multiple of 2 MiB plus its text offset"
                )
            }
            Self::Overlap(one, other) => {
                write!(f, "{one} and {other} overlap; load them further apart")
            }
            Self::OutsideMemory(what) => write!(
                f,
                "{what} does not lie in RAM; load it there, or give QEMU more -m"
            ),
            Self::OutOfFrames => write!(
                f,
                "EL2's 2 MiB are used up while starting; build it without debug options"
            ),
        }
    }
}

/// Prints the line and ends the machine: with exit code 1 if semihosting is there, else by PSCI.
pub(crate) fn stop(complaint: &Complaint) -> ! {
    // The UART takes every byte or drops it.
    let _ = writeln!(Uart, "pinfold: {complaint}");
    semihosting::exit_if_wanted(1);
    psci::power_off()
}
