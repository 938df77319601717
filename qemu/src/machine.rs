//! Machine profiles: QEMU's arm64 `virt` in the shapes that Pinfold is run and tested on.
//!
//! [`Machine`] is the command line of QEMU in words; [`Machine::command`] is the only place that
//! knows QEMU's options. The addresses that the boot modules get are those of DESIGN section 4.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where QEMU puts the host kernel: clear of EL2's image at `0x4020_0000`.
const HOST_KERNEL: &str = "0x41000000";
/// Where QEMU puts the host's initial file system: clear of its own device tree at `0x4800_0000`.
const HOST_INITRAMFS: &str = "0x4a000000";

/// The CPU model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cpu {
    /// Armv8.2 without SVE and pointer authentication.
    A76,
    /// Everything that QEMU has.
    Max,
}

/// What QEMU starts first.
#[derive(Debug, Clone)]
pub(crate) enum Boot {
    /// An image at EL2 with, if any, a kernel and initial file system for it to start at EL1.
    Hypervisor {
        /// EL2's image.
        image: PathBuf,
        /// What EL2 finds in `/chosen`.
        host: Option<Modules>,
    },
    /// A kernel alone, at EL1.
    Bare(Modules),
}

/// A kernel, its initial file system and its command line.
#[derive(Debug, Clone)]
pub(crate) struct Modules {
    /// An arm64 Image.
    pub(crate) kernel: PathBuf,
    /// A cpio archive.
    pub(crate) initramfs: Option<PathBuf>,
    /// The kernel's command line.
    pub(crate) arguments: String,
}

/// A machine of QEMU's `virt` kind.
#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a switch of QEMU; they do not depend on one another"
)]
pub(crate) struct Machine {
    /// The CPU model.
    pub(crate) cpu: Cpu,
    /// The number of CPUs.
    pub(crate) cpus: u32,
    /// RAM in MiB.
    pub(crate) memory: u32,
    /// The interrupt controller's version.
    pub(crate) gic: u32,
    /// Whether there is an EL2.
    pub(crate) virtualization: bool,
    /// Whether time is the number of instructions, one a nanosecond: two runs are the same then.
    pub(crate) counts_instructions: bool,
    /// Whether one thread of QEMU runs the CPUs in turn, and changes at each `YIELD`; else each has its own thread.
    pub(crate) takes_turns: bool,
    /// A plugin of QEMU.
    pub(crate) plugin: Option<PathBuf>,
    /// Whether a reset starts the machine anew; else it ends QEMU.
    pub(crate) restarts: bool,
    /// Whether EL2 may end QEMU with an exit code when it cannot start.
    pub(crate) tells_status: bool,
    /// Arguments of EL2's own.
    pub(crate) own_arguments: String,
    /// Whether QEMU waits for gdb.
    pub(crate) waits_for_gdb: bool,
    /// What runs.
    pub(crate) boot: Boot,
}

impl Machine {
    /// The usual machine: cortex-a76, 2 CPUs, 2 GiB.
    pub(crate) fn new(boot: Boot) -> Self {
        Self {
            cpu: Cpu::A76,
            cpus: 2,
            memory: 2048,
            gic: 3,
            virtualization: matches!(boot, Boot::Hypervisor { .. }),
            counts_instructions: false,
            takes_turns: false,
            plugin: None,
            restarts: false,
            tells_status: false,
            own_arguments: String::new(),
            waits_for_gdb: false,
            boot,
        }
    }

