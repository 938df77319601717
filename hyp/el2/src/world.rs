//! The world switch: [`World::load`] takes the CPU from the host, [`World::enter`] runs the guest until it stops, and
//! [`World::put`] gives the CPU back.
//!
//! Between `load` and `put` the EL1 registers, the virtual timer and the virtual CPU interface are the guest's, and EL2's
//! controls are those of [`Controls::guest`]; the exits in between cost the general registers only. Extensions that a
//! guest does not have are not switched: they trap, and their effect is off (HCR_EL2.ATA, HCRX_EL2, the fine-grained traps
//! and CPTR_EL2 are all in their trapping state), so that the host's values stay in place.
//!
//! Invariant: on return from `put` every register of the host is what it was at `load`.

use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTV_CTL_EL0, CNTV_CVAL_EL0, CPTR_EL2, ELR_EL2, ESR_EL2, FAR_EL1, FAR_EL2,
    HCR_EL2, HPFAR_EL2, MDCR_EL2, SCTLR_EL1, SPSR_EL2, VBAR_EL1, VBAR_EL2, VMPIDR_EL2,
};
use pinfold_core::exit::{Exit, Syndrome};
use pinfold_core::injection::{ExceptionEntry, Injection};
use pinfold_core::vcpu::{El1State, GuestContext, LoadedVcpu};
use spin::Once;

use crate::sysreg::{
    ELR_EL1, ESR_EL1, HAFGRTR_EL2, HCRX_EL2, HDFGRTR_EL2, HDFGRTR2_EL2, HDFGWTR_EL2, HDFGWTR2_EL2,
    HFGITR_EL2, HFGITR2_EL2, HFGRTR_EL2, HFGRTR2_EL2, HFGWTR_EL2, HFGWTR2_EL2, ICC_SRE_EL2,
    ID_AA64DFR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64PFR0_EL1, PMBLIMITR_EL1,
    PMCNTENCLR_EL0, PMCNTENSET_EL0, PMSCR_EL1, Readable, SPSR_EL1, TRBLIMITR_EL1, TRFCR_EL1,
    VDISR_EL2, Writeable, field,
};
use crate::translation::{barrier, root, tlb};
use crate::width::wide;
use crate::{fp, gic, host};

/// HCR_EL2 for guests (DDI 0487 D24.2.60): stage 2 (VM), set/way made clean-and-invalidate (SWIO), interrupts to EL2 (FMO, IMO,
/// AMO), local maintenance made inner shareable (FB, BSU), WFI, ID registers (TID1, TID3), SMC (TSC), what the processor's maker defined
/// (TIDCP, TACR), AArch64 (RW), limited ordering (TLOR), errors (TERR), MTE's ID register (TID5).
const GUEST_HCR: u64 = 1 << 58
    | 1 << 36
    | 1 << 35
    | 1 << 31
    | 1 << 21
    | 1 << 20
    | 1 << 19
    | 1 << 18
    | 1 << 16
    | 1 << 13
    | 1 << 10
    | 1 << 9
    | 1 << 5
    | 1 << 4
    | 1 << 3
    | 1 << 1
    | 1;
/// HCR_EL2.API and APK, which a guest has if the host does.
const HCR_PAUTH: u64 = 1 << 41 | 1 << 40;
/// CPTR_EL2 without VHE: activity monitors (TAM), trace (TTA), SME (TSM), SVE (TZ) trap, and the other RES1 bits.
const GUEST_CPTR: u64 = 1 << 30 | 1 << 20 | 0x33ff;
/// CPTR_EL2.TFP: FP and SIMD trap too.
const CPTR_TFP: u64 = 1 << 10;
/// MDCR_EL2: debug communication (TDCC), trace filter (TTRF), profiling (TPMS), all of debug (TDRA, TDOSA, TDA) and all of the PMU
/// (TPM, TPMCR) trap; the buffers belong to EL2.
const GUEST_MDCR: u64 = 1 << 27 | 1 << 19 | 1 << 14 | 1 << 11 | 1 << 10 | 1 << 9 | 1 << 6 | 1 << 5;
/// MDCR_EL2.HPMN, which must stay a number of counters that there are.
const MDCR_HPMN: u64 = 0x1f;
/// CNTHCTL_EL2 without VHE: the physical counter is free (EL1PCTEN), the physical timer traps.
const GUEST_CNTHCTL: u64 = 1;
/// ICC_SRE_EL2.Enable: EL1 reaches ICC_SRE_EL1.
const SRE_ENABLE: u64 = 1 << 3;
/// CNTV_CTL_EL0.ISTATUS is read-only.
const TIMER_WRITABLE: u64 = 0b11;

