//! What Pinfold costs the host, in instructions: never in seconds, which mean nothing here.
//!
//! Under `-icount shift=0` the counter of `-cpu max` advances by one each instruction, so the
//! first process of both boots prints what came before it.

use super::{Bench, GUARD, Test};
use crate::machine::{Boot, Cpu, Machine, Modules};
use anyhow::{Context, Result, ensure};

/// The most that a boot under Pinfold may cost, in thousandths of a bare one.
const BUDGET: u64 = 1050;

/// The boot's budget.
pub(crate) fn tests() -> Vec<Test> {
    vec![Test::one(
        "host boots with at most 1.05x the instructions of bare EL1",
        boot_budget,
    )]
}

fn boot_budget(bench: &Bench) -> Result<()> {
    let modules = Modules {
        kernel: bench.products.host_kernel.clone(),
        initramfs: Some(bench.products.host_initramfs.clone()),
        arguments: "console=ttyAMA0 nokaslr rdinit=/bin/ticks".to_owned(),
    };
    let bare = instructions(bench, Boot::Bare(modules.clone()), "ticks-bare")?;
    let under = instructions(
        bench,
        Boot::Hypervisor {
            image: bench.products.pinfold.clone(),
            host: Some(modules),
        },
        "ticks-pinfold",
    )?;
    let thousandths = under * 1000 / bare;
    println!(
        "      boot: {under} instructions under Pinfold, {bare} bare: {thousandths} thousandths"
    );
    ensure!(
        thousandths <= BUDGET,
        "{thousandths} thousandths of bare EL1 are above the {BUDGET} of the budget"
    );
    Ok(())
}

fn instructions(bench: &Bench, boot: Boot, name: &str) -> Result<u64> {
    let machine = Machine {
        cpu: Cpu::Max,
        cpus: 1,
        memory: 1024,
        counts_instructions: true,
        ..Machine::new(boot)
    };
    let mut console = bench.console(&machine, name)?;
    let line = console.expect("ticks  ", GUARD)?;
    line.rsplit(' ')
        .next()
        .and_then(|ticks| ticks.parse().ok())
        .with_context(|| format!("no number: {line}"))
}
