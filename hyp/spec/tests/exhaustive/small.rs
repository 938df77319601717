//! A machine that is small enough to try everything: [`World`], with a few pages, two VMs at most, and two addresses in each.
//!
//! Pin words are arguments of the calls that read them. The host may write them whenever it likes, and nothing else reads them, so
//! a world that also remembered them would only have the same states more often.

use pinfold_abi::{HostCall, Status, claim, pin_word};
use pinfold_core::addr::Frame;
use pinfold_core::machine::test::Plan;
use pinfold_core::machine::{Machine, Vmid};
use pinfold_core::vm::{VmHandle, VmSlot};
use pinfold_spec::{GuestEvent, TouchBy};

use crate::directed::{RELINQUISH, SHARE, UNSHARE};
use crate::lockstep::{GUEST, Judged, Lockstep, RAM};

/// VMs, and addresses in each.
pub(crate) const VMS: usize = 2;
pub(crate) const ADDRESSES: u64 = 2;
/// Where the pin table is, and EL2's memory. The pages are before them, in the same 2 MiB.
pub(crate) const TABLE: u64 = RAM + 7;
pub(crate) const EL2: u64 = RAM + 8;
pub(crate) const EL2_FRAMES: u64 = 80;
/// Frames of the machine.
pub(crate) const FRAMES: u64 = 8 + EL2_FRAMES;

/// What the host has in the pin words when it donates, or agrees to an unshare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pin {
    /// As it must be.
    Right,
    /// Nothing.
    Missing,
    /// One pin that is not exclusive.
    Ordinary,
    /// Exclusive, but others refer to the page.
    NotIsolated,
    /// Two pins.
    Twice,
    /// That of a folio of another order.
    OtherOrder,
}

impl Pin {
    pub(crate) const WRONG: [Self; 5] = [
        Self::Missing,
        Self::Ordinary,
        Self::NotIsolated,
        Self::Twice,
        Self::OtherOrder,
    ];

    const fn word(self, order: u8) -> u32 {
        let right = pin_word::donatable(order);
        match self {
            Self::Right => right,
            Self::Missing => 0,
            Self::Ordinary => 1,
            Self::NotIsolated => right & !pin_word::ISOLATED,
            Self::Twice => right + 1,
            Self::OtherOrder => pin_word::donatable(order ^ 1),
        }
    }
}

/// What the host, a guest, or a process may do. Pages and addresses count from 0, VMs are their slots.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    /// A VM with two frames of guest RAM and a vCPU.
    Create,
    Start(usize),
    Begin(usize),
    Finish(usize),
    Donate {
        vm: usize,
        gfn: u64,
        page: u64,
        count: u64,
        order: u8,
        pin: Pin,
    },
    Reclaim {
        vm: usize,
        gfn: u64,
        count: u64,
    },
    /// Runs the vCPU; the page that it shared last is pinned so.
    Run {
        vm: usize,
        answer: u64,
        pin: Pin,
    },
    Share {
        vm: usize,
        gfn: u64,
    },
    Unshare {
        vm: usize,
        gfn: u64,
        pin: Pin,
    },
    /// The guest gives a frame back.
    Relinquish {
        vm: usize,
        gfn: u64,
    },
    Interrupt(usize),
    /// The host shares pages with an ordinary VM, one by one or as a folio.
    ShareGuest {
        vm: usize,
        gfn: u64,
        page: u64,
        count: u64,
        order: u8,
    },
    /// What an ordinary VM may do is all, or reading only.
    Protect {
        vm: usize,
        gfn: u64,
        count: u64,
        access: u64,
    },
    UnshareGuest {
        vm: usize,
        gfn: u64,
        count: u64,
    },
    Poison(u64),
    PoolDonate(u64),
    PoolReclaim,
    Touch {
        page: u64,
        by: TouchBy,
    },
}

/// What a vCPU that does not run waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
enum Awaits {
    #[default]
    Nothing,
    Share(u64),
    Unshare,
}

/// What no refused call may change, in short: no descriptor was written, no word is another.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Glance {
    words: Vec<u64>,
    hyp: usize,
    pool: u64,
    counts: [u64; 4],
    vms: Vec<Option<(u8, u64)>>,
}

/// What two worlds must have in common to have the same future.
pub(crate) type Key = Vec<u64>;

