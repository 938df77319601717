//! A [`Stray`]: one CPU's own VMs and frames, to which anything may be done: nearly valid and garbage calls.
//!
//! What such a call may take from the mini host is the CPU's bait and nothing else, so that the storm does not eat the image
//! that makes it: frame numbers are those of the bait, of EL2, of a sentry, or of nothing; handles are the CPU's own, or of nobody.

use guest_test::bytes::{self, FRAME};
use guest_test::random::Random;
use guest_test::tap::{Failure, Outcome};
use guest_test::{gic, timer};
use pinfold_abi::limit::MAX_FRAMES;
use pinfold_abi::{FUNCTION_BASE, HostCall, VM_PROTECTED, pin_word};

use crate::calls::{self, Reply, Status};
use crate::folio::Folio;
use crate::vm::{RAM_GFN, reclaim};
use crate::{frames, pool};

/// Guest frames of a stray VM.
const GFNS: u64 = 16;
/// VMs of each CPU, at most.
const VMS: usize = 2;
/// Frames at the end of the bait that no call begins with: two folios of order 1 that begin before them end within the bait.
const MARGIN: u64 = 3;
/// Handles have a slot in bits 7:0 and a generation in bits 31:8.
const GENERATION: u64 = 8;

/// One CPU's own.
#[derive(Debug)]
pub(crate) struct Stray {
    bait: Folio,
    handles: [u64; VMS],
    /// Frames that are not to be had: EL2's and a sentry's.
    others: [u64; 2],
}

impl Stray {
    /// With bait, and without VMs.
    pub(crate) fn new(others: [u64; 2]) -> Result<Self, Failure> {
        frames::register()?;
        Ok(Self {
            bait: Folio::take(4)?,
            handles: [0; VMS],
            others,
        })
    }

    fn handle(&self, random: &mut Random) -> u64 {
        let place = bytes::size(random.below(bytes::word(VMS)));
        let own = self.handles.get(place).copied().unwrap_or(0);
        match random.below(12) {
            // A slot that there is with a generation that there never will be.
            0 => own & 0xff | 0xff_fff0 << GENERATION,
            1 => random.word() | 1 << 40,
            2 => 0,
            _ => own,
        }
    }

    fn pfn(&self, random: &mut Random) -> u64 {
        let [hyp, guests] = self.others;
        match random.below(16) {
            0 => hyp,
            1 => guests,
            2 => random.word() | 1 << 37,
            3 => random.below(0x4_0000),
            _ => self.bait.pfn() + random.below(self.bait.frames() - MARGIN),
        }
    }

    fn gfn(random: &mut Random) -> u64 {
        match random.below(8) {
            0 => random.word(),
            1 => RAM_GFN + GFNS + random.below(4),
            _ => RAM_GFN + random.below(GFNS),
        }
    }

    /// A call that is nearly right.
    pub(crate) fn nearly_valid(&mut self, random: &mut Random) -> Outcome {
        if random.below(3) == 0 {
            let right = pin_word::donatable(bytes::low32(random.below(2)).try_into().unwrap_or(0));
            let word = if random.below(8) == 0 {
                bytes::low32(random.word())
            } else {
                right
            };
            frames::set_pin(self.bait.pfn() + random.below(self.bait.frames()), word);
        }
        let vm = self.handle(random);
        let small = random.below(3);
        // Whatever it comes to: the tally looks whether that makes sense, and the oracle whether it is right.
        match random.below(48) {
            0 => calls::version(),
            1 => calls::features(),
            2 => calls::pool_status(),
            3 => calls::pool_donate(self.pfn(random), small),
            4 => return pool::shed(),
            5..=7 => return self.create(random),
            8 | 9 => calls::vm_memory_region(vm, RAM_GFN, if small == 0 { 0 } else { GFNS }),
            10 => calls::vm_gic(vm, gic::GICD + small, gic::GICR),
            11 | 12 => calls::vcpu_create(vm, small, random.below(3)),
            13 => calls::vcpu_set_register(vm, 0, 32, RAM_GFN * FRAME),
            14 => calls::vcpu_set_register(vm, small, random.below(40), random.word()),
            15 | 16 => calls::vm_start(vm),
            17..=20 => Self::run(vm, small / 2, random),
            21..=30 => {
                let (gfn, pfn) = (Self::gfn(random), self.pfn(random));
                calls::mem_donate(vm, gfn, pfn, 1 + small / 2, random.below(12) / 8)
            }
            31 => calls::mem_reclaim(vm, Self::gfn(random), 1 + small),
            32 => calls::irq_line(vm, 30 + random.below(8), small),
            33 | 34 => calls::folio_query(self.pfn(random)),
            35 => calls::folio_digest(self.bait.pfn(), small * 8),
            36 => calls::vm_teardown_finish(vm),
            37 => return self.clear_away(),
            38..=43 => {
                let (gfn, pfn, access) =
                    (Self::gfn(random), self.pfn(random), 1 | random.below(10));
                calls::mem_share_guest(vm, gfn, pfn, 1 + small / 2, random.below(12) / 8, access)
            }
            44 => calls::mem_unshare_guest(vm, Self::gfn(random), 1 + small),
            45 => calls::mem_protect_guest(vm, Self::gfn(random), 1 + small, random.below(9)),
            _ => calls::vm_teardown_begin(vm),
        };
        Ok(())
    }

