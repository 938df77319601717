//! The bare-metal mini host: hypercalls at EL1 without Linux; every TAP line counts.

use super::{GUARD, Tally, Test, tap};
use crate::console::Console;
use crate::machine::{Boot, Cpu, Machine, Modules};
use anyhow::{Result, ensure};

/// The mini host on both CPU models, alone and with four CPUs.
pub(crate) fn tests() -> Vec<Test> {
    [(Cpu::A76, 1), (Cpu::A76, 4), (Cpu::Max, 4)]
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
                run(&mut bench.console(&machine, &name)?)
            })
        })
        .collect()
}

/// Reads TAP until the power goes off.
fn run(console: &mut Console) -> Result<Tally> {
    console.expect("pinfold: entering host at EL1", GUARD)?;
    let status = console.wait(GUARD)?;
    ensure!(status.success(), "QEMU ended with {status}");
    tap::count(console.seen())
}
