//! What Pinfold costs the host, in instructions: never in seconds, which mean nothing here.
//!
//! The plugin in `qemu/plugin` counts them up to the first program, on a machine whose time is the
//! number of instructions, so that every run is the same.

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

/// What the plugin says.
struct Counted {
    all: u64,
    in_el2: u64,
}

fn boot_budget(bench: &Bench) -> Result<()> {
    let modules = Modules {
        kernel: bench.products.host_kernel.clone(),
        initramfs: Some(bench.products.host_initramfs.clone()),
        arguments: "console=ttyAMA0 nokaslr rdinit=/bin/end".to_owned(),
    };
    let bare = count(bench, Boot::Bare(modules.clone()), "count-bare")?.all;
    let under = Boot::Hypervisor {
        image: bench.products.pinfold.clone(),
        host: Some(modules),
    };
    let under = count(bench, under, "count-pinfold")?;
    let thousandths = under.all * 1000 / bare;
    println!(
        "      boot: {} instructions under Pinfold, {} of them in EL2, {bare} bare: {thousandths} thousandths",
        under.all, under.in_el2
    );
    ensure!(
        thousandths <= BUDGET,
        "{thousandths} thousandths of bare EL1 are above the {BUDGET} of the budget"
    );
    Ok(())
}

fn count(bench: &Bench, boot: Boot, name: &str) -> Result<Counted> {
    let machine = Machine {
        cpu: Cpu::Max,
        cpus: 1,
        memory: 1024,
        counts_instructions: true,
        plugin: Some(bench.products.plugin.clone()),
        ..Machine::new(boot)
    };
    let line = bench.console(&machine, name)?.expect("counted: ", GUARD)?;
    parse(&line).with_context(|| format!("not a count: {line}"))
}

fn parse(line: &str) -> Option<Counted> {
    let (_, counts) = line.split_once("counted: ")?;
    // What the machine prints at the same moment may come in between.
    let counts = counts.trim_start_matches(|c: char| !c.is_ascii_digit());
    let (all, rest) = counts.split_once(" instructions, ")?;
    let in_el2 = rest.split(' ').next()?;
    Some(Counted {
        all: all.parse().ok()?,
        in_el2: in_el2.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugin_is_understood() {
        let counted = parse("counted: 47 instructions, 4 in EL2").unwrap();
        assert_eq!((counted.all, counted.in_el2), (47, 4));
        let counted = parse("counted: [47 instructions, 4 in EL2").unwrap();
        assert_eq!((counted.all, counted.in_el2), (47, 4));
        assert!(parse("counted: many instructions, 4 in EL2").is_none());
    }
}
