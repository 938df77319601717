//! Guarantee G6: the guest alone decides what of it is shared.

use guest_test::bytes::FRAME;
use guest_test::{check, check_eq, tests};

use super::snapshot::expect_state;
use crate::calls::{self, State, Status};
use crate::folio::Folio;
use crate::micro::Command;
use crate::vm::{SCRATCH_GFN, Vm};

const MEM_SHARE: u64 = 0xc600_0003;
const MEM_UNSHARE: u64 = 0xc600_0004;
const IPA: u64 = SCRATCH_GFN * FRAME;

fn call(vm: &mut Vm, function: u64) -> Result<u64, guest_test::tap::Failure> {
    let [x0, ..] = vm.does(Command::Hvc([function, IPA, 0, 0]))?;
    Ok(x0)
}

/// `INVALID_PARAMETER` of KVM's calls.
const INVALID: u64 = u64::MAX - 2;

tests! { "sharing":
    /// The host reads and writes a shared page, sees it before and after as it should, and loses it at unshare.
    share_and_unshare {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 1)?;
        vm.writes(IPA, 0x1234)?;
        let (pfn, address) = (vm.folio(SCRATCH_GFN)?.pfn(), vm.folio(SCRATCH_GFN)?.address());
        for round in 0..3 {
            check!(vm.folio(SCRATCH_GFN)?.read(0).is_err(), "round {round}: the host reads before the share");
            check_eq!(call(&mut vm, MEM_SHARE)?, 0, "MEM_SHARE");
            expect_state(pfn, State::GuestSharedHost, "after MEM_SHARE")?;
            check_eq!(vm.folio(SCRATCH_GFN)?.read(0), Ok(0x1234 + round), "the host's view of a shared page");
            check!(vm.folio(SCRATCH_GFN)?.write(8, 0x99).is_ok(), "the host cannot write a shared page");
            check_eq!(vm.reads(IPA + 8)?, 0x99, "the guest's view of the host's write");
            check_eq!(call(&mut vm, MEM_UNSHARE)?, 0, "MEM_UNSHARE");
            expect_state(pfn, State::Guest, "after MEM_UNSHARE")?;
            check!(vm.folio(SCRATCH_GFN)?.read(0).is_err(), "round {round}: the host reads {address:#x} after the unshare");
            vm.writes(IPA, 0x1234 + round + 1)?;
            check_eq!(vm.shared, [1, 1].map(|one| one * (u32::try_from(round).unwrap_or(0) + 1)), "SHARED and UNSHARE_REQUEST exits");
        }
        vm.end()?;
    }

    /// A page that the guest never touched: the call waits for it, and is done when it is there.
    share_of_an_untouched_page {
        let mut vm = Vm::puppet()?;
        check_eq!(call(&mut vm, MEM_SHARE)?, 0, "MEM_SHARE");
        check_eq!(vm.shared, [1, 0], "SHARED exits");
        check_eq!(vm.folio(SCRATCH_GFN)?.read(0), vm.folio(SCRATCH_GFN)?.read(8), "the host's view of a shared page");
        check_eq!(call(&mut vm, MEM_UNSHARE)?, 0, "MEM_UNSHARE");
        vm.end()?;
    }

    /// If the host cannot pin the page again, the guest hears it, and the page stays shared.
    unshare_that_the_host_refuses {
        let mut vm = Vm::puppet()?;
        check_eq!(call(&mut vm, MEM_SHARE)?, 0, "MEM_SHARE");
        vm.refuses_unshare = true;
        check_eq!(call(&mut vm, MEM_UNSHARE)?, INVALID, "MEM_UNSHARE");
        expect_state(vm.folio(SCRATCH_GFN)?.pfn(), State::GuestSharedHost, "after the refusal")?;
        check!(vm.folio(SCRATCH_GFN)?.read(0).is_ok(), "the host lost the page");
        vm.refuses_unshare = false;
        check_eq!(call(&mut vm, MEM_UNSHARE)?, 0, "MEM_UNSHARE");
        vm.end()?;
    }

    /// Sharing twice, and taking back what is not shared, is refused without an exit.
    wrong_states {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 1)?;
        check_eq!(call(&mut vm, MEM_UNSHARE)?, INVALID, "an early MEM_UNSHARE");
        check_eq!(call(&mut vm, MEM_SHARE)?, 0, "MEM_SHARE");
        check_eq!(call(&mut vm, MEM_SHARE)?, INVALID, "a second MEM_SHARE");
        check_eq!(vm.shared, [1, 0], "SHARED and UNSHARE_REQUEST exits");
        vm.end()?;
    }

    /// A shared page is still the guest's: nobody else can have it, and it comes back wiped.
    a_shared_page_is_the_guests {
        let mut vm = Vm::puppet()?;
        let other = Vm::configured(1)?;
        vm.writes(IPA, 0x005e_c3e7)?;
        check_eq!(call(&mut vm, MEM_SHARE)?, 0, "MEM_SHARE");
        let pfn = vm.folio(SCRATCH_GFN)?.pfn();
        vm.folio(SCRATCH_GFN)?.set_pin(pinfold_abi::pin_word::donatable(0));
        calls::mem_donate(other.handle(), SCRATCH_GFN, pfn, 1, 0).refused(Status::NotPermitted, "donating a shared page")?;
        calls::pool_donate(pfn, 1).refused(Status::NotPermitted, "giving a shared page to the pool")?;
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        for (_, folio) in vm.reclaim_all()? {
            folio.holds("after reclaim", |_| 0)?;
            expect_state(folio.pfn(), State::Host, "after reclaim")?;
        }
        vm.end_after_teardown()?;
        other.end()?;
    }

    /// A page inside a large folio is refused or shared alone; the rest stays out of reach.
    part_of_a_large_folio {
        let mut vm = Vm::puppet()?;
        let folio = Folio::take_pinned(2)?;
        folio.fill(3)?;
        vm.donate(SCRATCH_GFN, folio)?;
        let result = call(&mut vm, MEM_SHARE);
        check!(vm.folio(SCRATCH_GFN)?.read(FRAME).is_err(), "the host reads a page that was not shared: {:x?}", result.is_ok());
        vm.end()?;
    }
}