/// Core and specification on a small machine.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) both: Lockstep,
    pub(crate) pages: u64,
    pub(crate) vms: [Option<claim::Handle>; VMS],
    awaits: [Awaits; VMS],
    /// Whether the VM in a slot is a protected one.
    protected: [bool; VMS],
    /// Pages in the pool, in the order of their coming.
    given: Vec<u64>,
}

impl World {
    /// A host with this many pages and a registered pin table. The VM in the second slot is ordinary if `mixed`.
    pub(crate) fn new(pages: u64, mixed: bool) -> Judged<Self> {
        let plan = Plan {
            frames: FRAMES,
            el2: (EL2, EL2_FRAMES),
            pool: EL2_FRAMES - 4,
            hole: None,
        };
        let mut both = Lockstep::boot_on(plan, TABLE);
        both.register(TABLE, RAM, FRAMES)?;
        Ok(Self {
            both,
            pages,
            vms: [None; VMS],
            awaits: [Awaits::Nothing; VMS],
            protected: [true, !mixed],
            given: Vec::new(),
        })
    }

    fn handle(&self, vm: usize) -> claim::Handle {
        self.vms[vm].unwrap_or(claim::Handle(0x0100 | u64::try_from(vm).unwrap()))
    }

    fn runs(&self, vm: usize) -> bool {
        self.both.loaded.contains_key(&(self.handle(vm).0, 0))
    }

    /// Clears all pin words, then writes those of the folios.
    fn pin(&mut self, page: u64, count: u64, order: u8, pin: Pin) {
        (0..self.pages).for_each(|page| self.both.pin(RAM + page, 0));
        for folio in 0..count {
            let head = page + (folio << order);
            if head < self.pages {
                self.both.pin(RAM + head, pin.word(order));
            }
        }
    }

    /// Everything that may be tried here. What is sure to be refused is left out only where another line says the same.
    pub(crate) fn actions(&self) -> Vec<Action> {
        let mut actions = vec![Action::PoolReclaim];
        if self.vms.contains(&None) {
            actions.push(Action::Create);
        }
        for page in 0..self.pages {
            actions.extend([Action::PoolDonate(page), Action::Poison(page)]);
            let touches = [
                TouchBy::Process,
                TouchBy::KernelForProcess,
                TouchBy::Kernel,
                TouchBy::Fetch,
            ];
            actions.extend(touches.map(|by| Action::Touch { page, by }));
        }
        (0..VMS).for_each(|vm| self.actions_of(vm, &mut actions));
        actions
    }

    fn actions_of(&self, vm: usize, actions: &mut Vec<Action>) {
        actions.extend([Action::Start(vm), Action::Begin(vm), Action::Finish(vm)]);
        let right = Pin::Right;
        let answers = [(0, right), (1, right), (1, Pin::Missing)];
        actions.extend(answers.map(|(answer, pin)| Action::Run { vm, answer, pin }));
        let donate = |gfn, page, count, order, pin| Action::Donate {
            vm,
            gfn,
            page,
            count,
            order,
            pin,
        };
        for page in 0..self.pages {
            for gfn in 0..ADDRESSES {
                actions.push(donate(gfn, page, 1, 0, right));
            }
            actions.push(donate(0, page, 2, 0, right));
            actions.push(donate(0, page, 1, 1, right));
            actions.extend(Pin::WRONG.map(|pin| donate(0, page, 1, 0, pin)));
        }
        actions.extend(Pin::WRONG.map(|pin| donate(0, 0, 1, 1, pin)));
        for (gfn, count) in [(0, 1), (1, 1), (0, 2)] {
            actions.push(Action::Reclaim { vm, gfn, count });
        }
        self.shares_with(vm, actions);
        if self.runs(vm) {
            actions.push(Action::Interrupt(vm));
            for gfn in 0..ADDRESSES {
                actions.push(Action::Relinquish { vm, gfn });
                actions.push(Action::Share { vm, gfn });
                let pins = [right, Pin::Missing, Pin::OtherOrder];
                actions.extend(pins.map(|pin| Action::Unshare { vm, gfn, pin }));
            }
        }
    }

