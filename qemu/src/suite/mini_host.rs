//! The bare-metal mini host: hypercalls at EL1 without Linux; every TAP line counts.

use super::{GUARD, Tally, Test, attacks, tap};
use crate::console::Console;
use crate::machine::{Boot, Cpu, Machine, Modules};
use anyhow::{Result, ensure};

/// The machine on which no test is skipped.
const COMPLETE: (Cpu, u32) = (Cpu::Max, 4);

/// The mini host on both CPU models, alone and with four CPUs.
pub(crate) fn tests() -> Vec<Test> {
    [(Cpu::A76, 1), (Cpu::A76, 4), COMPLETE]
        .into_iter()
        .map(|(cpu, cpus)| {
            let name = format!("mini host: {cpu:?}, {cpus} CPUs");
            Test::many(name.clone(), move |bench| {
                let machine = Machine {
                    cpu,
                    cpus,
                    memory: 1024,
                    ..Machine::new(Boot::Hypervisor {
                        image: bench.products.pinfold.clone(),
                        host: Some(Modules {
                            kernel: bench.products.mini_host.clone(),
                            initramfs: Some(bench.products.guest.clone()),
                            arguments: String::new(),
                        }),
                    })
                };
                let mut console = bench.console(&machine, &name)?;
                let tally = run(&mut console)?;
                // Only this machine can run them all.
                if (cpu, cpus) == COMPLETE && tally.failed == 0 {
                    attacks::have_passed(&bench.workspace.root, console.seen())?;
                }
                Ok(tally)
            })
        })
        .collect()
}

/// Reads TAP until the power goes off.
pub(super) fn run(console: &mut Console) -> Result<Tally> {
    console.expect("pinfold: entering host at EL1", GUARD)?;
    let status = console.wait(GUARD)?;
    ensure!(status.success(), "QEMU ended with {status}");
    tap::count(console.seen())
}
