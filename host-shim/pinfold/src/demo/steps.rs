//! The ten steps.

use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use pinfold_abi::claim::Pfn;
use pinfold_abi::{Counter, HostCall, State, Status, UUID_WORDS, VERSION};

use super::guest::{Guest, own_program, wait};
use super::scratch::{PoolLoan, ScratchVm};
use super::snapshot::{Held, Holdings, Snapshot, counter};
use super::{DemoArguments, Report};
use crate::control::{Control, Pin, PinKind, Refused};
use crate::layout::{PAGE, RAM_BASE};
use crate::own_pages::Pages;

/// How long a process that touches pages may take.
const TOUCH_PATIENCE: Duration = Duration::from_secs(120);
/// How many of the guest's pages are attacked one by one.
const VICTIMS: usize = 256;
/// Where QEMU puts EL2's image.
const EL2_IMAGE_PFN: u64 = 0x4_0200;
/// What the page of the scratch VM is filled with.
const PATTERN: u8 = 0xA7;

/// Takes all steps.
pub(super) fn all(
    arguments: &DemoArguments,
    control: &Control,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.step(1, "host at EL1 under Pinfold", host_is_up(control));
    let before = Before::note(control)?;
    let mut loan = PoolLoan::default();
    let guest = report.step(2, "protected guest up", guest_is_up(arguments));
    let holdings = report.step(
        3,
        "guest's pages exclusively pinned",
        pages(control, &before),
    );
    pins(control, report, &mut loan);
    let mut victims = None;
    match (guest, holdings) {
        (Some(mut guest), Some(holdings)) => {
            let chosen = choose(&holdings);
            let outcome = attacks(control, &mut guest, &chosen).map(|evidence| ((), evidence));
            report.step(7, "host's touch stopped, pattern intact", outcome);
            report.step(8, "EL2 memory unreadable", el2_is_closed(control));
            let ended = power_off(&mut guest).map(|evidence| ((), evidence));
            report.step(9, "guest powered off", ended);
            victims = Some((guest, holdings));
        }
        (guest, _) => {
            drop(guest);
            report.fail(
                7,
                "host's touch stopped, pattern intact",
                "there is no guest",
            );
            report.step(8, "EL2 memory unreadable", el2_is_closed(control));
            report.fail(9, "guest powered off", "there is no guest");
        }
    }
    let settled = loan.settle(control);
    let outcome = settled.and_then(|()| {
        let (guest, holdings) = victims.context("there was no guest")?;
        all_is_back(control, &guest, &holdings, &before)
    });
    report.step(
        10,
        "reclaimed pages zero, folios as before",
        outcome.map(|evidence| ((), evidence)),
    );
    Ok(())
}

/// How things were before the first VM.
struct Before {
    snapshot: Snapshot,
    donated: u64,
    reclaimed: u64,
    driver_donations: u64,
}

impl Before {
    fn note(control: &Control) -> anyhow::Result<Self> {
        Ok(Self {
            snapshot: Snapshot::take(control)?,
            donated: counter(control, Counter::FramesDonated)?,
            reclaimed: counter(control, Counter::FramesReclaimed)?,
            driver_donations: control.stats()?.donations,
        })
    }
}

/// Step 1.
fn host_is_up(control: &Control) -> anyhow::Result<((), String)> {
    let words = control.uuid_words()?;
    ensure!(
        words == UUID_WORDS.map(u64::from),
        "the UUID call answers {words:x?}"
    );
    let [version, ..] = control.must(HostCall::Version {})?;
    ensure!(version == VERSION, "EL2 speaks version {version:#x}");
    let line = kernel_log_line("started at EL")?;
    ensure!(line.ends_with("EL1"), "the kernel says `{line}`");
    let [_, _, _, _, memory, ..] = control.must(HostCall::Features {})?;
    let evidence = format!(
        "UUID is Pinfold's, version {}.{}, EL2 has {memory} KiB; kernel log: {line}",
        version >> 16,
        version & 0xFFFF
    );
    Ok(((), evidence))
}

