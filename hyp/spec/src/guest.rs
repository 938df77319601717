//! What guests do, and what it must come to: their calls, their aborts.
//!
//! Interrupts and what depends on them are judged if the specification is told of them: [`Spec::watch`](crate::Spec::watch).

use pinfold_abi::{ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, Counter, ExitReason};

use crate::clause::Clause;
use crate::rules::{Access, Encoding, REDISTRIBUTOR, Taken};
use crate::state::{Held, Owner, State};
use crate::vm::{Awaits, Extension, GuestRegisters, Vm};

/// SMCCC `INVALID_PARAMETER`, -3.
pub(crate) const INVALID_PARAMETER: u64 = u64::MAX - 2;
/// SMCCC and PSCI `NOT_SUPPORTED`, -1.
pub(crate) const NOT_SUPPORTED: u64 = u64::MAX;
/// `ICC_SGI1R_EL1` (IHI 0069, 12.2.20).
pub(crate) const SGI: Encoding = [3, 0, 12, 11, 5];

/// What a guest did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GuestEvent {
    /// `HVC #0`; the PC is behind it.
    Call,
    /// A load or store of Xn that stage 2 stopped, and that the syndrome describes; the PC is on it.
    Access {
        /// The first byte.
        ipa: u64,
        /// Bytes: 1, 2, 4 or 8.
        width: u8,
        /// A store.
        write: bool,
        /// n; 31 is XZR.
        register: u8,
    },
    /// A load to Xn that extends the sign, and that stage 2 stopped outside guest RAM; the PC is on it.
    SignedLoad {
        /// The first byte.
        ipa: u64,
        /// Bytes: 1, 2 or 4.
        width: u8,
        /// n; 31 is XZR.
        register: u8,
        /// To 64 bits rather than to 32, with zeroes above.
        wide: bool,
    },
    /// A fetch that stage 2 stopped.
    Fetch {
        /// The first byte.
        ipa: u64,
    },
    /// `HVC` or `SMC` with any immediate; the PC is behind an `HVC`, and on an `SMC`.
    CallBy {
        /// `SMC`.
        smc: bool,
        /// Of the instruction.
        immediate: u16,
    },
    /// `WFI`; the PC is on it.
    Wait,
    /// `WFE`; the PC is on it.
    WaitForEvent,
    /// An access of Xn to a system register that traps; the PC is on it.
    Register {
        /// Which register.
        register: Encoding,
        /// n; 31 is XZR.
        transfer: u8,
        /// `MRS`.
        read: bool,
    },
    /// An instruction of an extension that it does not have.
    Undefined,
    /// Its first use of FP or Advanced SIMD.
    FloatingPoint,
    /// Nothing: its virtual timer fired.
    Timer,
    /// Nothing: its list registers want attention.
    Maintenance,
    /// Nothing: an interrupt of the host came.
    Interrupt,
    /// An exception that it cannot raise; the exception class, where it stands in an ESR.
    Impossible {
        /// ESR bits 31:26.
        class: u64,
    },
}

impl GuestEvent {
    /// Its name, for the list of what was exercised.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Call => "guest call",
            Self::Access { .. } => "guest access",
            Self::SignedLoad { .. } => "guest signed load",
            Self::Fetch { .. } => "guest fetch",
            Self::CallBy { .. } => "guest call by",
            Self::Wait => "guest wait",
            Self::WaitForEvent => "guest wait for event",
            Self::Register { .. } => "guest register",
            Self::Undefined => "guest undefined",
            Self::FloatingPoint => "guest floating point",
            Self::Timer => "guest timer",
            Self::Maintenance => "guest maintenance",
            Self::Interrupt => "interrupt",
            Self::Impossible { .. } => "guest crash",
        }
    }

    /// What it loads or stores.
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others do neither")]
    const fn access(self) -> Option<Access> {
        let (access, extension) = match self {
            Self::Access {
                ipa,
                width,
                write,
                register,
            } => ((ipa, width, write, register), Extension::Zeroes),
            Self::SignedLoad {
                ipa,
                width,
                register,
                wide,
            } => ((ipa, width, false, register), Extension::Sign { wide }),
            _ => return None,
        };
        let (ipa, width, write, register) = access;
        Some(Access {
            ipa,
            width,
            write,
            register,
            extension,
        })
    }
}

/// A vCPU that runs, and what it did.
#[derive(Clone, Copy, Debug)]
pub struct GuestDeed<'a> {
    /// The handle of its VM.
    pub vm: u64,
    /// Its index.
    pub vcpu: u64,
    /// Its registers when it did it.
    pub registers: &'a GuestRegisters,
    /// What it did.
    pub event: GuestEvent,
}

