//! `pinfold touch`: a host process that reads or writes a page of a file, to see whether it may.
//!
//! The demonstration starts it on guest RAM and on `/dev/mem`: the signal that ends it (or, with
//! `--sweep`, how many accesses were stopped) is the evidence.

use std::fs::File;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use crate::ending::{ExitStatus, Failure};
use crate::fault_guard;
use crate::inspect::parse_number;

const PAGE: u64 = 4096;
/// What is written where writing is possible.
const MARK: u64 = 0x6174_7461_636B_6564;

/// The arguments of `pinfold touch`.
#[derive(Clone, Debug, clap::Args)]
pub struct TouchArguments {
    /// The file to map
    pub path: PathBuf,
    /// Where in the file, in bytes
    #[arg(long, value_parser = parse_number, default_value = "0")]
    pub offset: u64,
    /// Write instead of reading
    #[arg(long)]
    pub write: bool,
    /// Survive: try each offset that stdin names, one a line, and count those that were stopped
    #[arg(long)]
    pub sweep: bool,
}

/// Touches what `arguments` names.
pub fn touch(arguments: &TouchArguments) -> Result<ExitStatus, Failure> {
    if arguments.sweep {
        sweep(arguments)?;
    } else {
        let page = arguments.offset & !(PAGE - 1);
        let memory = map(&arguments.path, page, PAGE)?;
        let value = access(&memory, arguments.offset - page, arguments.write)?;
        println!("not stopped: {value:#x}");
    }
    Ok(ExitStatus::Success)
}

/// Reads the first eight bytes of a frame by `/dev/mem`, or writes `value`; nothing if the access was stopped.
///
/// One thread of a process does this at a time.
pub(crate) fn frame(frame: u64, value: Option<u64>) -> anyhow::Result<Option<u64>> {
    let address = frame
        .checked_mul(PAGE)
        .context("the frame is beyond all addresses")?;
    let memory = map(Path::new("/dev/mem"), address, PAGE)?;
    guard(&memory)?;
    let before = fault_guard::faults();
    let found = match value {
        Some(value) => memory.write_obj(value, GuestAddress(0)).map(|()| value)?,
        None => memory.read_obj(GuestAddress(0))?,
    };
    Ok((fault_guard::faults() == before).then_some(found))
}

/// Maps `size` bytes of the file from `start` on, at address 0 of the result.
fn map(path: &Path, start: u64, size: u64) -> anyhow::Result<GuestMemoryMmap> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let region = MmapRegion::from_file(FileOffset::new(file, start), usize::try_from(size)?)
        .with_context(|| format!("cannot map {}", path.display()))?;
    let region = GuestRegionMmap::new(region, GuestAddress(0)).context("the range wraps")?;
    GuestMemoryMmap::from_regions(vec![region]).context("the range is empty")
}

fn access(memory: &GuestMemoryMmap, offset: u64, write: bool) -> anyhow::Result<u64> {
    if write {
        memory.write_obj(MARK, GuestAddress(offset))?;
        Ok(MARK)
    } else {
        Ok(memory.read_obj(GuestAddress(offset))?)
    }
}

fn sweep(arguments: &TouchArguments) -> anyhow::Result<()> {
    let mut offsets = Vec::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("cannot read the offsets")?;
        match parse_number(line.trim()) {
            Ok(offset) => offsets.push(offset),
            Err(what) => bail!("`{line}` {what}"),
        }
    }
    let size = offsets
        .iter()
        .max()
        .map_or(PAGE, |last| (last & !(PAGE - 1)) + PAGE);
    let memory = map(&arguments.path, 0, size)?;
    guard(&memory)?;
    let mut stopped = 0_u64;
    for offset in &offsets {
        let before = fault_guard::faults();
        access(&memory, *offset, arguments.write)?;
        stopped += u64::from(fault_guard::faults() != before);
    }
    println!("stopped {stopped} of {}", offsets.len());
    Ok(())
}

fn guard(memory: &GuestMemoryMmap) -> anyhow::Result<()> {
    use vm_memory::{GuestMemoryBackend, GuestMemoryRegion, MemoryRegionAddress};

    let region = memory.iter().next().context("the range is empty")?;
    let start = region
        .get_host_address(MemoryRegionAddress(0))
        .context("the range has no address")?;
    fault_guard::guard(start.expose_provenance(), usize::try_from(region.len())?)
        .context("cannot catch SIGSEGV and SIGBUS")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_may_be_touched_is_touched() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 * PAGE).unwrap();
        let memory = map(file.path(), PAGE, PAGE).unwrap();
        assert_eq!(access(&memory, 8, false).unwrap(), 0);
        access(&memory, 8, true).unwrap();
        let whole = map(file.path(), 0, 2 * PAGE).unwrap();
        assert_eq!(access(&whole, PAGE + 8, false).unwrap(), MARK);
    }
}
