//! A [`Vm`]: one VM of a test, with the folios that were given to it, or shared with it if it is an ordinary one.
//!
//! [`Vm::run`] is one `VCPU_RUN`; [`Vm::next`] goes on through interrupts, missing pages, sharing and console output until something comes that a test must
//! see. Invariant: `folios` lists exactly what EL2 maps into the guest; dropping the VM tears it down and takes everything back.

use alloc::vec::Vec;

use guest_test::bytes::FRAME;
use guest_test::lock::Yield;
use guest_test::port::{self, BootPage};
use guest_test::tap::{Failure, Outcome};
use guest_test::{bytes, check, check_eq, console, gic, line, timer};
use pinfold_abi::{
    ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, VCPU_POWERED_OFF, VM_PROTECTED, pin_word,
};
use spin::relax::RelaxStrategy;

use crate::calls::{self, ExitReason, Reply, Status};
use crate::folio::Folio;
use crate::{frames, micro, platform, pool};

/// First frame of guest RAM.
pub(crate) const RAM_GFN: u64 = port::RAM / FRAME;
/// First frame of guest RAM that no image uses.
pub(crate) const SCRATCH_GFN: u64 = port::SCRATCH / FRAME;
/// Read, write and execute.
pub(crate) const EVERYTHING: u64 = ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE;
/// x4 of a `MEMORY_FAULT` of a frame that is there.
pub(crate) const DENIED: u64 = 1 << 2;
/// How many milliseconds a guest may be silent.
const PATIENCE: u64 = 120_000;

/// Why `VCPU_RUN` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// The reason.
    pub(crate) reason: ExitReason,
    /// x3, x4, x5.
    pub(crate) details: [u64; 3],
}

/// What [`Vm::next`] leaves to the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The guest told a word.
    Told(u64),
    /// The guest asks for a word, which the next run answers.
    Asked,
    /// The guest's verdict: passed or not.
    Verdict(bool),
    /// Any other exit.
    Exit(Exit),
}

/// A VM and what it owns.
#[derive(Debug)]
pub(crate) struct Vm {
    handle: u64,
    flags: u64,
    folios: Vec<(u64, Folio)>,
    console: Vec<u8>,
    /// `SHARED` exits are declined, and the folio stays pinned as it is.
    pub(crate) declines_share: bool,
    /// `UNSHARE_REQUESTs` are answered with a refusal.
    pub(crate) refuses_unshare: bool,
    /// How many exits of SHARED and `UNSHARE_REQUEST` came.
    pub(crate) shared: [u32; 2],
}

impl Vm {
    /// A VM with nothing.
    pub(crate) fn create(vcpus: u64) -> Result<Self, Failure> {
        Self::create_as(VM_PROTECTED, vcpus)
    }

    fn create_as(flags: u64, vcpus: u64) -> Result<Self, Failure> {
        let handle = pool::fed(|| calls::vm_create(flags, vcpus))?.value("VM_CREATE")?;
        Ok(Self {
            handle,
            flags,
            folios: Vec::new(),
            console: Vec::new(),
            declines_share: false,
            refuses_unshare: false,
            shared: [0; 2],
        })
    }

    /// A VM with RAM, a GIC and its vCPUs, all but the first off; not started.
    pub(crate) fn configured(vcpus: u64) -> Result<Self, Failure> {
        Self::configured_as(VM_PROTECTED, vcpus)
    }

    /// The same, protected or not.
    pub(crate) fn configured_as(flags: u64, vcpus: u64) -> Result<Self, Failure> {
        let vm = Self::create_as(flags, vcpus)?;
        let handle = vm.handle;
        calls::vm_memory_region(handle, RAM_GFN, port::RAM_FRAMES).done("VM_MEMORY_REGION")?;
        calls::vm_gic(handle, gic::GICD, gic::GICR).done("VM_GIC")?;
        for index in 0..vcpus {
            let flags = if index == 0 { 0 } else { VCPU_POWERED_OFF };
            pool::fed(|| calls::vcpu_create(handle, index, flags))?.done("VCPU_CREATE")?;
        }
        Ok(vm)
    }

    /// A started VM with the puppet in the first page of its RAM.
    pub(crate) fn puppet() -> Result<Self, Failure> {
        Self::puppet_as(VM_PROTECTED)
    }

    /// The same, protected or not.
    pub(crate) fn puppet_as(flags: u64) -> Result<Self, Failure> {
        let mut vm = Self::configured_as(flags, 1)?;
        let folio = Folio::take_pinned(0)?;
        store(&folio, 0, micro::code())?;
        vm.set_register(32, port::RAM)?;
        vm.set_register(0, port::PORT)?;
        calls::vm_start(vm.handle).done("VM_START")?;
        vm.donate(RAM_GFN, folio)?;
        Ok(vm)
    }

