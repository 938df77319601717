//! A virtual CPU: everything of it that must be somewhere while it does not run.
//!
//! [`GuestContext`] is laid out for the world switch (`repr(C)`, offsets taken with `offset_of!`); nothing of it
//! ever reaches the host but the few words of a [`VcpuExit`]. [`Vcpu`] adds what the core remembers between two
//! runs. A vCPU that runs is *moved* out of its VM into a [`LoadedVcpu`], so it cannot be loaded twice.

use crate::addr::Gfn;
use crate::exit::Access;
use crate::hypervisor::CallRegisters;
use crate::injection::Injection;
use crate::owned::Owned;
use crate::vgic::ListRegisters;
use crate::vm::VmHandle;
use pinfold_abi::{ExitReason, SMCCC_SUCCESS, Status};

/// PSTATE at reset and after `CPU_ON`: `EL1h`, all of DAIF masked (DDI 0487 D1.2.3; PSCI DEN0022 6.4).
pub const RESET_PSTATE: u64 = 0x3c5;
/// `SCTLR_EL1` at reset: MMU, caches and alignment checks off, RES1 bits set (DDI 0487 D24.2.175).
pub const RESET_SCTLR: u64 = 0x30d0_0980;

/// The registers of a guest.
#[repr(C)]
#[derive(Clone, Debug, Default)]
pub struct GuestContext {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Where the guest goes on.
    pub pc: u64,
    /// PSTATE in the form of `SPSR_EL2`.
    pub pstate: u64,
    /// System registers of EL1 and EL0.
    pub el1: El1State,
    /// The virtual timer.
    pub timer: TimerState,
    /// The virtual CPU interface.
    pub gic: InterfaceState,
    /// FP and Advanced SIMD.
    pub fp: FpState,
}

/// System registers of EL1 and EL0 that a guest owns, and that the host gets back unchanged.
///
/// Extensions that a protected guest does not have (SVE, SME, MTE, `TCR2`, `SCTLR2`, permission indirection and overlays)
/// are absent: their registers trap, and their effect is off while the guest runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct El1State {
    /// `SCTLR_EL1`.
    pub sctlr: u64,
    /// `CPACR_EL1`.
    pub cpacr: u64,
    /// `TTBR0_EL1`.
    pub ttbr0: u64,
    /// `TTBR1_EL1`.
    pub ttbr1: u64,
    /// `TCR_EL1`.
    pub tcr: u64,
    /// `ESR_EL1`.
    pub esr: u64,
    /// `FAR_EL1`.
    pub far: u64,
    /// `AFSR0_EL1`.
    pub afsr0: u64,
    /// `AFSR1_EL1`.
    pub afsr1: u64,
    /// `MAIR_EL1`.
    pub mair: u64,
    /// `AMAIR_EL1`.
    pub amair: u64,
    /// `CONTEXTIDR_EL1`.
    pub contextidr: u64,
    /// `VBAR_EL1`.
    pub vbar: u64,
    /// `CNTKCTL_EL1`.
    pub cntkctl: u64,
    /// `PAR_EL1`.
    pub par: u64,
    /// `CSSELR_EL1`.
    pub csselr: u64,
    /// `TPIDR_EL0`.
    pub tpidr_el0: u64,
    /// `TPIDRRO_EL0`.
    pub tpidrro_el0: u64,
    /// `TPIDR_EL1`.
    pub tpidr_el1: u64,
    /// `SP_EL0`.
    pub sp_el0: u64,
    /// `SP_EL1`.
    pub sp_el1: u64,
    /// `ELR_EL1`.
    pub elr: u64,
    /// `SPSR_EL1`.
    pub spsr: u64,
    /// `MDSCR_EL1`.
    pub mdscr: u64,
    /// The five pointer authentication keys, low and high words: IA, IB, DA, DB, GA.
    pub pauth: [u64; 10],
}

/// The virtual timer. `CNTVOFF_EL2` is 0 for protected guests.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct TimerState {
    /// `CNTV_CTL_EL0`.
    pub control: u64,
    /// `CNTV_CVAL_EL0`.
    pub compare: u64,
}