/// The first line of the kernel's log that contains `text`.
fn kernel_log_line(text: &str) -> anyhow::Result<String> {
    let mut log = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("cannot open /dev/kmsg")?;
    let mut record = [0; 8192];
    loop {
        match log.read(&mut record) {
            Ok(length) => {
                let record = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
                let first = record.lines().next().unwrap_or_default();
                let message = first.split_once(';').map_or(first, |(_, message)| message);
                if message.contains(text) {
                    return Ok(message.to_owned());
                }
            }
            // The oldest records went while we read.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                bail!("the kernel's log has no line with `{text}`")
            }
            Err(error) => return Err(error).context("cannot read /dev/kmsg"),
        }
    }
}

/// Step 2.
fn guest_is_up(arguments: &DemoArguments) -> anyhow::Result<(Guest, String)> {
    let mut guest = Guest::start(arguments)?;
    let up = guest.wait_for("guest: Linux ")?;
    guest.wait_for("guest: type ")?;
    let disk = guest.command("check-disk", "guest: disk: ")?;
    ensure!(disk.contains("equal"), "{disk}");
    let kept = guest.command("keep-pattern", "guest: pattern: ")?;
    ensure!(kept.contains("kept"), "{kept}");
    Ok((guest, format!("{up}; {disk}; {kept}")))
}

/// Step 3.
fn pages(control: &Control, before: &Before) -> anyhow::Result<(Holdings, String)> {
    // The guest may touch a new page while we look: then we look again.
    for _ in 0..5 {
        let donated = counter(control, Counter::FramesDonated)?;
        let holdings = Holdings::look(control, &before.snapshot)?;
        let [_, _, _, alone, shared, _] = control.must(HostCall::FolioCensus {})?;
        let stats = control.stats()?;
        if counter(control, Counter::FramesDonated)? != donated {
            continue;
        }
        let owned = alone + shared;
        let found = u64::try_from(holdings.alone.len())? + holdings.shared;
        let given = donated - before.donated;
        let by_driver = stats.donations - before.driver_donations;
        ensure!(owned > 0, "the census finds no frame of a guest");
        ensure!(
            found == owned && given == owned && by_driver == owned,
            "the census finds {owned} frames, a look at every frame {found}; EL2 counted {given} \
             donated frames, the driver {by_driver}"
        );
        ensure!(
            holdings.badly_pinned == 0,
            "{} of the guest's frames have another pin word",
            holdings.badly_pinned
        );
        let evidence = format!(
            "{owned} frames ({alone} the guest's alone, {shared} shared), as many as EL2 and the \
             driver counted; each of the {alone} pin words says one pin, exclusive, isolated"
        );
        return Ok((holdings, evidence));
    }
    bail!("the guest does not come to rest")
}

/// Steps 4 to 6.
fn pins(control: &Control, report: &mut Report, loan: &mut PoolLoan) {
    let names = [
        (4, "donation without a pin refused"),
        (5, "donation with an ordinary pin refused"),
        (6, "donation with two pins refused"),
    ];
    let prepared = Pages::new(1).and_then(|page| Ok((page, ScratchVm::start(control, loan)?)));
    let (page, vm) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            for (number, what) in names {
                report.fail(number, what, &format!("no scratch VM: {error:#}"));
            }
            return;
        }
    };
    let offers = [
        (PinKind::None, 0),
        (PinKind::Ordinary, 0),
        (PinKind::Ordinary, 1),
    ];
    for ((number, what), (kind, extra)) in names.into_iter().zip(offers) {
        let outcome = offer_refused(control, &vm, loan, &page, kind, extra);
        report.step(number, what, outcome.map(|evidence| ((), evidence)));
    }
    // The counter-proof: with the right pin the same page is taken, and comes back as zeroes.
    let outcome = offer_accepted(control, vm, loan, &page).map(|evidence| ((), evidence));
    report.step(6, "the same page pinned exclusively accepted", outcome);
}

fn offer_refused(
    control: &Control,
    vm: &ScratchVm<'_>,
    loan: &mut PoolLoan,
    page: &Pages,
    kind: PinKind,
    extra: u32,
) -> anyhow::Result<String> {
    page.fill(0, PATTERN)?;
    let pin = control
        .pin(page.address(0)?, kind, extra)
        .context("cannot hold the page")?;
    let answer = vm.offer(loan, pin.pfn);
    let judged = answer.and_then(|answer| judge_refusal(answer, pin));
    control.unpin(pin).context("cannot let go of the page")?;
    ensure!(page.is_full_of(0, PATTERN)?, "the refused page has changed");
    judged
}