    fn create(&mut self, random: &mut Random) -> Outcome {
        let flags = [VM_PROTECTED, VM_PROTECTED, 0, 0, VM_PROTECTED | 1 << 1];
        let place = bytes::size(random.below(5));
        let flags = flags.get(place).copied().unwrap_or(0);
        let Some(place) = self.handles.iter_mut().find(|handle| **handle == 0) else {
            return Ok(());
        };
        let reply = calls::vm_create(flags, random.below(4));
        if reply.is(Status::Ok) {
            [*place, ..] = reply.results;
        } else if reply.is(Status::NoMemory) {
            pool::feed()?;
        }
        Ok(())
    }

    /// Runs whatever lies in the bait, for a moment.
    fn run(vm: u64, vcpu: u64, random: &mut Random) -> Reply {
        timer::arm_physical(timer::now() + timer::milliseconds(1));
        let reply = calls::vcpu_run(vm, vcpu, random.below(2));
        timer::stop_physical();
        while gic::serve().is_some() {}
        reply
    }

    /// Ends the VMs, which gives the bait back.
    pub(crate) fn clear_away(&mut self) -> Outcome {
        for handle in core::mem::take(&mut self.handles) {
            if handle == 0 || calls::vm_teardown_begin(handle).is(Status::NoSuchVm) {
                continue;
            }
            reclaim(handle, RAM_GFN, GFNS)?;
            calls::vm_teardown_finish(handle).done("VM_TEARDOWN_FINISH of a stray VM")?;
        }
        Ok(())
    }

    /// A word for a call without sense.
    fn word(&self, random: &mut Random) -> u64 {
        match random.below(8) {
            0 => random.word(),
            1 => 1 << random.below(64),
            2 => u64::MAX << random.below(64),
            3 => self.pfn(random),
            4 => random.below(4),
            5 => Self::gfn(random),
            _ => self.handle(random),
        }
    }

    /// A call without sense.
    pub(crate) fn garbage(&mut self, random: &mut Random) -> Outcome {
        let number = random.below(0x100);
        let mut words = [0; 7];
        for word in &mut words {
            *word = self.word(random);
        }
        let [first, second, _, count, ..] = &mut words;
        // Others' VMs are not for garbage, what is taken for good must be bait, or too much, and no VM is made that nobody ends.
        match number {
            0x10 => *second |= 1 << 60,
            0x20 => *second |= 1 << 40,
            0x21 => return pool::shed(),
            0x30 => *first |= 1 << 40,
            0x3a => {
                Self::run(self.handle(random), *second, random);
                return Ok(());
            }
            _ if *first >> GENERATION != 0 && *first >> 32 == 0 => *first = self.handle(random),
            _ => {}
        }
        if matches!(number, 0x40 | 0x42) && *count <= MAX_FRAMES {
            // One folio of the bait ends within the bait.
            *count &= 1;
        }
        let high = if random.below(16) == 0 {
            random.below(1 << 15) << 8
        } else {
            0
        };
        let id = bytes::low32(FUNCTION_BASE + (number | high));
        let is_known = HostCall::TABLE.iter().any(|info| info.number == number);
        let reply = calls::call(id, &words);
        if !is_known && high == 0 {
            return reply.not_supported("a call that is not in the table");
        }
        Ok(())
    }
}
