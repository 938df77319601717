//! The bare-metal mini host: hypercalls at EL1 without Linux; every TAP line counts.

use super::{GUARD, Tally, Test};
use crate::console::Console;
use crate::machine::{Boot, Cpu, Machine, Modules};
use anyhow::{Result, bail, ensure};

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
                            initramfs: None,
                            arguments: String::new(),
                        }),
                    })
                };
                tap(&mut bench.console(&machine, &name)?)
            })
        })
        .collect()
}

/// Reads TAP to its plan's end, prints what failed, counts.
fn tap(console: &mut Console) -> Result<Tally> {
    console.expect("pinfold: entering host at EL1", GUARD)?;
    let plan = console.expect("1..", GUARD)?;
    let status = console.wait(GUARD)?;
    ensure!(status.success(), "QEMU ended with {status}");
    count(&plan, console.seen())
}

fn count(plan: &str, seen: &str) -> Result<Tally> {
    let planned: u32 = plan.trim().trim_start_matches("1..").parse()?;
    let mut tally = Tally::default();
    for line in seen.lines().map(str::trim) {
        if line.starts_with("ok ") {
            tally.add(Tally::PASS);
        } else if line.starts_with("not ok ") {
            println!("      {line}");
            tally.add(Tally::FAIL);
        }
    }
    let ran = tally.passed + tally.failed;
    if ran != planned {
        bail!("{planned} tests were announced, {ran} ended");
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_is_counted_against_its_plan() {
        let seen = "1..3\nok 1 - a\nnot ok 2 - b\nok 3 - c # SKIP no\n";
        assert_eq!(
            count("1..3", seen).unwrap(),
            Tally {
                passed: 2,
                failed: 1
            }
        );
        assert!(count("1..4", seen).is_err());
    }
}
