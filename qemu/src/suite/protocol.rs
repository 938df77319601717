//! The checker of the page-table protocol at EL2: it finds nothing wrong while the mini host's tests run and Linux boots, and it
//! names each fault that EL2 is started with.

use super::{Bench, GUARD, Test, ending, mini_host};
use crate::build::{Bin, Cargo};
use crate::machine::{Cpu, Machine};
use anyhow::{Result, ensure};
use std::path::PathBuf;

/// A fault by its name in EL2's arguments, and what the panic must say of the rule and of what is missing.
struct Fault {
    argument: &'static str,
    says: &'static str,
    missing: &'static str,
}

const fn fault(argument: &'static str, says: &'static str, missing: &'static str) -> Fault {
    Fault {
        argument,
        says,
        missing,
    }
}

const FAULTS: [Fault; 14] = [
    fault(
        "pinfold.fault=NoDsbBefore",
        "protocol: MadeTooSoon",
        "missing DsbAfterStore",
    ),
    fault(
        "pinfold.fault=NoTlbi",
        "protocol: MadeTooSoon",
        "missing Tlbi",
    ),
    fault(
        "pinfold.fault=NoDsbBetween",
        "protocol: MadeTooSoon",
        "missing TlbiOfCombined",
    ),
    fault(
        "pinfold.fault=NoCombined",
        "protocol: MadeTooSoon",
        "missing TlbiOfCombined",
    ),
    fault(
        "pinfold.fault=NoDsbAfter",
        "protocol: RetiredTooSoon",
        "missing DsbAfterTlbi",
    ),
    fault(
        "pinfold.fault=OneCpu",
        "protocol: MadeTooSoon",
        "missing TlbiOnAllCpus",
    ),
    fault(
        "pinfold.fault=OtherVmid",
        "protocol: MadeTooSoon",
        "missing TlbiOfItsVmid",
    ),
    fault(
        "pinfold.fault=ShortRange",
        "protocol: MadeTooSoon",
        "missing Tlbi",
    ),
    fault("pinfold.fault=NoIsb", "protocol: NoIsb", ""),
    fault("pinfold.fault=NoPublish", "protocol: LeftUnpublished", ""),
    fault(
        "pinfold.fault=NoOwnTlbi",
        "protocol: LeftUnclean",
        "missing Tlbi",
    ),
    fault(
        "pinfold.fault=NoWindowTlbi",
        "protocol: MadeTooSoon",
        "missing Tlbi",
    ),
    fault("pinfold.fault=NoClean", "protocol: Dirty", ""),
    fault("pinfold.fault=WrongRoot", "protocol: WrongVmid", ""),
];

/// The mini host, Linux, and one test for each fault.
pub(crate) fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = [(Cpu::A76, 1), (Cpu::Max, 4)]
        .into_iter()
        .map(|(cpu, cpus)| {
            let name = format!("protocol: mini host, {cpu:?}, {cpus} CPUs");
            Test::many(name.clone(), move |bench| {
                let machine = Machine {
                    cpu,
                    cpus,
                    ..mini_host::on(bench, &image(bench)?, "")
                };
                mini_host::run(&mut bench.console(&machine, &name)?)
            })
        })
        .collect();
    tests.push(Test::one("protocol: Linux boots", boots));
    tests.extend(FAULTS.into_iter().map(|fault| {
        let name = format!("protocol: {}", fault.argument);
        Test::one(name.clone(), move |bench| is_named(bench, &fault, &name))
    }));
    tests
}

fn image(bench: &Bench) -> Result<PathBuf> {
    Ok(Cargo::new(&bench.workspace).image(&Bin::CHECKED)?.flat)
}

fn boots(bench: &Bench) -> Result<()> {
    let machine = bench.host_on(image(bench)?, "task=\"true\"");
    let mut console = bench.console(&machine, "protocol: Linux")?;
    console.expect("host: task ended: 0", GUARD)?;
    ending::well(&mut console)
}

/// The fault ends the machine, with a line that says which rule it broke.
fn is_named(bench: &Bench, fault: &Fault, name: &str) -> Result<()> {
    let machine = Machine {
        cpu: Cpu::A76,
        cpus: 1,
        own_arguments: fault.argument.to_owned(),
        ..mini_host::on(bench, &image(bench)?, "")
    };
    let mut console = bench.console(&machine, name)?;
    let line = console.expect("pinfold: panic on CPU", GUARD)?;
    ensure!(
        line.contains(fault.says) && line.trim().ends_with(fault.missing),
        "not {}, {}: {line}",
        fault.says,
        fault.missing
    );
    Ok(())
}
