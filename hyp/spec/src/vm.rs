//! VMs and vCPUs, as far as calls and exits tell.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;
use pinfold_abi::Status;

use crate::clause::Clause;
use crate::guest::extend;
use crate::map::Map;
use crate::rules::Gic;
use crate::ruling::{Refuse, refuse, require};
use crate::state::State;

/// Where in its life a VM is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Before `VM_START`.
    Created,
    /// Between `VM_START` and `VM_TEARDOWN_BEGIN`.
    Live,
    /// After `VM_TEARDOWN_BEGIN`.
    Dying,
}

/// The registers of a guest that calls and exits may change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct GuestRegisters {
    /// X0 to X30.
    pub x: [u64; 31],
    /// The instruction to execute next.
    pub pc: u64,
}

impl GuestRegisters {
    /// X0 to X3.
    pub(crate) const fn arguments(&self) -> [u64; 4] {
        let [x0, x1, x2, x3, ..] = self.x;
        [x0, x1, x2, x3]
    }

    /// Writes X0 to X3.
    pub(crate) fn answer(&mut self, values: [u64; 4]) {
        self.x
            .iter_mut()
            .zip(values)
            .for_each(|(x, value)| *x = value);
    }

    /// Xn; XZR is 0.
    pub(crate) fn read(&self, number: u8) -> u64 {
        self.x.get(usize::from(number)).copied().unwrap_or(0)
    }

    /// Writes Xn; XZR is not written.
    pub(crate) fn write(&mut self, number: u8, value: u64) {
        if let Some(x) = self.x.get_mut(usize::from(number)) {
            *x = value;
        }
    }
}

/// Whether a vCPU runs when the host runs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    /// It says `POWERED_OFF`.
    Off,
    /// It starts afresh.
    Starting { entry: u64, argument: u64 },
    /// It goes on.
    On,
}

/// What the answer of the next run is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Awaits {
    /// Nothing.
    Nothing,
    /// The value that a load finds.
    Load {
        width: u8,
        register: u8,
        extension: Extension,
    },
    /// Whether the host takes part in a share.
    Share { gfn: u64 },
    /// Whether the host agrees to an unshare.
    Unshare,
}

/// How a load fills what it does not find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Extension {
    /// With zeroes.
    Zeroes,
    /// With the sign, to 64 bits or to 32.
    Sign { wide: bool },
}

impl Extension {
    /// The register after a load of the low `width` bytes of `value`.
    pub(crate) fn loaded(self, value: u64, width: u8) -> u64 {
        let zeroes = extend(value, width);
        let Self::Sign { wide } = self else {
            return zeroes;
        };
        let unused = 64 - 8 * u32::from(width.min(8));
        let signed = ((zeroes << unused).cast_signed() >> unused).cast_unsigned();
        extend(signed, if wide { 8 } else { 4 })
    }
}

/// A vCPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Vcpu {
    pub(crate) registers: GuestRegisters,
    pub(crate) power: Power,
    pub(crate) ran: bool,
    pub(crate) loaded: bool,
    pub(crate) crashed: Option<u64>,
    pub(crate) awaits: Awaits,
    /// `CNTV_CTL_EL0` and `CNTV_CVAL_EL0`, if they are told.
    pub(crate) timer: Option<(u64, u64)>,
}

/// How a frame of the host's is shared with an ordinary VM.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grant {
    /// Bit 0: read, bit 1: write, bit 2: execute.
    pub(crate) access: u64,
    /// It is part of a block.
    pub(crate) block: bool,
}

/// A VM.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Vm {
    /// The host donates its memory; otherwise it is the host's.
    pub(crate) protected: bool,
    pub(crate) phase: Phase,
    /// How many vCPUs it may have.
    pub(crate) count: u64,
    pub(crate) vcpus: Map<u64, Vcpu>,
    /// Guest RAM: first frame and count.
    pub(crate) regions: Vec<(u64, u64)>,
    /// The first byte of distributor and redistributors.
    pub(crate) gic: Option<(u64, u64)>,
    /// What its interrupt controller holds.
    pub(crate) interrupts: Arc<Gic>,
    /// By GFN: the frames that it has, those on their way to the host included.
    pub(crate) frames: Map<u64, u64>,
    /// By GFN: how the frames are shared with it that are the host's.
    pub(crate) grants: Map<u64, Grant>,
    /// What every further run says: exit reason and reset type.
    pub(crate) ended: Option<(u64, u64)>,
}

impl Vm {
    /// One without anything.
    pub(crate) fn new(protected: bool, count: u64) -> Self {
        Self {
            protected,
            phase: Phase::Created,
            count,
            vcpus: Map::new(),
            regions: Vec::new(),
            gic: None,
            interrupts: Arc::new(Gic::new()),
            frames: Map::new(),
            grants: Map::new(),
            ended: None,
        }
    }

    /// Whether one region holds all of the range.
    pub(crate) fn is_ram(&self, gfn: u64, count: u64) -> bool {
        self.regions
            .iter()
            .any(|(first, frames)| *first <= gfn && gfn + count <= first + frames)
    }

    /// Refuses by the clause of the phases unless the VM is in one of them.
    pub(crate) fn require(&self, clause: Clause, phases: &[Phase]) -> Result<(), Refuse> {
        require(
            phases.contains(&self.phase),
            refuse(clause, Status::WrongPhase),
        )
    }

    /// Refuses a VM of the other kind.
    pub(crate) fn require_protected(&self, protected: bool) -> Result<(), Refuse> {
        require(
            self.protected == protected,
            refuse(Clause::OnlyForItsKind, Status::WrongKind),
        )
    }

    /// The vCPU, if it was created.
    pub(crate) fn vcpu(&mut self, index: u64) -> Result<&mut Vcpu, Refuse> {
        self.vcpus
            .get_mut(&index)
            .ok_or(refuse(Clause::VcpuUnknown, Status::NoSuchVcpu))
    }
}

impl State {
    /// The VM that a handle names.
    pub(crate) fn vm(&mut self, handle: u64) -> Result<&mut Vm, Refuse> {
        self.vms
            .get_mut(&handle)
            .ok_or(refuse(Clause::HandleUnknown, Status::NoSuchVm))
    }

    /// The slots of all VMs: bits 7:0 of their handles.
    pub(crate) fn slots(&self) -> BTreeSet<u64> {
        self.vms.keys().map(|handle| handle & 0xFF).collect()
    }
}
