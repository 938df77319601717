//! Core and specification in lockstep: [`Lockstep`] does each thing on the real core, on a machine of plain memory, tells the
//! specification, and compares everything.

use std::collections::BTreeMap;

use pinfold_abi::{HostCall, claim, pin_word};
use pinfold_core::addr::{Frame, FrameRange, Ipa};
use pinfold_core::exit::{Access, Conduit, DataAbort, Exit, Fault, FaultKind, RegisterAccess};
use pinfold_core::hypervisor::{
    CallRegisters, HostAbort, HostAbortOutcome, HostCallOutcome, Hypervisor,
};
use pinfold_core::id_registers::{ID_REGISTERS, Processor};
use pinfold_core::machine::test::{self, FakeMachine, Plan};
use pinfold_core::machine::{HypAccess, Machine, Vmid};
use pinfold_core::memory::decoy::MOST;
use pinfold_core::run::Resumption;
use pinfold_core::sysreg::SystemRegister;
use pinfold_core::vcpu::{GuestContext, LoadedVcpu};
use pinfold_core::vm::{self, VmHandle};
use pinfold_spec::{
    Boot, Entry, Glance, GuestDeed, GuestEvent, GuestRegisters, GuestSeen, HostSeen, Leaf, Phase,
    Processors, Reality, Rights, Spec, Taken, Touch, TouchBy, TouchSeen, Violation,
};

pub(crate) use pinfold_core::machine::test::RAM;

/// Where EL2's memory starts, and the hole.
pub(crate) const EL2: u64 = test::EL2;
pub(crate) const HOLE: u64 = test::HOLE;

/// Four blocks of RAM: the host's, EL2's, and two more of the host's.
pub(crate) const FRAMES: u64 = 4 * 512;
/// The pin table: the last frames.
pub(crate) const TABLE: u64 = RAM + FRAMES - 2;
/// Where guests have RAM, and how much.
pub(crate) const GUEST: u64 = 0x40000;
pub(crate) const GUEST_FRAMES: u64 = 1024;
/// What a register holds that nobody means to use.
const JUNK: u64 = 0xA5A5_5A5A_0000_0000;

/// `ICH_HCR_EL2.EOIcount`: the interrupts that were ended and in no list register.
const ENDED: u64 = 0x1F << 27;

/// The specification's judgement.
pub(crate) type Judged<T = ()> = Result<T, Violation>;

/// Both sides. A copy of it goes its own way.
#[derive(Clone)]
pub(crate) struct Lockstep {
    pub(crate) hypervisor: Hypervisor<FakeMachine>,
    pub(crate) spec: Spec,
    /// vCPUs that run, with the registers of the host that runs them.
    pub(crate) loaded: BTreeMap<(u64, u64), (LoadedVcpu, CallRegisters)>,
    pub(crate) processor: Processor,
    /// Where the pin table is, or will be.
    table: u64,
    /// Whether everything is compared after each step.
    pub(crate) compares: bool,
    /// `CNTVCT_EL0`, if interrupts are judged.
    pub(crate) now: Option<u64>,
}

impl Lockstep {
    /// Both sides after boot; no pin table is registered.
    pub(crate) fn boot() -> Self {
        Self::boot_on(Plan::of(FRAMES), TABLE)
    }

    /// Both sides after boot on this machine. The host will have its pin table at `table`.
    pub(crate) fn boot_on(plan: Plan, table: u64) -> Self {
        let hypervisor = test::boot_on(plan);
        let spec = Spec::new(Boot {
            ram: vec![(RAM, plan.frames)],
            hyp: vec![plan.el2],
            holes: plan.hole.into_iter().map(|hole| (hole, 1)).collect(),
            decoy: hypervisor.memory.decoy_page().raw(),
            pool: plan.pool,
            set_aside: 1 + u64::try_from(MOST).unwrap(),
            debug_calls: true,
        });
        let processor = Processor {
            id_registers: [0; ID_REGISTERS],
            list_registers: 4,
        };
        Self {
            hypervisor,
            spec,
            loaded: BTreeMap::new(),
            processor,
            table,
            compares: true,
            now: None,
        }
    }