fn judge_refusal(answer: Result<(), Refused>, pin: Pin) -> anyhow::Result<String> {
    let Err(refused) = answer else {
        bail!("EL2 took the page with pin word {:#x}", pin.word);
    };
    ensure!(
        refused.is(Status::NotExclusivelyPinned),
        "EL2 said {refused}"
    );
    let Refused::Status { pin_word, .. } = refused else {
        bail!("EL2 said {refused}");
    };
    ensure!(
        pin_word == u64::from(pin.word),
        "EL2 found pin word {pin_word:#x}, the kernel has {:#x}",
        pin.word
    );
    Ok(format!("frame {:#x}: {refused}", pin.pfn))
}

fn offer_accepted(
    control: &Control,
    vm: ScratchVm<'_>,
    loan: &mut PoolLoan,
    page: &Pages,
) -> anyhow::Result<String> {
    let held = control.pin(page.address(0)?, PinKind::Isolated, 0);
    let offered = match &held {
        Ok(pin) => vm.offer(loan, pin.pfn),
        Err(_) => Ok(Ok(())),
    };
    // Whatever came of it, the VM must go.
    vm.end()?;
    let pin = held.context("cannot pin and isolate the page")?;
    control.unpin(pin).context("cannot let go of the page")?;
    offered?.context("EL2 refuses the donation")?;
    ensure!(page.is_full_of(0, 0)?, "the page came back with content");
    Ok(format!(
        "frame {:#x}, pin word {:#x}; reclaimed, it reads as zeroes",
        pin.pfn, pin.word
    ))
}

/// A fair sample of the pages that the guest has alone.
fn choose(holdings: &Holdings) -> Vec<Held> {
    let step = (holdings.alone.len() / VICTIMS).max(1);
    holdings.alone.iter().step_by(step).copied().collect()
}

/// Step 7.
fn attacks(control: &Control, guest: &mut Guest, victims: &[Held]) -> anyhow::Result<String> {
    let (Some(victim), path) = (victims.first(), guest.ram_path()) else {
        bail!("the guest has no page alone");
    };
    let offset = file_offset(*victim)?;
    let reader = killed_by(&path, offset, false).context("a process that reads")?;
    let writer = killed_by(&path, offset, true).context("a process that writes")?;
    // The kernel knows nothing of this way to the page: EL2 alone stops it, by an abort.
    for write in [false, true] {
        let around = killed_by(Path::new("/dev/mem"), victim.pfn * PAGE, write)
            .context("a process at /dev/mem")?;
        ensure!(around == "SIGSEGV", "/dev/mem ended by {around}");
    }
    let offsets = victims
        .iter()
        .map(|victim| file_offset(*victim))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let read_count = sweep(&path, &offsets, false)?;
    let write_count = sweep(&path, &offsets, true)?;
    let decoys = counter(control, Counter::Decoys)?;
    let another = victims.last().unwrap_or(victim);
    let seen = control.kernel_reads(another.pfn)?;
    ensure!(seen == 0, "the kernel read {seen:#x} from the guest's page");
    // A quarter of what the guest has is its pattern: some of these frames are in there.
    for victim in victims {
        control.kernel_writes(victim.pfn, 0x0BAD_0BAD_0BAD_0BAD)?;
    }
    let decoys = counter(control, Counter::Decoys)? - decoys;
    ensure!(
        decoys > u64::try_from(victims.len())?,
        "EL2 counted {decoys} decoys for {} writes and a read of the kernel",
        victims.len()
    );
    let verdict = guest.command("check-pattern", "guest: pattern: ")?;
    ensure!(verdict.contains("intact"), "{verdict}");
    Ok(format!(
        "reader ended by {reader}, writer by {writer}, both at /dev/mem by SIGSEGV; {read_count} reads and {write_count} writes of the \
         guest's pages stopped; the kernel's own reached {decoys} decoys; {verdict}"
    ))
}

fn file_offset(page: Held) -> anyhow::Result<u64> {
    page.gfn
        .checked_mul(PAGE)
        .and_then(|address| address.checked_sub(RAM_BASE))
        .with_context(|| format!("guest frame {:#x} is not in RAM", page.gfn))
}

