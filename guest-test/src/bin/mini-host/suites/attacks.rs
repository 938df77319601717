//! Attacks of a host on memory: what is not its own, ranges that reach further than they should, and what comes back too early or twice.
//!
//! Each is refused with a status, the index and the folio word where the table says so, and has changed nothing. `hyp/doc/book/src/attacks.md` has the whole list
//! and where the other attacks are shown.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_test::bytes::FRAME;
use guest_test::probe::Fault;
use guest_test::smccc::{self, psci};
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, check_eq, memory_probe, start, tests, timer};
use pinfold_abi::{limit, pin_word};

use super::processors::el2_frame;
use super::snapshot::{self, Snapshot, expect_state};
use crate::calls::{self, Counter, State, Status};
use crate::folio::{Folio, pattern};
use crate::vm::{RAM_GFN, SCRATCH_GFN, Vm, reclaim};
use crate::{frames, pool, smp};

/// Every frame of RAM that is EL2's.
fn frames_of_el2() -> Result<alloc::vec::Vec<u64>, Failure> {
    let ram = snapshot::ram()?;
    let mut found = alloc::vec::Vec::new();
    for pfn in ram.first..ram.first + ram.count {
        if snapshot::state(pfn)? == Some(State::Hyp) {
            found.push(pfn);
        }
    }
    Ok(found)
}

/// A donation to the VM and one to the pool are refused, and both say what the frame is.
fn is_nobodys_to_give(vm: &Vm, pfn: u64) -> Outcome {
    let to_guest = calls::mem_donate(vm.handle(), RAM_GFN, pfn, 1, 0)
        .refused(Status::NotPermitted, "MEM_DONATE of EL2's frame")?;
    let to_pool =
        calls::pool_donate(pfn, 1).refused(Status::NotPermitted, "POOL_DONATE of EL2's frame")?;
    check_eq!([to_guest.index, to_pool.index], [0, 0], "indices");
    check!(
        to_guest.folio != 0 && to_guest.folio == to_pool.folio,
        "folio words {:#x} and {:#x}",
        to_guest.folio,
        to_pool.folio
    );
    Ok(())
}

/// What the other CPU of [`neighbours_of_a_donation`](TESTS) does: 0 goes on, 1 ends.
static STAGE: AtomicU64 = AtomicU64::new(0);
static ROUNDS: AtomicU64 = AtomicU64::new(0);

/// Frames of the block that stay the host's, which the other CPU uses all the time.
const KEPT: [u64; 6] = [0, 1, 99, 164, 300, 511];

/// Writes and reads the kept frames of the block at `address`; gives how many accesses went wrong.
fn use_neighbours(address: u64) -> u64 {
    let mut wrong = 0;
    let mut round = 0;
    while STAGE.load(Ordering::Acquire) == 0 {
        for frame in KEPT {
            let place = address + frame * FRAME + 8 * (round & 0x1ff);
            let word = pattern(round, frame);
            // SAFETY: the block is the test's.
            let written = unsafe { memory_probe::write(place, word) };
            wrong += u64::from(written.is_err() || memory_probe::read(place) != Ok(word));
        }
        round += 1;
        ROUNDS.store(round, Ordering::Release);
    }
    wrong
}