    /// What only ordinary VMs are for; a protected one is refused it once.
    fn shares_with(&self, vm: usize, actions: &mut Vec<Action>) {
        let share = |gfn, page, count, order| Action::ShareGuest {
            vm,
            gfn,
            page,
            count,
            order,
        };
        if self.protected[vm] {
            let (gfn, count, access) = (0, 1, 1);
            let protect = Action::Protect {
                vm,
                gfn,
                count,
                access,
            };
            actions.extend([share(0, 0, 1, 0), protect]);
            actions.push(Action::UnshareGuest { vm, gfn, count });
            return;
        }
        for page in 0..self.pages {
            actions.extend((0..ADDRESSES).map(|gfn| share(gfn, page, 1, 0)));
            actions.extend([share(0, page, 2, 0), share(0, page, 1, 1)]);
        }
        for (gfn, count) in [(0, 1), (1, 1), (0, 2)] {
            actions.extend([1, 7].map(|access| Action::Protect {
                vm,
                gfn,
                count,
                access,
            }));
            actions.push(Action::UnshareGuest { vm, gfn, count });
        }
    }

    /// Takes a step; says whether a call was refused.
    pub(crate) fn take(&mut self, action: Action) -> Judged<bool> {
        let x = match action {
            Action::Create => return self.create().map(|()| false),
            Action::Share { vm, gfn } => return self.share(vm, gfn).map(|()| false),
            Action::Unshare { vm, gfn, pin } => return self.unshare(vm, gfn, pin).map(|()| false),
            Action::Relinquish { vm, gfn } => return self.relinquish(vm, gfn).map(|()| false),
            Action::Poison(page) => self.poison(page)?,
            Action::ShareGuest {
                vm,
                gfn,
                page,
                count,
                order,
            } => {
                let folios = (GUEST + gfn, RAM + page, count, u64::from(order));
                self.both.share_with_guest(self.handle(vm), folios, 7)?
            }
            Action::Protect {
                vm,
                gfn,
                count,
                access,
            } => self
                .both
                .protect_guest(self.handle(vm), GUEST + gfn, count, access)?,
            Action::UnshareGuest { vm, gfn, count } => {
                self.both
                    .unshare_from_guest(self.handle(vm), GUEST + gfn, count)?
            }
            Action::Interrupt(vm) => {
                self.guest(vm, [0; 4], GuestEvent::Interrupt)?;
                return Ok(false);
            }
            Action::Touch { page, by } => return self.touch(page, by),
            Action::Start(vm) => self.both.start(self.handle(vm))?,
            Action::Begin(vm) => self.both.begin(self.handle(vm))?,
            Action::Finish(vm) => self.finish(vm)?,
            Action::Donate {
                vm,
                gfn,
                page,
                count,
                order,
                pin,
            } => {
                self.pin(page, count, order, pin);
                let order = u64::from(order);
                self.both
                    .donate(self.handle(vm), GUEST + gfn, RAM + page, count, order)?
            }
            Action::Reclaim { vm, gfn, count } => {
                self.both.reclaim(self.handle(vm), GUEST + gfn, count)?
            }
            Action::Run { vm, answer, pin } => self.run(vm, answer, pin)?,
            Action::PoolDonate(page) => self.give(page)?,
            Action::PoolReclaim => self.take_back()?,
        };
        self.both.guests_write();
        Ok(x[1] != 0 && x[1] != Status::Again.number())
    }

    /// Poisons a page, which is for good: everything is compared at once.
    fn poison(&mut self, page: u64) -> Judged<[u64; 18]> {
        let compares = std::mem::replace(&mut self.both.compares, true);
        let x = self.both.poison(RAM + page)?;
        self.both.compares = compares;
        Ok(x)
    }

    /// Lets the host touch a page; says whether that comes to nothing. What comes to a decoy is compared at once, before anybody uses it.
    fn touch(&mut self, page: u64, by: TouchBy) -> Judged<bool> {
        let frame = RAM + page;
        let is_decoy = by == TouchBy::Kernel && !self.both.spec.host_may_write(frame);
        let compares = std::mem::replace(&mut self.both.compares, is_decoy);
        self.both.touch(frame, by)?;
        self.both.compares = compares;
        Ok(!is_decoy)
    }

    /// Makes a call, and looks at everything if it changed something.
    pub(crate) fn call(&mut self, call: HostCall) -> Judged {
        let glance = self.glance();
        self.both.compares = false;
        let running = self.both.loaded.len();
        let x = self.both.call(call)?;
        self.both.compares = true;
        let is_refused = self.both.loaded.len() == running && x[1] != 0;
        if !is_refused || self.glance() != glance {
            self.both.compare()?;
        }
        Ok(())
    }

