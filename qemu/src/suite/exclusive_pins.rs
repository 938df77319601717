//! The series at work, on a kernel that looks for mistakes: its selftest with every way to a page's
//! contents, races, and the same ways to pages that EL2 really has. Every TAP line counts.

use super::{Bench, Tally, Test, ending, tap};
use crate::build::{DebugHost, function_at};
use crate::machine::{Boot, Machine, Modules};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// A guard against hangs: lock checking makes everything slow.
const GUARD: Duration = Duration::from_secs(1200);

/// For every kernel here: what it warns of is printed, what it tells is not, so that lines of TAP stay whole.
const ARGUMENTS: &str = "console=ttyAMA0 panic=-1 loglevel=5";

/// Memory in two nodes, a part of it movable only, freed pages poisoned, all of it searched for leaks.
const DIVIDED: &str = "numa=fake=2 movablecore=256M page_poison=1 hugepages=4 kmemleak=on";

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

/// Cases that are skipped: name and reason, and how many times, once for each kind of memory.
type Skips = &'static [(&'static str, u32)];

/// By every machine here.
const NOWHERE: Skips = &[
    (
        "9 unpinned while isolated: warns, and leaks a page: exclusive_pin -l does that",
        1,
    ),
    ("32 stress: exclusive_pin_stress does this", 1),
    ("34 RDMA: no RDMA (CONFIG_INFINIBAND)", 1),
    ("34 vfio: no IOMMU, and no device, for vfio", 1),
    (
        "37 CMA: no CMA area (CONFIG_DMA_CMA); it takes the way of ZONE_MOVABLE",
        1,
    ),
    (
        "44 kdump: needs a second kernel, in reserved memory, after a panic",
        1,
    ),
    (
        "45 KASAN: its shadow is other memory; tags in hardware need MTE",
        1,
    ),
];

/// Where nobody takes the memory away.
const NOT_AWAY: Skips = &[
    (
        "36 RLIMIT_MEMLOCK: gup_test does not count locked memory",
        4,
    ),
    (
        "38 copy_to_user, copy_from_user: the memory is not really away",
        2,
    ),
    ("39 load and store: the memory is not really away", 2),
    ("40 stray kernel accesses: nothing would stop the kernel", 4),
    (
        "41 load_unaligned_zeropad(): nothing would stop the kernel",
        1,
    ),
    (
        "42 /dev/mem: root asks for physical memory, nothing would stop it",
        1,
    ),
];

/// Without [`DIVIDED`].
const NOT_DIVIDED: Skips = &[
    (
        "26 move_pages: no two memory nodes: boot with numa=fake=2",
        4,
    ),
    (
        "37 ZONE_MOVABLE: no ZONE_MOVABLE: boot with movablecore=256M",
        4,
    ),
    ("45 kmemleak: no kmemleak: boot with kmemleak=on", 2),
    (
        "45 poisoned or wiped when freed: pages are not written when they are freed: boot with page_poison=1",
        4,
    ),
];

/// Where the kernel has to behave.
const MAY_NOT_STRAY: Skips = &[
    (
        "40 stray kernel accesses: only where the kernel may stray",
        4,
    ),
    (
        "41 load_unaligned_zeropad(): only where the kernel may stray",
        1,
    ),
    ("42 /dev/mem: only where the kernel may stray", 1),
];

/// A test: its name, where it runs, the kernel's arguments, and the task.
struct Case {
    name: &'static str,
    place: Place,
    arguments: &'static str,
    task: &'static str,
    /// What such a machine cannot run, and how many times it says so: this, and nothing else.
    skipped: &'static [Skips],
}

/// What the kernel says when an isolated page is unpinned, and when one is put that is still pinned.
const MISTAKES: [&str; 2] = ["unpinned while isolated, leaking it", "freed while pinned"];