tests! { "attacks":
    /// Every frame of EL2's, image, stacks, tables and folio array, given to a guest and to the pool.
    every_frame_of_el2_is_refused {
        frames::register()?;
        let vm = Vm::configured(1)?;
        let before = Snapshot::take()?;
        let frames = frames_of_el2()?;
        check!(frames.len() >= 512, "only {} frames are EL2's", frames.len());
        for pfn in &frames {
            is_nobodys_to_give(&vm, *pfn)?;
        }
        before.is_still_so("after all of EL2's frames")?;
        vm.end()?;
    }

    /// A pin table inside EL2's memory, or one that lies at its border.
    pin_tables_over_el2 {
        let before = Snapshot::take()?;
        for pfn in frames_of_el2()? {
            calls::pin_table_register(pfn, frames::arena()?.unspoken, 1).refused(Status::NotPermitted, "a pin table in EL2's memory")?;
        }
        before.is_still_so("after refusals")?;
    }

    /// Frames around every power of two, and every 16 MiB below RAM: what is no RAM cannot be given, whoever it belongs to.
    what_is_no_memory_is_refused {
        frames::register()?;
        let vm = Vm::configured(1)?;
        let ram = snapshot::ram()?;
        let before = Snapshot::take()?;
        let around = (0..64).flat_map(|bit| [(1_u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        let below = (0..ram.first).step_by(4096);
        let mut tried = 0;
        for pfn in around.chain(below).chain([ram.first - 1, ram.first + ram.count]) {
            if (ram.first..ram.first + ram.count).contains(&pfn) {
                continue;
            }
            calls::mem_donate(vm.handle(), RAM_GFN, pfn, 1, 0).refused_as_one_of(&[Status::NotRam, Status::Invalid], "MEM_DONATE of no memory")?;
            calls::pool_donate(pfn, 1).refused_as_one_of(&[Status::NotRam, Status::Invalid], "POOL_DONATE of no memory")?;
            tried += 1;
        }
        check!(tried > 200, "only {tried} frames were tried");
        before.is_still_so("after refusals")?;
        vm.end()?;
    }

    /// Ranges that begin in the host's memory and end in EL2's, or behind the last of RAM, are refused whole.
    ranges_over_a_border_are_refused {
        let before = Snapshot::take()?;
        let ram = snapshot::ram()?;
        let mut borders = 0;
        for pfn in frames_of_el2()? {
            if snapshot::state(pfn - 1)? == Some(State::Host) {
                let found = calls::pool_donate(pfn - 1, 2).refused(Status::NotPermitted, "a range over EL2's border")?;
                check_eq!(found.index, 1, "index");
                check!(found.folio != 0, "no folio word is reported");
                borders += 1;
            }
        }
        check!(borders > 0, "EL2's memory has no border");
        for count in [2, 17, limit::MAX_GIFT] {
            calls::pool_donate(ram.first + ram.count - 1, count)
                .refused_as_one_of(&[Status::NotPermitted, Status::NotRam], "a range over the end of RAM")?;
        }
        before.is_still_so("after refusals")?;
    }

    /// A folio of 2 MiB at every offset in both spaces but the right ones.
    every_unaligned_offset_is_refused {
        let vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(9)?;
        let before = Snapshot::take()?;
        for order in [1, 5, 9] {
            for offset in 1..1_u64 << order {
                for (gfn, pfn) in [(RAM_GFN + offset, folio.pfn()), (RAM_GFN, folio.pfn() + offset)] {
                    calls::mem_donate(vm.handle(), gfn, pfn, 1, order).refused_as_one_of(&[Status::Granule, Status::Invalid], "an unaligned folio")?;
                }
            }
        }
        before.is_still_so("after refusals")?;
        vm.end()?;
    }

    /// A folio of 2 MiB of which one page is another guest's, wherever that page is.
    a_block_with_a_foreign_frame_is_refused {
        let vm = Vm::configured(1)?;
        for foreign in [1, 300, 511] {
            let mut other = Vm::configured(1)?;
            let block = Folio::take(9)?;
            frames::register()?;
            frames::set_pin(block.pfn() + foreign, pin_word::donatable(0));
            let handle = other.handle();
            pool::fed(|| calls::mem_donate(handle, RAM_GFN, block.pfn() + foreign, 1, 0))?.done("MEM_DONATE")?;
            frames::set_pin(block.pfn() + foreign, 0);
            block.set_pin(pin_word::donatable(9));
            let before = Snapshot::take()?;
            let found = calls::mem_donate(vm.handle(), RAM_GFN, block.pfn(), 1, 9).refused(Status::NotPermitted, "a block with a foreign frame")?;
            check_eq!(found.index, foreign, "index");
            before.is_still_so("after the refusal")?;
            other.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
            reclaim(handle, RAM_GFN, 1)?;
            other.reclaim_all()?;
            other.end_after_teardown()?;
        }
        vm.end()?;
    }

    /// A guest that lives keeps its memory: reclaim is refused, whatever the range.
    reclaim_from_a_living_guest_is_refused {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 3, 1)?;
        let before = Snapshot::take()?;
        for (gfn, count) in [(RAM_GFN, 1), (SCRATCH_GFN, 8), (SCRATCH_GFN + 1, 1), (0, 512), (SCRATCH_GFN, 512)] {
            calls::mem_reclaim(vm.handle(), gfn, count).refused(Status::WrongPhase, "MEM_RECLAIM of a living guest")?;
        }
        before.is_still_so("after refusals")?;
        check_eq!(vm.reads(SCRATCH_GFN * FRAME + 8)?, pattern(1, 8), "the guest's view");
        vm.end()?;
    }

    /// What came back is the host's: a second reclaim, and one by another dying VM's name, touch nothing.
    reclaim_twice_touches_nothing {
        let mut vm = Vm::puppet()?;
        let other = Vm::configured(1)?;
        vm.give_filled(SCRATCH_GFN, 0, 1)?;
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        other.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        let handle = vm.handle();
        let kept = Snapshot::take()?;
        check_eq!(calls::mem_reclaim(other.handle(), SCRATCH_GFN, 1).value("MEM_RECLAIM of a VM that has nothing there")?, 1, "frames done, holes included");
        kept.is_still_so("after another VM's reclaim")?;
        calls::mem_reclaim(handle, SCRATCH_GFN, 1).done("MEM_RECLAIM")?;
        let wiped = calls::counter(Counter::FramesWiped)?;
        let folio = vm.folio(SCRATCH_GFN)?;
        check!(folio.write(8, 0x77).is_ok(), "the frame is not the host's");
        let before = Snapshot::take()?;
        for _ in 0..3 {
            check_eq!(calls::mem_reclaim(handle, SCRATCH_GFN, 1).value("a further MEM_RECLAIM")?, 1, "frames done, holes included");
        }
        check_eq!(folio.read(8), Ok(0x77), "what the host wrote");
        check_eq!(calls::counter(Counter::FramesWiped)?, wiped, "wiped frames");
        before.is_still_so("after further reclaims")?;
        vm.reclaim_all()?;
        vm.end_after_teardown()?;
        other.end_after_teardown()?;
    }

    /// A CPU that uses frames of a block all the time while others of it come and go loses none, and finds what it wrote.
    neighbours_of_a_donation_stay {
        smp::need(2)?;
        let vm = Vm::configured(1)?;
        let block = Folio::take(9)?;
        frames::register()?;
        STAGE.store(0, Ordering::Release);
        ROUNDS.store(0, Ordering::Release);
        let jobs: alloc::vec::Vec<_> = (1..2).map(|cpu| smp::begin(cpu, use_neighbours, block.address())).collect();
        while ROUNDS.load(Ordering::Acquire) < 100 {
            core::hint::spin_loop();
        }
        let handle = vm.handle();
        let mut given = Ok(());
        for frame in 100..164 {
            frames::set_pin(block.pfn() + frame, pin_word::donatable(0));
            given = given.and(pool::fed(|| calls::mem_donate(handle, SCRATCH_GFN + frame, block.pfn() + frame, 1, 0)).and_then(|reply| reply.done("MEM_DONATE")).map(|_| ()));
        }
        let while_away = ROUNDS.load(Ordering::Acquire);
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        let taken = reclaim(handle, SCRATCH_GFN + 100, 64);
        STAGE.store(1, Ordering::Release);
        for job in jobs {
            check_eq!(job?.result()?, 0, "accesses that went wrong on the other CPU");
        }
        given?;
        taken?;
        check!(while_away > 100, "the other CPU did nothing meanwhile");
        vm.end_after_teardown()?;
    }

    /// The numbers by which a host sets vectors and the MMU of an EL2 that is its own are no calls here.
    hyp_stub_calls_are_not_there {
        let before = Snapshot::take()?;
        for id in 0..16 {
            calls::call(id, &[start::secondary_entry_point(), 0, 0]).not_supported("a call of the stub at EL2")?;
        }
        check_eq!(start::exception_level(), 1, "CurrentEL");
        let found = memory_probe::read(el2_frame()? * FRAME);
        check!(found.is_err_and(Fault::has_hypervisor_mark), "EL2's memory after it: {found:x?}");
        before.is_still_so("after these calls")?;
    }

    /// No address goes through a call: what looks like a pointer to EL2's memory, or to a guest's, is a number that is out of range.
    addresses_are_no_arguments {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 3)?;
        let taken = [el2_frame()? * FRAME, vm.folio(SCRATCH_GFN)?.address()];
        let before = Snapshot::take()?;
        for address in taken {
            // POOL_RECLAIM takes no argument.
            for number in (0..0x70_u32).filter(|number| *number != 0x21) {
                let id = guest_test::bytes::low32(pinfold_abi::FUNCTION_BASE) + number;
                let reply = calls::call(id, &[address; 7]);
                let is_query = matches!(number, 0..=2 | 0x22 | 0x60..0x70);
                check!(is_query || reply.x0 == smccc::NOT_SUPPORTED || reply.status != Status::Ok.number(),
                    "call {number:#x} took an address");
            }
        }
        check_eq!(vm.reads(SCRATCH_GFN * FRAME + 8)?, pattern(3, 8), "the guest's view");
        before.is_still_so("after these calls")?;
        vm.end()?;
    }
}

/// What runs last: the CPU that it takes does not come back.
pub(crate) mod last {
    use super::{
        FRAME, Folio, Outcome, RAM_GFN, SCRATCH_GFN, Snapshot, State, Vm, check, check_eq,
        el2_frame, expect_state, pattern, psci, smccc, smp, tests, timer,
    };
    use crate::platform;

    /// Starts CPU `cpu` at `entry`, waits a moment; it must be on, and everything as before.
    fn lose(cpu: usize, entry: u64) -> Outcome {
        let mpidr = platform::machine()
            .cpus
            .get(cpu)
            .copied()
            .unwrap_or(u64::MAX);
        let before = Snapshot::take()?;
        let [answer, ..] = smccc::smc(psci::CPU_ON, &[mpidr, entry, 0]);
        check_eq!(answer, 0, "CPU_ON at {entry:#x}");
        let end = timer::now() + timer::milliseconds(50);
        while timer::now() < end {
            core::hint::spin_loop();
        }
        let [on, ..] = smccc::smc(psci::AFFINITY_INFO, &[mpidr, 0]);
        check_eq!(on, 0, "AFFINITY_INFO of a CPU that is lost");
        before.is_still_so("after a CPU went astray")
    }

    tests! { "last":
        /// A CPU that starts in EL2's memory, and one in a guest's: each is at EL1 with an abort of its own, and harms neither.
        cpu_on_in_foreign_memory {
            smp::need(4)?;
            let mut vm = Vm::puppet()?;
            vm.give_filled(SCRATCH_GFN, 0, 1)?;
            let frame = el2_frame()?;
            lose(3, frame * FRAME)?;
            expect_state(frame, State::Hyp, "after a CPU started in it")?;
            lose(2, vm.folio(SCRATCH_GFN)?.address())?;
            check_eq!(vm.reads(SCRATCH_GFN * FRAME + 8)?, pattern(1, 8), "the guest's view");
            let folio = Folio::take_pinned(0)?;
            vm.donate(RAM_GFN + 1, folio)?;
            check!(vm.folio(RAM_GFN + 1)?.read(0).is_err(), "a donation after that is none");
            vm.end()?;
        }
    }
}