    /// Judges interrupts and ID registers of guests, too, on processors with these.
    pub(crate) fn watch(&mut self, processors: &Processors) {
        self.processor = Processor {
            id_registers: processors.id_registers,
            list_registers: processors.list_registers,
        };
        self.spec.watch(*processors);
        self.now = Some(0);
    }

    pub(crate) fn machine(&mut self) -> &mut FakeMachine {
        self.hypervisor.memory.machine_mut()
    }

    fn free(&self) -> u64 {
        self.hypervisor.memory.machine().pool_free()
    }

    /// Compares everything.
    pub(crate) fn compare(&mut self) -> Judged {
        self.spec.compare(&Real(&self.hypervisor))
    }

    /// Compares after a step, if steps are to be compared.
    fn compare_step(&mut self) -> Judged {
        let wiped = core::mem::take(&mut self.machine().wiped_frames);
        if !self.compares {
            return Ok(());
        }
        self.compare()?;
        // What sees everything finds first; what sees only a part finds nothing where all is well.
        let near = Near::of(Real(&self.hypervisor), wiped);
        self.spec.compare_near(&near, &[])
    }

    /// Makes a host call; returns x0 to x17.
    pub(crate) fn call(&mut self, call: HostCall) -> Judged<[u64; 18]> {
        self.words(call.encode())
    }

    /// Makes whatever call these words stand for.
    pub(crate) fn words(&mut self, words: [u64; 8]) -> Judged<[u64; 18]> {
        let mut registers = CallRegisters::default();
        let junk = (0..).map(|number| JUNK | number);
        registers
            .x
            .iter_mut()
            .zip(junk)
            .for_each(|(x, junk)| *x = junk);
        let takes = |info: &&pinfold_abi::describe::CallInfo| {
            words[0].checked_sub(pinfold_abi::FUNCTION_BASE) == Some(info.number)
        };
        let arguments = HostCall::TABLE
            .iter()
            .find(takes)
            .map_or(7, |info| info.arguments.len());
        registers.x[..=arguments].copy_from_slice(&words[..=arguments]);
        let (before, free) = (registers.x, self.free());
        match self.hypervisor.host_call(&mut registers, 0) {
            HostCallOutcome::Return => {
                let seen = HostSeen::Returned(&registers.x);
                self.spec.host_call(&before, seen, free)?;
            }
            HostCallOutcome::Run(loaded) => {
                let context = &loaded.vcpu.context;
                let (guest, pstate, sctlr) =
                    (registers_of(context), context.pstate, context.el1.sctlr);
                self.loaded
                    .insert((words[1], words[2]), (loaded, registers));
                self.spec
                    .host_call(&before, HostSeen::Entered(&guest), free)?;
                self.spec.guest_state(pstate, sctlr)?;
                self.prepare(words[1], words[2])?;
            }
        }
        self.compare_step()?;
        Ok(registers.x)
    }

    /// Lets a guest that runs do something, with these in X0 to X3 first.
    pub(crate) fn guest(
        &mut self,
        vm: claim::Handle,
        vcpu: u64,
        x: [u64; 4],
        event: GuestEvent,
    ) -> Judged {
        self.guest_exits(vm, vcpu, x, event).map(|_| ())
    }