    /// A started VM with the guest image, set to run one of its tests.
    pub(crate) fn image(test: &str, vcpus: u64) -> Result<Self, Failure> {
        let mut vm = Self::configured(vcpus)?;
        vm.set_register(32, port::IMAGE)?;
        vm.set_register(0, port::RAM)?;
        calls::vm_start(vm.handle).done("VM_START")?;
        let boot = Folio::take_pinned(0)?;
        let page = BootPage::new(test);
        // SAFETY: a BootPage is plain words and bytes without padding.
        let bytes = unsafe {
            core::slice::from_raw_parts((&raw const page).cast::<u8>(), size_of::<BootPage>())
        };
        store(&boot, 0, bytes)?;
        vm.donate(RAM_GFN, boot)?;
        for (gfn, chunk) in (port::IMAGE / FRAME..).zip(guest_image()?.chunks(bytes::size(FRAME))) {
            let folio = Folio::take_pinned(0)?;
            store(&folio, 0, chunk)?;
            vm.donate(gfn, folio)?;
        }
        Ok(vm)
    }

    /// Its handle.
    pub(crate) const fn handle(&self) -> u64 {
        self.handle
    }

    /// Sets a register of vCPU 0.
    pub(crate) fn set_register(&self, register: u64, value: u64) -> Outcome {
        calls::vcpu_set_register(self.handle, 0, register, value)
            .done("VCPU_SET_REGISTER")
            .map(|_| ())
    }

    /// Gives a pinned folio to the guest; to an ordinary one, to use as it likes.
    pub(crate) fn donate(&mut self, gfn: u64, folio: Folio) -> Outcome {
        let mut all = self.begin_donation(gfn, folio)?;
        while !all {
            Yield::relax();
            all = self.go_on_donating(gfn)?;
        }
        Ok(())
    }

    /// The first call of a donation; says whether that is all. What EL2 has begun to take comes back with what the guest has.
    pub(crate) fn begin_donation(&mut self, gfn: u64, folio: Folio) -> Result<bool, Failure> {
        let all = self.give(gfn, &folio)?;
        self.folios.push((gfn, folio));
        Ok(all)
    }

    /// A further call of a donation that was begun; says whether that is all.
    pub(crate) fn go_on_donating(&self, gfn: u64) -> Result<bool, Failure> {
        self.give(gfn, self.folio(gfn)?)
    }

    /// One call that gives; says whether that is all.
    fn give(&self, gfn: u64, folio: &Folio) -> Result<bool, Failure> {
        let (handle, pfn, order) = (self.handle, folio.pfn(), u64::from(folio.order()));
        if self.flags & VM_PROTECTED == 0 {
            pool::fed(|| calls::mem_share_guest(handle, gfn, pfn, 1, order, EVERYTHING))?
                .done("MEM_SHARE_GUEST")?;
            return Ok(true);
        }
        let reply = pool::fed(|| calls::mem_donate(handle, gfn, pfn, 1, order))?;
        if reply.is(Status::Again) {
            return Ok(false);
        }
        reply.done("MEM_DONATE").map(|_| true)
    }

    /// Gives the guest a fresh folio at a guest frame, filled with `seed`'s pattern.
    pub(crate) fn give_filled(&mut self, gfn: u64, order: u8, seed: u64) -> Outcome {
        let folio = Folio::take_pinned(order)?;
        folio.fill(seed)?;
        self.donate(gfn, folio)
    }

    /// Takes a frame off the list, which the guest gave back; what is left of a larger folio stays there in halves of halves.
    pub(crate) fn forget(&mut self, gfn: u64) -> Result<Folio, Failure> {
        let holds = |(first, folio): &(u64, Folio)| (*first..first + folio.frames()).contains(&gfn);
        let place = self.folios.iter().position(holds);
        let gone = place.map(|place| self.folios.swap_remove(place));
        let (mut first, mut folio) = gone
            .ok_or_else(|| Failure::new(format_args!("the guest has nothing at gfn {gfn:#x}")))?;
        folio.split_pin();
        while folio.order() > 0 {
            let (lower, upper) = folio.halves();
            let middle = first + lower.frames();
            if gfn < middle {
                self.folios.push((middle, upper));
                folio = lower;
            } else {
                self.folios.push((first, lower));
                (first, folio) = (middle, upper);
            }
        }
        Ok(folio)
    }

    /// The folio that holds a guest frame.
    pub(crate) fn folio(&self, gfn: u64) -> Result<&Folio, Failure> {
        self.folios
            .iter()
            .find(|(first, folio)| (*first..first + folio.frames()).contains(&gfn))
            .map(|(_, folio)| folio)
            .ok_or_else(|| Failure::new(format_args!("the guest has nothing at gfn {gfn:#x}")))
    }

