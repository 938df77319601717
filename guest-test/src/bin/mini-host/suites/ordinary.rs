//! Ordinary VMs: the host shares its own memory with them, and keeps it.

use guest_test::bytes::FRAME;
use guest_test::tap::{Failure, Outcome};
use guest_test::{check, check_eq, tests};
use pinfold_abi::{ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, limit, pin_word};

use super::snapshot::{Snapshot, expect_state};
use crate::calls::{self, ExitReason, State, Status};
use crate::folio::{Folio, pattern};
use crate::micro::Command;
use crate::pool;
use crate::vm::{DENIED, EVERYTHING, Event, Exit, SCRATCH_GFN, Vm, unshare};

const IPA: u64 = SCRATCH_GFN * FRAME;
const ORDINARY: u64 = 0;
/// SMCCC's `NOT_SUPPORTED`, as KVM's calls return it.
const NOT_SUPPORTED: u64 = u64::MAX;

/// Shares a folio of the host at a guest frame.
fn share(vm: &Vm, gfn: u64, folio: &Folio, access: u64) -> Outcome {
    let (pfn, order) = (folio.pfn(), u64::from(folio.order()));
    pool::fed(|| calls::mem_share_guest(vm.handle(), gfn, pfn, 1, order, access))?
        .done("MEM_SHARE_GUEST")
        .map(|_| ())
}

/// The puppet begins to write a word, which its share does not allow; gives what the host is told.
fn is_denied(vm: &mut Vm, ipa: u64, word: u64) -> Result<[u64; 2], Failure> {
    let event = vm.begins(Command::Write { ipa, word })?;
    let Event::Exit(Exit {
        reason: ExitReason::MemoryFault,
        details: [gfn, how, _],
    }) = event
    else {
        return Err(Failure::new(format_args!("{event:x?} after a store")));
    };
    Ok([gfn, how])
}