/// Lets a process touch the file at `offset`; names the signal that ended it.
fn killed_by(path: &Path, offset: u64, write: bool) -> anyhow::Result<&'static str> {
    let mut child = toucher(path, write)
        .arg("--offset")
        .arg(offset.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start pinfold touch")?;
    let status = wait(&mut child, TOUCH_PATIENCE)?;
    match status.signal() {
        Some(libc::SIGSEGV) => Ok("SIGSEGV"),
        Some(libc::SIGBUS) => Ok("SIGBUS"),
        _ => bail!("was not stopped at offset {offset:#x}: {status}"),
    }
}

fn toucher(path: &Path, write: bool) -> Command {
    let mut command = Command::new(own_program());
    command.arg("touch").arg(path);
    if write {
        command.arg("--write");
    }
    command
}

/// Lets a process that survives touch every one of `offsets`; all must be stopped.
fn sweep(path: &Path, offsets: &[u64], write: bool) -> anyhow::Result<usize> {
    let mut child = toucher(path, write)
        .arg("--sweep")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start pinfold touch")?;
    let list: Vec<_> = offsets.iter().map(u64::to_string).collect();
    let mut input = child.stdin.take().context("the child has no input")?;
    input.write_all(list.join("\n").as_bytes())?;
    drop(input);
    let status = wait(&mut child, TOUCH_PATIENCE)?;
    let mut said = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut said)?;
    }
    let expected = format!("stopped {0} of {0}", offsets.len());
    ensure!(
        status.success() && said.trim() == expected,
        "a sweep over {} pages said `{}` ({status})",
        offsets.len(),
        said.trim()
    );
    Ok(offsets.len())
}

/// Step 8.
fn el2_is_closed(control: &Control) -> anyhow::Result<((), String)> {
    let [_, state, ..] = control.must(HostCall::FolioQuery {
        pfn: Pfn(EL2_IMAGE_PFN),
    })?;
    ensure!(
        State::from_number(state) == Some(State::Hyp),
        "frame {EL2_IMAGE_PFN:#x}, where EL2's image should be, is in state {state}"
    );
    let address = EL2_IMAGE_PFN * PAGE;
    let memory = Path::new("/dev/mem");
    let reader = killed_by(memory, address, false).context("a reader of /dev/mem")?;
    let writer = killed_by(memory, address, true).context("a writer of /dev/mem")?;
    let probe = control.kernel_probes(EL2_IMAGE_PFN);
    let Err(error) = probe else {
        bail!("the kernel could read EL2's memory");
    };
    ensure!(
        error.raw_os_error() == Some(libc::EFAULT),
        "the kernel's read of EL2's memory failed otherwise: {error}"
    );
    let evidence = format!(
        "address {address:#x} through /dev/mem: reader ended by {reader}, writer by {writer}; the \
         kernel's read aborted (EFAULT)"
    );
    Ok(((), evidence))
}

/// Step 9.
fn power_off(guest: &mut Guest) -> anyhow::Result<String> {
    let status = guest.end_with("poweroff -f")?;
    ensure!(status.success(), "pinfold run ended with {status}");
    Ok("pinfold run ended with exit status 0".into())
}

/// Step 10.
fn all_is_back(
    control: &Control,
    guest: &Guest,
    holdings: &Holdings,
    before: &Before,
) -> anyhow::Result<String> {
    let mut content = vec![0; usize::try_from(PAGE)?];
    for page in &holdings.alone {
        guest
            .ram()
            .read_exact_at(&mut content, file_offset(*page)?)
            .with_context(|| format!("cannot read guest frame {:#x}", page.gfn))?;
        ensure!(
            content.iter().all(|byte| *byte == 0),
            "guest frame {:#x} came back with content",
            page.gfn
        );
    }
    let compared = Snapshot::take(control)?.compare(&before.snapshot)?;
    let donated = counter(control, Counter::FramesDonated)? - before.donated;
    let reclaimed = counter(control, Counter::FramesReclaimed)? - before.reclaimed;
    ensure!(
        donated == reclaimed,
        "{donated} frames were donated and {reclaimed} reclaimed"
    );
    let stats = control.stats()?;
    ensure!(
        stats.vms == 0 && stats.leaked == 0,
        "the driver still has {} VMs, and lost {} frames",
        stats.vms,
        stats.leaked
    );
    Ok(format!(
        "{} pages read as zeroes; {donated} frames donated, {reclaimed} reclaimed; {compared}",
        holdings.alone.len()
    ))
}
