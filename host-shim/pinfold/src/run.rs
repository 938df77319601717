//! `pinfold run`: checks everything that was asked for ([`Plan`]), then starts the VM.
//!
//! Invariant: while a `Plan` is made, nothing is started and `/dev/kvm` is not touched; whatever is
//! wrong with the arguments or the files is said here, by name.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::console::ConsoleArgument;
use crate::devices::virtio::block::{Block, DiskArgument};
use crate::ending::{ExitStatus, Failure};
use crate::image::{HEADER_SIZE, ImageHeader};
use crate::layout::{Contents, Layout, MAX_VCPUS, MIB};
use crate::memory::Backing;

/// Linux cuts a longer command line off (arm64's `COMMAND_LINE_SIZE`).
const MAX_COMMAND_LINE: usize = 2047;

/// What the kernel is told unless `--cmdline` says otherwise: a panic resets at once (exit
/// status 3) instead of hanging.
pub const DEFAULT_COMMAND_LINE: &str = "console=ttyS0 panic=-1";

/// The arguments of `pinfold run`.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArguments {
    /// Run a protected VM: the host loses every page the VM gets. Required for now, because only
    /// protected VMs can be run
    #[arg(long)]
    pub protected: bool,
    /// The guest's kernel: an uncompressed arm64 Image
    #[arg(long, value_name = "IMAGE")]
    pub kernel: PathBuf,
    /// The guest's initial file system
    #[arg(long, value_name = "FILE")]
    pub initrd: Option<PathBuf>,
    /// Guest RAM, in MiB or with a suffix K, M or G; a multiple of 2 MiB
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_size)]
    pub mem: u64,
    /// vCPUs, 1 to 8
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub cpus: u32,
    /// A virtio disk; may be given several times. `,ro` makes it read-only
    #[arg(long, value_name = "FILE[,ro]")]
    pub disk: Vec<DiskArgument>,
    /// The kernel's command line
    #[arg(long, value_name = "TEXT", default_value = DEFAULT_COMMAND_LINE)]
    pub cmdline: String,
    /// Where the guest's console goes
    #[arg(long, value_name = "stdio|file=PATH", default_value = "stdio")]
    pub console: ConsoleArgument,
    /// What guest RAM is made of: a file of our own, private memory, or a file that exists
    #[arg(long, value_name = "memfd|anon|PATH", default_value = "memfd")]
    pub backing: Backing,
    /// Ask the kernel for huge pages of 2 MiB, each of which is then donated as one. For memfd it also takes `advise` in the kernel's
    /// `transparent_hugepage/shmem_enabled`
    #[arg(long)]
    pub hugepages: bool,
    /// The bounce pool at the end of guest RAM, the only memory that virtio devices can reach, in
    /// MiB or with a suffix; 0 leaves it out, for guests that share pages of their own choice (Linux
    /// does not)
    #[arg(long, value_name = "SIZE", default_value = "8M", value_parser = parse_size)]
    pub swiotlb: u64,
    /// The KVM device
    #[arg(long, value_name = "PATH", default_value = "/dev/kvm")]
    pub kvm: PathBuf,
}

/// Everything that a VM is started with; all of it has been checked.
#[derive(Debug)]
pub struct Plan {
    /// The kernel's file.
    pub kernel: File,
    /// From the kernel's 2 MiB-aligned base to its first byte.
    pub text_offset: u64,
    /// The initrd's content.
    pub initrd: Vec<u8>,
    /// Where everything goes.
    pub layout: Layout,
    /// How many vCPUs.
    pub vcpus: u32,
    /// The disks.
    pub disks: Vec<Block>,
    /// The kernel's command line.
    pub command_line: String,
    /// Where the console goes.
    pub console: ConsoleArgument,
    /// What RAM is made of.
    pub backing: Backing,
    /// Whether RAM should be huge pages.
    pub hugepages: bool,
    /// The KVM device.
    pub kvm: PathBuf,
}

