//! The bare-metal mini host: hypercalls at EL1 without Linux; every TAP line counts.

use super::{Bench, GUARD, Tally, Test, attacks, tap};
use crate::console::Console;
use crate::machine::{Boot, Cpu, Machine, Modules};
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::Duration;

/// The machine on which no attack is skipped.
const COMPLETE: (Cpu, u32) = (Cpu::Max, 4);

/// The mini host on both CPU models, alone and with four CPUs; and its tests of how long calls stay at EL2.
pub(crate) fn tests() -> Vec<Test> {
    let whole = [(Cpu::A76, 1), (Cpu::A76, 4), COMPLETE].map(|(cpu, cpus)| {
        let name = format!("mini host: {cpu:?}, {cpus} CPUs");
        Test::many(name.clone(), move |bench| {
            let machine = Machine {
                cpu,
                cpus,
                ..on(bench, &bench.products.pinfold, "")
            };
            let mut console = bench.console(&machine, &name)?;
            let tally = run(&mut console)?;
            // Only this machine can run them all.
            if (cpu, cpus) == COMPLETE && tally.failed == 0 {
                attacks::have_passed(&bench.workspace.root, console.seen())?;
            }
            Ok(tally)
        })
    });
    whole.into_iter().chain([work()]).collect()
}

/// A machine whose time is the number of instructions.
fn work() -> Test {
    let name = "mini host: work per call";
    Test::many(name, move |bench| {
        let machine = Machine {
            cpus: 1,
            counts_instructions: true,
            ..on(bench, &bench.products.pinfold, "icount test=work")
        };
        run(&mut bench.console(&machine, name)?)
    })
}

/// The mini host on an image of EL2, with its guest.
pub(super) fn on(bench: &Bench, image: &Path, arguments: &str) -> Machine {
    let products = &bench.products;
    machine([image, &products.mini_host, &products.guest], arguments)
}

/// A machine with an image of EL2, the mini host, and what it gets as its initrd.
pub(super) fn machine([image, mini_host, initrd]: [&Path; 3], arguments: &str) -> Machine {
    Machine {
        cpus: 4,
        memory: 1024,
        ..Machine::new(Boot::Hypervisor {
            image: image.to_path_buf(),
            host: Some(Modules {
                kernel: mini_host.to_path_buf(),
                initramfs: Some(initrd.to_path_buf()),
                arguments: arguments.to_owned(),
            }),
        })
    }
}

/// Reads TAP until the power goes off.
pub(super) fn run(console: &mut Console) -> Result<Tally> {
    ended(console, GUARD)?;
    tap::count(console.seen())
}

/// Waits until the mini host has switched itself off, at most for `guard`.
pub(super) fn ended(console: &mut Console, guard: Duration) -> Result<()> {
    console.expect("pinfold: entering host at EL1", GUARD)?;
    let status = console.wait(guard)?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}
