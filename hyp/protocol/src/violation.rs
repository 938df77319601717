//! What is wrong: [`Violation`], a [`Rule`] by name with the entry, the CPU and what was missing.

use core::fmt;

use crate::descriptor::Level;
use crate::event::Regime;

/// A rule of the protocol, named after its breach.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// A valid entry is replaced by another valid one (DDI 0487, D8.16.1).
    NoBreak,
    /// An entry becomes valid where a TLB may hold another one still.
    MadeTooSoon,
    /// A frame gets a user, or a write of EL2, while a TLB may lead somebody else there.
    ReusedTooSoon,
    /// A table goes back to the pool while a walker may be in it.
    FreedTooSoon,
    /// A table goes back to the pool while an entry points to it, or a root while it maps something.
    FreedLinked,
    /// A root goes while its VMID may be in a TLB.
    RetiredTooSoon,
    /// A root goes while it stands in a CPU's VTTBR_EL2.
    RetiredInUse,
    /// A lock is released while an entry is broken and not yet gone from every TLB.
    LeftUnclean,
    /// A lock is released while walkers may not see a store yet.
    LeftUnpublished,
    /// A lock is released, or a root goes, while a table that was unlinked is not freed.
    Leaked,
    /// A table is linked, or a root used, while walkers may not see all of it yet.
    Unpublished,
    /// A frame becomes a table, or a root, and still holds what was there before.
    NotZeroed,
    /// What is linked, written, freed or named as root is no table that was allocated for it.
    NoTable,
    /// A table is allocated that is one already.
    AllocatedTwice,
    /// A table is linked that is linked already.
    LinkedTwice,
    /// A table can be reached through stage 2.
    TableMapped,
    /// A table is overwritten as if it were any frame.
    TableWritten,
    /// A table holds what nobody reported.
    ChangedUnseen,
    /// A table is written by a CPU that does not hold its lock.
    Unlocked,
    /// An entry of one CPU alone is written by another.
    NotPrivate,
    /// An entry is written while another CPU is about to break it.
    Race,
    /// A lock is taken that is held.
    LockHeld,
    /// A lock is released by a CPU that does not hold it.
    LockNotHeld,
    /// A VMID gets a second root.
    SharedVmid,
    /// EL2 gets a second root.
    SharedOwn,
    /// VTTBR_EL2 gets a root with a VMID that is not its own.
    WrongVmid,
    /// TTBR0_EL2 gets an ASID, of which EL2 has none.
    Asid,
    /// A TLBI by VMID comes before the ISB that makes VTTBR_EL2 hold.
    NoIsb,
    /// Somebody can reach a frame that EL2 wrote and did not clean.
    Dirty,
    /// The checker has no room for what it should remember.
    Full,
}

/// What the removal of an entry lacks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Missing {
    /// A DSB after the store that broke it.
    DsbAfterStore,
    /// A TLBI.
    Tlbi,
    /// A TLBI of its VMID: there was one of another.
    TlbiOfItsVmid,
    /// A TLBI of its address: there was one of another.
    TlbiOfItsAddress,
    /// A TLBI on all CPUs: there was one on this CPU.
    TlbiOnAllCpus,
    /// A DSB between the TLBI by IPA and that of combined entries.
    DsbAfterIpa,
    /// A TLBI of combined entries.
    TlbiOfCombined,
    /// A DSB after the last TLBI.
    DsbAfterTlbi,
}

/// An entry by what it translates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Whose.
    pub regime: Regime,
    /// Its level: 1, 2 or 3.
    pub level: Level,
    /// The first frame that it speaks for.
    pub first: u64,
}

/// A broken rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which.
    pub rule: Rule,
    /// Who.
    pub cpu: usize,
    /// Where, if it is about an entry.
    pub entry: Option<Entry>,
    /// The frame that it is about, if there is one.
    pub frame: Option<u64>,
    /// What has not happened, if that is known.
    pub missing: Option<Missing>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by CPU {}", self.rule, self.cpu)?;
        if let Some(Entry {
            regime,
            level,
            first,
        }) = self.entry
        {
            match regime {
                Regime::Own => write!(f, ", EL2's stage 1")?,
                Regime::Stage2(vmid) => write!(f, ", stage 2 of VMID {vmid}")?,
            }
            write!(
                f,
                ", entry of level {} for frame {first:#x}",
                level.number()
            )?;
        }
        if let Some(frame) = self.frame {
            write!(f, ", frame {frame:#x}")?;
        }
        match self.missing {
            Some(missing) => write!(f, ", missing {missing:?}"),
            None => Ok(()),
        }
    }
}