    /// The frame behind a guest frame.
    pub(crate) fn pfn(&self, gfn: u64) -> Result<u64, Failure> {
        let at = |(first, folio): &(u64, Folio)| {
            let index = gfn.checked_sub(*first)?;
            (index < folio.frames()).then_some(folio.pfn() + index)
        };
        let mut folios = self.folios.iter();
        folios
            .find_map(at)
            .ok_or_else(|| Failure::new(format_args!("the guest has nothing at gfn {gfn:#x}")))
    }

    /// Runs a vCPU once, with an alarm that brings it back after 100 ms; serves the interrupts that came.
    pub(crate) fn run(&self, vcpu: u64, answer: u64) -> Result<Exit, Failure> {
        exit_of(self.try_run(vcpu, answer))
    }

    /// The same for a run that may be refused.
    pub(crate) fn try_run(&self, vcpu: u64, answer: u64) -> Reply {
        timer::arm_physical(timer::now() + timer::milliseconds(100));
        let reply = calls::vcpu_run(self.handle, vcpu, answer);
        while gic::serve().is_some() {}
        timer::stop_physical();
        reply
    }

    /// Runs a vCPU until something comes that the test must see.
    pub(crate) fn next(&mut self, vcpu: u64, answer: u64) -> Result<Event, Failure> {
        let mut answer = answer;
        let deadline = timer::now() + timer::milliseconds(PATIENCE);
        loop {
            check!(
                timer::now() < deadline,
                "the guest was silent for {PATIENCE} ms"
            );
            let exit = self.run(vcpu, answer)?;
            answer = 0;
            let [first, second, third] = exit.details;
            match exit.reason {
                ExitReason::Interrupt => (),
                ExitReason::Wfi => wait_until(first),
                ExitReason::MemoryFault if second & DENIED != 0 => return Ok(Event::Exit(exit)),
                ExitReason::MemoryFault => self.give_page(first)?,
                ExitReason::MmioWrite if first == console::UART => self.print(third),
                ExitReason::MmioWrite if first == port::TELL => return Ok(Event::Told(third)),
                ExitReason::MmioWrite if first == port::VERDICT => {
                    return Ok(Event::Verdict(third == 0));
                }
                ExitReason::MmioRead if first == port::ASK => return Ok(Event::Asked),
                ExitReason::Shared => answer = self.shared(first, second)?,
                ExitReason::UnshareRequest => answer = self.unshare(first, second)?,
                ExitReason::MmioRead
                | ExitReason::MmioWrite
                | ExitReason::CpuOn
                | ExitReason::PoweredOff
                | ExitReason::SystemOff
                | ExitReason::SystemReset
                | ExitReason::Crashed
                | ExitReason::Relinquished
                | ExitReason::Kick => return Ok(Event::Exit(exit)),
            }
        }
    }

    fn give_page(&mut self, gfn: u64) -> Outcome {
        check!(
            self.folio(gfn).is_err(),
            "MEMORY_FAULT for gfn {gfn:#x}, which the guest has"
        );
        let folio = Folio::take_pinned(0)?;
        self.donate(gfn, folio)
    }

    /// The guest shared a range: its folios are split, if need be, and the frames keep an ordinary pin.
    fn shared(&mut self, gfn: u64, count: u64) -> Result<u64, Failure> {
        let [shared, _] = &mut self.shared;
        *shared += 1;
        if self.declines_share {
            return Ok(1);
        }
        for gfn in gfn..gfn + count {
            self.folio(gfn)?.split_pin();
            frames::set_pin(self.pfn(gfn)?, 1);
        }
        Ok(0)
    }

    /// The guest wants a range back: its folios are pinned exclusively and isolated again.
    fn unshare(&mut self, gfn: u64, count: u64) -> Result<u64, Failure> {
        let [_, unshared] = &mut self.shared;
        *unshared += 1;
        if self.refuses_unshare {
            return Ok(1);
        }
        for gfn in gfn..gfn + count {
            frames::set_pin(self.pfn(gfn)?, pin_word::donatable(0));
        }
        Ok(0)
    }

    fn print(&mut self, word: u64) {
        let [byte, ..] = word.to_le_bytes();
        if byte != b'\n' && self.console.len() < 200 {
            self.console.push(byte);
        } else {
            line!(
                "#   guest: {}",
                core::str::from_utf8(&self.console).unwrap_or("not UTF-8")
            );
            self.console.clear();
        }
    }