impl Plan {
    /// Checks `arguments` and the files they name.
    pub fn check(arguments: RunArguments) -> Result<Self, Failure> {
        if !arguments.protected {
            return Err(bad("only protected VMs can be run: add --protected".into()));
        }
        if !(1..=MAX_VCPUS).contains(&arguments.cpus) {
            return Err(bad(format!("--cpus must be 1 to {MAX_VCPUS}")));
        }
        if arguments.cmdline.len() > MAX_COMMAND_LINE || arguments.cmdline.contains('\0') {
            return Err(bad(format!(
                "--cmdline must have at most {MAX_COMMAND_LINE} bytes and no NUL"
            )));
        }
        let (kernel, header, size) = open_kernel(&arguments.kernel)?;
        let initrd = match &arguments.initrd {
            Some(path) => read_initrd(path)?,
            None => Vec::new(),
        };
        let layout = Layout::of(Contents {
            memory: arguments.mem,
            text_offset: header.text_offset,
            kernel: size.max(header.image_size),
            initrd: u64::try_from(initrd.len()).unwrap_or(u64::MAX),
            pool: arguments.swiotlb,
        })
        .map_err(|error| bad(error.to_string()))?;
        let disks = arguments
            .disk
            .iter()
            .map(open_disk)
            .collect::<Result<_, _>>()?;
        check_backing(&arguments.backing, arguments.mem)?;
        Ok(Self {
            kernel,
            text_offset: header.text_offset,
            initrd,
            layout,
            vcpus: arguments.cpus,
            disks,
            command_line: arguments.cmdline,
            console: arguments.console,
            backing: arguments.backing,
            hugepages: arguments.hugepages,
            kvm: arguments.kvm,
        })
    }

    /// Starts the VM and comes back when it has ended.
    #[cfg(target_arch = "aarch64")]
    pub fn start(self) -> Result<ExitStatus, Failure> {
        Ok(crate::machine::run(self)?.report())
    }

    /// Says that VMs need an arm64 host.
    #[cfg(not(target_arch = "aarch64"))]
    pub fn start(self) -> Result<ExitStatus, Failure> {
        drop(self);
        Err(Failure::Host(anyhow::anyhow!(
            "VMs can be run on an arm64 host only"
        )))
    }
}

/// Reads `128` (MiB), `128M`, `65536K` or `1G` as bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(|last: char| last.is_ascii_alphabetic()) {
        None => (text, MIB),
        Some(digits) => match text.chars().last() {
            Some('k' | 'K') => (digits, 1 << 10),
            Some('m' | 'M') => (digits, MIB),
            Some('g' | 'G') => (digits, 1 << 30),
            _ => return Err("the suffix must be K, M or G".into()),
        },
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(unit))
        .ok_or_else(|| "is not a size such as 128, 128M or 1G".into())
}

fn bad(message: String) -> Failure {
    Failure::BadInput(message)
}

fn open_kernel(path: &Path) -> Result<(File, ImageHeader, u64), Failure> {
    let problem = |what: String| bad(format!("kernel {}: {what}", path.display()));
    let file = open_regular(path).map_err(&problem)?;
    let size = file
        .metadata()
        .map_err(|error| problem(error.to_string()))?
        .len();
    let mut start = Vec::new();
    let header_size = u64::try_from(HEADER_SIZE).unwrap_or(u64::MAX);
    (&file)
        .take(header_size)
        .read_to_end(&mut start)
        .map_err(|error| problem(error.to_string()))?;
    let header = ImageHeader::parse(&start).map_err(|error| problem(error.to_string()))?;
    Ok((file, header, size))
}

fn read_initrd(path: &Path) -> Result<Vec<u8>, Failure> {
    let problem = |what: String| bad(format!("initrd {}: {what}", path.display()));
    let mut content = Vec::new();
    open_regular(path)
        .map_err(&problem)?
        .read_to_end(&mut content)
        .map_err(|error| problem(error.to_string()))?;
    if content.is_empty() {
        return Err(problem("is empty".into()));
    }
    Ok(content)
}

fn open_regular(path: &Path) -> Result<File, String> {
    let file = File::open(path).map_err(|error| format!("cannot be opened: {error}"))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err("is not a regular file".into()),
        Err(error) => Err(error.to_string()),
    }
}