/// What followed.
#[derive(Clone, Copy, Debug)]
pub enum GuestSeen<'a> {
    /// The guest goes on, with these registers.
    Resumed(&'a GuestRegisters),
    /// The host goes on.
    Exited {
        /// The guest's registers now.
        guest: &'a GuestRegisters,
        /// x0 to x17 of the host when it ran the vCPU.
        before: &'a [u64; 18],
        /// x0 to x17 of the host now.
        after: &'a [u64; 18],
    },
}

/// What must follow: by which clause, and what the host is told, if it is told anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Follows {
    pub(crate) clause: Clause,
    /// Exit reason and details; nothing if the guest goes on.
    pub(crate) exit: Option<[u64; 4]>,
    /// Table frames may have been missing: then the guest is told `INVALID_PARAMETER` instead.
    pub(crate) takes_memory: bool,
    /// What the guest's registers become is not known.
    pub(crate) loose: bool,
    /// Whether it is an exit is not known.
    pub(crate) leeway: Leeway,
    /// The exception that the guest takes.
    pub(crate) takes: Option<Taken>,
}

/// What may be seen, where that is not known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Leeway {
    /// Only what is said.
    None,
    /// It may be the exit `WFI` with this deadline.
    Wait {
        deadline: Option<u64>,
        may_wait: bool,
        may_go_on: bool,
    },
    /// It may be an exit that names vCPUs to kick.
    Kick { must: u64, may: u64 },
}

impl Leeway {
    /// Whom to kick is not known.
    const ANYBODY: Self = Self::Kick {
        must: 0,
        may: u64::MAX,
    };

    /// The exit that is right: the one that was seen, if it may be.
    pub(crate) fn exit(self, seen: Option<[u64; 4]>) -> Option<[u64; 4]> {
        let [reason, first, ..] = seen.unwrap_or_default();
        let wait = ExitReason::Wfi.number();
        let kick = ExitReason::Kick.number();
        match self {
            Self::Wait {
                may_go_on: true, ..
            } if seen.is_none() => None,
            Self::Wait {
                deadline,
                may_wait: true,
                ..
            } => Some([wait, deadline.unwrap_or(first), 0, 0]),
            Self::Kick { must, may } => {
                let is_right = reason == kick && first & must == must && first & !may == 0;
                let vcpus = if is_right { first } else { must };
                (vcpus != 0).then_some([kick, vcpus, 0, 0])
            }
            Self::None | Self::Wait { .. } => None,
        }
    }

    /// The clause that says whether it is an exit, where that is not the one that decided.
    pub(crate) fn clause(self, seen: Option<[u64; 4]>) -> Option<Clause> {
        let is_kick = |[reason, ..]: [u64; 4]| reason == ExitReason::Kick.number();
        match self {
            Self::Wait {
                may_wait: false, ..
            } => Some(Clause::WaitPending),
            Self::Kick { .. } if seen.is_none_or(is_kick) => Some(Clause::GicKicks),
            Self::None | Self::Wait { .. } | Self::Kick { .. } => None,
        }
    }
}

pub(crate) fn goes_on(clause: Clause) -> Follows {
    Follows {
        clause,
        exit: None,
        takes_memory: false,
        loose: false,
        leeway: Leeway::None,
        takes: None,
    }
}

pub(crate) fn takes(clause: Clause, exception: Taken) -> Follows {
    Follows {
        takes: Some(exception),
        ..goes_on(clause)
    }
}

pub(crate) fn exits(clause: Clause, reason: ExitReason, details: [u64; 3]) -> Follows {
    let [first, second, third] = details;
    Follows {
        exit: Some([reason.number(), first, second, third]),
        ..goes_on(clause)
    }
}

/// The low `width` bytes.
pub(crate) const fn extend(value: u64, width: u8) -> u64 {
    match width {
        1 => value & 0xFF,
        2 => value & 0xFFFF,
        4 => value & 0xFFFF_FFFF,
        _ => value,
    }
}

impl Vm {
    /// Whether the interrupt controller is there.
    fn is_gic(&self, ipa: u64) -> bool {
        self.gic.is_some_and(|(distributor, redistributors)| {
            let size = self.count * REDISTRIBUTOR;
            (distributor..distributor + 0x1_0000).contains(&ipa)
                || (redistributors..redistributors + size).contains(&ipa)
        })
    }
}

