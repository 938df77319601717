//! The host's calls in short, for scenarios and random runs.

use pinfold_abi::{HostCall, claim};

use crate::lockstep::{FRAMES, GUEST, GUEST_FRAMES, Judged, Lockstep, RAM, TABLE};

/// The interrupt controller of the VMs that [`Lockstep::vm`] makes.
pub(crate) const GICD: u64 = 0x800_0000;
pub(crate) const GICR: u64 = 0x80A_0000;

impl Lockstep {
    /// After boot, with a pin table that speaks for all of RAM.
    pub(crate) fn with_pins() -> Judged<Self> {
        let mut both = Self::boot();
        both.register(TABLE, RAM, FRAMES)?;
        Ok(both)
    }

    pub(crate) fn register(&mut self, table: u64, first: u64, frames: u64) -> Judged<[u64; 18]> {
        let (table, first) = (claim::Pfn(table), claim::Pfn(first));
        self.call(HostCall::PinTableRegister {
            table,
            first,
            frames: claim::Count(frames),
        })
    }

    pub(crate) fn pool_donate(&mut self, first: u64, count: u64) -> Judged<[u64; 18]> {
        self.call(HostCall::PoolDonate {
            first: claim::Pfn(first),
            count: claim::Count(count),
        })
    }

    pub(crate) fn create(&mut self, flags: u64, vcpus: u64) -> Judged<claim::Handle> {
        let (flags, vcpus) = (claim::Flags(flags), claim::Count(vcpus));
        Ok(claim::Handle(
            self.call(HostCall::VmCreate { flags, vcpus })?[2],
        ))
    }

    pub(crate) fn region(
        &mut self,
        vm: claim::Handle,
        first: u64,
        count: u64,
    ) -> Judged<[u64; 18]> {
        self.call(HostCall::VmMemoryRegion {
            vm,
            first: claim::Gfn(first),
            count: claim::Count(count),
        })
    }

    pub(crate) fn gic(
        &mut self,
        vm: claim::Handle,
        distributor: u64,
        redistributors: u64,
    ) -> Judged<[u64; 18]> {
        let (distributor, redistributors) = (claim::Ipa(distributor), claim::Ipa(redistributors));
        self.call(HostCall::VmGic {
            vm,
            distributor,
            redistributors,
        })
    }

    pub(crate) fn vcpu(&mut self, vm: claim::Handle, vcpu: u64, flags: u64) -> Judged<[u64; 18]> {
        self.call(HostCall::VcpuCreate {
            vm,
            vcpu: claim::VcpuIndex(vcpu),
            flags: claim::Flags(flags),
        })
    }

    pub(crate) fn set(
        &mut self,
        vm: claim::Handle,
        vcpu: u64,
        register: u64,
        value: u64,
    ) -> Judged<[u64; 18]> {
        let (register, value) = (claim::Number(register), claim::Value(value));
        self.call(HostCall::VcpuSetRegister {
            vm,
            vcpu: claim::VcpuIndex(vcpu),
            register,
            value,
        })
    }

    pub(crate) fn run(&mut self, vm: claim::Handle, vcpu: u64, answer: u64) -> Judged<[u64; 18]> {
        let (vcpu, answer) = (claim::VcpuIndex(vcpu), claim::Value(answer));
        self.call(HostCall::VcpuRun { vm, vcpu, answer })
    }

    pub(crate) fn start(&mut self, vm: claim::Handle) -> Judged<[u64; 18]> {
        self.call(HostCall::VmStart { vm })
    }

    pub(crate) fn begin(&mut self, vm: claim::Handle) -> Judged<[u64; 18]> {
        self.call(HostCall::VmTeardownBegin { vm })
    }

    pub(crate) fn finish(&mut self, vm: claim::Handle) -> Judged<[u64; 18]> {
        self.call(HostCall::VmTeardownFinish { vm })
    }

    pub(crate) fn donate(
        &mut self,
        vm: claim::Handle,
        gfn: u64,
        pfn: u64,
        count: u64,
        order: u64,
    ) -> Judged<[u64; 18]> {
        let (gfn, pfn) = (claim::Gfn(gfn), claim::Pfn(pfn));
        let (count, order) = (claim::Count(count), claim::Order(order));
        self.call(HostCall::MemDonate {
            vm,
            gfn,
            pfn,
            count,
            order,
        })
    }

    /// Pins folios, then donates them, in as many calls as it takes.
    pub(crate) fn give(
        &mut self,
        vm: claim::Handle,
        gfn: u64,
        pfn: u64,
        count: u64,
        order: u8,
    ) -> Judged<[u64; 18]> {
        (0..count).for_each(|folio| self.pin_folio(pfn + (folio << order), order));
        self.donate_all(vm, gfn, pfn, count, order)
    }

