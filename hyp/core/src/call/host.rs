//! What the host calls, performed: one match over [`HostCall`], one method for each call.
//!
//! Decoding is in `pinfold_abi` and yields claims; the functions at the end of this file turn a claim into a fact or refuse it.
//! Each method returns a [`Reply`]; a [`Refusal`] becomes registers in one place, [`Hypervisor::host_call`].

use pinfold_abi::{
    Counter, FEATURE_DEBUG_CALLS, HostCall, SMCCC_NOT_SUPPORTED, SMCCC_SUCCESS, State, Status,
    UUID_FUNCTION, UUID_WORDS, VCPU_POWERED_OFF, VERSION, VM_PROTECTED, claim, limit,
};

use crate::addr::{Frame, FrameRange, Gfn, Ipa, Order, Pfn, Space};
use crate::hypervisor::{CallRegisters, HostCallOutcome, Hypervisor};
use crate::machine::Machine;
use crate::memory::{FolioClaim, Poisoning, PoolDonation, Progress, SharedChange};
use crate::owned::Owned;
use crate::pin_word::PinRange;
use crate::refusal::{Found, Refusal};
use crate::run::RunStart;
use crate::stage2::{Access, Stage2};
use crate::vcpu::{LoadedVcpu, VcpuExit};
use crate::vcpus::Vcpus;
use crate::vm::{Kind, Vm, VmHandle};

/// SMCCC's own calls (DEN0028, section 7).
const SMCCC_VERSION: u64 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u64 = 0x8000_0001;
/// SMCCC 1.2.
const OFFERED_SMCCC: u64 = 0x1_0002;

/// Frames that a VM's objects may take, besides its root tables.
const ROOM_FOR_VM: u64 = 16;
/// Frames that a vCPU's objects may take.
const ROOM_FOR_VCPU: u64 = 4;

/// What `IRQ_LINE` says when nobody is to be kicked.
const NOBODY: u64 = u64::MAX;

/// What a call that was not refused comes to.
#[derive(Debug)]
enum Reply {
    /// It is done; the first `count` values are the results.
    Done {
        status: Status,
        results: [u64; 6],
        count: usize,
    },
    /// A vCPU stopped before it ran.
    Stopped(VcpuExit),
    /// A vCPU runs.
    Run(LoadedVcpu),
}

impl Reply {
    fn done<const N: usize>(values: [u64; N]) -> Self {
        Self::with(Status::Ok, values)
    }

    fn with<const N: usize>(status: Status, values: [u64; N]) -> Self {
        let mut results = [0; 6];
        results
            .iter_mut()
            .zip(values)
            .for_each(|(result, value)| *result = value);
        Self::Done {
            status,
            results,
            count: N,
        }
    }

    fn progress(progress: Progress) -> Self {
        let status = if progress.complete {
            Status::Ok
        } else {
            Status::Again
        };
        Self::with(status, [progress.done])
    }
}

impl CallRegisters {
    fn set<const N: usize>(&mut self, values: [u64; N]) {
        self.x
            .iter_mut()
            .zip(values)
            .for_each(|(register, value)| *register = value);
    }

    fn arguments(&self) -> [u64; 8] {
        let mut arguments = [0; 8];
        arguments
            .iter_mut()
            .zip(self.x)
            .for_each(|(argument, register)| *argument = register);
        arguments
    }

