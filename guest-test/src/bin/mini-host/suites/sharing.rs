//! Guarantee G6: the guest alone decides what of it is shared.

use guest_test::bytes::FRAME;
use guest_test::tap::Failure;
use guest_test::{check, check_eq, memory_probe, tests};
use pinfold_abi::GuestFunction;

use super::snapshot::expect_state;
use crate::calls::{self, State, Status};
use crate::folio::pattern;
use crate::micro::{Command, came_back};
use crate::vm::{SCRATCH_GFN, Vm};

const MEM_SHARE: u64 = GuestFunction::MemShare.number();
const MEM_UNSHARE: u64 = GuestFunction::MemUnshare.number();
const IPA: u64 = SCRATCH_GFN * FRAME;

fn call(vm: &mut Vm, function: u64) -> Result<u64, Failure> {
    let [x0, ..] = vm.does(Command::Hvc([function, IPA, 0, 0]))?;
    Ok(x0)
}

/// `INVALID_PARAMETER` of KVM's calls.
const INVALID: u64 = u64::MAX - 2;

tests! { "sharing":
    /// What a guest gives back is wiped and the host's; touched again, it is missing. What is shared or no RAM is not given back.
    relinquish_one_frame {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 1)?;
        check_eq!(call(&mut vm, MEM_SHARE)?, 0, "MEM_SHARE");
        check_eq!(vm.relinquishes(IPA)?, (INVALID, None), "MEM_RELINQUISH of what is shared");
        check_eq!(call(&mut vm, MEM_UNSHARE)?, 0, "MEM_UNSHARE");
        check_eq!(vm.relinquishes(0)?, (INVALID, None), "MEM_RELINQUISH of no RAM");
        vm.writes(IPA, 0x5ec2_e700)?;
        check_eq!(vm.relinquishes(IPA)?, (0, Some(came_back(SCRATCH_GFN))), "MEM_RELINQUISH");
        let folio = vm.forget(SCRATCH_GFN)?;
        expect_state(folio.pfn(), State::Host, "after MEM_RELINQUISH")?;
        folio.holds("after MEM_RELINQUISH", |_| 0)?;
        check_eq!(vm.relinquishes(IPA)?, (0, None), "MEM_RELINQUISH of nothing");
        drop(folio);
        vm.writes(IPA, 0x77)?;
        check!(vm.folio(SCRATCH_GFN)?.read(0).is_err(), "the host reads what the guest got anew");
        vm.end()?;
    }

    /// A frame out of the middle of 2 MiB: the rest stays the guest's.
    relinquish_part_of_a_large_folio {
        let mut vm = Vm::puppet()?;
        let gfn = SCRATCH_GFN.next_multiple_of(512);
        vm.give_filled(gfn, 9, 3)?;
        check_eq!(vm.relinquishes((gfn + 7) * FRAME)?, (0, Some(came_back(gfn + 7))), "MEM_RELINQUISH");
        let (pfn, offset) = (vm.pfn(gfn + 7)?, 7 * FRAME);
        expect_state(pfn, State::Host, "after MEM_RELINQUISH")?;
        check_eq!(vm.folio(gfn)?.read(offset), Ok(0), "what came back");
        for other in [6, 8] {
            expect_state(pfn - 7 + other, State::Guest, "beside it")?;
            check!(vm.folio(gfn)?.read(other * FRAME).is_err(), "the host reads page {other}");
            check_eq!(vm.reads((gfn + other) * FRAME)?, pattern(3, other * FRAME), "the guest's page {other}");
        }
        vm.end()?;
    }

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

    /// If the host declines a share, the guest hears it, and the page stays the guest's.
    a_share_that_the_host_declines {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 1)?;
        vm.declines_share = true;
        check_eq!(call(&mut vm, MEM_SHARE)?, INVALID, "MEM_SHARE");
        expect_state(vm.pfn(SCRATCH_GFN)?, State::Guest, "after it was declined")?;
        check!(vm.folio(SCRATCH_GFN)?.read(0).is_err(), "the host reads a page that it declined");
        vm.declines_share = false;
        check_eq!(call(&mut vm, MEM_SHARE)?, 0, "MEM_SHARE");
        check!(vm.folio(SCRATCH_GFN)?.read(0).is_ok(), "the host does not read a shared page");
        // Whose pin says that it has the page cannot decline it.
        vm.declines_share = true;
        vm.folio(SCRATCH_GFN)?.set_pin(pinfold_abi::pin_word::donatable(0));
        check_eq!(call(&mut vm, MEM_UNSHARE)?, 0, "MEM_UNSHARE");
        vm.folio(SCRATCH_GFN)?.set_pin(1);
        check_eq!(call(&mut vm, MEM_SHARE)?, 0, "MEM_SHARE of a page with an ordinary pin, declined");
        expect_state(vm.pfn(SCRATCH_GFN)?, State::GuestSharedHost, "after that")?;
        vm.end()?;
    }

    /// One page of a large folio is shared, and taken back; the rest stays out of reach, and all of it comes back wiped.
    part_of_a_large_folio {
        for order in [1, 2, 5, 8, 9] {
            let mut vm = Vm::puppet()?;
            let gfn = SCRATCH_GFN.next_multiple_of(1 << order);
            vm.give_filled(gfn, order, 3)?;
            let end = (1 << order) - 1;
            for (round, page) in [end, end / 2, end].into_iter().enumerate() {
                let (ipa, offset) = ((gfn + page) * FRAME, page * FRAME);
                let decoy = memory_probe::read(vm.folio(gfn)?.kernel_address());
                check_eq!(decoy, Ok(0), "what the kernel sees of a folio of order {order}");
                check_eq!(vm.calls(MEM_SHARE, ipa)?, 0, "MEM_SHARE of page {page} of order {order}, round {round}");
                check_eq!(vm.folio(gfn)?.read(offset), Ok(pattern(3, offset)), "the host's view of the shared page");
                check_eq!(vm.reads(ipa)?, pattern(3, offset), "the guest's view of it");
                for other in [0, page.saturating_sub(1), page + 1, end].into_iter().filter(|other| *other != page && *other <= end) {
                    check!(vm.folio(gfn)?.read(other * FRAME).is_err(), "the host reads page {other}, which is not shared");
                    check_eq!(vm.reads((gfn + other) * FRAME)?, pattern(3, other * FRAME), "the guest's page {other}");
                }
                if round < 2 {
                    check_eq!(vm.calls(MEM_UNSHARE, ipa)?, 0, "MEM_UNSHARE");
                    check!(vm.folio(gfn)?.read(offset).is_err(), "the host reads page {page} after MEM_UNSHARE");
                }
            }
            vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
            for (first, folio) in vm.reclaim_all()? {
                if first == gfn {
                    folio.holds("after reclaim", |_| 0)?;
                }
            }
            vm.end_after_teardown()?;
        }
    }

    /// The host has not split its folio yet, and declines: the guest has all of it again, and may try again.
    part_of_a_large_folio_is_declined {
        let mut vm = Vm::puppet()?;
        let gfn = SCRATCH_GFN.next_multiple_of(512);
        vm.give_filled(gfn, 9, 3)?;
        vm.declines_share = true;
        check_eq!(vm.calls(MEM_SHARE, (gfn + 7) * FRAME)?, INVALID, "MEM_SHARE");
        expect_state(vm.pfn(gfn + 7)?, State::Guest, "after it was declined")?;
        check!(vm.folio(gfn)?.read(7 * FRAME).is_err(), "the host reads a page that it declined");
        vm.declines_share = false;
        check_eq!(vm.calls(MEM_SHARE, (gfn + 7) * FRAME)?, 0, "MEM_SHARE");
        check_eq!(vm.folio(gfn)?.read(7 * FRAME), Ok(pattern(3, 7 * FRAME)), "the host's view of the shared page");
        vm.end()?;
    }
}
