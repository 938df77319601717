//! The series at work, on a kernel that looks for mistakes: its selftest with every way to a page's
//! contents, races, and the same ways to pages that EL2 really has. Every TAP line counts.

use super::{Bench, Tally, Test, ending, tap};
use crate::build::{DebugHost, function_at};
use crate::machine::{Boot, Machine, Modules};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::time::Duration;

/// A guard against hangs: lock checking makes everything slow.
const GUARD: Duration = Duration::from_secs(1200);

/// For every kernel here: what it warns of is printed, what it tells is not, so that lines of TAP stay whole.
const ARGUMENTS: &str = "console=ttyAMA0 panic=-1 loglevel=5";

/// Memory in two nodes, a part of it movable only, freed pages poisoned, all of it searched for leaks.
const DIVIDED: &str = "numa=fake=2 movablecore=256M page_poison=1 hugepages=4 kmemleak=on";

/// The kernel's functions that work on contents, by which its own accesses to a donated page come about
/// when its gates are off.
const WORK_ON_CONTENTS: [&str; 16] = [
    "copy_page",
    "copy_highpage",
    "clear_page",
    "__arch_copy_to_user",
    "__arch_copy_from_user",
    "memcpy",
    "__memcpy",
    "memset",
    "__memset",
    "memcmp",
    "xxh64",
    "calc_checksum",
    "copy_from_kernel_nofault",
    // load_unaligned_zeropad(), inlined into what asks for it
    "exclusive_pin_test_ioctl",
    "exclusive_pin_test_slot",
    "gup_test_ioctl",
];

/// Where a test runs, and what must come of it.
#[derive(Clone, Copy)]
enum Place {
    /// Bare EL1: nobody takes the isolated pages away.
    Bare,
    /// Bare EL1, and a driver makes mistakes: the kernel warns of these, once each.
    BareWithMistakes,
    /// Under Pinfold: the kernel touches nothing that a guest has.
    Pinfold,
    /// Under Pinfold, and the kernel's gates are off: each touch gets a decoy, and EL2 says who it was.
    PinfoldWithoutGates,
}

/// A test: its name, where it runs, the kernel's arguments, and the task.
struct Case {
    name: &'static str,
    place: Place,
    arguments: &'static str,
    task: &'static str,
}

/// What the kernel says when an isolated page is unpinned, and when one is put that is still pinned.
const MISTAKES: [&str; 2] = ["unpinned while isolated, leaking it", "freed while pinned"];

const CASES: [Case; 6] = [
    Case {
        name: "selftest",
        place: Place::Bare,
        arguments: "hugepages=4",
        task: "exclusive_pin",
    },
    Case {
        name: "selftest with movable memory and two nodes",
        place: Place::Bare,
        arguments: DIVIDED,
        task: "exclusive_pin",
    },
    Case {
        name: "mistakes of a driver",
        place: Place::BareWithMistakes,
        arguments: "",
        task: "exclusive_pin -l",
    },
    Case {
        name: "races",
        place: Place::Bare,
        arguments: "",
        task: "exclusive_pin_stress -r 30",
    },
    Case {
        name: "donated pages",
        place: Place::Pinfold,
        arguments: DIVIDED,
        task: "donated-test",
    },
    Case {
        name: "donated pages that the kernel touches",
        place: Place::PinfoldWithoutGates,
        arguments: "",
        task: "donated-test decoys",
    },
];

/// One test per case.
pub(crate) fn tests() -> Vec<Test> {
    CASES
        .into_iter()
        .map(|case| {
            let name = format!("exclusive pins: {}", case.name);
            Test::on_debug_host(name.clone(), move |bench, host| {
                run(bench, host, &case, &name)
            })
        })
        .collect()
}

fn run(bench: &Bench, host: &DebugHost, case: &Case, name: &str) -> Result<Tally> {
    let modules = Modules {
        kernel: host.kernel.clone(),
        initramfs: Some(host.initramfs.clone()),
        arguments: format!("{ARGUMENTS} {} task=\"{}\"", case.arguments, case.task),
    };
    let boot = match case.place {
        Place::Bare | Place::BareWithMistakes => Boot::Bare(modules),
        Place::Pinfold | Place::PinfoldWithoutGates => Boot::Hypervisor {
            image: bench.products.pinfold.clone(),
            host: Some(modules),
        },
    };
    let machine = Machine {
        // Races need CPUs that run at the same time.
        cpus: 4,
        ..Machine::new(boot)
    };
    let mut console = bench.console(&machine, name)?;
    console.expect("host: task ended", GUARD)?;
    match case.place {
        Place::Bare => ending::without_complaints(&mut console)?,
        Place::BareWithMistakes => ending::with_warnings(&mut console, &MISTAKES)?,
        Place::Pinfold => ending::well(&mut console)?,
        Place::PinfoldWithoutGates => {
            ending::without_complaints(&mut console)?;
            decoys_are_named(host, console.seen())?;
        }
    }
    tap::count(console.seen())
}

/// EL2 names the places in the kernel that touched a page: each must be one that works on contents.
fn decoys_are_named(host: &DebugHost, seen: &str) -> Result<()> {
    let system_map = fs::read_to_string(&host.system_map)
        .with_context(|| format!("cannot read {}", host.system_map.display()))?;
    let touches = touches(seen, &system_map)?;
    ensure!(
        ending::decoys(seen)? > 0 && !touches.is_empty(),
        "with the gates off nobody touched a page"
    );
    for touch in &touches {
        ensure!(
            WORK_ON_CONTENTS.contains(&touch.as_str()),
            "{touch} touched a page; expected was one of {}",
            WORK_ON_CONTENTS.join(", ")
        );
    }
    println!("      EL2 named {}", touches.join(", "));
    Ok(())
}

/// The functions of the kernel that EL2 says touched a page, in order.
fn touches(seen: &str, system_map: &str) -> Result<Vec<String>> {
    seen.lines()
        .filter_map(|line| line.split_once("the host kernel at 0x"))
        .map(|(_, rest)| {
            let digits = rest.split(' ').next().unwrap_or_default();
            let address = u64::from_str_radix(digits, 16)
                .with_context(|| format!("not an address: 0x{digits}"))?;
            let function = function_at(system_map, address);
            Ok(function.map_or_else(|| format!("0x{digits} (a module)"), str::to_owned))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_touch_has_the_name_of_its_function() {
        let map = "ffff800080010000 T copy_page\nffff800080010100 T clear_page\nffff800080020000 D _etext\n";
        let seen = "pinfold: the host kernel at 0xffff800080010004 touched 0x4057b000, which is not its own: it sees zeroes\n\
                    pinfold: the host kernel at 0xffff8000785e5094 touched 0x4057b000, which is not its own: it sees zeroes\n";
        assert_eq!(
            touches(seen, map).unwrap(),
            ["copy_page", "0xffff8000785e5094 (a module)"]
        );
    }
}
