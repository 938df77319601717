//! The Linux host at EL1: on both CPU models, 1 to 8 CPUs and 512 MiB to 8 GiB; power-off and reset.

use super::{Bench, GUARD, Test, ending};
use crate::machine::{Cpu, Machine};
use anyhow::{Result, ensure};

/// CPU model, CPUs and MiB: every pair of values occurs, not every triple.
const MACHINES: [(Cpu, u32, u32); 10] = [
    (Cpu::A76, 1, 512),
    (Cpu::A76, 2, 2048),
    (Cpu::A76, 4, 8192),
    (Cpu::Max, 1, 8192),
    (Cpu::Max, 2, 512),
    (Cpu::Max, 4, 2048),
    (Cpu::Max, 4, 512),
    (Cpu::Max, 1, 2048),
    (Cpu::A76, 2, 8192),
    (Cpu::A76, 8, 2048),
];

/// Boots, one reset.
pub(crate) fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = MACHINES
        .into_iter()
        .map(|(cpu, cpus, memory)| {
            let shape = move |machine| Machine {
                cpu,
                cpus,
                memory,
                ..machine
            };
            let name = format!("host boots and powers off: {cpu:?}, {cpus} CPUs, {memory} MiB");
            Test::one(name.clone(), move |bench| {
                boot(bench, &shape(bench.host("true")), &name)
            })
        })
        .collect();
    tests.push(Test::one("host resets and boots again", resets));
    tests
}

fn boot(bench: &Bench, machine: &Machine, name: &str) -> Result<()> {
    let mut console = bench.console(machine, name)?;
    let cpus = machine.cpus;
    console.expect(&format!("pinfold: EL2 up, {cpus} CPU"), GUARD)?;
    console.expect("pinfold: entering host at EL1", GUARD)?;
    let up = console.expect("host: Linux", GUARD)?;
    ensure!(
        up.ends_with(&format!("is up, {cpus} CPUs")),
        "not every CPU came up: {up}"
    );
    console.expect("host: pinfold.ko is loaded", GUARD)?;
    console.expect("host: task ended: 0", GUARD)?;
    ending::well(&mut console)
}

fn resets(bench: &Bench) -> Result<()> {
    let machine = Machine {
        restarts: true,
        ..bench.host("reboot -f")
    };
    let mut console = bench.console(&machine, "reset")?;
    for _ in 0..2 {
        console.expect("pinfold: EL2 up", GUARD)?;
        console.expect("host: Linux", GUARD)?;
    }
    Ok(())
}
