//! This CPU's trace: what comes to EL2 is noted in [`pinfold_core::trace::Ring`], in an image with debug calls.
//!
//! Without the feature there is no ring, and every function here is empty.

#[cfg(feature = "debug-calls")]
pub(crate) use kept::{Mark, call, guest_exit, host_trap, kept_by, last_call, say_last};
#[cfg(not(feature = "debug-calls"))]
pub(crate) use nothing::{Mark, call, guest_exit, host_trap, last_call, say_last};

#[cfg(feature = "debug-calls")]
mod kept {
    use aarch64_cpu::registers::{CNTPCT_EL0, ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2};
    use pinfold_abi::TraceKind;
    use pinfold_abi::trace::Cause;
    use pinfold_core::exit::{Exit, Syndrome};
    use pinfold_core::hypervisor::CallRegisters;
    use pinfold_core::trace::{self, Arrival, Ring, cause};
    use pinfold_core::vcpu::LoadedVcpu;

    use crate::console::Uart;
    use crate::percpu::{self, CPUS, PerCpu};
    use crate::sysreg::Readable;

    /// An entry that is not complete yet.
    pub(crate) type Mark = trace::Mark<'static>;

    /// The traces, apart from the blocks of the CPUs, since these are all zeroes and so take no room in the image.
    static RINGS: [Ring; CPUS] = [const { Ring::new() }; CPUS];

    /// The trace of a CPU that there is.
    pub(crate) fn kept_by(cpu: usize) -> Option<&'static Ring> {
        let block = percpu::present().find(|block| block.index() == cpu)?;
        RINGS.get(block.index())
    }

    fn ring() -> Option<&'static Ring> {
        RINGS.get(percpu::current().index())
    }

    /// Notes a host call before it is performed.
    pub(crate) fn call(registers: &CallRegisters) -> Mark {
        let mark = ring().map(|ring| ring.call(CNTPCT_EL0.get(), registers));
        mark.unwrap_or(Mark::NONE)
    }

    /// Makes sure that a call that ran a vCPU has its answer behind the exits.
    pub(crate) fn last_call(mark: Mark, registers: &CallRegisters) -> Mark {
        ring().map_or(mark, |ring| ring.again(mark, CNTPCT_EL0.get(), registers))
    }

    fn syndrome() -> Syndrome {
        Syndrome {
            esr: ESR_EL2.get(),
            far: FAR_EL2.get(),
            hpfar: HPFAR_EL2.get(),
        }
    }

    /// Notes an exit of a guest before core decides about it.
    pub(crate) fn guest_exit(loaded: &LoadedVcpu, exit: &Exit) -> Mark {
        let context = &loaded.vcpu.context;
        let [x0, x1, x2, x3, ..] = context.x;
        // Of any other exit, the registers are nobody's business.
        let x = if let Exit::Call(_) = exit {
            [x0, x1, x2, x3]
        } else {
            [0; 4]
        };
        let arrival = Arrival {
            who: loaded.name(),
            pc: context.pc,
            cause: cause(exit),
            syndrome: syndrome(),
            x,
        };
        let kind = TraceKind::GuestExit;
        let mark = ring().map(|ring| ring.arrival(kind, CNTPCT_EL0.get(), &arrival));
        mark.unwrap_or(Mark::NONE)
    }

    /// Notes a trap of the host that is no host call.
    pub(crate) fn host_trap(registers: &CallRegisters) {
        let [x0, x1, x2, x3, ..] = registers.x;
        let arrival = Arrival {
            who: [0; 2],
            pc: ELR_EL2.get(),
            cause: Cause::Exception,
            syndrome: syndrome(),
            x: [x0, x1, x2, x3],
        };
        if let Some(ring) = ring() {
            ring.arrival(TraceKind::HostTrap, CNTPCT_EL0.get(), &arrival);
        }
    }

    /// Says the last entries of a CPU that panics.
    pub(crate) fn say_last(cpu: &PerCpu) {
        if let Some(ring) = RINGS.get(cpu.index()) {
            // The UART takes every byte or drops it.
            let _ = core::fmt::Write::write_fmt(&mut Uart, format_args!("{ring}"));
        }
    }
}

#[cfg(not(feature = "debug-calls"))]
mod nothing {
    use pinfold_core::exit::Exit;
    use pinfold_core::hypervisor::CallRegisters;
    use pinfold_core::vcpu::{LoadedVcpu, VcpuExit};

    use crate::percpu::PerCpu;

    /// Stands for an entry that there is not.
    #[derive(Clone, Copy)]
    pub(crate) struct Mark;

    #[expect(clippy::unused_self, reason = "there is nothing to note")]
    impl Mark {
        pub(crate) const fn answer(self, _registers: &CallRegisters) {}

        pub(crate) const fn left(self, _exit: VcpuExit) {}
    }

    pub(crate) const fn call(_registers: &CallRegisters) -> Mark {
        Mark
    }

    pub(crate) const fn last_call(mark: Mark, _registers: &CallRegisters) -> Mark {
        mark
    }

    pub(crate) const fn guest_exit(_loaded: &LoadedVcpu, _exit: &Exit) -> Mark {
        Mark
    }

    pub(crate) const fn host_trap(_registers: &CallRegisters) {}

    pub(crate) const fn say_last(_cpu: &PerCpu) {}
}
