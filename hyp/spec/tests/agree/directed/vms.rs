//! Scenarios about what is not memory: doors, VMs and vCPUs in their lives.

use pinfold_abi::{FUNCTION_BASE, HostCall, UUID_FUNCTION, claim};
use pinfold_spec::{GuestEvent, TouchBy};

use super::{FIRST, calls};
use crate::host::{GICD, GICR};
use crate::lockstep::{EL2, FRAMES, GUEST, Judged, Lockstep, RAM, TABLE};

scenarios! {
    uuid, smccc, unknown_calls, version, features, census, digest, digest_malformed, counter, counter_malformed, query,
    query_malformed, range, range_malformed, trace_of_nobody, pool_status, create_malformed, create, many_vms, handles, handles_of_all_calls, handles_again, region_malformed, region_overlaps,
    region, many_regions, gic_malformed, gic, gic_access, start, phases_of_configuration, phase_of_run, phases_after_teardown,
    phases_before_teardown, teardown_begins, teardown_waits_for_vcpus, teardown_waits_for_frames, teardown_ends,
    lines_malformed, lines, vcpu_malformed, vcpu_unknown, vcpu_twice, vcpu, registers, registers_malformed, registers_after_run,
    loaded_vcpu, registers_of_loaded, off, crash, system_off, system_reset, cpu_on, cpu_on_refused, interrupted, keeps,
}

fn uuid() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.words([UUID_FUNCTION, 0, 0, 0, 0, 0, 0, 0])?;
    Ok(both)
}

fn smccc() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for argument in [0x8000_0000, 0x8000_0001, 0x8000_0002] {
        both.words([0x8000_0001, argument, 0, 0, 0, 0, 0, 0])?;
    }
    both.words([0x8000_0000, 0, 0, 0, 0, 0, 0, 0])?;
    Ok(both)
}

fn unknown_calls() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for function in [
        0,
        FUNCTION_BASE + 2,
        FUNCTION_BASE + 0xFF,
        FUNCTION_BASE | 1 << 32,
        0x8400_0000,
        u64::MAX,
    ] {
        both.words([function, 1, 2, 3, 4, 5, 6, 7])?;
    }
    both.call(HostCall::Counter {
        counter: claim::CounterNumber(8),
    })?;
    Ok(both)
}

fn version() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.call(HostCall::Version {})?;
    Ok(both)
}

fn features() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.call(HostCall::Features {})?;
    Ok(both)
}

fn census() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.call(HostCall::FolioCensus {})?;
    both.register(TABLE, RAM, FRAMES)?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, 9)?;
    both.call(HostCall::FolioCensus {})?;
    both.begin(vm)?;
    both.reclaim(vm, GUEST, 512)?;
    both.call(HostCall::FolioCensus {})?;
    Ok(both)
}

fn digest() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 3, 2)?;
    for (first, count) in [(RAM, 1), (RAM, 512), (FIRST, 1024)] {
        both.call(HostCall::FolioDigest {
            first: claim::Pfn(first),
            count: claim::Count(count),
        })?;
    }
    Ok(both)
}

fn digest_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for (first, count) in [
        (RAM, 0),
        (RAM, 1025),
        (RAM - 1, 2),
        (RAM + FRAMES - 1, 2),
        (u64::MAX, 1),
    ] {
        both.call(HostCall::FolioDigest {
            first: claim::Pfn(first),
            count: claim::Count(count),
        })?;
    }
    Ok(both)
}

/// Every counter that there is.
fn read_counters(both: &mut Lockstep) -> Judged {
    for counter in 0..9 {
        both.call(HostCall::Counter {
            counter: claim::CounterNumber(counter),
        })?;
    }
    Ok(())
}

fn counter() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    read_counters(&mut both)?;
    both.words([0; 8])?;
    both.pool_donate(EL2, 1)?;
    both.register(TABLE, RAM, FRAMES)?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 3, 0)?;
    both.touch(FIRST, TouchBy::Process)?;
    both.touch(FIRST, TouchBy::Kernel)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
    both.tear_down(vm)?;
    read_counters(&mut both)?;
    Ok(both)
}