fn open_disk(argument: &DiskArgument) -> Result<Block, Failure> {
    Block::open(argument).map_err(|error| bad(format!("disk {}: {error}", argument.path.display())))
}

fn check_backing(backing: &Backing, memory: u64) -> Result<(), Failure> {
    let Backing::File(path) = backing else {
        return Ok(());
    };
    let size = File::options()
        .read(true)
        .write(true)
        .open(path)
        .and_then(|file| file.metadata())
        .map_err(|error| bad(format!("backing {}: {error}", path.display())))?
        .len();
    if size < memory {
        return Err(bad(format!(
            "backing {}: has {size} bytes, less than --mem",
            path.display()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use clap::Parser;
    use tempfile::NamedTempFile;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArguments,
    }

    fn image() -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        let mut header = [0; 4096];
        header[16..24].copy_from_slice(&0x80_0000_u64.to_le_bytes());
        header[56..60].copy_from_slice(b"ARM\x64");
        file.write_all(&header).unwrap();
        file
    }

    fn check(kernel: &Path, more: &[&str]) -> Result<Plan, String> {
        let fixed = [
            "pinfold",
            "--protected",
            "--kernel",
            kernel.to_str().unwrap(),
        ];
        let line =
            Line::try_parse_from(fixed.iter().chain(more)).map_err(|error| error.to_string())?;
        Plan::check(line.run).map_err(|failure| {
            assert_eq!(failure.status(), ExitStatus::BadInput);
            failure.to_string()
        })
    }

    #[test]
    fn sizes_are_mebibytes_unless_they_say() {
        assert_eq!(parse_size("128"), Ok(128 << 20));
        assert_eq!(parse_size("128M"), Ok(128 << 20));
        assert_eq!(parse_size("4096k"), Ok(4 << 20));
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        for wrong in ["", "M", "-1", "12T", "99999999999999999G", "1.5G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_plain_command_line_makes_a_plan() {
        let kernel = image();
        let plan = check(kernel.path(), &["--mem", "128"]).unwrap();
        assert_eq!(plan.layout.ram.size, 128 << 20);
        assert_eq!(plan.layout.kernel.size, 0x80_0000, "with its .bss");
        assert_eq!(plan.vcpus, 1);
        assert_eq!(plan.command_line, DEFAULT_COMMAND_LINE);
        assert_eq!(plan.backing, Backing::Memfd);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let kernel = image();
        let empty = NamedTempFile::new().unwrap();
        let odd = NamedTempFile::new().unwrap();
        odd.as_file().set_len(700).unwrap();
        let path = |file: &NamedTempFile| file.path().to_str().unwrap().to_owned();
        let cases: [(&[&str], &str); 9] = [
            (&["--mem", "3"], "multiple of 2 MiB"),
            (&["--mem", "12M"], "too small"),
            (&["--cpus", "0"], "--cpus"),
            (&["--cpus", "9"], "--cpus"),
            (&["--initrd", "/none"], "initrd /none: cannot be opened"),
            (&["--initrd", &path(&empty)], "is empty"),
            (&["--disk", "/none,ro"], "disk /none"),
            (&["--disk", &path(&odd)], "700 bytes"),
            (&["--backing", &path(&odd)], "less than --mem"),
        ];
        for (arguments, expected) in cases {
            let error = check(kernel.path(), arguments).unwrap_err();
            assert!(error.contains(expected), "{arguments:?}: {error}");
        }
        let error = check(empty.path(), &[]).unwrap_err();
        assert!(error.contains("too short to be an arm64 Image"), "{error}");
        let error = check(Path::new("/dev"), &[]).unwrap_err();
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn ordinary_vms_are_refused_for_now() {
        let kernel = image();
        let line =
            Line::try_parse_from(["pinfold", "--kernel", kernel.path().to_str().unwrap()]).unwrap();
        let error = Plan::check(line.run).unwrap_err();
        assert!(error.to_string().contains("--protected"));
    }
}