/// The virtual CPU interface (IHI 0069 12.4).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct InterfaceState {
    /// `ICH_VMCR_EL2`: the guest's PMR, BPR and group enables.
    pub vmcr: u64,
    /// `ICH_AP0R<n>_EL2`.
    pub ap0r: [u64; 4],
    /// `ICH_AP1R<n>_EL2`.
    pub ap1r: [u64; 4],
}

/// FP and Advanced SIMD.
#[repr(C, align(16))]
#[derive(Clone, Debug, Default)]
pub struct FpState {
    /// V0 to V31.
    pub v: [u128; 32],
    /// `FPSR`.
    pub fpsr: u64,
    /// `FPCR`.
    pub fpcr: u64,
}

/// What a vCPU waits for from the host before it can go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Awaited {
    /// Nothing.
    #[default]
    Nothing,
    /// The value of an MMIO load.
    Load(Access),
    /// Whether the host took the frame that the guest shared: 0 if so, anything else gives it back.
    Share(Gfn),
    /// Leave to unshare: 0 executes the guest's call again, anything else refuses it.
    Unshare,
}

/// A virtual CPU between two runs.
#[derive(Clone, Debug, Default)]
pub struct Vcpu {
    /// Its registers.
    pub context: GuestContext,
    /// What the list registers hold.
    pub lists: ListRegisters,
    /// What it waits for.
    pub awaited: Awaited,
    /// The exception it takes next.
    pub injection: Option<Injection>,
    /// It ran, so the host cannot set a register any more.
    pub ran: bool,
    /// It cannot run again; the value is the ESR without operands.
    pub crashed: Option<u64>,
}

impl Vcpu {
    /// A vCPU as it comes out of reset.
    #[must_use]
    pub fn reset() -> Self {
        let mut vcpu = Self::default();
        vcpu.context.pstate = seeded!(StartsUnmasked, 5, RESET_PSTATE);
        vcpu.context.el1.sctlr = RESET_SCTLR;
        vcpu
    }

    /// A vCPU that another one starts at `entry` (PSCI DEN0022 5.6).
    #[must_use]
    pub fn started(entry: u64, argument: u64) -> Self {
        let mut vcpu = Self::reset();
        vcpu.context.pc = entry;
        vcpu.context.set_register(0, argument);
        vcpu
    }
}

impl GuestContext {
    /// Xn, where 31 reads as zero.
    #[must_use]
    pub fn register(&self, number: u8) -> u64 {
        self.x.get(usize::from(number)).copied().unwrap_or(0)
    }

    /// Writes Xn, where 31 is not written.
    pub fn set_register(&mut self, number: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    /// It runs in `AArch32` (PSTATE.nRW), which only EL0 can.
    #[must_use]
    pub fn is_aarch32(&self) -> bool {
        self.pstate & 1 << 4 != 0
    }

    /// Steps over the instruction that trapped. All A64 instructions have four bytes.
    pub fn skip_instruction(&mut self) {
        self.pc = self.pc.wrapping_add(4);
    }

    /// Goes back to the `HVC` that brought us here (DDI 0487 D1.3.6: the return address is behind it).
    pub fn repeat_call(&mut self) {
        self.pc = self.pc.wrapping_sub(4);
    }
}

/// Why a run ended: all that the host learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuExit {
    /// An interrupt of the host came.
    Interrupt,
    /// The vCPU waits for an interrupt.
    WaitForInterrupt {
        /// `CNTVCT_EL0` at which its timer fires; `u64::MAX` for never.
        deadline: u64,
    },
    /// Guest memory is missing, or an ordinary VM may not use it so.
    MemoryFault {
        /// The frame.
        gfn: u64,
        /// A store missed it.
        write: bool,
        /// A fetch missed it.
        execute: bool,
        /// It is there.
        denied: bool,
    },
    /// A device is to be read; the next run's answer is the value.
    MmioRead {
        /// Address.
        ipa: u64,
        /// Bytes.
        width: u8,
    },
    /// A device was written.
    MmioWrite {
        /// Address.
        ipa: u64,
        /// Bytes.
        width: u8,
        /// What was written.
        value: u64,
    },
    /// The guest shared frames.
    Shared {
        /// The first frame.
        gfn: u64,
        /// How many.
        count: u64,
    },
    /// The guest wants frames back.
    UnshareRequest {
        /// The first frame.
        gfn: u64,
        /// How many.
        count: u64,
    },
    /// The guest gave frames back.
    Relinquished {
        /// The first frame.
        gfn: u64,
        /// How many.
        count: u64,
    },
    /// The guest switched another vCPU on.
    CpuOn {
        /// Its index.
        index: u8,
    },
    /// This vCPU is off.
    PoweredOff,
    /// The guest switched the machine off.
    SystemOff,
    /// The guest wants to start again.
    SystemReset {
        /// PSCI's reset type, 0 for `SYSTEM_RESET`.
        kind: u64,
    },
    /// The vCPU cannot run again.
    Crashed {
        /// The ESR without operands.
        esr: u64,
    },
    /// Other vCPUs have an interrupt to take: whoever runs must leave its guest, whoever waits must wake.
    Kick {
        /// Bit n stands for vCPU n.
        vcpus: u64,
    },
}