fn counter_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for counter in [9, u64::MAX] {
        both.call(HostCall::Counter {
            counter: claim::CounterNumber(counter),
        })?;
    }
    Ok(both)
}

fn look_at(both: &mut Lockstep, frames: &[u64]) -> Judged {
    for frame in frames {
        both.call(HostCall::FolioQuery {
            pfn: claim::Pfn(*frame),
        })?;
    }
    Ok(())
}

fn query() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    look_at(
        &mut both,
        &[0, RAM - 1, RAM, EL2, TABLE, RAM + FRAMES, (1 << 36) - 1],
    )?;
    both.register(TABLE, RAM, FRAMES)?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, 9)?;
    both.give(vm, GUEST + 512, RAM, 2, 2)?;
    look_at(
        &mut both,
        &[FIRST, FIRST + 5, RAM, RAM + 3, RAM + 4, RAM + 7, TABLE],
    )?;
    both.begin(vm)?;
    both.reclaim(vm, GUEST, 512)?;
    look_at(&mut both, &[FIRST, FIRST + 5])?;
    Ok(both)
}

fn ranges_from(both: &mut Lockstep, frames: &[u64]) -> Judged {
    for frame in frames {
        both.call(HostCall::FolioRange {
            first: claim::Pfn(*frame),
        })?;
    }
    Ok(())
}

fn range() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    ranges_from(
        &mut both,
        &[
            0,
            RAM - 1,
            RAM,
            RAM + 500,
            EL2,
            TABLE,
            RAM + FRAMES - 1,
            RAM + FRAMES,
        ],
    )?;
    both.register(TABLE, RAM, FRAMES)?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 1, 9)?;
    both.give(vm, GUEST + 512, RAM, 2, 2)?;
    // Neighbours that the guest has elsewhere.
    both.give(vm, GUEST + 600, RAM + 8, 1, 2)?;
    ranges_from(
        &mut both,
        &[FIRST, FIRST + 5, RAM, RAM + 3, RAM + 4, RAM + 8, TABLE],
    )?;
    both.begin(vm)?;
    both.reclaim(vm, GUEST, 512)?;
    ranges_from(&mut both, &[FIRST, FIRST + 5])?;
    Ok(both)
}

fn range_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    ranges_from(&mut both, &[1 << 36, (1 << 36) + RAM, u64::MAX])?;
    Ok(both)
}

fn trace_of_nobody() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for cpu in [0, u64::MAX] {
        let cpu = claim::Number(cpu);
        both.call(HostCall::TraceStatus { cpu })?;
        let (entry, part) = (claim::Number(0), claim::Number(0));
        both.call(HostCall::TraceRead { cpu, entry, part })?;
    }
    Ok(both)
}

fn query_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    look_at(&mut both, &[1 << 36, u64::MAX])?;
    Ok(both)
}

fn pool_status() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.call(HostCall::PoolStatus {})?;
    both.pool_donate(FIRST, 7)?;
    both.call(HostCall::PoolStatus {})?;
    Ok(both)
}

fn create_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for (flags, vcpus) in [
        (0, 0),
        (2, 1),
        (3, 1),
        (1, 0),
        (1, 9),
        (1, u64::MAX),
        (u64::MAX, 1),
    ] {
        both.create(flags, vcpus)?;
    }
    Ok(both)
}

fn create() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.create(1, 1)?;
    both.create(1, 8)?;
    Ok(both)
}

fn many_vms() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for first in [FIRST, FIRST + 64] {
        both.pool_donate(first, 64)?;
    }
    for _ in 0..65 {
        both.create(1, 1)?;
    }
    Ok(both)
}

fn handles() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 1)?;
    for raw in [
        0,
        1,
        vm.0 + 0x100,
        vm.0 + 1,
        vm.0 | 1 << 32,
        vm.0 | 0xFF,
        u64::MAX,
    ] {
        both.start(claim::Handle(raw))?;
    }
    Ok(both)
}

fn handles_of_all_calls() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    for info in HostCall::TABLE {
        both.words([FUNCTION_BASE + info.number, 0x100, 1, 1, 1, 1, 0, 0])?;
    }
    Ok(both)
}