impl State {
    /// What must follow from `event` of the vCPU `index`, whose registers become what they must be.
    pub(crate) fn guest(&mut self, handle: u64, index: u64, event: GuestEvent) -> Option<Follows> {
        let mut vcpu = self.vms.get(&handle)?.vcpus.get(&index)?.clone();
        let registers = &mut vcpu.registers;
        let follows = match event {
            GuestEvent::Call => return self.guest_call(handle, index),
            GuestEvent::CallBy { smc, immediate } => {
                return self.call_by(handle, index, smc, immediate);
            }
            GuestEvent::Wait => {
                registers.pc = registers.pc.wrapping_add(4);
                self.vms.get_mut(&handle)?.vcpus.insert(index, vcpu);
                return self.waits(handle, index, Clause::Wait);
            }
            GuestEvent::WaitForEvent => {
                registers.pc = registers.pc.wrapping_add(4);
                goes_on(Clause::WaitEvent)
            }
            GuestEvent::Register {
                register,
                transfer,
                read,
            } => return self.register((handle, index), register, transfer, read),
            GuestEvent::Undefined => takes(Clause::InstructionUndefined, Taken::UNDEFINED),
            GuestEvent::FloatingPoint => goes_on(Clause::FloatingPoint),
            GuestEvent::Timer | GuestEvent::Maintenance => {
                self.attends(handle, index, event == GuestEvent::Timer);
                return Some(goes_on(Clause::Attention));
            }
            GuestEvent::Interrupt => exits(Clause::Interrupted, ExitReason::Interrupt, [0; 3]),
            GuestEvent::Impossible { class } => {
                vcpu.crashed = Some(class);
                exits(Clause::Crash, ExitReason::Crashed, [class, 0, 0])
            }
            GuestEvent::Fetch { ipa } if self.vms.get(&handle)?.is_ram(ipa >> 12, 1) => {
                self.missing(handle, ipa, 2)
            }
            GuestEvent::Fetch { .. } => takes(Clause::FetchOutside, Taken::FETCH),
            GuestEvent::Access { .. } | GuestEvent::SignedLoad { .. } => {
                return self.access(handle, index, event.access()?);
            }
        };
        self.vms.get_mut(&handle)?.vcpus.insert(index, vcpu);
        Some(follows)
    }

    /// A load or store that stage 2 stopped.
    fn access(&mut self, handle: u64, index: u64, access: Access) -> Option<Follows> {
        let Access {
            ipa,
            width,
            write,
            register,
            extension,
        } = access;
        let room = self.room();
        let vm = self.vms.get_mut(&handle)?;
        if vm.is_ram(ipa >> 12, 1) {
            return Some(self.missing(handle, ipa, u64::from(write)));
        }
        let is_gic = vm.is_gic(ipa);
        let vcpu = vm.vcpus.get_mut(&index)?;
        vcpu.registers.pc = vcpu.registers.pc.wrapping_add(4);
        let (bytes, value) = (
            u64::from(width),
            extend(vcpu.registers.read(register), width),
        );
        if is_gic && let Some(room) = room {
            return self.gic_access(handle, index, access, room);
        }
        Some(if is_gic {
            Follows {
                loose: true,
                leeway: Leeway::ANYBODY,
                ..goes_on(Clause::Gic)
            }
        } else if write {
            let details = [ipa, bytes, value];
            exits(Clause::MmioWrite, ExitReason::MmioWrite, details)
        } else {
            vcpu.awaits = Awaits::Load {
                width,
                register,
                extension,
            };
            exits(Clause::MmioRead, ExitReason::MmioRead, [ipa, bytes, 0])
        })
    }

    /// An access to guest RAM that stage 2 stopped; `kind` has bit 0 for a store, bit 1 for a fetch.
    fn missing(&self, handle: u64, ipa: u64, kind: u64) -> Follows {
        let gfn = ipa >> 12;
        match self.frame_at(handle, gfn) {
            Some((_, Owner::SharedGuest(_))) if !self.allows(handle, gfn, kind) => {
                let details = [gfn, kind | 1 << 2, 0];
                exits(Clause::FaultDenied, ExitReason::MemoryFault, details)
            }
            Some((_, Owner::Guest(_) | Owner::GuestShared(_) | Owner::SharedGuest(_))) => {
                goes_on(Clause::FaultServed)
            }
            _ => exits(
                Clause::FaultMissing,
                ExitReason::MemoryFault,
                [gfn, kind, 0],
            ),
        }
    }

    /// Whether an ordinary VM may do this with what is shared with it there.
    fn allows(&self, handle: u64, gfn: u64, kind: u64) -> bool {
        let grant = self.vms.get(&handle).and_then(|vm| vm.grants.get(&gfn));
        let needed = match kind {
            0 => ACCESS_READ,
            1 => ACCESS_WRITE,
            _ => ACCESS_EXECUTE,
        };
        grant.is_some_and(|grant| grant.access & needed != 0)
    }