const CASES: [Case; 6] = [
    Case {
        name: "selftest",
        place: Place::Bare,
        arguments: "hugepages=4",
        task: "exclusive_pin",
        skipped: &[NOWHERE, NOT_AWAY, NOT_DIVIDED],
    },
    Case {
        name: "selftest with movable memory and two nodes",
        place: Place::Bare,
        arguments: DIVIDED,
        task: "exclusive_pin",
        skipped: &[NOWHERE, NOT_AWAY],
    },
    Case {
        name: "mistakes of a driver",
        place: Place::BareWithMistakes,
        arguments: "",
        task: "exclusive_pin -l",
        skipped: &[],
    },
    Case {
        name: "races",
        place: Place::Bare,
        arguments: "numa=fake=2",
        task: "exclusive_pin_stress -r 50",
        skipped: &[],
    },
    Case {
        name: "donated pages",
        place: Place::Pinfold,
        arguments: DIVIDED,
        task: "donated-test",
        skipped: &[NOWHERE, MAY_NOT_STRAY],
    },
    Case {
        name: "donated pages that the kernel touches",
        place: Place::PinfoldWithoutGates,
        arguments: "",
        task: "donated-test decoys",
        skipped: &[],
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
            // Large folios are not announced one by one; EL2 says no more by then.
            ensure!(
                ending::decoys(console.seen())? > 0,
                "with the gates off nobody touched a page"
            );
            decoys_are_named(host, console.seen())?;
        }
    }
    let tally = tap::count(console.seen())?;
    let skipped = tap::skips(console.seen());
    let expected: BTreeMap<String, u32> = case
        .skipped
        .iter()
        .flat_map(|skips| skips.iter())
        .map(|(why, number)| ((*why).to_owned(), *number))
        .collect();
    ensure!(
        skipped == expected,
        "skipped was {skipped:?}; expected was {expected:?}"
    );
    Ok(tally)
}

/// The test announces each access that is to come, `decoy: <function>|<function>`, and EL2 then names the place in
/// the kernel that made it: one for one, in this order.
fn decoys_are_named(host: &DebugHost, seen: &str) -> Result<()> {
    let system_map = fs::read_to_string(&host.system_map)
        .with_context(|| format!("cannot read {}", host.system_map.display()))?;
    let named = as_announced(seen, &system_map)?;
    ensure!(!named.is_empty(), "the test announced no access");
    println!("      EL2 named {}", named.join(", "));
    Ok(())
}

/// The functions of the kernel that EL2 says touched a page, each of them announced.
fn as_announced(seen: &str, system_map: &str) -> Result<Vec<String>> {
    let mut named = Vec::new();
    let mut announced: Option<&str> = None;
    for line in seen.lines().map(str::trim) {
        if let Some(functions) = line.strip_prefix("decoy: ") {
            if let Some(before) = announced.replace(functions) {
                bail!("EL2 did not see {before}");
            }
        } else if let Some((_, rest)) = line.split_once("the host kernel at 0x") {
            let digits = rest.split(' ').next().unwrap_or_default();
            let address = u64::from_str_radix(digits, 16)
                .with_context(|| format!("not an address: 0x{digits}"))?;
            let function = function_at(system_map, address)
                .map_or_else(|| format!("0x{digits} (a module)"), str::to_owned);
            let Some(functions) = announced.take() else {
                bail!("{function} touched a page, unannounced");
            };
            ensure!(
                functions.split('|').any(|one| one == function),
                "{function} touched a page, announced was {functions}"
            );
            named.push(function);
        }
    }
    match announced {
        Some(functions) => bail!("EL2 did not see {functions}"),
        None => Ok(named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str =
        "ffff800080010000 T copy_page\nffff800080010100 T clear_page\nffff800080020000 D _etext\n";

    fn touch(address: &str) -> String {
        format!(
            "pinfold: the host kernel at {address} touched 0x4057b000, which is not its own: it sees zeroes\n"
        )
    }

    #[test]
    fn a_touch_has_the_name_that_was_announced() {
        let touch = touch("0xffff800080010004");
        let announced = format!("decoy: __pi_copy_page|copy_page\n{touch}");
        assert_eq!(as_announced(&announced, MAP).unwrap(), ["copy_page"]);
        assert_eq!(as_announced(&announced.repeat(2), MAP).unwrap().len(), 2);
        for (wrong, why) in [
            (touch.clone(), "unannounced"),
            (format!("{announced}{touch}"), "unannounced"),
            (
                format!("decoy: clear_page\n{touch}"),
                "announced was clear_page",
            ),
            ("decoy: copy_page\n".to_owned(), "did not see copy_page"),
            (
                format!("decoy: clear_page\n{announced}"),
                "did not see clear_page",
            ),
        ] {
            let error = as_announced(&wrong, MAP).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_module_has_no_name_here() {
        let seen = format!("decoy: copy_page\n{}", touch("0xffff7fffffff0000"));
        let error = as_announced(&seen, MAP).unwrap_err().to_string();
        assert!(error.contains("0xffff7fffffff0000 (a module)"), "{error}");
    }
}