/// Number of registers of the fine-grained traps, and of the second set.
const TRAPS: usize = 6;
const MORE_TRAPS: usize = 5;

unsafe extern "C" {
    /// world.S: runs the guest until its next exception, and returns the number of the vector.
    fn enter_guest(context: *mut GuestContext) -> u64;
    /// world.S: the registers of EL1 to memory.
    fn save_el1(state: *mut El1State);
    /// world.S: and back.
    fn load_el1(state: *const El1State);
    /// world.S: the pointer authentication keys to memory.
    fn save_pauth_keys(state: *mut El1State);
    /// world.S: and back.
    fn load_pauth_keys(state: *const El1State);
    /// world.S: where exceptions of a guest arrive.
    static guest_vectors: u8;
}

/// EL2's controls of EL1.
#[derive(Clone, Copy)]
struct Controls {
    hcr: u64,
    cptr: u64,
    mdcr: u64,
    cnthctl: u64,
    sre: u64,
    vttbr: u64,
    vmpidr: u64,
    vbar: u64,
    hcrx: u64,
    traps: [u64; TRAPS],
    more_traps: [u64; MORE_TRAPS],
}

/// Which of the optional controls there are, the same on every CPU.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a feature")]
struct Optional {
    pauth: bool,
    hcrx: bool,
    traps: bool,
    more_traps: bool,
    activity_monitors: bool,
    errors: bool,
    counters: bool,
    profiling: bool,
    tracing: bool,
}

static OPTIONAL: Once<Optional> = Once::new();

impl Optional {
    fn read() -> Self {
        let fine_grained = field(&ID_AA64MMFR0_EL1, 56);
        Self {
            pauth: host::hcr() & HCR_PAUTH != 0,
            hcrx: field(&ID_AA64MMFR1_EL1, 40) != 0,
            traps: fine_grained >= 1,
            more_traps: fine_grained >= 2,
            activity_monitors: field(&ID_AA64PFR0_EL1, 44) != 0,
            errors: field(&ID_AA64PFR0_EL1, 28) != 0,
            counters: host::has_counters(),
            profiling: field(&ID_AA64DFR0_EL1, 32) != 0,
            tracing: field(&ID_AA64DFR0_EL1, 44) != 0,
        }
    }
}

impl Controls {
    /// What the host has now.
    fn of_host(optional: Optional) -> Self {
        let mut controls = Self {
            hcr: HCR_EL2.get(),
            cptr: CPTR_EL2.get(),
            mdcr: MDCR_EL2.get(),
            cnthctl: CNTHCTL_EL2.get(),
            sre: ICC_SRE_EL2.get(),
            vttbr: root::selected(),
            vmpidr: VMPIDR_EL2.get(),
            vbar: VBAR_EL2.get(),
            hcrx: 0,
            traps: [0; TRAPS],
            more_traps: [0; MORE_TRAPS],
        };
        if optional.hcrx {
            controls.hcrx = HCRX_EL2.get();
        }
        if optional.traps {
            let activity = if optional.activity_monitors {
                HAFGRTR_EL2.get()
            } else {
                0
            };
            let [reads, writes] = [HFGRTR_EL2.get(), HFGWTR_EL2.get()];
            let [debug_reads, debug_writes] = [HDFGRTR_EL2.get(), HDFGWTR_EL2.get()];
            controls.traps = [
                reads,
                writes,
                HFGITR_EL2.get(),
                debug_reads,
                debug_writes,
                activity,
            ];
        }
        if optional.more_traps {
            let [reads, writes] = [HFGRTR2_EL2.get(), HFGWTR2_EL2.get()];
            controls.more_traps = [
                reads,
                writes,
                HFGITR2_EL2.get(),
                HDFGRTR2_EL2.get(),
                HDFGWTR2_EL2.get(),
            ];
        }
        controls
    }

    /// What a guest gets, beside what its coarse controls trap anyway: with HCRX_EL2 and the fine-grained traps at zero,
    /// every register of a later extension traps, since the fields for those say 1 for "do not".
    fn of_guest(host: &Self, optional: Optional, loaded: &LoadedVcpu) -> Self {
        Self {
            hcr: GUEST_HCR | if optional.pauth { HCR_PAUTH } else { 0 },
            cptr: GUEST_CPTR | CPTR_TFP,
            mdcr: GUEST_MDCR | host.mdcr & MDCR_HPMN,
            cnthctl: GUEST_CNTHCTL,
            sre: host.sre & !SRE_ENABLE,
            vttbr: loaded.translation | if fault!(WrongRoot) { 1 << 55 } else { 0 },
            vmpidr: loaded.affinity,
            vbar: wide(core::ptr::from_ref(vectors()).addr()),
            hcrx: 0,
            traps: [0; TRAPS],
            more_traps: [0; MORE_TRAPS],
        }
    }

