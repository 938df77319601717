//! Pinfold's wire: every number that the host, guests and EL2 exchange, in one table.
//!
//! [`table`] lists host calls, guest calls, statuses, exit reasons, states, counters and limits once. From it come the Rust enums here, the
//! decoder [`HostCall::decode`], the C header of the driver (`host-shim/driver/pinfold_abi.h`) and the reference page
//! (`hyp/doc/book/src/abi.md`); a test fails when one of the two files is stale.
//!
//! Convention (SMCCC DEN0028, fast SMC64/HVC64 calls of the vendor-specific hypervisor range): the function id is
//! [`FUNCTION_BASE`] + n in x0, arguments are x1 to x7. x0 returns [`SMCCC_SUCCESS`] or [`SMCCC_NOT_SUPPORTED`], x1 the
//! [`Status`], x2 onwards the results; on a refusal x2 = index of the failing frame, x3 = folio word, x4 = pin word.
//! Arguments decode into claims ([`claim`]): a claim says what the caller means, not that it is so.
#![no_std]
#![forbid(unsafe_code)]

pub mod claim;
pub mod describe;
pub mod folio_word;
mod macros;
pub mod pin_word;
pub mod show;
pub mod table;
pub mod trace;

pub use table::{Counter, ExitReason, GuestFunction, HostCall, State, Status, TraceKind, limit};

/// x0 of call 0: SMCCC fast call, 64 bit, owner 6 (vendor-specific hypervisor service), function 0x100.
pub const FUNCTION_BASE: u64 = 0xC600_0100;

/// Functions from [`FUNCTION_BASE`] that are Pinfold's.
pub const FUNCTION_COUNT: u64 = 0x100;

/// x0 of the SMCCC call that asks whose vendor-specific calls these are (DEN0028, section 6.2).
pub const UUID_FUNCTION: u64 = 0x8600_FF01;

/// The answer to [`UUID_FUNCTION`], 5d1f8f3c-6c0b-4c0e-9a57-50494e464f4c, as w0 to w3 (bytes 0 to 3 in w0, little endian).
pub const UUID_WORDS: [u32; 4] = [0x3c8f_1f5d, 0x0e4c_0b6c, 0x4950_579a, 0x4c4f_464e];

/// The numbers of debug calls, which are not noted in the trace: they only look.
pub const DEBUG_CALLS: core::ops::Range<u64> = 0x60..0x80;

/// What VERSION returns: major in bits 31:16, minor in bits 15:0.
pub const VERSION: u64 = 0x0001_0000;

/// FEATURES bit 0: the debug calls are there.
pub const FEATURE_DEBUG_CALLS: u64 = 1;

/// `VM_CREATE` flag bit 0: the VM is protected; otherwise it is an ordinary one.
pub const VM_PROTECTED: u64 = 1;

/// Access bit 0: loads.
pub const ACCESS_READ: u64 = 1;

/// Access bit 1: stores.
pub const ACCESS_WRITE: u64 = 1 << 1;

/// Access bit 2: fetches.
pub const ACCESS_EXECUTE: u64 = 1 << 2;

/// `VCPU_CREATE` flag bit 0: the vCPU is off until another one starts it.
pub const VCPU_POWERED_OFF: u64 = 1;

/// x0: Pinfold knows the call, and x1 has the status.
pub const SMCCC_SUCCESS: u64 = 0;

/// x0: there is no such call.
pub const SMCCC_NOT_SUPPORTED: u64 = u64::MAX;
