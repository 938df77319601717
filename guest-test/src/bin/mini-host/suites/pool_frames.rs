//! EL2's pool: frames go in and come out, and nothing else can be put there.

use guest_test::bytes::FRAME;
use guest_test::{check, check_eq, memory_probe, tests};
use pinfold_abi::{VM_PROTECTED, limit};

use super::snapshot::{Snapshot, expect_state};
use crate::calls::{self, State, Status};
use crate::folio::Folio;
use crate::pool;
use crate::vm::Vm;

tests! { "pool":
    /// Frames given are frames taken back, empty; the books agree at each step.
    balance {
        pool::drain()?;
        let before = Snapshot::take()?;
        let [free, given, ..] = calls::pool_status().done("POOL_STATUS")?;
        check_eq!(given, 0, "frames given before");
        let folio = Folio::take(4)?;
        folio.fill(1)?;
        check_eq!(calls::pool_donate(folio.pfn(), 16).value("POOL_DONATE")?, 16, "frames taken");
        let [more, given, ..] = calls::pool_status().done("POOL_STATUS")?;
        check_eq!(given, 16, "given frames");
        // Breaking up a block of the host's stage 2 takes up to two tables.
        check!((free + 14..=free + 16).contains(&more), "{more} frames are free, {free} were");
        for index in [0, 15] {
            expect_state(folio.pfn() + index, State::Hyp, "in the pool")?;
            check!(memory_probe::read(folio.address() + index * FRAME).is_err(), "the host reads a frame of the pool");
        }
        for taken in 0..16 {
            let pfn = calls::pool_reclaim().value("POOL_RECLAIM")?;
            check!((folio.pfn()..folio.pfn() + 16).contains(&pfn), "frame {taken} that came back is {pfn:#x}, which was not given");
            expect_state(pfn, State::Host, "after POOL_RECLAIM")?;
        }
        folio.holds("after POOL_RECLAIM", |_| 0)?;
        calls::pool_reclaim().refused(Status::NoMemory, "POOL_RECLAIM of EL2's own")?;
        before.is_still_so("after all came back")?;
    }

    /// A frame in the pool cannot be given again, nor to a guest.
    frames_of_the_pool_stay_there {
        pool::drain()?;
        let vm = Vm::configured(1)?;
        pool::drain()?;
        let folio = Folio::take_pinned(0)?;
        calls::pool_donate(folio.pfn(), 1).done("POOL_DONATE")?;
        calls::pool_donate(folio.pfn(), 1).refused(Status::NotPermitted, "a second POOL_DONATE")?;
        calls::mem_donate(vm.handle(), crate::vm::RAM_GFN, folio.pfn(), 1, 0).refused(Status::NotPermitted, "MEM_DONATE from the pool")?;
        check_eq!(calls::pool_reclaim().value("POOL_RECLAIM")?, folio.pfn(), "frame that came back");
        vm.end()?;
    }

    /// Counts and ranges without sense.
    garbage {
        let folio = Folio::take(0)?;
        let before = Snapshot::take()?;
        for (pfn, count) in [(folio.pfn(), 0), (folio.pfn(), limit::MAX_GIFT + 1), (folio.pfn(), u64::MAX), (u64::MAX, 2), (folio.pfn(), 1 << 52), (1 << 52, 1)] {
            calls::pool_donate(pfn, count)
                .refused_as_one_of(&[Status::Invalid, Status::Limit, Status::NotRam], "POOL_DONATE without sense")?;
        }
        before.is_still_so("after refusals")?;
    }

    /// A range that ends in a guest's frame is refused whole, with its index.
    range_with_a_foreign_frame {
        let mut vm = Vm::configured(1)?;
        let folio = Folio::take_pinned(1)?;
        crate::frames::set_pin(folio.pfn() + 1, pinfold_abi::pin_word::donatable(0));
        let handle = vm.handle();
        pool::fed(|| calls::mem_donate(handle, crate::vm::RAM_GFN, folio.pfn() + 1, 1, 0))?.done("MEM_DONATE")?;
        let before = Snapshot::take()?;
        let found = calls::pool_donate(folio.pfn(), 2).refused(Status::NotPermitted, "POOL_DONATE")?;
        check_eq!(found.index, 1, "index");
        before.is_still_so("after the refusal")?;
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        crate::vm::reclaim(handle, crate::vm::RAM_GFN, 1)?;
        vm.reclaim_all()?;
        vm.end_after_teardown()?;
    }

    /// VMs until the pool is dry; it says so, takes more, and goes on; all comes back.
    dry_and_fed {
        pool::drain()?;
        let before = Snapshot::take()?;
        let mut vms = alloc::vec::Vec::new();
        let mut dry = false;
        for _ in 0..limit::MAX_VMS {
            let reply = calls::vm_create(VM_PROTECTED, 8);
            if reply.is(Status::NoMemory) {
                dry = true;
                break;
            }
            vms.push(reply.value("VM_CREATE")?);
        }
        if !dry {
            calls::vm_create(VM_PROTECTED, 1).refused(Status::Limit, "one VM too many")?;
        }
        for handle in vms {
            calls::vm_teardown_begin(handle).done("VM_TEARDOWN_BEGIN")?;
            calls::vm_teardown_finish(handle).done("VM_TEARDOWN_FINISH")?;
        }
        pool::drain()?;
        before.is_still_so("after all VMs are gone")?;
    }
}