fn handles_again() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 1)?;
    both.begin(vm)?;
    both.finish(vm)?;
    both.begin(vm)?;
    both.create(1, 1)?;
    both.begin(vm)?;
    Ok(both)
}

fn region_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 1)?;
    for (first, count) in [
        (GUEST, 0),
        (1 << 28, 1),
        ((1 << 28) - 1, 2),
        (0, u64::MAX),
        (u64::MAX, 1),
    ] {
        both.region(vm, first, count)?;
    }
    Ok(both)
}

fn region_overlaps() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 1)?;
    both.region(vm, GUEST, 8)?;
    for (first, count) in [
        (GUEST, 8),
        (GUEST + 7, 1),
        (GUEST - 1, 2),
        (GUEST - 1, 100),
        (GUEST + 2, 3),
    ] {
        both.region(vm, first, count)?;
    }
    Ok(both)
}

fn region() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.create(1, 1)?;
    both.region(vm, GUEST, 8)?;
    both.region(vm, GUEST + 8, 8)?;
    both.give(vm, GUEST + 7, FIRST, 1, 0)?;
    Ok(both)
}

fn many_regions() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 1)?;
    for number in 0..17 {
        both.region(vm, GUEST + number * 16, 8)?;
    }
    Ok(both)
}

fn gic_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 2)?;
    let places = [
        (GICD + 1, GICR),
        (GICD, GICR + 0x1000),
        (GICD, GICD),
        (GICR + 0x3_0000, GICR),
        (1 << 40, 0),
        (0, u64::MAX),
    ];
    for (distributor, redistributors) in places {
        both.gic(vm, distributor, redistributors)?;
    }
    Ok(both)
}

fn gic() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 2)?;
    both.gic(vm, GICR + 0x4_0000, GICR)?;
    both.gic(vm, GICD, GICR)?;
    Ok(both)
}

fn gic_access() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    for ipa in [GICD, GICD + 0xFFFC, GICR, GICR + 0x3_FFFC, GICR + 0x4_0000] {
        both.run(vm, 0, 0)?;
        both.guest(
            vm,
            0,
            [0; 4],
            GuestEvent::Access {
                ipa,
                width: 4,
                write: false,
                register: 2,
            },
        )?;
        both.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
    }
    Ok(both)
}

fn start() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 1)?;
    both.start(vm)?;
    Ok(both)
}

/// Every call that configures a VM.
fn configure(both: &mut Lockstep, vm: claim::Handle) -> Judged {
    both.region(vm, GUEST + 4096, 8)?;
    both.gic(vm, GICD, GICR)?;
    both.vcpu(vm, 0, 0)?;
    both.start(vm)?;
    Ok(())
}

fn phases_of_configuration() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 1)?;
    both.start(vm)?;
    configure(&mut both, vm)?;
    both.begin(vm)?;
    configure(&mut both, vm)?;
    Ok(both)
}

fn phase_of_run() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.vm()?;
    both.run(vm, 0, 0)?;
    both.begin(vm)?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn phases_after_teardown() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.begin(vm)?;
    both.give(vm, GUEST, FIRST, 1, 0)?;
    both.line(vm, 32, 1)?;
    both.set(vm, 0, 0, 1)?;
    let vm = both.ordinary_vm()?;
    both.begin(vm)?;
    both.share_with_guest(vm, (GUEST, FIRST, 1, 0), 1)?;
    both.protect_guest(vm, GUEST, 1, 1)?;
    Ok(both)
}

fn phases_before_teardown() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.vm()?;
    both.give(vm, GUEST, FIRST, 1, 0)?;
    for _ in 0..2 {
        both.reclaim(vm, GUEST, 1)?;
        both.finish(vm)?;
        both.start(vm)?;
    }
    Ok(both)
}

fn teardown_begins() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.begin(vm)?;
    both.begin(vm)?;
    let vm = both.vm()?;
    both.begin(vm)?;
    Ok(both)
}

fn teardown_waits_for_vcpus() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    both.begin(vm)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
    both.begin(vm)?;
    Ok(both)
}

fn teardown_waits_for_frames() -> Judged<Lockstep> {
    let mut both = Lockstep::with_pins()?;
    let vm = both.live_vm()?;
    both.give(vm, GUEST, FIRST, 3, 0)?;
    both.begin(vm)?;
    both.finish(vm)?;
    both.reclaim(vm, GUEST, 2)?;
    both.finish(vm)?;
    Ok(both)
}

