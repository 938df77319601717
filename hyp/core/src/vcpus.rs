//! The vCPUs of one VM, and what they share: power states and the interrupt controller.
//!
//! A slot is `Absent`, `Present` or `Loaded`; only [`Vcpus::load`] and [`Vcpus::unload`] move between the last two,
//! so at most one processor has a vCPU. Everything here is under the lock of the hypervisor.

use crate::owned::Owned;
use crate::psci::{PowerStates, SystemEvent};
use crate::refusal::{Found, Refusal};
use crate::vcpu::Vcpu;
use crate::vgic::Vgic;

/// The most vCPUs that a VM can have.
pub const MAX_VCPUS: usize = 8;
/// The most processors that EL2 can have.
pub const MAX_CPUS: usize = 8;

/// Where a vCPU is.
#[derive(Debug, Default)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
enum Slot {
    #[default]
    Absent,
    Present(Owned<Vcpu>),
    Loaded,
}

/// The vCPUs of one VM.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct Vcpus {
    count: usize,
    slots: [Slot; MAX_VCPUS],
    /// Which of them are on.
    pub power: PowerStates,
    /// Their interrupt controller.
    pub vgic: Vgic,
    /// What the guest asked for the machine as a whole; nobody runs after that.
    pub system: Option<SystemEvent>,
    last_on_cpu: [Option<u8>; MAX_CPUS],
}

impl Vcpus {
    /// Room for `count` vCPUs (at most [`MAX_VCPUS`]), none created.
    #[must_use]
    #[inline]
    pub fn new(count: usize) -> Self {
        let count = count.min(MAX_VCPUS);
        Self {
            count,
            slots: Default::default(),
            power: PowerStates::new(count),
            vgic: Vgic::new(count),
            system: None,
            last_on_cpu: [None; MAX_CPUS],
        }
    }

    /// How many there can be.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Creates vCPU `index` out of reset, `off` or on.
    pub fn create(&mut self, index: usize, powered_off: bool) -> Result<(), Refusal> {
        let slot = Self::slot(&mut self.slots, self.count, index)?;
        if !matches!(slot, Slot::Absent) && !mutant!(VcpuTwice) {
            return Err(Refusal::Exists(Found::default()));
        }
        *slot = Slot::Present(Owned::try_new(Vcpu::reset).ok_or(Refusal::OutOfMemory)?);
        self.power
            .create(index, powered_off && !mutant!(CreatedRunning));
        Ok(())
    }

    /// Sets Xn (0 to 30) or the PC (32) of a vCPU that never ran.
    pub fn set_register(&mut self, index: usize, register: u64, value: u64) -> Result<(), Refusal> {
        let vcpu = match Self::slot(&mut self.slots, self.count, index)? {
            Slot::Absent => return Err(Refusal::NoSuchVcpu),
            Slot::Loaded => return Err(Refusal::Busy(Found::default())),
            Slot::Present(vcpu) if vcpu.ran && !mutant!(SetsAfterRun) => {
                return Err(Refusal::WrongPhase);
            }
            Slot::Present(vcpu) => vcpu,
        };
        match u8::try_from(register) {
            Ok(number @ 0..=30) => vcpu.context.set_register(number, value),
            Ok(32) => vcpu.context.pc = seeded!(PcUnset, 0, value),
            _ if mutant!(AnyRegister) => {}
            _ => return Err(Refusal::Invalid),
        }
        Ok(())
    }

    /// Some vCPU is loaded.
    #[must_use]
    pub fn any_loaded(&self) -> bool {
        self.slots.iter().any(|slot| matches!(slot, Slot::Loaded))
    }

    /// Takes vCPU `index` out, to run it.
    pub fn load(&mut self, index: usize) -> Result<Owned<Vcpu>, Refusal> {
        let slot = Self::slot(&mut self.slots, self.count, index)?;
        match core::mem::replace(slot, Slot::Loaded) {
            Slot::Present(vcpu) => Ok(vcpu),
            Slot::Loaded if mutant!(LoadedIsGone) => Err(Refusal::NoSuchVcpu),
            Slot::Loaded => Err(Refusal::Busy(Found::default())),
            Slot::Absent => {
                *slot = Slot::Absent;
                Err(Refusal::NoSuchVcpu)
            }
        }
    }

    /// Puts vCPU `index` back.
    pub fn unload(&mut self, index: usize, vcpu: Owned<Vcpu>) {
        if let Some(slot @ Slot::Loaded) = self.slots.get_mut(index) {
            *slot = Slot::Present(vcpu);
        }
    }

    /// Forgets what is in the registers of every vCPU that is not loaded.
    pub(crate) fn forget_registers(&mut self) {
        for slot in &mut self.slots {
            if let Slot::Present(vcpu) = slot {
                **vcpu = Vcpu::default();
            }
        }
    }

    /// Notes that vCPU `index` runs on processor `cpu` now, and says whether another one ran there before.
    pub fn enters(&mut self, cpu: usize, index: u8) -> bool {
        match self.last_on_cpu.get_mut(cpu) {
            Some(last) => last
                .replace(index)
                .is_some_and(|previous| previous != index),
            None => true,
        }
    }

    fn slot(
        slots: &mut [Slot; MAX_VCPUS],
        count: usize,
        index: usize,
    ) -> Result<&mut Slot, Refusal> {
        slots
            .iter_mut()
            .take(seeded!(AnyVcpuIndex, MAX_VCPUS, count))
            .nth(index)
            .ok_or(Refusal::NoSuchVcpu)
    }
}
