//! A machine of tables and a checker: [`Rig`], whose methods are steps.

use std::collections::BTreeMap;

use pinfold_protocol::{Checker, Dsb, Event, Lock, Memory, Missing, Regime, Rule, Tlbi, Violation};

/// The outcome of a sequence.
pub(crate) type Outcome = Result<(), Violation>;

/// The lock of all stage 2s.
pub(crate) const MEMORY: Lock = Lock(0);
/// The lock of EL2's stage 1.
pub(crate) const OWN: Lock = Lock(1);
/// The root of EL2's stage 1, and the table of windows that hangs on its last entry but one.
pub(crate) const OWN_ROOT: u64 = 0x100;
pub(crate) const BLOCKS: u64 = 0x101;
pub(crate) const WINDOWS: u64 = 0x102;
/// The first frame that the windows speak for.
pub(crate) const WINDOW: u64 = 511 << 18 | 511 << 9;
/// Roots of two frames: of the host, which has VMID 0, and of VMID 1.
pub(crate) const HOST: u64 = 0x110;
pub(crate) const GUEST: u64 = 0x112;
/// A table of level 2 and one of level 3 of VMID 1, for its first frames.
pub(crate) const TWO: u64 = 0x114;
pub(crate) const THREE: u64 = 0x115;
/// A stage 2 that maps nothing.
pub(crate) const EMPTY: u64 = 0x120;
/// A free frame.
pub(crate) const SPARE: u64 = 0x130;
/// A frame of RAM: the first of 1 GiB without tables, which are in entry 0 of level 1.
pub(crate) const RAM: u64 = 2 << 18;

const VALID: u64 = 1;
const PAGE: u64 = 0b11;

pub(crate) const fn table(frame: u64) -> u64 {
    frame << 12 | PAGE
}

pub(crate) const fn page(frame: u64) -> u64 {
    frame << 12 | PAGE | 1 << 10
}

pub(crate) const fn block(frame: u64) -> u64 {
    frame << 12 | VALID | 1 << 10
}

/// `VTTBR_EL2` with a root and a VMID.
pub(crate) const fn vttbr(vmid: u64, root: u64) -> u64 {
    vmid << 48 | root << 12
}

#[derive(Default)]
struct Frames(BTreeMap<(u64, u16), u64>);

impl Memory for Frames {
    fn read(&self, frame: u64, index: u16) -> u64 {
        self.0.get(&(frame, index)).copied().unwrap_or(0)
    }
}

/// Two CPUs, EL2's stage 1, the host and one guest.
pub(crate) struct Rig {
    frames: Frames,
    checker: Checker<32, 64>,
}

impl Rig {
    /// The host runs on both CPUs, and CPU 0 holds both locks. The guest has page 0, which is the first frame of RAM.
    pub(crate) fn new() -> Self {
        let mut rig = Self {
            frames: Frames::default(),
            checker: Checker::new(),
        };
        rig.set_up().unwrap();
        rig
    }

    fn set_up(&mut self) -> Outcome {
        for (frame, index, value) in [
            (OWN_ROOT, 511, table(BLOCKS)),
            (BLOCKS, 511, table(WINDOWS)),
        ] {
            self.frames.0.insert((frame, index), value);
        }
        for cpu in 0..2 {
            self.see(cpu, Event::Start(0))?;
        }
        let (root, lock) = (OWN_ROOT, Some(OWN));
        self.see(0, Event::Adopt { root, lock })?;
        self.see(0, Event::Private(WINDOWS))?;
        self.see(0, Event::Empty(EMPTY))?;
        self.see(0, Event::Ttbr(OWN_ROOT << 12))?;
        self.see(0, Event::Lock(MEMORY))?;
        self.see(0, Event::Lock(OWN))?;
        self.root(0, HOST)?;
        self.root(1, GUEST)?;
        self.new_table(TWO)?;
        self.new_table(THREE)?;
        self.dsb(Dsb::InnerStores)?;
        self.store(GUEST, 0, table(TWO))?;
        self.store(TWO, 0, table(THREE))?;
        self.store(THREE, 0, page(RAM))?;
        self.dsb(Dsb::InnerStores)?;
        for cpu in 0..2 {
            self.select(cpu, 1, GUEST)?;
            self.select(cpu, 0, HOST)?;
        }
        Ok(())
    }

