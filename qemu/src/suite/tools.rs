//! The hands-on tools of the host: the prompt, single calls, pages and the trace, as a person uses them; and how they meet a release
//! image of EL2.

use super::{Bench, GUARD, Test, ending};
use crate::build::{Bin, Cargo};
use crate::console::Console;
use crate::machine::Machine;
use anyhow::{Context, Result, ensure};

/// A line for the host's shell, what it says somewhere, and the status it ends with.
struct Line {
    typed: &'static str,
    says: &'static str,
    status: u32,
}

const fn line(typed: &'static str, says: &'static str, status: u32) -> Line {
    Line {
        typed,
        says,
        status,
    }
}

/// What is typed at the prompt, and what is answered, in this order.
const SESSION: &[(&str, &[&str])] = &[
    // The Tab key completes the call and the first argument.
    ("vm_cr\tfl\t1 vcpus=1", &["OK", "handle = 0x"]),
    (
        "vm_memory_region vm=$handle first=0x40000 count=0x400",
        &["OK"],
    ),
    (
        "page 0x40200",
        &[
            "PFN 0x40200 (address 0x40200000): HYP, order 0",
            "pin word 0x0: no pin",
        ],
    ),
    ("pin ordinary", &["ordinary, pin word 0x1: 1 pin"]),
    (
        "mem_donate vm=$handle gfn=0x40000 pfn=$pfn count=1 order=0",
        &[
            "NOT_EXCLUSIVELY_PINNED (EBUSY): The pin word is not",
            "page 0 of the call's range",
            "folio word 0x0: HOST, order 0",
            "pin word 0x1: 1 pin",
        ],
    ),
    (
        "unpin $pin; pin exclusive",
        &["pin 1 is gone", "pin 2: PFN 0x"],
    ),
    (
        "mem_donate $handle 0x40000 $pfn 1 0",
        &[
            "NOT_EXCLUSIVELY_PINNED",
            "pin word 0x40000001: 1 pin, exclusive",
        ],
    ),
    (
        "unpin; pin",
        &["nothing is pinned any more", "1 pin, exclusive, isolated"],
    ),
    (
        "mem_donate $handle 0x40000 $pfn 1 0",
        &["OK", "done = 1 folios"],
    ),
    ("page $pfn", &["GFN 0x40000 (IPA 0x40000000)"]),
    (
        "mem_donate $handle 0x40001 $pfn 1 0",
        &[
            "NOT_PERMITTED (EPERM)",
            "GUEST, order 0, GFN 0x40000 of the VM in slot 0",
        ],
    ),
    ("unpin $pin", &["pin 3 stays"]),
    (
        "mem_donate $handle",
        &["mem_donate lacks gfn pfn count order"],
    ),
    ("mem_donat 1", &["did you mean `mem_donate`?"]),
    ("vm_start vm=$nobody", &["$nobody has no value"]),
    ("raw 0xc60001ff", &["x0 = 0xffffffffffffffff"]),
    (
        "help mem_donate",
        &["in  x3 pfn (PFN): first frame, aligned to the order"],
    ),
    (
        "vm_teardown_begin $handle; vm_teardown_finish $handle",
        &["OK", "BUSY (EBUSY)", "x2 = 1: Ends the teardown"],
    ),
    ("quit", &["EL2 or a guest has 1 of the pinned pages"]),
    (
        "mem_reclaim $handle 0x40000 16",
        &["OK", "done = 16 = 0x10 frames"],
    ),
    ("vm_teardown_finish $handle", &["OK"]),
    // The line before last again.
    ("\u{1b}[A\u{1b}[A", &["NO_SUCH_VM (ENOENT)"]),
    ("unpin $pin", &["pin 3 is gone"]),
    (
        "trace last=60",
        &[
            "-> NOT_EXCLUSIVELY_PINNED page 0, folio word 0x0 (HOST, order 0), pin word 0x1 (1 pin)",
            "-> OK done=1",
            "function 0xc60001ff -> NOT_SUPPORTED",
            "VM_TEARDOWN_FINISH vm=0x",
        ],
    ),
];

