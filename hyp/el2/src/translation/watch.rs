//! The checker of the protocol on the real machine, in an image with the feature `check-protocol`, and faults to try it with.
//!
//! [`see`] gets every step of every CPU; what breaks a rule ends in a panic that begins with `protocol: ` and names it. The checker has a
//! lock of its own, under which nothing else happens. While EL2 panics it hears nothing.
//!
//! A [`Fault`] makes EL2 leave out or bend one step. The word `pinfold.fault=NAME` in EL2's own arguments chooses one; it is on from
//! the moment that the host is entered.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use crate::lock::SpinMutex;
use aarch64_cpu::registers::{Readable, TTBR0_EL2};
use pinfold_core::addr::{FRAME_SHIFT, Pfn};
use pinfold_core::machine::{RootTables, Vmid};
use pinfold_protocol::{Checker, Event, Lock, Memory, Regime};

use super::root;
use super::table::Table;
use crate::width::{narrow, wide};
use crate::{panic, percpu};

/// Tables at a time, and runs of neighbours that are being removed.
const TABLES: usize = 1024;
const RUNS: usize = 512;

static CHECKER: SpinMutex<Checker<TABLES, RUNS>> = SpinMutex::new(Checker::new());

/// Set by [`set_up`]: what comes before cannot be reported, for want of an MMU.
static LISTENS: AtomicBool = AtomicBool::new(false);

/// The tables themselves.
struct Tables;

impl Memory for Tables {
    fn read(&self, frame: u64, index: u16) -> u64 {
        // SAFETY: the checker reads frames that were reported as tables: they are EL2's, mapped at their own address, until
        // they are reported as freed.
        let table = unsafe { Table::at(narrow(frame << FRAME_SHIFT)) };
        table.load(usize::from(index))
    }
}

/// The frame at an address.
pub(crate) fn frame(address: usize) -> u64 {
    wide(address >> FRAME_SHIFT)
}

/// The index of an entry; there are 512.
pub(crate) fn index(entry: usize) -> u16 {
    u16::try_from(entry).unwrap_or(u16::MAX)
}

/// Tells the checker of a step of this CPU.
pub(crate) fn see(event: Event) {
    if !LISTENS.load(Ordering::Relaxed) || panic::has_begun() {
        return;
    }
    let cpu = percpu::current().index();
    // Free again before a panic speaks.
    let verdict = CHECKER.lock().observe(cpu, event, &Tables);
    if let Err(violation) = verdict {
        wrong(&violation);
    }
}

#[expect(clippy::panic, reason = "EL2 has found itself wrong")]
fn wrong(violation: &pinfold_protocol::Violation) -> ! {
    panic!("protocol: {violation}")
}

/// Shows the checker the tables that EL2 runs on. Once, on the boot CPU. Entry `n` of `windows` is CPU `n`'s own.
pub(crate) fn set_up(root: &Table, windows: &Table) {
    LISTENS.store(true, Ordering::Relaxed);
    let lock = Some(Lock(super::lock::STAGE1));
    let root = frame(root.address());
    see(Event::Adopt { root, lock });
    see(Event::Private(frame(windows.address())));
    see(Event::Empty(root::empty() >> FRAME_SHIFT));
    set_up_cpu();
}

/// Tells what this CPU has come up with.
pub(crate) fn set_up_cpu() {
    see(Event::Start(root::selected()));
    see(Event::Ttbr(TTBR0_EL2.get()));
}

/// Tells that frames of zeroes, as the heap gave them, are to be tables.
pub(crate) fn allocated(address: usize, count: usize) {
    for (frame, _) in (frame(address)..).zip(0..count) {
        see(Event::Allocate(frame));
        see(Event::Zero(frame));
    }
}

/// Tells that tables are about to go back to the heap.
pub(crate) fn freed(address: usize, count: usize) {
    for (frame, _) in (frame(address)..).zip(0..count) {
        see(Event::Free(frame));
    }
}

/// Tells which VMID names a root.
pub(crate) fn named(root: RootTables, vmid: Vmid) {
    see(Event::Root {
        regime: Regime::Stage2(vmid.0),
        first: root.low.frame().raw(),
        frames: 2,
        lock: Some(Lock(super::lock::MEMORY)),
    });
}

/// Tells that EL2 wrote into a frame that is to be somebody else's.
pub(crate) fn written(frame: Pfn) {
    see(Event::Write(frame.raw()));
}

/// Tells that a frame was cleaned to the point of coherency.
pub(crate) fn cleaned(frame: Pfn) {
    see(Event::Clean(frame.raw()));
}

macro_rules! faults {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        /// One way to break the protocol.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub(crate) enum Fault {
            $(#[doc = $text] $name,)*
        }

        impl Fault {
            const fn number(self) -> u8 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// The fault of this name.
            pub(crate) fn named(name: &str) -> Option<Self> {
                match name {
                    $(stringify!($name) => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

faults! {
    NoDsbBefore = 1, "No DSB before a TLBI.";
    NoTlbi = 2, "No TLBI of a stage 2.";
    NoDsbBetween = 3, "No DSB between the two TLBIs of a stage 2.";
    NoCombined = 4, "No TLBI of combined entries.";
    NoDsbAfter = 5, "No DSB after a TLBI.";
    OneCpu = 6, "The TLBI of a stage 2 is that of one CPU.";
    OtherVmid = 7, "The TLBI of a stage 2 is that of another.";
    ShortRange = 8, "A TLBI of frames leaves out the last one.";
    NoIsb = 9, "No ISB after a write of VTTBR_EL2.";
    NoPublish = 10, "No DSB after stores of descriptors.";
    NoOwnTlbi = 11, "No TLBI of EL2's own stage 1.";
    NoWindowTlbi = 12, "No TLBI of a window.";
    NoClean = 13, "What is wiped is not cleaned.";
    WrongRoot = 14, "A guest runs under another VMID.";
}

/// What a word of EL2's own arguments begins with that chooses a fault.
const CHOICE: &str = "pinfold.fault=";
/// The numbers of the fault that was chosen, and of the one that is on; 0 is none.
static CHOSEN: AtomicU8 = AtomicU8::new(0);
static BEGUN: AtomicU8 = AtomicU8::new(0);

/// Chooses the fault that one of these words names.
pub(crate) fn choose_fault<'a>(mut arguments: impl Iterator<Item = &'a str>) {
    let fault = arguments.find_map(|word| word.strip_prefix(CHOICE).and_then(Fault::named));
    CHOSEN.store(fault.map_or(0, Fault::number), Ordering::Relaxed);
}

/// Turns the chosen fault on.
pub(crate) fn begin_fault() {
    BEGUN.store(CHOSEN.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Whether the fault is on.
pub(crate) fn is(fault: Fault) -> bool {
    BEGUN.load(Ordering::Relaxed) == fault.number()
}