    /// A step of a CPU.
    pub(crate) fn see(&mut self, cpu: usize, event: Event) -> Outcome {
        self.checker.observe(cpu, event, &self.frames)
    }

    /// Allocates a table and fills it with zeroes.
    pub(crate) fn new_table(&mut self, frame: u64) -> Outcome {
        self.see(0, Event::Allocate(frame))?;
        self.frames.0.retain(|(table, _), _| *table != frame);
        self.see(0, Event::Zero(frame))
    }

    /// Makes a root of two frames.
    pub(crate) fn root(&mut self, vmid: u16, first: u64) -> Outcome {
        self.new_table(first)?;
        self.new_table(first + 1)?;
        self.dsb(Dsb::InnerStores)?;
        self.see(
            0,
            Event::Root {
                regime: Regime::Stage2(vmid),
                first,
                frames: 2,
                lock: Some(MEMORY),
            },
        )
    }

    pub(crate) fn store_by(&mut self, cpu: usize, table: u64, index: u16, value: u64) -> Outcome {
        self.see(
            cpu,
            Event::Store {
                table,
                index,
                value,
            },
        )?;
        self.frames.0.insert((table, index), value);
        Ok(())
    }

    /// A store that nobody reports.
    pub(crate) fn store_unseen(&mut self, table: u64, index: u16, value: u64) {
        self.frames.0.insert((table, index), value);
    }

    pub(crate) fn store(&mut self, table: u64, index: u16, value: u64) -> Outcome {
        self.store_by(0, table, index, value)
    }

    pub(crate) fn dsb(&mut self, dsb: Dsb) -> Outcome {
        self.see(0, Event::Dsb(dsb))
    }

    pub(crate) fn tlbi(&mut self, tlbi: Tlbi) -> Outcome {
        self.see(0, Event::Tlbi(tlbi))
    }

    /// Puts a root into `VTTBR_EL2` of a CPU.
    pub(crate) fn select(&mut self, cpu: usize, vmid: u64, root: u64) -> Outcome {
        self.see(cpu, Event::Vttbr(vttbr(vmid, root)))?;
        self.see(cpu, Event::Isb)
    }

    /// The whole sequence for pages of VMID 1.
    pub(crate) fn flush(&mut self, pages: impl IntoIterator<Item = u64>) -> Outcome {
        self.dsb(Dsb::InnerStores)?;
        self.select(0, 1, EMPTY)?;
        for page in pages {
            self.tlbi(Tlbi::Ipa(page))?;
        }
        self.dsb(Dsb::Inner)?;
        self.tlbi(Tlbi::Combined)?;
        self.dsb(Dsb::Inner)?;
        self.select(0, 0, HOST)
    }

    /// The whole sequence for all of a VMID.
    pub(crate) fn flush_vmid(&mut self, vmid: u64) -> Outcome {
        self.dsb(Dsb::InnerStores)?;
        self.select(0, vmid, EMPTY)?;
        self.tlbi(Tlbi::Vmid)?;
        self.dsb(Dsb::Inner)?;
        self.select(0, 0, HOST)
    }
}

/// Runs a sequence on a new rig: it must break this rule, and lack this.
pub(crate) fn must_fail(
    rule: Rule,
    missing: impl Into<Option<Missing>>,
    sequence: impl FnOnce(&mut Rig) -> Outcome,
) {
    let violation = sequence(&mut Rig::new()).unwrap_err();
    assert_eq!(
        (violation.rule, violation.missing),
        (rule, missing.into()),
        "{violation}"
    );
}