    /// The frame that the guest has at `gfn`, and whose it is.
    fn frame_at(&self, handle: u64, gfn: u64) -> Option<(u64, Owner)> {
        let pfn = *self.vms.get(&handle)?.frames.get(&gfn)?;
        let owner = self.owner(pfn)?;
        // What is on its way is not there yet.
        (!matches!(owner, Owner::Arriving { .. })).then_some((pfn, owner))
    }

    /// A call by `SMC` is one by `HVC`, once the PC is behind it; one with an immediate is none (DEN0028, 2.9).
    fn call_by(&mut self, handle: u64, index: u64, smc: bool, immediate: u16) -> Option<Follows> {
        let vcpu = self.vcpu_of(handle, index)?;
        if smc {
            vcpu.registers.pc = vcpu.registers.pc.wrapping_add(4);
        }
        if immediate != 0 {
            vcpu.registers.answer([NOT_SUPPORTED, 0, 0, 0]);
            return Some(goes_on(Clause::CallImmediate));
        }
        let follows = self.guest_call(handle, index)?;
        let clause = if smc {
            Clause::CallBySmc
        } else {
            follows.clause
        };
        Some(Follows { clause, ..follows })
    }

    /// `ICC_SGI1R_EL1` = Xn.
    pub(crate) fn sends(&mut self, handle: u64, index: u64, register: u8) -> Option<Follows> {
        let vcpu = self.vcpu_of(handle, index)?;
        vcpu.registers.pc = vcpu.registers.pc.wrapping_add(4);
        let value = vcpu.registers.read(register);
        if let Some(room) = self.room() {
            return self.sends_sgi(handle, index, value, room);
        }
        Some(Follows {
            leeway: Leeway::ANYBODY,
            ..goes_on(Clause::SgiSends)
        })
    }

    fn guest_call(&mut self, handle: u64, index: u64) -> Option<Follows> {
        let vm = self.vms.get_mut(&handle)?;
        let vcpu = vm.vcpus.get_mut(&index)?;
        let [function, first, second, third] = vcpu.registers.arguments();
        let function = function & 0xFFFF_FFFF;
        let answer = match function {
            0x8600_0000 => 1,
            _ => NOT_SUPPORTED,
        };
        if !vm.protected
            && matches!(
                function,
                0x8600_0000 | 0xC600_0002..=0xC600_0004 | 0xC600_0009
            )
        {
            vcpu.registers.answer([answer, 0, 0, 0]);
            return Some(goes_on(Clause::GuestOrdinary));
        }
        let is_page = first >> 48 == 0 && first % 4096 == 0 && second | third == 0;
        match function {
            0xC600_0003 | 0xC600_0004 | 0xC600_0009 if !is_page => {
                vcpu.registers.answer([INVALID_PARAMETER, 0, 0, 0]);
                Some(goes_on(Clause::GuestMalformed))
            }
            0xC600_0003 => self.guest_shares(handle, index, first >> 12),
            0xC600_0004 => self.guest_unshares(handle, index, first >> 12),
            0xC600_0009 => self.guest_relinquishes(handle, index, first >> 12),
            0x8400_0000..=0x8400_001F | 0xC400_0000..=0xC400_001F => {
                self.psci(handle, index, function)
            }
            _ => {
                let (clause, answer) = service(function, [first, second, third]);
                vcpu.registers.answer(answer);
                Some(goes_on(clause))
            }
        }
    }

    /// `MEM_SHARE`.
    fn guest_shares(&mut self, handle: u64, index: u64, gfn: u64) -> Option<Follows> {
        let found = self.frame_at(handle, gfn);
        let vm = self.vms.get_mut(&handle)?;
        let is_ram = vm.is_ram(gfn, 1);
        let vcpu = vm.vcpus.get_mut(&index)?;
        match found {
            Some((pfn, Owner::Guest(held))) => {
                vcpu.registers.answer([0; 4]);
                vcpu.awaits = Awaits::Share { gfn };
                self.share(pfn, held);
                let follows = exits(Clause::ShareLets, ExitReason::Shared, [gfn, 1, 0]);
                Some(Follows {
                    takes_memory: true,
                    ..follows
                })
            }
            None if is_ram => {
                vcpu.registers.pc = vcpu.registers.pc.wrapping_sub(4);
                Some(exits(
                    Clause::ShareMissing,
                    ExitReason::MemoryFault,
                    [gfn, 1, 0],
                ))
            }
            _ => {
                vcpu.registers.answer([INVALID_PARAMETER, 0, 0, 0]);
                Some(goes_on(Clause::ShareRefused))
            }
        }
    }