    fn create(&mut self) -> Judged {
        let slot = self.vms.iter().position(Option::is_none).unwrap();
        let vm = self.both.create(u64::from(self.protected[slot]), 1)?;
        assert_eq!(vm.0 & 0xFF, u64::try_from(slot).unwrap(), "the lowest slot");
        self.vms[slot] = Some(vm);
        self.awaits[slot] = Awaits::Nothing;
        self.both.region(vm, GUEST, ADDRESSES)?;
        self.both.vcpu(vm, 0, 0)?;
        Ok(())
    }

    fn finish(&mut self, vm: usize) -> Judged<[u64; 18]> {
        let x = self.both.finish(self.handle(vm))?;
        if x[1] == 0 {
            self.vms[vm] = None;
            self.awaits[vm] = Awaits::Nothing;
        }
        Ok(x)
    }

    fn run(&mut self, vm: usize, answer: u64, pin: Pin) -> Judged<[u64; 18]> {
        let runs = self.runs(vm);
        let shared = self.both.spec.frames_of(self.handle(vm).0, true);
        if let Awaits::Share(gfn) = self.awaits[vm]
            && let Some((_, frame)) = shared.iter().find(|(at, _)| *at == GUEST + gfn)
        {
            self.pin(frame - RAM, 1, 0, pin);
        }
        let x = self.both.run(self.handle(vm), 0, answer)?;
        if !runs && self.runs(vm) {
            self.awaits[vm] = Awaits::Nothing;
            // x1 is the handle still: a run that is not over has no status.
            return Ok([0; 18]);
        }
        Ok(x)
    }

    fn give(&mut self, page: u64) -> Judged<[u64; 18]> {
        let x = self.both.pool_donate(RAM + page, 1)?;
        if x[1] == 0 {
            self.given.push(page);
        }
        Ok(x)
    }

    fn take_back(&mut self) -> Judged<[u64; 18]> {
        let x = self.both.call(HostCall::PoolReclaim {})?;
        if x[1] == 0 {
            self.given.retain(|page| RAM + page != x[2]);
        }
        Ok(x)
    }

    /// Lets the vCPU of a VM do something; says whether that ended its run.
    fn guest(&mut self, vm: usize, x: [u64; 4], event: GuestEvent) -> Judged<bool> {
        self.both.guest(self.handle(vm), 0, x, event)?;
        self.both.guests_write();
        Ok(!self.runs(vm))
    }

    fn has(&self, vm: usize, gfn: u64, shared: bool) -> bool {
        let frames = self.both.spec.frames_of(self.handle(vm).0, shared);
        frames.iter().any(|(at, _)| *at == GUEST + gfn)
    }

    fn share(&mut self, vm: usize, gfn: u64) -> Judged {
        let is_private = self.has(vm, gfn, false);
        let x = [SHARE, (GUEST + gfn) << 12, 0, 0];
        if self.guest(vm, x, GuestEvent::Call)? && is_private {
            self.awaits[vm] = Awaits::Share(gfn);
        }
        Ok(())
    }

    fn unshare(&mut self, vm: usize, gfn: u64, pin: Pin) -> Judged {
        let frames = self.both.spec.frames_of(self.handle(vm).0, true);
        if let Some((_, frame)) = frames.iter().find(|(at, _)| *at == GUEST + gfn) {
            self.pin(frame - RAM, 1, 0, pin);
        }
        let x = [UNSHARE, (GUEST + gfn) << 12, 0, 0];
        if self.guest(vm, x, GuestEvent::Call)? {
            self.awaits[vm] = Awaits::Unshare;
        }
        Ok(())
    }

    fn relinquish(&mut self, vm: usize, gfn: u64) -> Judged {
        let x = [RELINQUISH, (GUEST + gfn) << 12, 0, 0];
        self.guest(vm, x, GuestEvent::Call).map(|_| ())
    }

    /// Whether the step leads to a state that others do not lead to. Decoys and poison are tried, and not gone on from.
    pub(crate) const fn leads_on(action: Action) -> bool {
        !matches!(action, Action::Touch { .. } | Action::Poison(_))
    }

    /// A look at what a refused call must leave alone.
    pub(crate) fn glance(&self) -> Glance {
        let memory = &self.both.hypervisor.memory;
        let machine = memory.machine();
        let words = (RAM..RAM + FRAMES).filter_map(Frame::new);
        let vms = self.vms.iter().map(|vm| {
            let vm = self.vm((*vm)?)?;
            Some((phase(vm), vm.memory.owned_frames()))
        });
        Glance {
            words: words.map(|pfn| memory.folios().word(pfn).word()).collect(),
            hyp: machine.hyp_frames().len(),
            pool: machine.pool_free(),
            counts: [
                machine.writes,
                machine.wiped,
                machine.cleaned,
                machine.instructions_forgotten,
            ],
            vms: vms.collect(),
        }
    }

