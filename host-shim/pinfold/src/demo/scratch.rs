//! A VM made by raw calls, to offer pages to that no driver would offer: [`ScratchVm`].
//!
//! EL2 may need pool frames for it. They are pages of this process, lent through [`PoolLoan`]; EL2
//! can only give back what it does not use, so the loan is settled when all VMs have gone.

use anyhow::{Context, bail, ensure};
use pinfold_abi::claim::{Count, Flags, Gfn, Handle, Ipa, Order, Pfn, VcpuIndex};
use pinfold_abi::{HostCall, Status, VM_PROTECTED};

use crate::control::{Control, Pin, PinKind, Refused};
use crate::layout::{GICD_BASE, GICR_BASE};
use crate::own_pages::Pages;

/// The scratch VM's RAM starts at this guest frame.
pub(super) const FIRST_GFN: u64 = 0x4_0000;
const FRAMES: u64 = 16;
/// Pages lent to the pool at a time.
const LOAN: u64 = 16;

/// Pages of ours that EL2's pool has.
#[derive(Debug, Default)]
pub(super) struct PoolLoan {
    pages: Vec<Pages>,
    pins: Vec<Pin>,
}

impl PoolLoan {
    /// Issues `call`, lending pages for as long as EL2 says that its pool is dry.
    fn call(&mut self, control: &Control, call: HostCall) -> anyhow::Result<[u64; 6]> {
        for _ in 0..4 {
            match control.call(call)?.done() {
                Ok(results) => return Ok(results),
                Err(refused) if refused.is(Status::NoMemory) => self.lend(control)?,
                Err(refused) => bail!("EL2 refuses {call:?}: {refused}"),
            }
        }
        bail!("EL2's pool stays dry, whatever it is given")
    }

    fn lend(&mut self, control: &Control) -> anyhow::Result<()> {
        let pages = Pages::new(LOAN)?;
        for index in 0..LOAN {
            let pin = control
                .pin(pages.address(index)?, PinKind::Isolated, 0)
                .context("cannot pin a page for the pool")?;
            self.pins.push(pin);
            control.must(HostCall::PoolDonate {
                first: Pfn(pin.pfn),
                count: Count(1),
            })?;
        }
        self.pages.push(pages);
        Ok(())
    }

    /// Takes everything back. All VMs have to be gone.
    pub(super) fn settle(self, control: &Control) -> anyhow::Result<()> {
        if self.pins.is_empty() {
            return Ok(());
        }
        loop {
            match control.call(HostCall::PoolReclaim {})?.done() {
                Ok(_) => {}
                Err(refused) if refused.is(Status::NoMemory) => break,
                Err(refused) => bail!("EL2 refuses to empty its pool: {refused}"),
            }
        }
        for pin in self.pins {
            control
                .unpin(pin)
                .with_context(|| format!("EL2 keeps pool frame {:#x}", pin.pfn))?;
        }
        Ok(())
    }
}

/// A started VM with a little RAM and no page in it.
#[derive(Debug)]
pub(super) struct ScratchVm<'a> {
    control: &'a Control,
    handle: Handle,
}

impl<'a> ScratchVm<'a> {
    /// Makes and starts it.
    pub(super) fn start(control: &'a Control, loan: &mut PoolLoan) -> anyhow::Result<Self> {
        let [handle, ..] = loan.call(
            control,
            HostCall::VmCreate {
                flags: Flags(VM_PROTECTED),
                vcpus: Count(1),
            },
        )?;
        let vm = Handle(handle);
        let steps = [
            HostCall::VmMemoryRegion {
                vm,
                first: Gfn(FIRST_GFN),
                count: Count(FRAMES),
            },
            HostCall::VmGic {
                vm,
                distributor: Ipa(GICD_BASE),
                redistributors: Ipa(GICR_BASE),
            },
            HostCall::VcpuCreate {
                vm,
                vcpu: VcpuIndex(0),
                flags: Flags(0),
            },
            HostCall::VmStart { vm },
        ];
        for step in steps {
            loan.call(control, step)?;
        }
        Ok(Self {
            control,
            handle: vm,
        })
    }

    /// Offers one frame as it is; says what EL2 made of it.
    pub(super) fn offer(
        &self,
        loan: &mut PoolLoan,
        pfn: u64,
    ) -> anyhow::Result<Result<(), Refused>> {
        let donation = HostCall::MemDonate {
            vm: self.handle,
            gfn: Gfn(FIRST_GFN),
            pfn: Pfn(pfn),
            count: Count(1),
            order: Order(0),
        };
        let mut answer = self.control.call(donation)?.done();
        if answer.is_err_and(|refused| refused.is(Status::NoMemory)) {
            loan.lend(self.control)?;
            answer = self.control.call(donation)?.done();
        }
        Ok(answer.map(|_| ()))
    }

    /// Takes all its memory back and ends it.
    pub(super) fn end(self) -> anyhow::Result<()> {
        let vm = self.handle;
        self.control.must(HostCall::VmTeardownBegin { vm })?;
        let mut done = 0;
        while done < FRAMES {
            let call = HostCall::MemReclaim {
                vm,
                gfn: Gfn(FIRST_GFN + done),
                count: Count(FRAMES - done),
            };
            match self.control.call(call)?.done() {
                Ok([frames, ..]) => {
                    ensure!(
                        frames == FRAMES - done,
                        "EL2 did {frames} frames and said OK"
                    );
                    done += frames;
                }
                Err(Refused::Status { status, index, .. }) if status == Status::Again.number() => {
                    ensure!(index > 0, "EL2 asks to go on but did nothing");
                    done += index;
                }
                Err(refused) => bail!("EL2 refuses to give memory back: {refused}"),
            }
        }
        self.control.must(HostCall::VmTeardownFinish { vm })?;
        Ok(())
    }
}