tests! { "ordinary":
    /// Host and guest see what the other writes; the host can still execute nothing less than before.
    memory_stays_the_hosts {
        let mut vm = Vm::puppet_as(ORDINARY)?;
        let folio = Folio::take(0)?;
        folio.fill(1)?;
        share(&vm, SCRATCH_GFN, &folio, ACCESS_READ | ACCESS_WRITE)?;
        expect_state(folio.pfn(), State::HostSharedGuest, "after MEM_SHARE_GUEST")?;
        check_eq!(vm.reads(IPA + 8)?, pattern(1, 8), "the guest's view");
        vm.writes(IPA, 0x1234)?;
        check_eq!(folio.read(0), Ok(0x1234), "the host's view");
        check!(folio.write(16, 0x99).is_ok(), "the host cannot write");
        check_eq!(vm.reads(IPA + 16)?, 0x99, "the guest's view of the host's write");
        unshare(vm.handle(), SCRATCH_GFN, 1)?;
        expect_state(folio.pfn(), State::Host, "after MEM_UNSHARE_GUEST")?;
        check_eq!(folio.read(0), Ok(0x1234), "the content after it");
        vm.end()?;
    }

    /// Two guests have one frame, and one of them has it twice; each end of a share counts.
    one_frame_for_many {
        let (mut first, mut second) = (Vm::puppet_as(ORDINARY)?, Vm::puppet_as(ORDINARY)?);
        let folio = Folio::take(0)?;
        check!(folio.write(0, 7).is_ok(), "preparing");
        share(&first, SCRATCH_GFN, &folio, ACCESS_READ | ACCESS_WRITE)?;
        share(&first, SCRATCH_GFN + 9, &folio, ACCESS_READ)?;
        share(&second, SCRATCH_GFN + 1, &folio, ACCESS_READ)?;
        first.writes(IPA, 8)?;
        check_eq!([first.reads(IPA + 9 * FRAME)?, second.reads(IPA + FRAME)?], [8, 8], "what they read");
        let [word, ..] = calls::folio_query(folio.pfn()).done("FOLIO_QUERY")?;
        check_eq!(word, 1 << 30 | 3 << 8, "folio word");
        unshare(first.handle(), SCRATCH_GFN, 16)?;
        expect_state(folio.pfn(), State::HostSharedGuest, "while one has it")?;
        check_eq!(second.reads(IPA + FRAME)?, 8, "what the second reads");
        unshare(second.handle(), SCRATCH_GFN, 16)?;
        expect_state(folio.pfn(), State::Host, "when nobody has it")?;
        first.end()?;
        second.end()?;
    }

    /// A store to what may only be read is told to the host, which allows it; then it is done.
    what_is_denied_is_told {
        let mut vm = Vm::puppet_as(ORDINARY)?;
        let folio = Folio::take(0)?;
        check!(folio.write(0, 5).is_ok(), "preparing");
        share(&vm, SCRATCH_GFN, &folio, ACCESS_READ)?;
        check_eq!(vm.reads(IPA)?, 5, "what it reads");
        check_eq!(is_denied(&mut vm, IPA, 6)?, [SCRATCH_GFN, DENIED | 1], "the exit");
        check_eq!(folio.read(0), Ok(5), "the content after it");
        let access = ACCESS_READ | ACCESS_WRITE;
        calls::mem_protect_guest(vm.handle(), SCRATCH_GFN, 1, access).done("MEM_PROTECT_GUEST")?;
        check_eq!(vm.next(0, 0)?, Event::Told(0), "the store again");
        check_eq!(folio.read(0), Ok(6), "the content after it");
        calls::mem_protect_guest(vm.handle(), SCRATCH_GFN, 1, ACCESS_READ).done("MEM_PROTECT_GUEST")?;
        check_eq!(is_denied(&mut vm, IPA, 7)?, [SCRATCH_GFN, DENIED | 1], "the exit");
        unshare(vm.handle(), SCRATCH_GFN, 1)?;
        vm.end()?;
    }

    /// A block is one entry: it is not cut, and the host keeps its own.
    a_block_is_shared_whole {
        let mut vm = Vm::puppet_as(ORDINARY)?;
        let folio = Folio::take(limit::MAX_ORDER)?;
        let gfn = SCRATCH_GFN.next_multiple_of(512);
        check!(folio.write(511 * FRAME, 3).is_ok(), "preparing");
        share(&vm, gfn, &folio, EVERYTHING)?;
        check_eq!(vm.reads((gfn + 511) * FRAME)?, 3, "the guest's view of the end");
        let found = calls::mem_unshare_guest(vm.handle(), gfn + 1, 512).refused(Status::Granule, "a part of a block")?;
        check_eq!(found.folio, 1 << 30 | 1 << 8, "folio word");
        unshare(vm.handle(), gfn, 512)?;
        check_eq!(folio.read(511 * FRAME), Ok(3), "the content after it");
        vm.end()?;
    }

    /// What is shared goes to nobody else, and what is somebody else's is not shared.
    nobody_else_gets_it {
        let vm = Vm::configured_as(ORDINARY, 1)?;
        let mut protected = Vm::configured(1)?;
        let folio = Folio::take_pinned(0)?;
        let (pfn, own) = (folio.pfn(), Folio::take_pinned(0)?);
        share(&vm, SCRATCH_GFN, &folio, EVERYTHING)?;
        let before = Snapshot::take()?;
        calls::mem_donate(protected.handle(), SCRATCH_GFN, pfn, 1, 0).refused(Status::NotPermitted, "a donation")?;
        calls::pool_donate(pfn, 1).refused(Status::NotPermitted, "a gift to the pool")?;
        calls::mem_donate(vm.handle(), SCRATCH_GFN + 1, own.pfn(), 1, 0).refused(Status::WrongKind, "a donation to it")?;
        calls::mem_share_guest(protected.handle(), SCRATCH_GFN, pfn, 1, 0, 1).refused(Status::WrongKind, "a share with a protected VM")?;
        calls::mem_share_guest(vm.handle(), SCRATCH_GFN, pfn, 1, 0, 1).refused(Status::Exists, "a share on top")?;
        before.is_still_so("after refusals")?;
        let given = own.pfn();
        protected.donate(SCRATCH_GFN, own)?;
        calls::mem_share_guest(vm.handle(), SCRATCH_GFN + 1, given, 1, 0, 1).refused(Status::NotPermitted, "a share of a guest's frame")?;
        calls::vm_teardown_begin(vm.handle()).done("VM_TEARDOWN_BEGIN")?;
        let found = calls::vm_teardown_finish(vm.handle()).refused(Status::Busy, "the end of a VM with shares")?;
        check_eq!(found.index, 1, "frames left");
        unshare(vm.handle(), SCRATCH_GFN, 1)?;
        folio.set_pin(pin_word::donatable(0));
        protected.donate(SCRATCH_GFN + 1, folio)?;
        vm.end()?;
        protected.end()?;
    }

    /// The guest does not take itself for a protected one, and fetches only what it may.
    guest_is_told_nothing_of_sharing {
        let mut vm = Vm::puppet_as(ORDINARY)?;
        check_eq!(vm.calls(0x8600_0000, 0)?, 1, "FEATURES");
        for function in [0xc600_0002, 0xc600_0003, 0xc600_0004] {
            check_eq!(vm.calls(function, IPA)?, NOT_SUPPORTED, "call {function:#x}");
        }
        let code = crate::vm::RAM_GFN;
        for access in [ACCESS_READ, ACCESS_READ | ACCESS_EXECUTE] {
            calls::mem_protect_guest(vm.handle(), code, 1, access).done("MEM_PROTECT_GUEST")?;
            let event = vm.next(0, 0)?;
            if access & ACCESS_EXECUTE == 0 {
                let details = [code, DENIED | 1 << 1, 0];
                let exit = Exit { reason: ExitReason::MemoryFault, details };
                check_eq!(event, Event::Exit(exit), "a fetch that is denied");
            } else {
                check_eq!(event, Event::Asked, "a fetch that is allowed");
            }
        }
        vm.end()?;
    }

    /// Long ranges come back in steps; everything is as before afterwards.
    long_ranges_take_several_calls {
        pool::drain()?;
        let before = Snapshot::take()?;
        let vm = Vm::configured_as(ORDINARY, 1)?;
        let folio = Folio::take(8)?;
        let (handle, pfn) = (vm.handle(), folio.pfn());
        let mut done = 0;
        let mut steps = 0;
        while done < 256 {
            let reply = pool::fed(|| calls::mem_share_guest(handle, SCRATCH_GFN + done, pfn + done, 256 - done, 0, 1))?;
            check!(reply.is(Status::Ok) || reply.is(Status::Again), "MEM_SHARE_GUEST: {reply:x?}");
            let [step, ..] = reply.results;
            done += step;
            steps += 1;
        }
        check!(steps > 1, "256 frames were shared in one call");
        let reply = calls::mem_unshare_guest(handle, SCRATCH_GFN, 256);
        check!(reply.is(Status::Again), "MEM_UNSHARE_GUEST: {reply:x?}");
        unshare(handle, SCRATCH_GFN, 256)?;
        vm.end()?;
        drop(folio);
        pool::drain()?;
        before.is_still_so("after it")?;
    }
}
