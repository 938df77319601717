//! What guests do, and what it must come to: their calls, their aborts, their power.
//!
//! The interrupt controller, timers and trapped registers change nothing of who owns what; they are not specified here.

use pinfold_abi::{ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, Counter, ExitReason};

use crate::clause::Clause;
use crate::rules::REDISTRIBUTOR;
use crate::state::{Held, Owner, State};
use crate::vm::{Awaits, GuestRegisters, Power, Vm};

/// SMCCC `INVALID_PARAMETER`, -3.
pub(crate) const INVALID_PARAMETER: u64 = u64::MAX - 2;
/// SMCCC and PSCI `NOT_SUPPORTED`, -1.
const NOT_SUPPORTED: u64 = u64::MAX;
/// PSCI `INVALID_PARAMETERS`, `ALREADY_ON` and `ON_PENDING` (DEN0022, 5.2.2).
const PSCI_INVALID: u64 = u64::MAX - 1;
const ALREADY_ON: u64 = u64::MAX - 3;
const ON_PENDING: u64 = u64::MAX - 4;

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
    /// A fetch that stage 2 stopped.
    Fetch {
        /// The first byte.
        ipa: u64,
    },
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
            Self::Fetch { .. } => "guest fetch",
            Self::Interrupt => "interrupt",
            Self::Impossible { .. } => "guest crash",
        }
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
    /// X0 is the virtual PSCI's business.
    pub(crate) loose: bool,
}

fn goes_on(clause: Clause) -> Follows {
    Follows {
        clause,
        exit: None,
        takes_memory: false,
        loose: false,
    }
}

fn exits(clause: Clause, reason: ExitReason, details: [u64; 3]) -> Follows {
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
            GuestEvent::Interrupt => exits(Clause::Interrupted, ExitReason::Interrupt, [0; 3]),
            GuestEvent::Impossible { class } => {
                vcpu.crashed = Some(class);
                exits(Clause::Crash, ExitReason::Crashed, [class, 0, 0])
            }
            GuestEvent::Fetch { ipa } if self.vms.get(&handle)?.is_ram(ipa >> 12, 1) => {
                self.missing(handle, ipa, 2)
            }
            GuestEvent::Fetch { .. } => goes_on(Clause::FetchOutside),
            GuestEvent::Access {
                ipa,
                width,
                write,
                register,
            } => {
                let vm = self.vms.get(&handle)?;
                if vm.is_ram(ipa >> 12, 1) {
                    self.missing(handle, ipa, u64::from(write))
                } else {
                    registers.pc = registers.pc.wrapping_add(4);
                    let (bytes, value) =
                        (u64::from(width), extend(registers.read(register), width));
                    if vm.is_gic(ipa) {
                        Follows {
                            loose: true,
                            ..goes_on(Clause::Gic)
                        }
                    } else if write {
                        exits(
                            Clause::MmioWrite,
                            ExitReason::MmioWrite,
                            [ipa, bytes, value],
                        )
                    } else {
                        vcpu.awaits = Awaits::Load { width, register };
                        exits(Clause::MmioRead, ExitReason::MmioRead, [ipa, bytes, 0])
                    }
                }
            }
        };
        self.vms.get_mut(&handle)?.vcpus.insert(index, vcpu);
        Some(follows)
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

    /// PSCI (DEN0022), as far as it says which vCPU runs.
    fn psci(&mut self, handle: u64, index: u64, function: u64) -> Option<Follows> {
        let vm = self.vms.get_mut(&handle)?;
        let vcpu = vm.vcpus.get_mut(&index)?;
        match function {
            0x8400_0002 => {
                vcpu.power = Power::Off;
                Some(exits(Clause::PowerOff, ExitReason::PoweredOff, [0; 3]))
            }
            0x8400_0003 | 0xC400_0003 => self.cpu_on(handle, index, function),
            0x8400_0008 => {
                vm.ended = Some((ExitReason::SystemOff.number(), 0));
                Some(exits(Clause::SystemEnds, ExitReason::SystemOff, [0; 3]))
            }
            0x8400_0009 => {
                vm.ended = Some((ExitReason::SystemReset.number(), 0));
                Some(exits(Clause::SystemEnds, ExitReason::SystemReset, [0; 3]))
            }
            0x8400_0012 | 0xC400_0012 => {
                let [_, kind, ..] = vcpu.registers.arguments();
                let kind = extend(kind, if function & 1 << 30 == 0 { 4 } else { 8 });
                vm.ended = Some((ExitReason::SystemReset.number(), kind));
                let details = [kind, 0, 0];
                Some(exits(Clause::SystemEnds, ExitReason::SystemReset, details))
            }
            _ => Some(Follows {
                loose: true,
                ..goes_on(Clause::GuestQuery)
            }),
        }
    }

    fn cpu_on(&mut self, handle: u64, index: u64, function: u64) -> Option<Follows> {
        let vm = self.vms.get_mut(&handle)?;
        let caller = vm.vcpus.get(&index)?;
        let mask = if function & 1 << 30 == 0 {
            0xFFFF_FFFF
        } else {
            u64::MAX
        };
        let [_, target, entry, argument] = caller.registers.arguments().map(|x| x & mask);
        let target = target & 0xFF_00FF_FFFF;
        let power = vm.vcpus.get(&target).map(|vcpu| vcpu.power);
        let answer = match power {
            None => PSCI_INVALID,
            Some(Power::On) => ALREADY_ON,
            Some(Power::Starting { .. }) => ON_PENDING,
            Some(Power::Off) => 0,
        };
        vm.vcpus
            .get_mut(&index)?
            .registers
            .answer([answer, 0, 0, 0]);
        if power != Some(Power::Off) {
            return Some(goes_on(Clause::PowerOnRefused));
        }
        vm.vcpus.get_mut(&target)?.power = Power::Starting { entry, argument };
        Some(exits(Clause::PowerOn, ExitReason::CpuOn, [target, 0, 0]))
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