    /// The same; returns x0 to x17 of the host if it goes on.
    pub(crate) fn guest_exits(
        &mut self,
        vm: claim::Handle,
        vcpu: u64,
        x: [u64; 4],
        event: GuestEvent,
    ) -> Judged<Option<[u64; 18]>> {
        let name = (vm.0, vcpu);
        let Some((mut loaded, mut host)) = self.loaded.remove(&name) else {
            return Ok(None);
        };
        let context = &mut loaded.vcpu.context;
        context.x[..4].copy_from_slice(&x);
        if matches!(
            event,
            GuestEvent::Call | GuestEvent::CallBy { smc: false, .. }
        ) {
            context.pc = context.pc.wrapping_add(4);
        }
        let (registers, free) = (registers_of(context), self.free());
        let kind = self.kind_of_fault(vm, event);
        let deed = GuestDeed {
            vm: vm.0,
            vcpu,
            registers: &registers,
            event,
        };
        self.spec.guest_left(vm.0, vcpu, entry(&loaded));
        let resumption =
            self.hypervisor
                .guest_exit(&mut loaded, exit(event, kind), &self.processor);
        let guest = registers_of(&loaded.vcpu.context);
        let taken = loaded.vcpu.injection.take().map(|injection| Taken {
            esr: injection.esr,
            has_address: injection.far.is_some(),
        });
        let told = match resumption {
            Resumption::Guest | Resumption::GuestWithFloatingPoint => {
                self.loaded.insert(name, (loaded, host));
                let seen = GuestSeen::Resumed(&guest);
                self.spec.guest_event(deed, seen, free)?;
                None
            }
            Resumption::Host(exit) => {
                let before = host.x;
                self.hypervisor.finish_run(loaded, exit, &mut host);
                let (before, after) = (&before, &host.x);
                let seen = GuestSeen::Exited {
                    guest: &guest,
                    before,
                    after,
                };
                self.spec.guest_event(deed, seen, free)?;
                Some(host.x)
            }
        };
        self.spec.guest_takes(taken)?;
        self.enters(vm.0, vcpu)?;
        self.compare_step()?;
        Ok(told)
    }

    /// How stage 2 stops what a guest does: it has an entry that does not allow it, or none.
    fn kind_of_fault(&self, vm: claim::Handle, event: GuestEvent) -> FaultKind {
        let (ipa, needed, wanted) = match event {
            GuestEvent::Access {
                ipa, write: true, ..
            } => (ipa, 1 << 7, 1 << 7),
            GuestEvent::Access { ipa, .. } | GuestEvent::SignedLoad { ipa, .. } => {
                (ipa, 1 << 6, 1 << 6)
            }
            GuestEvent::Fetch { ipa } => (ipa, 1 << 54, 0),
            GuestEvent::Call
            | GuestEvent::CallBy { .. }
            | GuestEvent::Wait
            | GuestEvent::WaitForEvent
            | GuestEvent::Undefined
            | GuestEvent::FloatingPoint
            | GuestEvent::Register { .. }
            | GuestEvent::Timer
            | GuestEvent::Maintenance
            | GuestEvent::Interrupt
            | GuestEvent::Impossible { .. } => return FaultKind::Translation,
        };
        let vmid = Vmid(u16::try_from(vm.0 & 0xFF).unwrap() + 1);
        match self.hypervisor.memory.machine().walk(vmid, ipa >> 12) {
            Some((_, raw)) if raw & needed != wanted => FaultKind::Permission,
            _ => FaultKind::Translation,
        }
    }

    /// A vCPU gets its interrupts before its first entry.
    fn prepare(&mut self, vm: u64, vcpu: u64) -> Judged {
        let (Some(now), Some((loaded, _))) = (self.now, self.loaded.get_mut(&(vm, vcpu))) else {
            return Ok(());
        };
        self.hypervisor.prepare_entry(loaded, &self.processor, now);
        self.spec.guest_prepared(vm, vcpu, now);
        self.enters(vm, vcpu)
    }

    /// What a vCPU that goes on is entered with.
    fn enters(&mut self, vm: u64, vcpu: u64) -> Judged {
        let (Some(_), Some((loaded, _))) = (self.now, self.loaded.get(&(vm, vcpu))) else {
            return Ok(());
        };
        self.spec.guest_enters(vm, vcpu, entry(loaded))
    }

    /// The CPU interface of a vCPU that runs: it takes the most urgent interrupt, if there is one.
    pub(crate) fn takes(&mut self, vm: claim::Handle, vcpu: u64) -> Option<u32> {
        let (loaded, _) = self.loaded.get_mut(&(vm.0, vcpu))?;
        let pending = loaded.vcpu.lists.values.iter_mut();
        let value = pending
            .filter(|value| **value >> 62 == 1)
            .min_by_key(|value| (**value >> 48 & 0xFF, **value & 0xFFFF_FFFF))?;
        *value ^= 3 << 62;
        let intid = u32::try_from(*value & 0xFFFF_FFFF).unwrap();
        Some(intid)
    }