    fn apply(&self, optional: Optional) {
        HCR_EL2.set(self.hcr);
        CPTR_EL2.set(self.cptr);
        MDCR_EL2.set(self.mdcr);
        CNTHCTL_EL2.set(self.cnthctl);
        ICC_SRE_EL2.set(self.sre);
        root::select(self.vttbr);
        VMPIDR_EL2.set(self.vmpidr);
        VBAR_EL2.set(self.vbar);
        if optional.hcrx {
            HCRX_EL2.set(self.hcrx);
        }
        if optional.traps {
            let [
                reads,
                writes,
                instructions,
                debug_reads,
                debug_writes,
                activity,
            ] = self.traps;
            HFGRTR_EL2.set(reads);
            HFGWTR_EL2.set(writes);
            HFGITR_EL2.set(instructions);
            HDFGRTR_EL2.set(debug_reads);
            HDFGWTR_EL2.set(debug_writes);
            if optional.activity_monitors {
                HAFGRTR_EL2.set(activity);
            }
        }
        if optional.more_traps {
            let [reads, writes, instructions, debug_reads, debug_writes] = self.more_traps;
            HFGRTR2_EL2.set(reads);
            HFGWTR2_EL2.set(writes);
            HFGITR2_EL2.set(instructions);
            HDFGRTR2_EL2.set(debug_reads);
            HDFGWTR2_EL2.set(debug_writes);
        }
        barrier::context();
    }
}

fn vectors() -> &'static u8 {
    // SAFETY: world.S defines it, and text is there for ever.
    unsafe { &guest_vectors }
}

/// Profiling and tracing of the host, which would go on through the guest's translation, and its counters, which would count
/// what the guest does.
#[derive(Clone, Copy, Default)]
struct Recorders {
    counters: u64,
    profiling: [u64; 2],
    tracing: [u64; 2],
}

impl Recorders {
    fn stop(optional: Optional) -> Self {
        let mut recorders = Self::default();
        if optional.counters {
            recorders.counters = PMCNTENSET_EL0.get();
            PMCNTENCLR_EL0.set(recorders.counters);
        }
        if optional.profiling {
            recorders.profiling = [PMSCR_EL1.get(), PMBLIMITR_EL1.get()];
            PMSCR_EL1.set(0);
            barrier::profile();
            PMBLIMITR_EL1.set(0);
        }
        if optional.tracing {
            recorders.tracing = [TRFCR_EL1.get(), TRBLIMITR_EL1.get()];
            TRFCR_EL1.set(0);
            barrier::trace();
            TRBLIMITR_EL1.set(0);
        }
        if optional.profiling || optional.tracing {
            barrier::system();
            barrier::context();
        }
        recorders
    }

    fn resume(self, optional: Optional) {
        if optional.counters {
            PMCNTENSET_EL0.set(self.counters);
        }
        if optional.profiling {
            let [control, limit] = self.profiling;
            PMBLIMITR_EL1.set(limit);
            PMSCR_EL1.set(control);
        }
        if optional.tracing {
            let [control, limit] = self.tracing;
            TRBLIMITR_EL1.set(limit);
            TRFCR_EL1.set(control);
        }
    }
}

/// What the host left on this CPU, while a guest has it.
pub(crate) struct World {
    optional: Optional,
    controls: Controls,
    el1: El1State,
    return_address: u64,
    return_state: u64,
    /// CNTV_CVAL_EL0 and CNTV_CTL_EL0.
    timer: [u64; 2],
    recorders: Recorders,
    /// List registers in use.
    lists: usize,
    /// The physical timer interrupt is active on the guest's behalf.
    timer_held: bool,
    /// The FP/SIMD registers are the guest's.
    has_fp: bool,
}

impl World {
    /// Takes the CPU from the host and gives it to the guest.
    pub(crate) fn load(loaded: &mut LoadedVcpu) -> Self {
        let optional = *OPTIONAL.call_once(Optional::read);
        let mut world = Self {
            optional,
            controls: Controls::of_host(optional),
            el1: El1State::default(),
            return_address: ELR_EL2.get(),
            return_state: SPSR_EL2.get(),
            timer: [CNTV_CVAL_EL0.get(), CNTV_CTL_EL0.get() & TIMER_WRITABLE],
            recorders: Recorders::stop(optional),
            lists: 0,
            timer_held: false,
            has_fp: false,
        };
        save_registers(&mut world.el1, optional);
        let context = &loaded.vcpu.context;
        load_registers(&context.el1, optional);
        gic::claim_own_interrupts();
        gic::load_interface(&context.gic);
        CNTV_CVAL_EL0.set(context.timer.compare);
        CNTV_CTL_EL0.set(context.timer.control);
        if optional.errors {
            VDISR_EL2.set(0);
        }
        Controls::of_guest(&world.controls, optional, loaded).apply(optional);
        if loaded.stale {
            tlb::invalidate_vmid_of_this_cpu();
        }
        world
    }