    fn refuse(&mut self, refusal: Refusal) {
        let (status, Found { index, folio, pin }) = refusal.status();
        let pin = seeded!(HidesPinWord, 0, u64::from(pin));
        self.set([SMCCC_SUCCESS, status.number(), index, folio, pin]);
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Performs what the host called with x0 to x17 in `registers`, on processor `cpu`.
    pub fn host_call(&mut self, registers: &mut CallRegisters, cpu: usize) -> HostCallOutcome {
        let [function, argument, ..] = registers.arguments();
        match function {
            UUID_FUNCTION if !mutant!(NoUuid) => registers.set(UUID_WORDS.map(u64::from)),
            SMCCC_VERSION => registers.set([OFFERED_SMCCC]),
            SMCCC_ARCH_FEATURES if !mutant!(NoArchFeatures) => {
                registers.set([arch_features(argument)]);
            }
            _ => match HostCall::decode(registers.arguments()) {
                Some(call) if cfg!(feature = "debug-calls") || !call.is_debug() => {
                    return self.answer(call, registers, cpu);
                }
                Some(_) | None => {
                    self.counters.count(Counter::UnknownCalls);
                    registers.set([seeded!(
                        UnknownCallSucceeds,
                        SMCCC_SUCCESS,
                        SMCCC_NOT_SUPPORTED
                    )]);
                }
            },
        }
        HostCallOutcome::Return
    }

    fn answer(
        &mut self,
        call: HostCall,
        registers: &mut CallRegisters,
        cpu: usize,
    ) -> HostCallOutcome {
        self.counters.count(Counter::Calls);
        match self.perform(call, cpu) {
            Ok(Reply::Run(vcpu)) => return HostCallOutcome::Run(vcpu),
            Ok(Reply::Stopped(exit)) => exit.report(registers),
            Ok(Reply::Done {
                status,
                results,
                count,
            }) => {
                registers.set([SMCCC_SUCCESS, status.number()]);
                registers
                    .x
                    .iter_mut()
                    .skip(2)
                    .zip(results)
                    .take(seeded!(ClearsSpareResults, 6, count))
                    .for_each(|(register, result)| *register = result);
            }
            Err(refusal) => {
                self.counters.count(Counter::Refusals);
                registers.refuse(refusal);
            }
        }
        HostCallOutcome::Return
    }

    #[expect(clippy::too_many_lines, reason = "one arm for each call of the table")]
    fn perform(&mut self, call: HostCall, cpu: usize) -> Result<Reply, Refusal> {
        match call {
            HostCall::Version {} => Ok(Reply::done([seeded!(WrongVersion, 0, VERSION)])),
            HostCall::Features {} => Ok(self.features()),
            HostCall::PinTableRegister {
                table,
                first,
                frames,
            } => self.register_pins(table, first, frames),
            HostCall::PoolDonate { first, count } => self.donate_to_pool(first, count),
            HostCall::PoolReclaim {} => Ok(Reply::done([self.memory.reclaim_from_pool()?.raw()])),
            HostCall::PoolStatus {} => Ok(Reply::done([
                self.memory.machine().pool_free(),
                self.memory.given_to_pool(),
            ])),
            HostCall::VmCreate { flags, vcpus } => self.create_vm(flags, vcpus),
            HostCall::VmMemoryRegion { vm, first, count } => self.add_region(vm, first, count),
            HostCall::VmGic {
                vm,
                distributor,
                redistributors,
            } => self.place_gic(vm, distributor, redistributors),
            HostCall::VmStart { vm } => self.vm(vm)?.start().map(|()| Reply::done([])),
            HostCall::VmTeardownBegin { vm } => {
                self.vm(vm)?.begin_teardown().map(|()| Reply::done([]))
            }
            HostCall::VmTeardownFinish { vm } => self.finish_teardown(vm),
            HostCall::VcpuCreate { vm, vcpu, flags } => self.create_vcpu(vm, vcpu, flags),
            HostCall::VcpuSetRegister {
                vm,
                vcpu,
                register,
                value,
            } => {
                let vm = self.vm(vm)?.expect_not_dying()?;
                vm.vcpus
                    .set_register(vcpu_index(vcpu)?, register.0, value.0)
                    .map(|()| Reply::done([]))
            }
            HostCall::VcpuRun { vm, vcpu, answer } => self.run_vcpu(vm, vcpu, answer, cpu),
            HostCall::MemDonate {
                vm,
                gfn,
                pfn,
                count,
                order,
            } => self.donate(vm, folios(gfn, pfn, count, order)),
            HostCall::MemReclaim { vm, gfn, count } => self.reclaim(vm, gfn, count),
            HostCall::MemShareGuest {
                vm,
                gfn,
                pfn,
                count,
                order,
                access,
            } => self.share_with_guest(vm, folios(gfn, pfn, count, order), access),
            HostCall::MemUnshareGuest { vm, gfn, count } => self.unshare_from_guest(vm, gfn, count),
            HostCall::MemProtectGuest {
                vm,
                gfn,
                count,
                access,
            } => self.protect_guest(vm, gfn, count, access),
            HostCall::MemPoison { pfn } => self.poison(pfn),
            HostCall::IrqLine { vm, intid, level } => self.set_line(vm, intid, level),
            HostCall::FolioQuery { pfn } => self.query(pfn),
            HostCall::FolioCensus {} => Ok(self.census()),
            HostCall::FolioDigest { first, count } => self.digest(first, count),
            HostCall::Counter { counter } => self.counter(counter),
            HostCall::FolioRange { first } => self.folio_range(first).map(Reply::done),
            HostCall::TraceStatus { cpu } => self.trace_status(cpu).map(Reply::done),
            HostCall::TraceRead { cpu, entry, part } => {
                self.trace_part(cpu, entry, part).map(Reply::done)
            }
        }
    }

    fn features(&self) -> Reply {
        let bits = if cfg!(feature = "debug-calls") {
            FEATURE_DEBUG_CALLS
        } else {
            0
        };
        Reply::done([
            bits,
            limit::MAX_VMS,
            limit::MAX_VCPUS,
            seeded!(PromisesMore, 1024, limit::MAX_FRAMES),
            self.el2_kib,
        ])
    }

    fn register_pins(
        &mut self,
        table: claim::Pfn,
        first: claim::Pfn,
        frames: claim::Count,
    ) -> Result<Reply, Refusal> {
        let range = PinRange::new(frame(table.0)?, frame(first.0)?, frames.0).ok_or(seeded!(
            EmptyIsLimit,
            Refusal::Limit,
            Refusal::Invalid
        ))?;
        Ok(Reply::progress(self.memory.register_pins(range)?.commit()))
    }

    fn donate_to_pool(&mut self, first: claim::Pfn, count: claim::Count) -> Result<Reply, Refusal> {
        self.memory
            .donate_to_pool(range(first.0, count)?)
            .map(PoolDonation::commit)?;
        Ok(Reply::done([count.0]))
    }

    fn create_vm(&mut self, flags: claim::Flags, vcpus: claim::Count) -> Result<Reply, Refusal> {
        let is_known = flags.0 & !VM_PROTECTED == 0 || mutant!(AnyVmFlag);
        if !is_known || !(1..=limit::MAX_VCPUS).contains(&vcpus.0) {
            return Err(Refusal::Invalid);
        }
        let kind = if flags.0 & VM_PROTECTED == 0 {
            Kind::Ordinary
        } else {
            Kind::Protected
        };
        let count = usize::try_from(vcpus.0).map_err(|_| Refusal::Invalid)?;
        let handle = self.vms.vacancy()?;
        self.memory.expect_room(ROOM_FOR_VM)?;
        let stage2 = self.memory.create_stage2(handle.slot())?;
        let root = (stage2.root(), stage2.vmid());
        let vm = Owned::try_new(|| Vm::new(kind, handle, stage2, Vcpus::new(count)));
        let Some(vm) = vm else {
            if !mutant!(RootStays) {
                self.memory.destroy_root(root.0, root.1);
            }
            return Err(Refusal::OutOfMemory);
        };
        self.vms.insert(vm);
        Ok(Reply::done([handle.raw()]))
    }

    fn add_region(
        &mut self,
        vm: claim::Handle,
        first: claim::Gfn,
        count: claim::Count,
    ) -> Result<Reply, Refusal> {
        self.memory.expect_room(1)?;
        let region = range(first.0, count)?;
        if !Stage2::reaches(region) && !mutant!(RegionBeyondReach) {
            return Err(Refusal::Invalid);
        }
        self.vm(vm)?.add_region(region).map(|()| Reply::done([]))
    }

    fn place_gic(
        &mut self,
        vm: claim::Handle,
        distributor: claim::Ipa,
        redistributors: claim::Ipa,
    ) -> Result<Reply, Refusal> {
        let vm = self.vm(vm)?.expect_created()?;
        let (distributor, redistributors) = (ipa(distributor)?, ipa(redistributors)?);
        if vm.vcpus.vgic.place(distributor.raw(), redistributors.raw()) {
            Ok(Reply::done([]))
        } else {
            Err(Refusal::Invalid)
        }
    }

    fn finish_teardown(&mut self, vm: claim::Handle) -> Result<Reply, Refusal> {
        let vm = self.vm(vm)?.expect_dying()?;
        let (handle, owned) = (vm.handle, vm.memory.owned_frames());
        if owned != 0 {
            let busy = Refusal::Busy(Found {
                index: owned,
                folio: 0,
                pin: 0,
            });
            return seeded!(OwnersMayGo, Ok(Reply::done([])), Err(busy));
        }
        if let Some(vm) = self.vms.remove(handle)
            && !mutant!(RootLeaks)
        {
            self.memory
                .destroy_root(vm.memory.stage2.root(), vm.memory.stage2.vmid());
        }
        Ok(Reply::done([]))
    }

    fn create_vcpu(
        &mut self,
        vm: claim::Handle,
        vcpu: claim::VcpuIndex,
        flags: claim::Flags,
    ) -> Result<Reply, Refusal> {
        if flags.0 & !VCPU_POWERED_OFF != 0 && !mutant!(AnyVcpuFlag) {
            return Err(Refusal::Invalid);
        }
        self.memory.expect_room(ROOM_FOR_VCPU)?;
        let vm = self.vm(vm)?.expect_created()?;
        vm.vcpus
            .create(vcpu_index(vcpu)?, flags.0 & VCPU_POWERED_OFF != 0)
            .map(|()| Reply::done([]))
    }

    fn run_vcpu(
        &mut self,
        vm: claim::Handle,
        vcpu: claim::VcpuIndex,
        answer: claim::Value,
        cpu: usize,
    ) -> Result<Reply, Refusal> {
        let handle = handle(vm)?;
        match self.begin_run(handle, vcpu.0, answer.0, cpu)? {
            RunStart::Enter(loaded) => {
                if !mutant!(DecoyOutlivesRun) {
                    self.memory.forget_decoys_of(handle.slot());
                }
                Ok(Reply::Run(loaded))
            }
            RunStart::Stop(exit) => Ok(Reply::Stopped(exit)),
        }
    }

    fn donate(
        &mut self,
        vm: claim::Handle,
        folios: Result<FolioClaim, Refusal>,
    ) -> Result<Reply, Refusal> {
        let vm = self.vms.get(handle(vm)?)?.expect_not_dying()?;
        let vm = vm.expect_kind(Kind::Protected)?;
        let claim = folios?;
        let donation = self.memory.donate(&mut vm.memory, claim)?;
        Ok(Reply::progress(donation.commit()))
    }

    fn share_with_guest(
        &mut self,
        vm: claim::Handle,
        folios: Result<FolioClaim, Refusal>,
        bits: claim::Access,
    ) -> Result<Reply, Refusal> {
        let vm = self.vms.get(handle(vm)?)?.expect_not_dying()?;
        let vm = vm.expect_kind(Kind::Ordinary)?;
        let (claim, access) = (folios?, access(bits)?);
        let share = self
            .memory
            .share_with_guest(&mut vm.memory, claim, access)?;
        Ok(Reply::progress(share.commit()))
    }

    fn unshare_from_guest(
        &mut self,
        vm: claim::Handle,
        gfn: claim::Gfn,
        count: claim::Count,
    ) -> Result<Reply, Refusal> {
        let vm = self.vms.get(handle(vm)?)?.expect_kind(Kind::Ordinary)?;
        let range = range(gfn.0, count)?;
        let shared = self
            .memory
            .change_shared(&mut vm.memory, range, SharedChange::Unshare)?;
        Ok(Reply::progress(shared.commit()))
    }

    fn protect_guest(
        &mut self,
        vm: claim::Handle,
        gfn: claim::Gfn,
        count: claim::Count,
        bits: claim::Access,
    ) -> Result<Reply, Refusal> {
        let vm = self.vms.get(handle(vm)?)?.expect_not_dying()?;
        let vm = vm.expect_kind(Kind::Ordinary)?;
        let change = SharedChange::Protect(access(bits)?);
        let range = range(gfn.0, count)?;
        let shared = self.memory.change_shared(&mut vm.memory, range, change)?;
        Ok(Reply::progress(shared.commit()))
    }

    fn reclaim(
        &mut self,
        vm: claim::Handle,
        gfn: claim::Gfn,
        count: claim::Count,
    ) -> Result<Reply, Refusal> {
        let vm = self.vms.get(handle(vm)?)?.expect_dying()?;
        let vm = vm.expect_kind(Kind::Protected)?;
        let range = range(gfn.0, count)?;
        Ok(Reply::progress(
            self.memory.reclaim(&mut vm.memory, range)?.commit(),
        ))
    }

    fn poison(&mut self, pfn: claim::Pfn) -> Result<Reply, Refusal> {
        let pfn = frame(seeded!(CutsPoisonPfn, pfn.0 & 0xF_FFFF_FFFF, pfn.0))?;
        self.memory.poison(pfn).map(Poisoning::commit)?;
        Ok(Reply::done([]))
    }

    fn set_line(
        &mut self,
        vm: claim::Handle,
        intid: claim::Number,
        level: claim::Number,
    ) -> Result<Reply, Refusal> {
        let vm = self.vm(vm)?.expect_not_dying()?;
        if !(limit::MIN_SPI..=limit::MAX_SPI).contains(&intid.0)
            || level.0 > 1 && !mutant!(AnyLevel)
        {
            return Err(Refusal::Invalid);
        }
        let intid = u32::try_from(intid.0).map_err(|_| Refusal::Invalid)?;
        let vcpu = vm.vcpus.vgic.set_line(intid, level.0 == 1)?;
        Ok(Reply::done([vcpu.map_or(
            seeded!(KicksNobody, limit::MAX_VCPUS, NOBODY),
            u64::from,
        )]))
    }

    fn query(&mut self, pfn: claim::Pfn) -> Result<Reply, Refusal> {
        let pfn: Pfn = frame(seeded!(CutsPfn, pfn.0 & 0xFFFF_FFFF, pfn.0))?;
        let folios = self.memory.folios();
        let folio = folios.whole(pfn);
        let owner = folio.state.owner().map(|(slot, head)| {
            let gfn = pfn
                .distance_from(folio.head)
                .and_then(|distance| head.checked_add(seeded!(QueriesHead, 0, distance)));
            (
                self.vms.in_slot(slot).map_or(0, |vm| vm.handle.raw()),
                gfn.map_or(0, Gfn::raw),
            )
        });
        let (vm, gfn) = owner.unwrap_or((0, 0));
        let (word, pin) = (folios.word(pfn).word(), self.memory.pin_word(pfn));
        let order = u64::from(folio.order.raw());
        Ok(Reply::done([
            word,
            folio.state.number().number(),
            order,
            vm,
            gfn,
            u64::from(pin),
        ]))
    }

    fn census(&self) -> Reply {
        let census = self.memory.folios().census();
        let other = [
            State::HostSharedGuest,
            State::Arriving,
            State::Wiping,
            State::Poisoned,
        ]
        .map(|state| census.frames(state))
        .into_iter()
        .fold(0, u64::saturating_add);
        let [host, hyp, host_shared_hyp, guest, guest_shared_host] = [
            State::Host,
            State::Hyp,
            State::HostSharedHyp,
            State::Guest,
            State::GuestSharedHost,
        ]
        .map(|state| census.frames(state));
        Reply::done([host, hyp, host_shared_hyp, guest, guest_shared_host, other])
    }

    fn digest(&self, first: claim::Pfn, count: claim::Count) -> Result<Reply, Refusal> {
        let range = range(first.0, count)?;
        let is_known = self
            .memory
            .folios()
            .frames()
            .is_some_and(|frames| frames.covers(range));
        let is_long = range.count() > limit::MAX_DIGEST && !mutant!(LongDigest);
        if is_long || !is_known {
            return Err(Refusal::Invalid);
        }
        Ok(Reply::done([self.memory.folios().digest(range)]))
    }

    fn counter(&self, counter: claim::CounterNumber) -> Result<Reply, Refusal> {
        let counter = Counter::from_number(counter.0)
            .or(seeded!(AnyCounter, Some(Counter::Calls), None))
            .ok_or(Refusal::Invalid)?;
        Ok(Reply::done([self.counter_value(counter)]))
    }

    /// The VM that a claim names.
    fn vm(&mut self, claim: claim::Handle) -> Result<&mut Vm, Refusal> {
        self.vms.get(handle(claim)?)
    }
}

/// Which of SMCCC's own calls there are.
const fn arch_features(function: u64) -> u64 {
    match function {
        SMCCC_VERSION | SMCCC_ARCH_FEATURES => SMCCC_SUCCESS,
        _ => SMCCC_NOT_SUPPORTED,
    }
}

fn handle(claim: claim::Handle) -> Result<VmHandle, Refusal> {
    VmHandle::new(claim.0).ok_or(Refusal::NoSuchVm)
}

fn vcpu_index(claim: claim::VcpuIndex) -> Result<usize, Refusal> {
    usize::try_from(claim.0).map_err(|_| Refusal::NoSuchVcpu)
}

fn ipa(claim: claim::Ipa) -> Result<Ipa, Refusal> {
    Ipa::new(claim.0)
        .filter(|ipa| ipa.frame().raw() >> crate::folio::GFN_BITS == 0)
        .ok_or(Refusal::Invalid)
}

/// Folios as a caller claims them.
fn folios(
    gfn: claim::Gfn,
    pfn: claim::Pfn,
    count: claim::Count,
    order: claim::Order,
) -> Result<FolioClaim, Refusal> {
    let order = u8::try_from(order.0).ok().and_then(Order::new);
    Ok(FolioClaim {
        gfn: frame(gfn.0)?,
        pfn: frame(pfn.0)?,
        count: count.0,
        order: order.ok_or(Refusal::Invalid)?,
    })
}

fn access(claim: claim::Access) -> Result<Access, Refusal> {
    let bits = seeded!(WritesWithoutReading, claim.0 | 1, claim.0);
    Access::new(bits).ok_or(Refusal::Invalid)
}

fn frame<S: Space>(claim: u64) -> Result<Frame<S>, Refusal> {
    Frame::new(claim).ok_or(Refusal::Invalid)
}

fn range<S: Space>(first: u64, count: claim::Count) -> Result<FrameRange<S>, Refusal> {
    FrameRange::new(frame(first)?, count.0).ok_or(Refusal::Invalid)
}