    /// The CPU interface of a vCPU that runs: it ends an interrupt.
    pub(crate) fn ends(&mut self, vm: claim::Handle, vcpu: u64, intid: u32) {
        let Some((loaded, _)) = self.loaded.get_mut(&(vm.0, vcpu)) else {
            return;
        };
        let lists = &mut loaded.vcpu.lists;
        let is_it = |value: &&mut u64| **value & 0xFFFF_FFFF == u64::from(intid);
        match lists.values[..lists.used].iter_mut().find(is_it) {
            Some(value) => *value &= !(1 << 63),
            None => lists.control += ENDED & ENDED.wrapping_neg(),
        }
    }

    /// A guest that runs writes `CNTV_CTL_EL0` and `CNTV_CVAL_EL0`.
    pub(crate) fn sets_timer(&mut self, vm: claim::Handle, vcpu: u64, control: u64, compare: u64) {
        if let Some((loaded, _)) = self.loaded.get_mut(&(vm.0, vcpu)) {
            let timer = &mut loaded.vcpu.context.timer;
            (timer.control, timer.compare) = (control, compare);
            self.spec.guest_sets_timer(vm.0, vcpu, control, compare);
        }
    }

    /// Lets the host touch a frame that stage 2 keeps from it.
    pub(crate) fn touch(&mut self, frame: u64, by: TouchBy) -> Judged {
        self.touched(frame, by).map(|_| ())
    }

    /// The same; returns what came of it.
    pub(crate) fn touched(&mut self, frame: u64, by: TouchBy) -> Judged<TouchSeen> {
        let abort = HostAbort {
            ipa: Ipa::new(frame << 12).unwrap(),
            far_is_kernel: matches!(by, TouchBy::Kernel | TouchBy::Fetch),
            from_el0: by == TouchBy::Process,
            write: by != TouchBy::Fetch,
            instruction: by == TouchBy::Fetch,
            pc: 0,
        };
        let seen = match self.hypervisor.host_abort(abort) {
            HostAbortOutcome::Retry => TouchSeen::Retry,
            HostAbortOutcome::Decoy => TouchSeen::Decoy,
            HostAbortOutcome::Inject => TouchSeen::Inject,
        };
        self.spec.host_touch(Touch { frame, by }, seen)?;
        self.compare_step()?;
        if seen == TouchSeen::Decoy {
            let decoy = self.hypervisor.memory.decoy_page().raw();
            self.machine().content.insert(decoy, 0xDEC0);
        }
        Ok(seen)
    }

    /// Ends the machine.
    pub(crate) fn end(&mut self) -> Judged {
        self.hypervisor.end_guests();
        self.spec.ends();
        let real = Real(&self.hypervisor);
        self.spec.compare_end(&real)
    }

    /// The host writes a pin word, at its place in the table.
    pub(crate) fn pin(&mut self, pfn: u64, word: u32) {
        let (frame, index) = (self.table + (pfn - RAM) / 1024, (pfn - RAM) % 1024);
        self.machine()
            .set_pin_word(frame, usize::try_from(index).unwrap(), word);
        self.spec.host_writes_pin(frame, index, word);
    }

    /// The host pins a folio as a donation wants it.
    pub(crate) fn pin_folio(&mut self, pfn: u64, order: u8) {
        self.pin(pfn, pin_word::donatable(order));
        (1..1 << order).for_each(|tail| self.pin(pfn + tail, 0));
    }

    /// The host writes to a frame that is its own.
    pub(crate) fn host_writes(&mut self, pfn: u64, value: u64) {
        if value == 0 {
            self.machine().content.remove(&pfn);
        } else {
            self.machine().content.insert(pfn, value);
        }
        self.spec.writes(pfn, value);
    }