    /// The frame is the host's, too; its folio's frames are folios of their own.
    fn share(&mut self, pfn: u64, held: Held) {
        for frame in Self::folio(pfn, held.order) {
            self.decoys.remove(&frame);
            if let Some(Owner::Guest(part)) = self.owner(frame) {
                let part = Held { order: 0, ..part };
                let owner = if frame == pfn {
                    Owner::GuestShared(part)
                } else {
                    Owner::Guest(part)
                };
                self.give(frame, owner);
            }
        }
    }

    /// `MEM_RELINQUISH`.
    fn guest_relinquishes(&mut self, handle: u64, index: u64, gfn: u64) -> Option<Follows> {
        let found = self.frame_at(handle, gfn);
        let vm = self.vms.get_mut(&handle)?;
        let is_ram = vm.is_ram(gfn, 1);
        let vcpu = vm.vcpus.get_mut(&index)?;
        match found {
            Some((pfn, Owner::Guest(held))) => {
                vcpu.registers.answer([0; 4]);
                vm.frames.remove(&gfn);
                // As if it were shared; then it is the host's alone.
                self.share(pfn, held);
                self.give_host(pfn);
                self.wipe(pfn);
                self.count(Counter::FramesReclaimed, 1);
                let details = [gfn, 1, 0];
                Some(Follows {
                    takes_memory: true,
                    ..exits(Clause::RelinquishGives, ExitReason::Relinquished, details)
                })
            }
            None if is_ram => {
                vcpu.registers.answer([0; 4]);
                Some(goes_on(Clause::RelinquishNothing))
            }
            _ => {
                vcpu.registers.answer([INVALID_PARAMETER, 0, 0, 0]);
                Some(goes_on(Clause::RelinquishRefused))
            }
        }
    }

    /// `MEM_UNSHARE`.
    fn guest_unshares(&mut self, handle: u64, index: u64, gfn: u64) -> Option<Follows> {
        let is_shared = matches!(self.frame_at(handle, gfn), Some((_, Owner::GuestShared(_))));
        let is_done = self.unshare(handle, gfn);
        let vcpu = self.vms.get_mut(&handle)?.vcpus.get_mut(&index)?;
        if !is_shared {
            vcpu.registers.answer([INVALID_PARAMETER, 0, 0, 0]);
            Some(goes_on(Clause::UnshareRefused))
        } else if is_done {
            vcpu.registers.answer([0; 4]);
            Some(goes_on(Clause::UnshareTakes))
        } else {
            vcpu.registers.pc = vcpu.registers.pc.wrapping_sub(4);
            vcpu.awaits = Awaits::Unshare;
            Some(exits(
                Clause::UnshareAsks,
                ExitReason::UnshareRequest,
                [gfn, 1, 0],
            ))
        }
    }

    /// Shuts the host out of a shared frame, if its pin is exclusive; says whether it is done.
    pub(crate) fn unshare(&mut self, handle: u64, gfn: u64) -> bool {
        match self.frame_at(handle, gfn) {
            Some((pfn, Owner::GuestShared(held))) if self.is_exclusively_pinned(pfn) => {
                self.give(pfn, Owner::Guest(held));
                true
            }
            _ => false,
        }
    }
}

/// The services with a fixed answer: SMCCC's own, and KVM's that a stock guest looks for.
fn service(function: u64, arguments: [u64; 3]) -> (Clause, [u64; 4]) {
    let is_plain = arguments == [0; 3];
    let answer = match function {
        0x8000_0000 => [0x1_0001, 0, 0, 0],
        0x8600_FF01 => [0xB66F_B428, 0xE911_C52E, 0x564B_CAA9, 0x743A_004D],
        // Itself, HYP_MEMINFO, MEM_SHARE, MEM_UNSHARE, MEM_RELINQUISH.
        0x8600_0000 => [0b10_0001_1101, 0, 0, 0],
        0xC600_0002 if is_plain => [4096, 0, 0, 0],
        0xC600_0002 => return (Clause::GuestMalformed, [INVALID_PARAMETER, 0, 0, 0]),
        0x8000_0001 => {
            let [asked, ..] = arguments;
            let is_there = matches!(asked & 0xFFFF_FFFF, 0x8000_0000 | 0x8000_0001);
            [if is_there { 0 } else { NOT_SUPPORTED }, 0, 0, 0]
        }
        _ => return (Clause::GuestUnknown, [NOT_SUPPORTED, 0, 0, 0]),
    };
    (Clause::GuestQuery, answer)
}