const LINES: &[Line] = &[
    line("pinfold hvc version", "version = 65536", 0),
    line("pinfold hvc vm_start 0", "NO_SUCH_VM (ENOENT)", 1),
    line("pinfold hvc vm_start", "vm_start lacks vm", 2),
    line(
        "pinfold hvc 'version; vm_stat 1'",
        "did you mean `vm_start`",
        2,
    ),
    line("pinfold hvc 'vm_start 0; version' | grep -c OK", "0", 1),
    line(
        "echo 'vm_start 0; version' | pinfold hvc -k",
        "version = 65536",
        1,
    ),
    line("pinfold hvc --file /nope", "cannot read /nope", 2),
    line("pinfold hvc help", "mem_donate vm gfn pfn count order", 0),
    line(
        "pinfold hvc --json 'vm_start 7'",
        r#"{"call":"VM_START","arguments":{"vm":"0x7"},"status":"NO_SUCH_VM","x2":0}"#,
        1,
    ),
    line(
        "pinfold hvc 'pin; mem_donate 0x101 0 $pfn 1 0'",
        "NO_SUCH_VM",
        1,
    ),
    line(
        "pinfold hvc 'lend 4; pool_status; unpin'",
        "nothing is pinned any more",
        0,
    ),
    line(
        "pinfold hvc 'pin order=9; page $pfn'",
        "1 pin, exclusive, isolated, order 9",
        0,
    ),
    line("pinfold hvc trace_status 8", "INVALID (EINVAL)", 1),
    line("pinfold hvc trace_read 0 0 3", "INVALID (EINVAL)", 1),
    line("pinfold hvc trace_read 0 -1 0", "entry: `-1` is not", 2),
    line(
        "pinfold hvc trace_read 1 0xffffffffffffffff 0",
        "NOT_MAPPED (ENOENT)",
        1,
    ),
    line(
        "pinfold hvc folio_range 0x1000000000",
        "INVALID (EINVAL)",
        1,
    ),
    line(
        "pinfold hvc folio_range 0xfffffffff",
        "frames = all ones frames",
        0,
    ),
    line("pinfold page 0x40200", "folio word 0x1", 0),
    line("pinfold page 0x9000", "NOT_RAM", 0),
    line(
        "pinfold page --json 0x40200",
        r#"{"pfn":"0x40200","state":"HYP","order":0,"vm":null"#,
        0,
    ),
    line("pinfold page forty", "`forty` is not a number", 2),
    line(
        "pinfold page 0x1000000000",
        "EL2 refuses PFN 0x1000000000: INVALID",
        1,
    ),
    line("pinfold pages", "HOST_SHARED_HYP", 0),
    line("pinfold pages --state hyp", "frames in", 0),
    line("pinfold pages --state mine", "there are HOST HYP", 2),
    line("pinfold pages --vm 0x999", "no such frame", 0),
    line("pinfold pages --vm 0", "0 is no VM's handle", 2),
    line(
        "pinfold pages --state host --json | cut -c -22",
        r#"{"ranges":[{"first":"0"#,
        0,
    ),
    line("pinfold trace --last 1", "CPU ", 0),
    line(
        "pinfold trace --cpu 9",
        "there is no CPU 9; EL2 has 2 of them",
        2,
    ),
    line(
        "pinfold trace --json --cpu 1 | head -n 1",
        r#"{"cpu":1,"entry":"#,
        0,
    ),
    line(
        "pinfold trace --follow >/tmp/trace & sleep 1; pinfold hvc vm_start 0x777; sleep 1; kill $!; grep 0x777 /tmp/trace",
        "VM_START vm=0x777 -> NO_SUCH_VM",
        0,
    ),
];

/// With a guest that runs.
const WITH_GUEST: &[Line] = &[
    line(
        "pinfold run --protected --kernel /guest/Image --initrd /guest/initramfs --mem 128 --disk /guest/disk.img \
         --console file=/tmp/guest & until grep -q 'guest: type' /tmp/guest; do sleep 1; done",
        "",
        0,
    ),
    line("pinfold pages --state guest", "frames in", 0),
    line("pinfold pages --state guest --exact | grep -c GFN", "", 0),
    line("pinfold trace | grep 'guest 0x'", " at 0x", 0),
    line("pinfold trace --json | grep -c GUEST_EXIT", "", 0),
    line("kill $!; wait $!", "", 5),
    line("pinfold pages --state guest", "no such frame", 0),
];