    /// QEMU's command line up to the console, which the caller chooses.
    pub(crate) fn command(&self) -> Command {
        let mut qemu = Command::new("qemu-system-aarch64");
        let on = |yes| if yes { "on" } else { "off" };
        qemu.arg("-machine").arg(format!(
            "virt,virtualization={},gic-version={}{},dtb-randomness=off",
            on(self.virtualization),
            self.gic,
            // EL2 takes the ITS away, so a bare machine that is compared has none either.
            if self.virtualization { "" } else { ",its=off" }
        ));
        // QEMU's own PAuth hash is as good for tests as Arm's and costs far less time.
        qemu.args([
            "-cpu",
            match self.cpu {
                Cpu::A76 => "cortex-a76",
                Cpu::Max => "max,pauth-impdef=on",
            },
        ]);
        qemu.arg("-smp").arg(self.cpus.to_string());
        qemu.arg("-m").arg(format!("{}M", self.memory));
        qemu.args(["-nic", "none"]);
        if !self.restarts {
            qemu.arg("-no-reboot");
        }
        if let Some(plugin) = &self.plugin {
            qemu.arg("-plugin").arg(escaped(plugin));
        }
        if self.takes_turns {
            qemu.args(["-accel", "tcg,thread=single"]);
        }
        if self.counts_instructions {
            qemu.args(["-icount", "shift=0,sleep=off", "-seed", "1"])
                .args(["-rtc", "base=2020-01-01,clock=vm"]);
        }
        if self.tells_status {
            qemu.args(["-semihosting-config", "enable=on,target=native"]);
        }
        if let Boot::Hypervisor { .. } = self.boot {
            let semihosting = if self.tells_status {
                "pinfold.semihosting "
            } else {
                ""
            };
            qemu.arg("-append")
                .arg(format!("{semihosting}{}", self.own_arguments));
        }
        if self.waits_for_gdb {
            qemu.args(["-S", "-gdb", "tcp:localhost:1234"]);
        }
        match &self.boot {
            Boot::Hypervisor { image, host } => {
                qemu.arg("-kernel").arg(image);
                if let Some(modules) = host {
                    modules.load_for_hypervisor(&mut qemu);
                }
            }
            Boot::Bare(modules) => modules.load_bare(&mut qemu),
        }
        qemu
    }
}

impl Modules {
    fn load_for_hypervisor(&self, qemu: &mut Command) {
        let kernel = escaped(&self.kernel);
        let arguments = self.arguments.replace(',', ",,");
        qemu.arg("-device").arg(format!(
            "guest-loader,addr={HOST_KERNEL},kernel={kernel},bootargs={arguments}"
        ));
        if let Some(initramfs) = &self.initramfs {
            qemu.arg("-device").arg(format!(
                "guest-loader,addr={HOST_INITRAMFS},initrd={}",
                escaped(initramfs)
            ));
        }
    }

    fn load_bare(&self, qemu: &mut Command) {
        qemu.arg("-kernel")
            .arg(&self.kernel)
            .arg("-append")
            .arg(&self.arguments);
        if let Some(initramfs) = &self.initramfs {
            qemu.arg("-initrd").arg(initramfs);
        }
    }
}

/// A path as a value among QEMU's comma-separated options.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = match self.cpu {
            Cpu::A76 => "cortex-a76",
            Cpu::Max => "max",
        };
        write!(f, "{cpu}, {} CPUs, {} MiB", self.cpus, self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_values_are_doubled() {
        let machine = Machine::new(Boot::Hypervisor {
            image: "pinfold.img".into(),
            host: Some(Modules {
                kernel: "a,b".into(),
                initramfs: None,
                arguments: "earlycon=pl011,0x9000000".into(),
            }),
        });
        let command = machine.command();
        let device = command
            .get_args()
            .find(|argument| argument.to_string_lossy().starts_with("guest-loader"))
            .unwrap();
        assert_eq!(
            device,
            "guest-loader,addr=0x41000000,kernel=a,,b,bootargs=earlycon=pl011,,0x9000000"
        );
    }

    #[test]
    fn a_bare_kernel_gets_no_el2() {
        let machine = Machine::new(Boot::Bare(Modules {
            kernel: "Image".into(),
            initramfs: None,
            arguments: String::new(),
        }));
        let command = machine.command();
        assert!(
            command
                .get_args()
                .any(|argument| argument.to_string_lossy().contains("virtualization=off"))
        );
    }
}