    /// Every guest writes to every frame that is its alone.
    pub(crate) fn guests_write(&mut self) {
        let frames: Vec<_> = self.spec.guests_frames().collect();
        for (frame, handle) in frames {
            self.machine().content.insert(frame, handle << 32 | frame);
            self.spec.writes(frame, handle << 32 | frame);
        }
    }
}

fn registers_of(context: &GuestContext) -> GuestRegisters {
    GuestRegisters {
        x: context.x,
        pc: context.pc,
    }
}

/// What the list registers of a vCPU hold.
fn entry(loaded: &LoadedVcpu) -> Entry<'_> {
    let lists = &loaded.vcpu.lists;
    Entry {
        lists: &lists.values[..lists.used],
        control: lists.control,
        timer_held: lists.timer_held,
    }
}

/// A stage-2 fault of an access to `ipa`.
const fn fault(ipa: u64, kind: FaultKind) -> Fault {
    Fault {
        ipa,
        address: ipa,
        kind,
        table_walk: false,
    }
}

/// A load or store that stage 2 stopped.
const fn data_abort(access: Access, kind: FaultKind) -> Exit {
    Exit::DataAbort(DataAbort {
        fault: fault(access.ipa, kind),
        write: access.write,
        cache_maintenance: false,
        access: Some(access),
    })
}

/// The exception that a guest's deed is.
fn exit(event: GuestEvent, kind: FaultKind) -> Exit {
    match event {
        GuestEvent::Call => Exit::Call(Conduit::Hvc(0)),
        GuestEvent::Fetch { ipa } => Exit::InstructionAbort(fault(ipa, kind)),
        GuestEvent::CallBy { smc, immediate } => Exit::Call(if smc {
            Conduit::Smc(immediate)
        } else {
            Conduit::Hvc(immediate)
        }),
        GuestEvent::Wait => Exit::WaitForInterrupt,
        GuestEvent::WaitForEvent => Exit::WaitForEvent,
        GuestEvent::Undefined => Exit::Undefined,
        GuestEvent::FloatingPoint => Exit::FloatingPoint,
        GuestEvent::Register {
            register: [op0, op1, crn, crm, op2],
            transfer,
            read,
        } => Exit::SystemRegister(RegisterAccess {
            register: SystemRegister::new(op0, op1, crn, crm, op2),
            transfer,
            read,
        }),
        GuestEvent::SignedLoad {
            ipa,
            width,
            register,
            wide,
        } => data_abort(
            Access {
                ipa,
                width,
                write: false,
                register,
                sign_extend: true,
                wide,
            },
            kind,
        ),
        GuestEvent::Timer => Exit::Timer,
        GuestEvent::Maintenance => Exit::Maintenance,
        GuestEvent::Interrupt => Exit::Interrupt,
        GuestEvent::Impossible { class } => Exit::Unexpected(class),
        GuestEvent::Access {
            ipa,
            width,
            write,
            register,
        } => data_abort(
            Access {
                ipa,
                width,
                write,
                register,
                sign_extend: false,
                wide: width == 8,
            },
            kind,
        ),
    }
}

/// The real core's state, as the specification may look at it.
struct Real<'a>(&'a Hypervisor<FakeMachine>);

impl Real<'_> {
    fn named(&self, handle: u64) -> Option<&vm::Vm> {
        let handle = VmHandle::new(handle)?;
        let vm = self.0.vms.in_slot(handle.slot())?;
        (vm.handle == handle).then_some(vm)
    }

    fn machine(&self) -> &FakeMachine {
        self.0.memory.machine()
    }

    fn leaves(&self, vmid: Vmid) -> Vec<Leaf> {
        let leaves = self.machine().leaves(vmid).into_iter();
        let leaves = leaves.map(
            |test::Leaf {
                 gfn,
                 pfn,
                 frames,
                 raw,
             }| Leaf {
                gfn,
                pfn,
                frames,
                rights: Rights::of_descriptor(raw, false),
            },
        );
        leaves.collect()
    }
}

