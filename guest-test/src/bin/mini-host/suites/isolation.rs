//! Guarantees G2, G3 and G7: what the host reaches, and what it finds after it got frames back.

use core::sync::atomic::{AtomicU64, Ordering};

use guest_test::bytes::FRAME;
use guest_test::probe::Fault;
use guest_test::tap::Outcome;
use guest_test::{check, check_eq, line, memory_probe, mmu, tests};

use super::snapshot::{self, expect_state};
use crate::calls::{self, Counter, State};
use crate::folio::{Folio, pattern};
use crate::micro::Command;
use crate::smp;
use crate::vm::{SCRATCH_GFN, Vm};

/// The fault is the one that EL2 injects for this access.
fn injected(found: Result<u64, Fault>, address: u64, write: bool) -> Outcome {
    match found {
        Ok(word) => Err(guest_test::tap::Failure::new(format_args!(
            "{address:#x} is not refused (found {word:#x})"
        ))),
        Err(fault) => {
            check!(fault.is_data_abort(), "{address:#x}: class of {fault:x?}");
            check!(
                fault.has_hypervisor_mark(),
                "{address:#x}: no mark in {fault:x?}"
            );
            check_eq!(fault.far, address, "FAR");
            check_eq!(fault.is_write(), write, "WnR in {fault:x?}");
            check_eq!(
                fault.esr & 0x3c,
                4,
                "translation fault status of {fault:x?}"
            );
            Ok(())
        }
    }
}

fn write(address: u64, word: u64) -> Result<u64, Fault> {
    // SAFETY: used only for frames of the arena and for addresses that are not the host's.
    unsafe { memory_probe::write(address, word) }.map(|()| word)
}

/// What the other CPU does: 0 warms its TLB, 1 must be refused.
static STAGE: AtomicU64 = AtomicU64::new(0);
static WARM: AtomicU64 = AtomicU64::new(0);

/// Reads (or, with bit 0 of the argument, writes) an address until stage 1; gives 1 if it was refused then.
fn touch_until_refused(argument: u64) -> u64 {
    let (address, writes) = (argument & !1, argument & 1 != 0);
    loop {
        let stage = STAGE.load(Ordering::Acquire);
        let found = if writes {
            write(address, 0xbad)
        } else {
            memory_probe::read(address)
        };
        WARM.fetch_add(1, Ordering::Release);
        if stage == 1 {
            return u64::from(found.is_err_and(Fault::has_hypervisor_mark));
        }
    }
}

fn other_cpu(writes: bool) -> Outcome {
    smp::need(2)?;
    let mut vm = Vm::puppet()?;
    let folio = Folio::take_pinned(0)?;
    folio.fill(9)?;
    STAGE.store(0, Ordering::Release);
    WARM.store(0, Ordering::Release);
    let cpus = 1..smp::cpus();
    let jobs: alloc::vec::Vec<_> = cpus
        .map(|cpu| {
            smp::begin(
                cpu,
                touch_until_refused,
                folio.address() | u64::from(writes),
            )
        })
        .collect();
    while WARM.load(Ordering::Acquire) < 1000 {
        core::hint::spin_loop();
    }
    let donated = vm.donate(SCRATCH_GFN, folio);
    STAGE.store(1, Ordering::Release);
    for job in jobs {
        check_eq!(job?.result()?, 1, "refusals on a CPU whose TLB was warm");
    }
    donated?;
    let wanted = if writes { 0xbad } else { pattern(9, 0) };
    check_eq!(vm.reads(SCRATCH_GFN * FRAME)?, wanted, "the guest's view");
    vm.end()
}

