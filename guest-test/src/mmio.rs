//! Device registers: every access is one plain `ldr` or `str` with a base register and nothing else.
//!
//! A compiler may turn `write_volatile` into a store with write-back, for which the CPU reports no instruction syndrome
//! (`ESR_EL2.ISV` = 0, DDI 0487 D24.2), and which a hypervisor therefore cannot emulate. Hence the assembly.

use core::arch::asm;

macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal, $register:literal) => {
        #[doc = concat!("Reads a register with one `", $load, "`.")]
        ///
        /// # Safety
        /// `address` is mapped as device memory, and reading it has no effect on Rust's memory.
        #[must_use]
        pub unsafe fn $read(address: u64) -> $type {
            let value: $type;
            // SAFETY: the caller vouches for the address; the load touches nothing else.
            unsafe {
                asm!(concat!($load, " {value:", $register, "}, [{address}]"),
                    value = out(reg) value, address = in(reg) address, options(nostack, preserves_flags));
            }
            value
        }

        #[doc = concat!("Writes a register with one `", $store, "`.")]
        ///
        /// # Safety
        /// `address` is mapped as device memory, and writing it has no effect on Rust's memory.
        pub unsafe fn $write(address: u64, value: $type) {
            // SAFETY: the caller vouches for the address; the store touches nothing else.
            unsafe {
                asm!(concat!($store, " {value:", $register, "}, [{address}]"),
                    value = in(reg) value, address = in(reg) address, options(nostack, preserves_flags));
            }
        }
    };
}

access!(read8, write8, u8, "ldrb", "strb", "w");
access!(read16, write16, u16, "ldrh", "strh", "w");
access!(read32, write32, u32, "ldr", "str", "w");
access!(read64, write64, u64, "ldr", "str", "x");