    /// Begins the teardown.
    pub(crate) fn teardown_begin(&self) -> Reply {
        calls::vm_teardown_begin(self.handle)
    }

    /// Takes back all that the guest has and gives the folios, still the host's to look at.
    pub(crate) fn reclaim_all(&mut self) -> Result<Vec<(u64, Folio)>, Failure> {
        let mut back = Vec::new();
        while let Some((gfn, folio)) = self.folios.pop() {
            let result = reclaim(self.handle, gfn, folio.frames());
            if let Err(failure) = result {
                self.folios.push((gfn, folio));
                return Err(failure);
            }
            back.push((gfn, folio));
        }
        Ok(back)
    }

    /// Tears the VM down; every step must be done.
    pub(crate) fn end(mut self) -> Outcome {
        self.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        self.reclaim_all()?;
        self.end_after_teardown()
    }

    /// Ends a teardown that was begun, after everything was taken back.
    pub(crate) fn end_after_teardown(mut self) -> Outcome {
        calls::vm_teardown_finish(self.handle).done("VM_TEARDOWN_FINISH")?;
        self.handle = 0;
        Ok(())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if self.handle != 0 {
            self.teardown_begin();
            // What EL2 does not give back cannot be used again: better to lose it than to reuse it.
            if self.reclaim_all().is_err() {
                core::mem::forget(core::mem::take(&mut self.folios));
            }
            calls::vm_teardown_finish(self.handle);
        }
    }
}

/// An exit, from what `VCPU_RUN` gave.
pub(crate) fn exit_of(reply: Reply) -> Result<Exit, Failure> {
    let [number, first, second, third, ..] = reply.done("VCPU_RUN")?;
    match ExitReason::from_number(number) {
        Some(reason) => Ok(Exit {
            reason,
            details: [first, second, third],
        }),
        None => Err(Failure::new(format_args!(
            "VCPU_RUN gave exit reason {number}"
        ))),
    }
}

/// Takes frames back, or ends their sharing if the VM is an ordinary one, in as many calls as it needs.
pub(crate) fn reclaim(handle: u64, gfn: u64, count: u64) -> Outcome {
    in_steps(count, |done| {
        let reply = calls::mem_reclaim(handle, gfn + done, count - done);
        if reply.is(Status::WrongKind) {
            calls::mem_unshare_guest(handle, gfn + done, count - done)
        } else {
            reply
        }
    })
}

/// Ends the sharing of frames with an ordinary VM, in as many calls as it needs.
pub(crate) fn unshare(handle: u64, gfn: u64, count: u64) -> Outcome {
    in_steps(count, |done| {
        calls::mem_unshare_guest(handle, gfn + done, count - done)
    })
}

/// Calls until all frames are done; `call` is told how many are. Between the calls others have their turn.
pub(crate) fn in_steps(count: u64, call: impl Fn(u64) -> Reply) -> Outcome {
    let mut done = 0;
    for _ in 0..1024 {
        let reply = call(done);
        let [step, ..] = reply.results;
        if reply.is(Status::Again) {
            done += step;
            Yield::relax();
        } else {
            check_eq!(
                reply.value("taking frames back")?,
                count - done,
                "frames that the last call did"
            );
            return Ok(());
        }
    }
    Err(Failure::new(format_args!(
        "{count} frames are not back after 1024 calls"
    )))
}

/// Waits until the counter reaches `deadline`, at most 10 ms.
fn wait_until(deadline: u64) {
    let end = deadline.min(timer::now() + timer::milliseconds(10));
    while timer::now() < end {
        core::hint::spin_loop();
    }
}

/// Writes bytes into a folio of the host.
pub(crate) fn store(folio: &Folio, offset: u64, bytes: &[u8]) -> Outcome {
    for (place, chunk) in (offset..).step_by(8).zip(bytes.chunks(8)) {
        let mut word = [0; 8];
        for (byte, value) in word.iter_mut().zip(chunk) {
            *byte = *value;
        }
        check!(
            folio.write(place, u64::from_le_bytes(word)).is_ok(),
            "pfn {:#x} aborts",
            folio.pfn()
        );
    }
    Ok(())
}

/// The guest image that was loaded as the initrd.
fn guest_image() -> Result<&'static [u8], Failure> {
    let range = &platform::machine().guest;
    check!(
        !range.is_empty(),
        "no guest image; give guest.img as the initrd"
    );
    check!(
        range.end - range.start < frames::COUNT * FRAME,
        "the guest image is too large"
    );
    let first = core::ptr::with_exposed_provenance(bytes::size(range.start));
    // SAFETY: the device tree says that the initrd is there, and nothing writes it.
    Ok(unsafe { core::slice::from_raw_parts(first, bytes::size(range.end - range.start)) })
}
