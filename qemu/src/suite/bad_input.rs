//! Machines that Pinfold cannot run on: each ends with one clear line and the power off.

use super::{Bench, GUARD, Test};
use crate::machine::{Boot, Machine, Modules};
use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// A machine gone wrong, and what the line must speak of.
struct Case {
    name: &'static str,
    spoil: fn(&Bench) -> Result<Machine>,
    says: &'static str,
}

const CASES: [Case; 6] = [
    Case {
        name: "a GICv2 machine",
        spoil: |bench| {
            Ok(Machine {
                gic: 2,
                ..bench.host("true")
            })
        },
        says: "gic-version=3",
    },
    Case {
        name: "started at EL1",
        spoil: |bench| {
            Ok(Machine {
                virtualization: false,
                ..bench.host("true")
            })
        },
        says: "virtualization=on",
    },
    Case {
        name: "no modules",
        spoil: |bench| Ok(with_modules(bench, None)),
        says: "guest-loader",
    },
    Case {
        name: "a kernel that is not an Image",
        spoil: |bench| Ok(with_kernel(bench, bench.workspace.path("Makefile"))),
        says: "Image",
    },
    Case {
        name: "a kernel of zeroes",
        spoil: |bench| {
            let zeroes = bench.workspace.out("zeroes")?;
            std::fs::write(&zeroes, [0; 4096])?;
            Ok(with_kernel(bench, zeroes))
        },
        says: "Image",
    },
    Case {
        name: "too little memory",
        spoil: |bench| {
            Ok(Machine {
                memory: 176,
                ..bench.host("true")
            })
        },
        says: "512 MiB",
    },
];

/// One test per case.
pub(crate) fn tests() -> Vec<Test> {
    CASES
        .into_iter()
        .map(|case| {
            Test::one(format!("bad input: {}", case.name), move |bench| {
                run(bench, &case)
            })
        })
        .collect()
}

fn run(bench: &Bench, case: &Case) -> Result<()> {
    let machine = Machine {
        tells_status: true,
        ..(case.spoil)(bench)?
    };
    let mut console = bench.console(&machine, case.name)?;
    let status = console.wait(GUARD)?;
    let seen = console.seen();
    seen.lines()
        .find(|line| {
            line.starts_with("pinfold: ") && line.contains(case.says) && line.contains("; ")
        })
        .with_context(|| {
            format!(
                "no line `pinfold: <what>; <what to do>` speaks of {}: {seen}",
                case.says
            )
        })?;
    // Without EL2 there is only the power to turn off, which QEMU takes for success.
    ensure!(
        !status.success() || !machine.virtualization,
        "QEMU ended with {status}"
    );
    Ok(())
}

fn with_modules(bench: &Bench, host: Option<Modules>) -> Machine {
    Machine::new(Boot::Hypervisor {
        image: bench.products.pinfold.clone(),
        host,
    })
}

fn with_kernel(bench: &Bench, kernel: PathBuf) -> Machine {
    let modules = Modules {
        kernel,
        initramfs: None,
        arguments: String::new(),
    };
    with_modules(bench, Some(modules))
}