    /// Runs the guest until it stops, and says why.
    pub(crate) fn enter(&mut self, loaded: &mut LoadedVcpu) -> Exit {
        if let Some(injection) = loaded.vcpu.injection.take() {
            inject(&mut loaded.vcpu.context, injection);
        }
        if core::mem::take(&mut loaded.lists_changed) {
            self.write_lists(loaded);
        }
        // SAFETY: the context is the guest's and stays where it is; EL1, stage 2 and the traps are the guest's by `load`, so
        // that it reaches nothing but its own.
        let vector = unsafe { enter_guest(&raw mut loaded.vcpu.context) };
        if self.lists != 0 {
            gic::read_lists(&mut loaded.vcpu.lists);
        }
        let syndrome = Syndrome {
            esr: ESR_EL2.get(),
            far: FAR_EL2.get(),
            hpfar: HPFAR_EL2.get(),
        };
        let exit = Exit::of_vector(vector, syndrome, gic::highest_pending);
        if exit == Exit::Timer {
            gic::hold_timer();
            self.timer_held = true;
        }
        exit
    }

    /// Gives the guest the FP/SIMD registers.
    pub(crate) fn give_fp(&mut self, loaded: &LoadedVcpu) {
        fp::give_to_guest(&loaded.vcpu.context.fp, self.controls.cptr, GUEST_CPTR);
        self.has_fp = true;
    }

    /// Takes the CPU from the guest and gives it back to the host.
    pub(crate) fn put(mut self, loaded: &mut LoadedVcpu) {
        let context = &mut loaded.vcpu.context;
        context.timer.control = CNTV_CTL_EL0.get() & TIMER_WRITABLE;
        context.timer.compare = CNTV_CVAL_EL0.get();
        CNTV_CTL_EL0.set(0);
        barrier::context();
        if self.timer_held {
            gic::release_timer();
        }
        gic::save_interface(&mut context.gic);
        gic::clear_lists(self.lists);
        if self.has_fp {
            fp::take_from_guest(&mut context.fp, self.controls.cptr);
        }
        save_registers(&mut context.el1, self.optional);
        load_registers(&self.el1, self.optional);
        self.controls.apply(self.optional);
        self.recorders.resume(self.optional);
        let [compare, control] = self.timer;
        CNTV_CVAL_EL0.set(compare);
        CNTV_CTL_EL0.set(control);
        ELR_EL2.set(self.return_address);
        SPSR_EL2.set(self.return_state);
        self.lists = 0;
    }

    fn write_lists(&mut self, loaded: &LoadedVcpu) {
        let lists = &loaded.vcpu.lists;
        self.lists = gic::write_lists(lists, self.lists);
        if lists.timer_held != self.timer_held {
            if lists.timer_held {
                gic::hold_timer();
            } else {
                gic::release_timer();
            }
            self.timer_held = lists.timer_held;
        }
    }
}

fn save_registers(state: &mut El1State, optional: Optional) {
    // SAFETY: reads registers into a struct of the layout that world.S was given.
    unsafe { save_el1(state) };
    if optional.pauth {
        // SAFETY: as above, and the keys exist.
        unsafe { save_pauth_keys(state) };
    }
}

fn load_registers(state: &El1State, optional: Optional) {
    // SAFETY: the registers govern EL1 and EL0 only, and are those of whom EL2 will return to.
    unsafe { load_el1(state) };
    if optional.pauth {
        // SAFETY: as above, and the keys exist. EL2's own code uses none.
        unsafe { load_pauth_keys(state) };
    }
}

/// Makes the guest, whose registers are in place, take an exception.
fn inject(context: &mut GuestContext, injection: Injection) {
    let entry = ExceptionEntry::synchronous(context.pstate, VBAR_EL1.get(), SCTLR_EL1.get());
    ESR_EL1.set(injection.esr);
    if let Some(far) = injection.far {
        FAR_EL1.set(far);
    }
    ELR_EL1.set(context.pc);
    SPSR_EL1.set(context.pstate);
    context.pc = entry.pc;
    context.pstate = entry.pstate;
}