/// Under a release image.
const ON_RELEASE: &[Line] = &[
    line("pinfold hvc version", "version = 65536", 0),
    line("pinfold hvc features", "features = 0x0 bits", 0),
    line("pinfold hvc vm_start 0", "NO_SUCH_VM", 1),
    line(
        "pinfold hvc folio_census",
        "NOT_SUPPORTED: EL2 is a release image",
        6,
    ),
    line(
        "pinfold hvc trace_status 0",
        "NOT_SUPPORTED: EL2 is a release image",
        6,
    ),
    line("pinfold page 0x40200", "EL2 is a release image", 6),
    line("pinfold pages --json", "EL2 is a release image", 6),
    line("pinfold trace --follow", "EL2 is a release image", 6),
    line("pinfold census", "EL2 is a release image", 6),
    line("pinfold counters", "EL2 is a release image", 6),
];

/// The prompt, lines of the shell, a guest, a release image.
pub(crate) fn tests() -> Vec<Test> {
    vec![
        Test::one("tools: a session at the prompt", session),
        Test::one("tools: single lines", |bench| {
            debug_shell(bench, "tools-lines", LINES)
        }),
        Test::one("tools: a guest that runs", |bench| {
            debug_shell(bench, "tools-guest", WITH_GUEST)
        }),
        Test::one("tools: a release image", release),
    ]
}

fn login(bench: &Bench, machine: &Machine, name: &str) -> Result<Console> {
    let mut console = bench.console(machine, name)?;
    console.expect("ends both and QEMU", GUARD)?;
    Ok(console)
}

fn power_off(console: &mut Console) -> Result<()> {
    console.type_line("poweroff -f")?;
    ending::without_complaints(console)
}

fn session(bench: &Bench) -> Result<()> {
    let mut console = login(bench, &bench.host_with("quiet"), "tools-session")?;
    console.type_line("pinfold hvc; echo session ended $?")?;
    console.expect("Tab completes", GUARD)?;
    for (typed, answers) in SESSION {
        console.type_line(typed)?;
        for answer in *answers {
            console
                .expect(answer, GUARD)
                .with_context(|| format!("typed {typed}"))?;
        }
    }
    console.type_line("quit")?;
    console.expect("session ended 0", GUARD)?;
    ending::no_decoys_at_prompt(&mut console)?;
    power_off(&mut console)
}

/// Lines at the prompt of a host whose kernel touches nothing meanwhile that it gave away.
fn debug_shell(bench: &Bench, name: &str, lines: &[Line]) -> Result<()> {
    let mut console = shell(bench, &bench.host_with("quiet"), name, lines)?;
    ending::no_decoys_at_prompt(&mut console)?;
    power_off(&mut console)
}

/// Types lines and compares what they say and end with.
fn shell(bench: &Bench, machine: &Machine, name: &str, lines: &[Line]) -> Result<Console> {
    let mut console = login(bench, machine, name)?;
    for (number, line) in lines.iter().enumerate() {
        let before = console.seen().len();
        // The shell echoes what is typed, so what is echoed must not look like the end.
        console.type_line(&format!("{}; echo line \"{number}\" ended $?", line.typed))?;
        let ended = console.expect(&format!("line {number} ended "), GUARD);
        let ended = ended.with_context(|| format!("typed {}", line.typed))?;
        let expected = format!("line {number} ended {}", line.status);
        let said = console.seen().get(before..).unwrap_or_default();
        ensure!(
            ended.trim() == expected,
            "{}: {ended} instead of {expected}: {said}",
            line.typed
        );
        let (_echo, said) = said.split_once('\n').unwrap_or_default();
        ensure!(
            said.contains(line.says),
            "{}: nothing is said of {}: {said}",
            line.typed,
            line.says
        );
    }
    Ok(console)
}

fn release(bench: &Bench) -> Result<()> {
    let image = Cargo::new(&bench.workspace).image(&Bin::RELEASE)?;
    let name = b"MEM_DONATE";
    for (path, has_names) in [(&image.flat, false), (&bench.products.pinfold, true)] {
        let bytes = std::fs::read(path)?;
        ensure!(
            bytes.windows(name.len()).any(|window| window == name) == has_names,
            "whether {} names calls is not {has_names}",
            path.display()
        );
    }
    let machine = bench.host_on(image.flat, "quiet");
    // It has no counters to ask.
    power_off(&mut shell(bench, &machine, "tools-release", ON_RELEASE)?)
}