    /// Donates folios, in as many calls as it takes.
    pub(crate) fn donate_all(
        &mut self,
        vm: claim::Handle,
        gfn: u64,
        pfn: u64,
        count: u64,
        order: u8,
    ) -> Judged<[u64; 18]> {
        let mut done = 0;
        loop {
            let (gfn, pfn) = (gfn + (done << order), pfn + (done << order));
            let x = self.donate(vm, gfn, pfn, count - done, u64::from(order))?;
            if x[1] != pinfold_abi::Status::Again.number() {
                return Ok(x);
            }
            done += x[2];
        }
    }

    pub(crate) fn reclaim(&mut self, vm: claim::Handle, gfn: u64, count: u64) -> Judged<[u64; 18]> {
        self.call(HostCall::MemReclaim {
            vm,
            gfn: claim::Gfn(gfn),
            count: claim::Count(count),
        })
    }

    pub(crate) fn share_with_guest(
        &mut self,
        vm: claim::Handle,
        folios: (u64, u64, u64, u64),
        access: u64,
    ) -> Judged<[u64; 18]> {
        let (gfn, pfn, count, order) = folios;
        self.call(HostCall::MemShareGuest {
            vm,
            gfn: claim::Gfn(gfn),
            pfn: claim::Pfn(pfn),
            count: claim::Count(count),
            order: claim::Order(order),
            access: claim::Access(access),
        })
    }

    pub(crate) fn unshare_from_guest(
        &mut self,
        vm: claim::Handle,
        gfn: u64,
        count: u64,
    ) -> Judged<[u64; 18]> {
        let (gfn, count) = (claim::Gfn(gfn), claim::Count(count));
        self.call(HostCall::MemUnshareGuest { vm, gfn, count })
    }

    pub(crate) fn protect_guest(
        &mut self,
        vm: claim::Handle,
        gfn: u64,
        count: u64,
        access: u64,
    ) -> Judged<[u64; 18]> {
        let (gfn, count) = (claim::Gfn(gfn), claim::Count(count));
        let access = claim::Access(access);
        self.call(HostCall::MemProtectGuest {
            vm,
            gfn,
            count,
            access,
        })
    }

    pub(crate) fn poison(&mut self, pfn: u64) -> Judged<[u64; 18]> {
        let pfn = claim::Pfn(pfn);
        self.call(HostCall::MemPoison { pfn })
    }

    pub(crate) fn line(&mut self, vm: claim::Handle, intid: u64, level: u64) -> Judged<[u64; 18]> {
        self.call(HostCall::IrqLine {
            vm,
            intid: claim::Number(intid),
            level: claim::Number(level),
        })
    }

    /// A VM with guest RAM, an interrupt controller and two vCPUs, the second one off. It is not started.
    pub(crate) fn vm(&mut self) -> Judged<claim::Handle> {
        let vm = self.create(1, 2)?;
        self.configure(vm)?;
        Ok(vm)
    }

    /// An ordinary VM like it, started.
    pub(crate) fn ordinary_vm(&mut self) -> Judged<claim::Handle> {
        let vm = self.create(0, 2)?;
        self.configure(vm)?;
        self.start(vm)?;
        Ok(vm)
    }

    fn configure(&mut self, vm: claim::Handle) -> Judged {
        self.region(vm, GUEST, GUEST_FRAMES)?;
        self.gic(vm, GICD, GICR)?;
        self.vcpu(vm, 0, 0)?;
        self.vcpu(vm, 1, 1)?;
        Ok(())
    }

    /// Such a VM, started.
    pub(crate) fn live_vm(&mut self) -> Judged<claim::Handle> {
        let vm = self.vm()?;
        self.start(vm)?;
        Ok(vm)
    }

    /// Reclaims everything, or ends its sharing, as often as it takes, and ends the VM.
    pub(crate) fn tear_down(&mut self, vm: claim::Handle) -> Judged {
        self.begin(vm)?;
        for first in [GUEST, GUEST + 512] {
            let mut done = 0;
            while done < 512 {
                let mut x = self.reclaim(vm, first + done, 512 - done)?;
                if x[1] == pinfold_abi::Status::WrongKind.number() {
                    x = self.unshare_from_guest(vm, first + done, 512 - done)?;
                }
                if x[1] != 0 && x[1] != pinfold_abi::Status::Again.number() {
                    break;
                }
                done += x[2];
            }
        }
        self.finish(vm)?;
        Ok(())
    }
}