impl Reality for Real<'_> {
    fn is_flushed(&self) -> bool {
        self.machine().is_flushed()
    }

    fn folio_words(&self, first: u64, count: u64) -> Vec<u64> {
        let range = FrameRange::new(Frame::new(first).unwrap(), count).unwrap();
        let words = self.0.memory.folios().words(range);
        words.iter().map(|folio| folio.word()).collect()
    }

    fn vm(&self, handle: u64) -> Option<(Phase, u64)> {
        let vm = self.named(handle)?;
        let phase = match vm.phase() {
            vm::Phase::Created => Phase::Created,
            vm::Phase::Live => Phase::Live,
            vm::Phase::Dying => Phase::Dying,
        };
        Some((phase, vm.memory.owned_frames()))
    }

    fn is_guest_ram(&self, handle: u64, gfn: u64) -> bool {
        self.named(handle)
            .zip(Frame::new(gfn))
            .is_some_and(|(vm, gfn)| vm.memory.is_ram(gfn))
    }

    fn host_leaves(&self) -> Vec<Leaf> {
        self.leaves(Vmid::HOST)
    }

    fn guest_leaves(&self) -> Vec<(u64, Vec<Leaf>)> {
        let vmids = self.machine().vmids().filter(|vmid| *vmid != Vmid::HOST);
        vmids
            .map(|vmid| (u64::from(vmid.0) - 1, self.leaves(vmid)))
            .collect()
    }

    fn hyp_frames(&self) -> Vec<(u64, bool)> {
        let frames = self.machine().hyp_frames().into_iter();
        frames
            .map(|(frame, access)| (frame, access == HypAccess::ReadWrite))
            .collect()
    }

    fn pool(&self) -> (u64, u64) {
        (self.machine().pool_free(), self.machine().tables_in_use())
    }

    fn content(&self) -> Vec<(u64, u64)> {
        self.machine()
            .content
            .iter()
            .map(|(frame, value)| (*frame, *value))
            .collect()
    }

    fn cleaned(&self) -> (u64, u64) {
        (
            self.machine().cleaned,
            self.machine().instructions_forgotten,
        )
    }
}

/// The same, looked at once to be asked for one thing at a time.
struct Near<'a> {
    real: Real<'a>,
    host: Vec<Leaf>,
    guests: BTreeMap<u64, Vec<Leaf>>,
    hyp: BTreeMap<u64, bool>,
    wiped: Vec<u64>,
}

impl<'a> Near<'a> {
    fn of(real: Real<'a>, wiped: Vec<u64>) -> Self {
        Self {
            host: real.host_leaves(),
            guests: real.guest_leaves().into_iter().collect(),
            hyp: real.hyp_frames().into_iter().collect(),
            wiped,
            real,
        }
    }
}

impl Glance for Near<'_> {
    fn folio_word(&self, frame: u64) -> u64 {
        self.real.folio_words(frame, 1)[0]
    }

    fn host_leaf(&self, frame: u64) -> Option<Leaf> {
        covering(&self.host, frame)
    }

    fn guest_leaf(&self, handle: u64, gfn: u64) -> Option<Leaf> {
        let vm = self.real.named(handle)?;
        let leaves = self.guests.get(&u64::from(vm.handle.slot().raw()))?;
        covering(leaves, gfn)
    }

    fn hyp_access(&self, frame: u64) -> Option<bool> {
        self.hyp.get(&frame).copied()
    }

    fn vm(&self, handle: u64) -> Option<(Phase, u64)> {
        self.real.vm(handle)
    }

    fn is_guest_ram(&self, handle: u64, gfn: u64) -> bool {
        self.real.is_guest_ram(handle, gfn)
    }

    fn wiped(&self) -> Vec<u64> {
        self.wiped.clone()
    }

    fn pool_free(&self) -> u64 {
        self.real.machine().pool_free()
    }

    fn cleaned(&self) -> (u64, u64) {
        self.real.cleaned()
    }
}

/// The leaf that covers a frame.
fn covering(leaves: &[Leaf], gfn: u64) -> Option<Leaf> {
    let after = leaves.partition_point(|leaf| leaf.gfn <= gfn);
    let leaf = leaves.get(after.checked_sub(1)?)?;
    (gfn < leaf.gfn + leaf.frames).then_some(*leaf)
}