impl VcpuExit {
    /// Exit reason and its three details, as x2 to x5 of `VCPU_RUN`.
    #[must_use]
    pub fn words(self) -> [u64; 4] {
        match self {
            Self::Interrupt => [ExitReason::Interrupt.number(), 0, 0, 0],
            Self::WaitForInterrupt { deadline } => [ExitReason::Wfi.number(), deadline, 0, 0],
            Self::MemoryFault {
                gfn,
                write,
                execute,
                denied,
            } => [
                ExitReason::MemoryFault.number(),
                gfn,
                u64::from(write) | u64::from(execute) << 1 | u64::from(denied) << 2,
                0,
            ],
            Self::MmioRead { ipa, width } => {
                [ExitReason::MmioRead.number(), ipa, u64::from(width), 0]
            }
            Self::MmioWrite { ipa, width, value } => {
                [ExitReason::MmioWrite.number(), ipa, u64::from(width), value]
            }
            Self::Shared { gfn, count } => [ExitReason::Shared.number(), gfn, count, 0],
            Self::UnshareRequest { gfn, count } => {
                [ExitReason::UnshareRequest.number(), gfn, count, 0]
            }
            Self::Relinquished { gfn, count } => [ExitReason::Relinquished.number(), gfn, count, 0],
            Self::CpuOn { index } => [ExitReason::CpuOn.number(), u64::from(index), 0, 0],
            Self::PoweredOff => [ExitReason::PoweredOff.number(), 0, 0, 0],
            Self::SystemOff => [ExitReason::SystemOff.number(), 0, 0, 0],
            Self::SystemReset { kind } => [ExitReason::SystemReset.number(), kind, 0, 0],
            Self::Crashed { esr } => [ExitReason::Crashed.number(), esr, 0, 0],
            Self::Kick { vcpus } => [ExitReason::Kick.number(), vcpus, 0, 0],
        }
    }

    /// Puts it into the registers of the host that called `VCPU_RUN`: x0 and x1 say success.
    pub fn report(self, registers: &mut CallRegisters) {
        let [reason, first, second, third] = self.words();
        let results = [
            SMCCC_SUCCESS,
            Status::Ok.number(),
            reason,
            first,
            second,
            third,
        ];
        for (register, result) in registers.x.iter_mut().zip(results) {
            *register = result;
        }
    }
}

/// A vCPU that is out of its VM because it runs.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct LoadedVcpu {
    /// Handle of the VM.
    pub(crate) vm: VmHandle,
    /// Its index there.
    pub(crate) index: u8,
    /// The vCPU itself.
    pub vcpu: Owned<Vcpu>,
    /// `VTTBR_EL2`: root table and VMID of its stage 2.
    pub translation: u64,
    /// `VMPIDR_EL2`.
    pub affinity: u64,
    /// The list registers in `vcpu` are not those of the hardware any more.
    pub lists_changed: bool,
    /// Another vCPU of this VM ran here last, so that TLB and instruction cache may hold its private view.
    pub stale: bool,
}

impl LoadedVcpu {
    /// VM handle and index, as the trace has them.
    #[must_use]
    pub fn name(&self) -> [u64; 2] {
        [self.vm.raw(), u64::from(self.index)]
    }
}