fn teardown_ends() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.begin(vm)?;
    both.finish(vm)?;
    Ok(both)
}

fn lines_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.vm()?;
    for (intid, level) in [(31, 1), (288, 1), (32, 2), (u64::MAX, 0)] {
        both.line(vm, intid, level)?;
    }
    Ok(both)
}

fn lines() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.vm()?;
    for (intid, level) in [(32, 1), (287, 0)] {
        both.line(vm, intid, level)?;
    }
    Ok(both)
}

fn vcpu_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 2)?;
    for flags in [2, 3, u64::MAX] {
        both.vcpu(vm, 0, flags)?;
    }
    Ok(both)
}

fn vcpu_unknown() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 2)?;
    both.vcpu(vm, 0, 0)?;
    for index in [2, 8, 256, u64::MAX] {
        both.vcpu(vm, index, 0)?;
    }
    both.set(vm, 1, 0, 1)?;
    both.set(vm, 2, 0, 1)?;
    both.start(vm)?;
    for index in [1, 2, 256, u64::MAX] {
        both.run(vm, index, 0)?;
    }
    Ok(both)
}

fn vcpu_twice() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.create(1, 2)?;
    both.vcpu(vm, 1, 0)?;
    both.vcpu(vm, 1, 1)?;
    Ok(both)
}

fn vcpu() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    both.vm()?;
    Ok(both)
}

fn registers() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.vm()?;
    for register in [0, 7, 30, 32] {
        both.set(vm, 0, register, 0x1234_5678_9ABC_0000 + register)?;
    }
    both.start(vm)?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn registers_malformed() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.vm()?;
    for register in [31, 33, 256, u64::MAX] {
        both.set(vm, 0, register, 1)?;
    }
    Ok(both)
}

fn registers_after_run() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.set(vm, 0, 1, 5)?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Interrupt)?;
    both.set(vm, 0, 0, 1)?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn loaded_vcpu() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn registers_of_loaded() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    both.set(vm, 0, 0, 1)?;
    Ok(both)
}

fn off() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0x8400_0002, 0, 0, 0])?;
    both.run(vm, 0, 0)?;
    both.run(vm, 1, 0)?;
    Ok(both)
}

fn crash() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [0; 4], GuestEvent::Impossible { class: 0x0E << 26 })?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn system_off() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0x8400_0008, 0, 0, 0])?;
    both.run(vm, 0, 0)?;
    both.run(vm, 1, 0)?;
    Ok(both)
}

fn system_reset() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0x8400_0009, 0, 0, 0])?;
    both.run(vm, 0, 0)?;
    Ok(both)
}

fn cpu_on() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0xC400_0003, 1, GUEST << 12, 0x77])?;
    both.run(vm, 1, 0)?;
    both.guest(vm, 1, [0x8400_0002, 0, 0, 0], GuestEvent::Call)?;
    both.run(vm, 0, 0)?;
    both.guest(
        vm,
        0,
        [0x8400_0003, 1, 0xDEAD_0000_0000 | GUEST << 12, 0],
        GuestEvent::Call,
    )?;
    both.run(vm, 1, 0)?;
    Ok(both)
}

fn cpu_on_refused() -> Judged<Lockstep> {
    let (mut both, vm) = calls([0xC400_0003, 1, GUEST << 12, 0])?;
    for target in [1, 0, 2, 1 << 24, 1 << 32] {
        both.run(vm, 0, 0)?;
        both.guest(vm, 0, [0xC400_0003, target, 0, 0], GuestEvent::Call)?;
    }
    Ok(both)
}

fn interrupted() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [1, 2, 3, 4], GuestEvent::Interrupt)?;
    Ok(both)
}

fn keeps() -> Judged<Lockstep> {
    let mut both = Lockstep::boot();
    let vm = both.live_vm()?;
    both.run(vm, 0, 0)?;
    both.guest(vm, 0, [1, 2, 3, 4], GuestEvent::Interrupt)?;
    both.run(vm, 0, 0x5555)?;
    Ok(both)
}