    fn vm(&self, handle: claim::Handle) -> Option<&pinfold_core::vm::Vm> {
        let handle = VmHandle::new(handle.0)?;
        let vm = self.both.hypervisor.vms.in_slot(handle.slot())?;
        (vm.handle == handle).then_some(vm)
    }

    /// The key of this world, or of one that differs from it in names only, whichever is less: VMs may swap slots, and the pairs of
    /// pages places. Core asks of a slot whether it is the same, and which is the lowest that is free; of a page whether it is the
    /// same, and whether it is aligned. So the two worlds have the same future, but for the names.
    pub(crate) fn key(&self) -> Key {
        let swaps: &[u64] = if self.pages == 4 { &[0, 2] } else { &[0] };
        let keys = swaps.iter().flat_map(|pages| {
            let key = |vms: usize| self.key_under(vms, *pages);
            let swapped = (self.protected[0] == self.protected[1]).then(|| key(1));
            [Some(key(0)), swapped].into_iter().flatten()
        });
        keys.min().unwrap_or_default()
    }

    /// The key, if VM `v` is called `v ^ vms`, and page `p` is called `p ^ pages`.
    fn key_under(&self, vms: usize, pages: u64) -> Key {
        let memory = &self.both.hypervisor.memory;
        let machine = memory.machine();
        let mut key = Key::new();
        for page in (0..self.pages).map(|page| RAM + (page ^ pages)) {
            let word = memory.folios().word(Frame::new(page).unwrap()).word();
            let is_held = word & 7 >= 3 && word & 7 <= 5 && word & 1 << 7 == 0;
            let slot = u64::try_from(vms).unwrap() << 24;
            key.push(if is_held { word ^ slot } else { word });
            key.push(attributes(machine.walk(Vmid::HOST, page)));
        }
        for vm in (0..VMS).map(|vm| vm ^ vms) {
            let there = self.vms[vm].and_then(|handle| self.vm(handle));
            let (phase, owned) = there.map_or((0, 0), |vm| {
                (u64::from(phase(vm)), vm.memory.owned_frames())
            });
            let awaits = match self.awaits[vm] {
                Awaits::Nothing => 0,
                Awaits::Share(gfn) => 1 + gfn,
                Awaits::Unshare => 1 + ADDRESSES,
            };
            key.extend([phase, owned, awaits, u64::from(self.runs(vm))]);
            let vmid = VmSlot::new(u8::try_from(vm).unwrap()).unwrap().vmid();
            for gfn in (0..ADDRESSES).map(|gfn| GUEST + gfn) {
                let found = machine.walk(vmid, gfn);
                key.push(found.map_or(u64::MAX, |(pfn, _)| (pfn - RAM) ^ pages));
                key.push(attributes(found));
            }
        }
        key.extend(self.given.iter().map(|page| page ^ pages));
        key
    }

    /// Ends everything; the pages are the host's again.
    pub(crate) fn go_home(&mut self) -> Judged {
        for vm in 0..VMS {
            if self.vms[vm].is_none() {
                continue;
            }
            if self.runs(vm) {
                self.guest(vm, [0; 4], GuestEvent::Interrupt)?;
            }
            let handle = self.handle(vm);
            self.both.begin(handle)?;
            if self.protected[vm] {
                self.both.reclaim(handle, GUEST, ADDRESSES)?;
            } else {
                self.both.unshare_from_guest(handle, GUEST, ADDRESSES)?;
            }
            self.finish(vm)?;
        }
        while !self.given.is_empty() && self.take_back()?[1] == 0 {}
        Ok(())
    }
}

/// Created, live, dying.
const fn phase(vm: &pinfold_core::vm::Vm) -> u8 {
    match vm.phase() {
        pinfold_core::vm::Phase::Created => 1,
        pinfold_core::vm::Phase::Live => 2,
        pinfold_core::vm::Phase::Dying => 3,
    }
}

/// A descriptor without its address.
fn attributes(found: Option<(u64, u64)>) -> u64 {
    const ADDRESS: u64 = 0x0000_FFFF_FFFF_F000;
    found.map_or(0, |(_, raw)| raw & !ADDRESS)
}
