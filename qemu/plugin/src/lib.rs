//! A TCG plugin for QEMU: counts the instructions that a machine executes, EL2's apart.
//!
//! When the first program starts it prints `counted: <all> instructions, <n> in EL2`. Time cannot
//! tell that: a machine that waits for its timer lets time pass and executes nothing. What is
//! declared here is the part of `qemu-plugin.h` (QEMU 10.0, plugin API 4) that is used; Debian
//! ships no header.

use std::ffi::{c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::{Once, OnceLock};

/// Where QEMU puts EL2's image, which runs where it is loaded: nothing else has these addresses.
const EL2: std::ops::Range<u64> = 0x4020_0000..0x4040_0000;

/// Where static programs of arm64 Linux are; RAM, kernel and EL2 are above.
const PROGRAMS: std::ops::Range<u64> = 0x1_0000..0x100_0000;

/// `QEMU_PLUGIN_INLINE_ADD_U64`.
const ADD: c_int = 0;

/// A `qemu_plugin_id_t`.
type Id = u64;

/// A `struct qemu_plugin_tb`.
#[repr(C)]
struct Block {
    opaque: [u8; 0],
}

/// A `struct qemu_plugin_insn`.
#[repr(C)]
struct Instruction {
    opaque: [u8; 0],
}

/// A `struct qemu_plugin_scoreboard`.
#[repr(C)]
struct Scoreboard {
    opaque: [u8; 0],
}

/// A `qemu_plugin_u64`: a counter of each CPU.
#[repr(C)]
#[derive(Clone, Copy)]
struct Counter {
    scoreboard: NonNull<Scoreboard>,
    offset: usize,
}

// SAFETY: QEMU gives each CPU its own slot of a scoreboard, and any thread may read the sum.
unsafe impl Send for Counter {}
// SAFETY: as above.
unsafe impl Sync for Counter {}

unsafe extern "C" {
    fn qemu_plugin_register_vcpu_tb_trans_cb(id: Id, callback: extern "C" fn(Id, *mut Block));
    fn qemu_plugin_tb_n_insns(block: *const Block) -> usize;
    fn qemu_plugin_tb_get_insn(block: *const Block, index: usize) -> *mut Instruction;
    fn qemu_plugin_insn_vaddr(instruction: *const Instruction) -> u64;
    fn qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
        instruction: *mut Instruction,
        operation: c_int,
        counter: Counter,
        amount: u64,
    );
    fn qemu_plugin_scoreboard_new(size: usize) -> *mut Scoreboard;
    fn qemu_plugin_u64_sum(counter: Counter) -> u64;
}

/// The counters, once the plugin is installed.
static COUNTERS: OnceLock<Counters> = OnceLock::new();

struct Counters {
    el2: Counter,
    others: Counter,
    reported: Once,
}

/// The API that this plugin speaks; QEMU looks for it by name.
// SAFETY: nobody else in QEMU has this name: each plugin is loaded for itself.
#[unsafe(no_mangle)]
pub static qemu_plugin_version: c_int = 4;

/// QEMU's first call; 0 means that the plugin is in place.
// SAFETY: as above.
#[unsafe(no_mangle)]
pub extern "C" fn qemu_plugin_install(
    id: Id,
    _machine: *const c_void,
    _count: c_int,
    _arguments: *mut *mut c_char,
) -> c_int {
    let (Some(el2), Some(others)) = (counter(), counter()) else {
        return 1;
    };
    if COUNTERS
        .set(Counters {
            el2,
            others,
            reported: Once::new(),
        })
        .is_err()
    {
        return 1;
    }
    // SAFETY: `id` is ours, and the callback is a function of the type that QEMU expects.
    unsafe { qemu_plugin_register_vcpu_tb_trans_cb(id, translated) };
    0
}

fn counter() -> Option<Counter> {
    // SAFETY: a plain call with a size.
    let scoreboard = unsafe { qemu_plugin_scoreboard_new(size_of::<u64>()) };
    NonNull::new(scoreboard).map(|scoreboard| Counter {
        scoreboard,
        offset: 0,
    })
}

/// QEMU has translated a block: each of its instructions gets a counter.
extern "C" fn translated(_id: Id, block: *mut Block) {
    let Some(counters) = COUNTERS.get() else {
        return;
    };
    // SAFETY: QEMU lends the block for this call.
    let length = unsafe { qemu_plugin_tb_n_insns(block) };
    for index in 0..length {
        // SAFETY: `index` is below the block's length.
        let instruction = unsafe { qemu_plugin_tb_get_insn(block, index) };
        // SAFETY: QEMU lends the instruction with its block.
        let address = unsafe { qemu_plugin_insn_vaddr(instruction) };
        if PROGRAMS.contains(&address) {
            counters.reported.call_once(|| report(counters));
        }
        let counter = if EL2.contains(&address) {
            counters.el2
        } else {
            counters.others
        };
        // SAFETY: as above; the counter lives as long as QEMU.
        unsafe {
            qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(instruction, ADD, counter, 1);
        };
    }
}

/// The first program has been translated, so it is about to start.
fn report(counters: &Counters) {
    // SAFETY: the counter lives as long as QEMU.
    let el2 = unsafe { qemu_plugin_u64_sum(counters.el2) };
    // SAFETY: as above.
    let others = unsafe { qemu_plugin_u64_sum(counters.others) };
    eprintln!("counted: {} instructions, {el2} in EL2", el2 + others);
}
