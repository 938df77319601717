//! Machines with a person at the keyboard.

use crate::build::{Products, Workspace};
use crate::machine::{Boot, Cpu, Machine, Modules};
use anyhow::{Context, Result, ensure};
use std::process::Command;

/// The machine's shape, as options.
#[derive(clap::Args)]
pub(crate) struct Shape {
    /// The CPU model.
    #[arg(long, value_enum, default_value_t = Cpu::A76)]
    cpu: Cpu,
    /// The number of CPUs.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=8))]
    cpus: u32,
    /// RAM in MiB.
    #[arg(long, default_value_t = 2048)]
    memory: u32,
}

impl Shape {
    fn machine(&self, products: &Products) -> Machine {
        Machine {
            cpu: self.cpu,
            cpus: self.cpus,
            memory: self.memory,
            restarts: true,
            ..Machine::new(Boot::Hypervisor {
                image: products.pinfold.clone(),
                host: Some(Modules {
                    kernel: products.host_kernel.clone(),
                    initramfs: Some(products.host_initramfs.clone()),
                    arguments: "console=ttyAMA0 quiet".to_owned(),
                }),
            })
        }
    }
}

/// Starts the host on this terminal.
pub(crate) fn run(workspace: &Workspace, shape: &Shape) -> Result<()> {
    let machine = shape.machine(&Products::build(workspace)?);
    println!("starting: {machine}; `poweroff -f` in the host ends it, and so does Ctrl-A X");
    let status = machine
        .command()
        .arg("-nographic")
        .status()
        .context("cannot start qemu-system-aarch64; `make setup` installs it")?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}

/// Starts the host stopped at its first instruction, its console in a log, and gdb on this terminal.
pub(crate) fn gdb(workspace: &Workspace, shape: &Shape) -> Result<()> {
    let products = Products::build(workspace)?;
    let machine = Machine {
        waits_for_gdb: true,
        ..shape.machine(&products)
    };
    let console = workspace.out("logs/gdb.log")?;
    let mut qemu = machine
        .command()
        .args(["-display", "none", "-monitor", "none", "-serial"])
        .arg(format!("file:{}", console.display()))
        .spawn()
        .context("cannot start qemu-system-aarch64; `make setup` installs it")?;
    println!("the console: tail -f {}", console.display());
    // QEMU loads EL2's image, linked at 0, 2 MiB into RAM.
    let symbols = format!(
        "add-symbol-file {} -o 0x40200000",
        products.pinfold_elf.display()
    );
    let status = Command::new("gdb-multiarch")
        .arg("-q")
        .args(["-ex", "set architecture aarch64", "-ex", &symbols, "-ex"])
        .arg(format!(
            "add-symbol-file {}",
            products.host_kernel_elf.display()
        ))
        .args(["-ex", "target remote localhost:1234"])
        .status();
    qemu.kill().context("cannot end QEMU")?;
    qemu.wait()?;
    let status = status.context("cannot start gdb-multiarch; `make setup` installs it")?;
    ensure!(status.success(), "gdb ended with {status}");
    Ok(())
}