tests! { "isolation":
    /// The host's read of a donated frame is refused with an abort, and the guest's pattern is intact.
    host_read_is_refused {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 1)?;
        let address = vm.folio(SCRATCH_GFN)?.address();
        let before = calls::counter(Counter::HostAborts)?;
        for offset in [0, 8, 2048, 4088] {
            injected(memory_probe::read(address + offset), address + offset, false)?;
        }
        check_eq!(calls::counter(Counter::HostAborts)? - before, 4, "counted aborts");
        check_eq!(vm.reads(SCRATCH_GFN * FRAME + 8)?, pattern(1, 8), "the guest's view");
        vm.end()?;
    }

    /// The host's write to a donated frame is refused with an abort, and the guest's pattern is intact.
    host_write_is_refused {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 2)?;
        let address = vm.folio(SCRATCH_GFN)?.address();
        for offset in [0, 8, 2048, 4088] {
            injected(write(address + offset, 0xbad), address + offset, true)?;
            check_eq!(vm.reads(SCRATCH_GFN * FRAME + offset)?, pattern(2, offset), "the guest's view");
        }
        vm.end()?;
    }

    /// The host cannot run a donated frame.
    host_fetch_is_refused {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 3)?;
        let address = vm.folio(SCRATCH_GFN)?.address();
        // SAFETY: it is not the host's to run; that is the test.
        let found = unsafe { memory_probe::execute(address) };
        check!(found.is_err_and(|fault| fault.class() == 0x21 && fault.has_hypervisor_mark()), "{found:x?}");
        vm.end()?;
    }

    /// What the guest wrote itself is out of reach, too.
    guest_secret_is_out_of_reach {
        let mut vm = Vm::puppet()?;
        vm.writes(SCRATCH_GFN * FRAME, 0x005e_c3e7)?;
        let address = vm.folio(SCRATCH_GFN)?.address();
        injected(memory_probe::read(address), address, false)?;
        check_eq!(vm.reads(SCRATCH_GFN * FRAME)?, 0x005e_c3e7, "the guest's view");
        vm.end()?;
    }

    /// The neighbours of a donated frame stay the host's.
    neighbours_stay {
        let block = Folio::take(9)?;
        block.fill(4)?;
        frames_around(&block)?;
    }

    /// CPUs that read the frame all the time until it is donated.
    other_cpus_with_warm_tlb_read {
        other_cpu(false)?;
    }

    /// CPUs that write the frame all the time until it is donated.
    other_cpus_with_warm_tlb_write {
        other_cpu(true)?;
    }

    /// A stray access through a kernel address: the host lives, reads zeroes, harms nothing, and it is counted.
    kernel_address_meets_a_decoy {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 6)?;
        let (address, alias) = {
            let folio = vm.folio(SCRATCH_GFN)?;
            (folio.address(), folio.kernel_address())
        };
        let before = calls::counter(Counter::Decoys)?;
        for round in 1..=3 {
            check_eq!(memory_probe::read(alias + 8), Ok(0), "what a kernel address reads in round {round}");
            check_eq!(write(alias + 16, 0xbad), Ok(0xbad), "writing through a kernel address in round {round}");
            check_eq!(vm.reads(SCRATCH_GFN * FRAME + 16)?, pattern(6, 16), "the guest's view in round {round}");
            check_eq!(vm.reads(SCRATCH_GFN * FRAME + 8)?, pattern(6, 8), "the guest's view in round {round}");
            injected(memory_probe::read(address), address, false)?;
        }
        check!(calls::counter(Counter::Decoys)? > before, "no decoy was counted");
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        for (_, folio) in vm.reclaim_all()? {
            folio.holds("after reclaim", |_| 0)?;
        }
        vm.end_after_teardown()?;
    }

    /// A decoy that is up when the frame comes back is gone: the host has its frame again.
    decoy_does_not_outlive_the_donation {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 0, 7)?;
        let alias = vm.folio(SCRATCH_GFN)?.kernel_address();
        check_eq!(write(alias, 0xbad), Ok(0xbad), "writing through a kernel address");
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        for (_, folio) in vm.reclaim_all()? {
            folio.holds("after reclaim", |_| 0)?;
            check!(folio.write(0, 0x77).is_ok(), "writing after reclaim");
            check_eq!(memory_probe::read(folio.kernel_address()), Ok(0x77), "both addresses after reclaim");
        }
        vm.end_after_teardown()?;
    }

    /// EL2's frames, every one of them: reading and writing is refused.
    every_frame_of_el2_is_out_of_reach {
        let ram = snapshot::ram()?;
        let mut swept = 0_u64;
        for pfn in ram.first..ram.first + ram.count {
            if snapshot::state(pfn)? == Some(State::Hyp) {
                injected(memory_probe::read(pfn * FRAME), pfn * FRAME, false)?;
                injected(write(pfn * FRAME + 8, 0xbad), pfn * FRAME + 8, true)?;
                swept += 1;
            }
        }
        check!(swept >= 512, "only {swept} frames are EL2's");
        line!("# {swept} frames of EL2's");
    }

    /// The same through kernel addresses: zeroes or a refusal, never EL2's content.
    el2_is_out_of_reach_of_kernel_addresses {
        let frame = super::processors::el2_frame()?;
        let first = snapshot::ram()?.first;
        for pfn in [frame, frame + 1, frame + 64, first] {
            if snapshot::state(pfn)? == Some(State::Hyp) {
                let found = memory_probe::read((pfn * FRAME) | mmu::HIGH);
                check!(found.is_err() || found == Ok(0), "pfn {pfn:#x} shows {found:x?}");
            }
        }
    }

    /// QEMU's `fw_cfg` would write anywhere for the host: it is out of reach.
    fw_cfg_is_out_of_reach {
        for address in [0x0902_0000, 0x0902_0008, 0x0902_0010] {
            check!(memory_probe::read(address).is_err(), "{address:#x} can be read");
        }
    }

    /// The GIC's ITS would write anywhere for the host: it is out of reach.
    its_is_out_of_reach {
        for address in [0x0808_0000, 0x0808_0080, 0x0809_0040] {
            check!(memory_probe::read(address).is_err(), "{address:#x} can be read");
        }
    }

    /// A redistributor keeps its LPIs in memory of the host's choice: the host finds none that has LPIs, and cannot turn them on.
    lpis_are_hidden {
        const CTLR: u64 = 0x080a_0000;
        const TYPER: u64 = CTLR + 0x8;
        const PROPBASER: u64 = CTLR + 0x70;
        const PENDBASER: u64 = CTLR + 0x78;
        check_eq!(memory_probe::read(TYPER).map(|typer| typer & 1), Ok(0), "GICR_TYPER.PLPIS");
        for address in [PROPBASER, PENDBASER] {
            // SAFETY: Rust owns no register of the GIC.
            let written = unsafe { memory_probe::write(address, 0x4020_0000) };
            check!(written.is_ok(), "a write of {address:#x} aborts");
            check_eq!(memory_probe::read(address), Ok(0), "the address of a table");
        }
        // SAFETY: as above.
        let written = unsafe { memory_probe::write(CTLR, 1) };
        check!(written.is_ok(), "a write of GICR_CTLR aborts");
        check_eq!(memory_probe::read(CTLR).map(|control| control & 1), Ok(0), "GICR_CTLR.EnableLPIs");
    }

    /// What a guest wrote is gone when the host gets the frame back.
    reclaim_wipes {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 4, 8)?;
        vm.does(Command::Fill { ipa: SCRATCH_GFN * FRAME, frames: 16, word: 0x5ec3_e75e_c3e7 })?;
        let wiped = calls::counter(Counter::FramesWiped)?;
        let reclaimed = calls::counter(Counter::FramesReclaimed)?;
        vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
        let back = vm.reclaim_all()?;
        check_eq!(calls::counter(Counter::FramesReclaimed)? - reclaimed, 17, "reclaimed frames");
        check!(calls::counter(Counter::FramesWiped)? - wiped >= 17, "too few frames were wiped");
        for (_, folio) in back {
            folio.holds("after reclaim", |_| 0)?;
            expect_state(folio.pfn(), State::Host, "after reclaim")?;
        }
        vm.end_after_teardown()?;
    }

    /// A guest that touches a frame first finds what the host preloaded, and zeroes where it preloaded zeroes.
    preloaded_content_arrives {
        let mut vm = Vm::puppet()?;
        vm.give_filled(SCRATCH_GFN, 2, 10)?;
        for offset in [0, 4088, 4096, 3 * FRAME + 504] {
            check_eq!(vm.reads(SCRATCH_GFN * FRAME + offset)?, pattern(10, offset), "offset {offset:#x}");
        }
        vm.end()?;
    }
}

/// Donates a frame in the middle of a 2 MiB block; everything around it must stay readable and as it was.
fn frames_around(block: &Folio) -> Outcome {
    let middle = block.pfn() + 200;
    let vm = Vm::configured(1)?;
    crate::frames::register()?;
    crate::frames::set_pin(middle, pinfold_abi::pin_word::donatable(0));
    let handle = vm.handle();
    crate::pool::fed(|| calls::mem_donate(handle, SCRATCH_GFN, middle, 1, 0))?
        .done("MEM_DONATE")?;
    for frame in 0..block.frames() {
        let found = block.read(frame * FRAME + 16);
        if frame == 200 {
            check!(found.is_err(), "the donated frame can be read");
        } else {
            check_eq!(found, Ok(pattern(4, frame * FRAME + 16)), "frame {frame}");
        }
    }
    vm.teardown_begin().done("VM_TEARDOWN_BEGIN")?;
    crate::vm::reclaim(handle, SCRATCH_GFN, 1)?;
    check_eq!(block.read(200 * FRAME), Ok(0), "the frame after reclaim");
    vm.end_after_teardown()
}
