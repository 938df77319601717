//! `make gup-bench`: what the series costs, in instructions for each page.
//!
//! The same small kernel three times (unpatched, option off, option on) measures itself with
//! `mm/gup_test.c` on a bare machine whose time is the number of instructions: one is a nanosecond. What
//! comes of it is a table, and an error that names the budgets that are exceeded.

use crate::build::{BenchHosts, BenchKernel, Workspace};
use crate::console::Console;
use crate::machine::{Boot, Cpu, Machine, Modules};
use crate::suite::without_complaints;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A guard against hangs.
const GUARD: Duration = Duration::from_secs(600);

/// Two runs that differ by less than this, in thousandths, cost the same: the measurement's unit is a microsecond.
const ROUNDING: f64 = 2.0;

/// Instructions of a call that are of `gup_test`'s loop around it: the function is longer with the series, so the compiler
/// arranges it otherwise. What the kernel itself executes is compared function by function, in `mm/gup.o`.
const OWN_LOOP: f64 = 4.0;

/// Pages of a batch of many, large folios of one, and all pages that there are to measure.
const MANY: u32 = 512;
const MANY_LARGE: u32 = 16;
const ALL: u32 = 16_384;

/// Frames of the machine, and bytes that each may cost with the option on: four for the pin word, the rest is code.
const FRAMES: f64 = 262_144.0;
const BYTES_PER_FRAME: f64 = 4.5;

/// The functions of `mm/gup.o` that are not the old code with the option off. The series' README says why of each.
const DIFFERING: [&str; 5] = [
    "check_and_migrate_movable_pages_or_folios",
    "gup_fast_fallback",
    "is_valid_gup_args",
    "memfd_pin_folios",
    "try_grab_folio",
];

/// What is measured, where, and in which batches.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    what: String,
    memory: String,
    batch: u32,
}

/// Instructions for each page, or for each folio where folios are taken.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    get: f64,
    put: f64,
}

/// What each kernel has to measure; `exclusive` only with the option on.
fn cases(exclusive: bool) -> BTreeSet<Case> {
    let mut cases = BTreeSet::from([Case::new("life", "anon", ALL)]);
    for batch in [1, MANY] {
        for memory in ["anon", "memfd", "thp"] {
            for what in ["get_fast", "pin_fast", "pin_longterm"] {
                cases.insert(Case::new(what, memory, batch));
            }
        }
        if exclusive {
            for memory in ["anon", "memfd"] {
                cases.insert(Case::new("exclusive", memory, batch));
            }
            for memory in ["thp", "memfd-thp"] {
                cases.insert(Case::new("exclusive", memory, batch.min(MANY_LARGE)));
            }
        }
    }
    cases
}

impl Case {
    fn new(what: &str, memory: &str, batch: u32) -> Self {
        Self {
            what: what.to_owned(),
            memory: memory.to_owned(),
            batch,
        }
    }

    fn is_exclusive(&self) -> bool {
        self.what == "exclusive"
    }

    /// What an exclusive pin and isolation are compared with, how many times as much they may cost, and that in words.
    fn base(&self) -> (Self, f64, &'static str) {
        let small = match self.memory.as_str() {
            "thp" => "anon",
            "memfd-thp" => "memfd",
            memory => {
                let base = Self::new("pin_longterm", memory, self.batch);
                return (base, 6.0, "6x a long-term pin");
            }
        };
        let is_many = self.batch == MANY_LARGE;
        let batch = if is_many { MANY } else { self.batch };
        let base = Self::new("exclusive", small, batch);
        (base, 2.0, "2x that of 4 KiB")
    }
}

impl Cost {
    fn both(self) -> f64 {
        self.get + self.put
    }
}

/// What a kernel says.
struct Figures {
    costs: BTreeMap<Case, Cost>,
    memory: f64,
}

/// Measures, prints the table, and fails when a budget is exceeded.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let hosts = BenchHosts::build(workspace)?;
    let measure = |kernel: &BenchKernel, run: &str, exclusive: bool| {
        measure(workspace, &hosts.initramfs, kernel, run, exclusive)
    };
    let unpatched = measure(&hosts.unpatched, "unpatched", false)?;
    let off = measure(&hosts.off, "off", false)?;
    let on = measure(&hosts.on, "on", true)?;
    let again = measure(&hosts.on, "on-again", true)?;

    print_table(&unpatched, &off, &on);
    let bytes = (off.memory - on.memory) / FRAMES;
    println!("memory: {bytes:.2} bytes for each frame, code included");
    let differing = differing_functions(&hosts.unpatched.object, &hosts.off.object)?;
    println!(
        "mm/gup.o with the option off: differs in {}",
        differing.join(", ")
    );

    let mut exceeded = exceeded(&unpatched.costs, &off.costs, &on.costs);
    if bytes > BYTES_PER_FRAME {
        exceeded.push(format!("memory: {bytes:.2} bytes for each frame"));
    }
    if differing != DIFFERING {
        exceeded.push(format!(
            "mm/gup.o with the option off: the README explains {}",
            DIFFERING.join(", ")
        ));
    }
    exceeded.extend(changed(&on.costs, &again.costs));
    if exceeded.is_empty() {
        println!("every budget is kept");
        Ok(())
    } else {
        bail!("budgets are exceeded:\n  {}", exceeded.join("\n  "))
    }
}

fn measure(
    workspace: &Workspace,
    initramfs: &Path,
    kernel: &BenchKernel,
    run: &str,
    exclusive: bool,
) -> Result<Figures> {
    // To the kernel this is nothing; the first process has it in its environment.
    let more = if exclusive { "exclusive=1" } else { "" };
    let machine = Machine {
        cpu: Cpu::Max,
        cpus: 1,
        memory: 1024,
        counts_instructions: true,
        ..Machine::new(Boot::Bare(Modules {
            kernel: kernel.image.clone(),
            initramfs: Some(initramfs.to_path_buf()),
            arguments: format!("console=ttyAMA0 nokaslr panic=-1 quiet {more}"),
        }))
    };
    let log = workspace.out(&format!("logs/gup-bench-{run}.log"))?;
    let mut console = Console::start(&machine, &log)?;
    console.expect("gup-bench: done", GUARD)?;
    without_complaints(&mut console)?;
    let figures = parse(console.seen()).with_context(|| format!("the log is {}", log.display()))?;
    let measured: BTreeSet<Case> = figures.costs.keys().cloned().collect();
    ensure!(
        measured == cases(exclusive),
        "{run}: measured was {measured:?}"
    );
    Ok(figures)
}

/// Reads `gup-bench: <what> <memory> <batch> get <ns> put <ns> of <units>`.
fn parse(seen: &str) -> Result<Figures> {
    let mut costs = BTreeMap::new();
    let mut memory = 0.0;
    for line in seen.lines() {
        let Some(said) = line.trim().strip_prefix("gup-bench: ") else {
            continue;
        };
        let words: Vec<&str> = said.split(' ').collect();
        let number = |word: &str| {
            word.parse::<f64>()
                .with_context(|| format!("not a number: {said}"))
        };
        match *words.as_slice() {
            [what, kind, batch, "get", get, "put", put, "of", units] => {
                let case = Case::new(what, kind, batch.parse()?);
                let units = number(units)?;
                let cost = Cost {
                    get: number(get)? / units,
                    put: number(put)? / units,
                };
                costs.insert(case, cost);
            }
            ["memory", bytes] => memory = number(bytes)?,
            ["done"] => {}
            _ => bail!("{said}"),
        }
    }
    ensure!(!costs.is_empty(), "nothing was measured");
    Ok(Figures { costs, memory })
}

fn print_table(unpatched: &Figures, off: &Figures, on: &Figures) {
    println!(
        "instructions for each page{:>26}{:>10}{:>10}",
        "unpatched", "off", "on"
    );
    for (case, on) in &on.costs {
        let both = |figures: &Figures| {
            let cost = figures.costs.get(case);
            cost.map_or(String::new(), |cost| format!("{:.1}", cost.both()))
        };
        if !case.is_exclusive() {
            let base = unpatched.costs.get(case).map_or(0.0, |cost| cost.both());
            println!(
                "{:42}{:>10}{:>10}{:>10.1}  {:+.1} %",
                case.to_string(),
                both(unpatched),
                both(off),
                on.both(),
                (on.both() / base - 1.0) * 100.0
            );
        }
    }
    println!("\ninstructions for each folio, option on");
    for (case, cost) in &on.costs {
        if case.is_exclusive() {
            let (base, ..) = case.base();
            let times = on.costs.get(&base).map_or(0.0, |base| cost.get / base.get);
            println!(
                "{:42}{:>10.1}, back {:.1}; {times:.2}x {}, {}",
                case.to_string(),
                cost.get,
                cost.put,
                base.what,
                base.memory
            );
        }
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.what.as_str() {
            "get_fast" => "get_user_pages_fast + put",
            "pin_fast" => "pin_user_pages_fast + unpin",
            "pin_longterm" => "pin_user_pages, long-term, + unpin",
            "exclusive" => "exclusive pin + isolation",
            "life" => "populate + munmap",
            other => other,
        };
        // `pad` would cut; the table pads the whole.
        write!(f, "{what}, {}, {}", self.memory, self.batch)
    }
}

/// What a second run says otherwise.
fn changed(
    first: &BTreeMap<Case, Cost>,
    second: &BTreeMap<Case, Cost>,
) -> impl Iterator<Item = String> {
    first.iter().filter_map(|(case, cost)| {
        let again = second.get(case);
        (again != Some(cost))
            .then(|| format!("{case}: a second run gave other figures: {cost:?}, {again:?}"))
    })
}

/// The budgets that are exceeded, in words.
fn exceeded(
    unpatched: &BTreeMap<Case, Cost>,
    off: &BTreeMap<Case, Cost>,
    on: &BTreeMap<Case, Cost>,
) -> Vec<String> {
    let ordinary = unpatched
        .iter()
        .flat_map(|(case, base)| exceeded_by_ordinary(case, base.both(), off, on));
    ordinary.chain(exceeded_by_exclusive(on)).collect()
}

/// A budget, if it is exceeded, in words.
fn above(case: &str, value: f64, limit: f64, of: &str) -> Option<String> {
    (value > limit).then(|| format!("{case}: {value:.1} instructions, {of} allows {limit:.1}"))
}

/// What everybody pays who pins, or only has pages, and the price without the series.
fn exceeded_by_ordinary(
    case: &Case,
    base: f64,
    off: &BTreeMap<Case, Cost>,
    on: &BTreeMap<Case, Cost>,
) -> Vec<String> {
    let same = base * (1.0 + ROUNDING / 1000.0) + OWN_LOOP / f64::from(case.batch);
    let off = off.get(case).and_then(|off| {
        above(
            &format!("off: {case}"),
            off.both(),
            same,
            "the unpatched kernel",
        )
    });
    let more = match case.what.as_str() {
        "pin_fast" => Some((1.1, "10 % more than unpatched")),
        "life" => Some((1.02, "2 % more than unpatched")),
        _ => None,
    };
    let on = on
        .get(case)
        .zip(more)
        .and_then(|(on, (factor, of))| above(&format!("on: {case}"), on.both(), base * factor, of));
    off.into_iter().chain(on).collect()
}

/// What those pay who take pages away.
fn exceeded_by_exclusive(on: &BTreeMap<Case, Cost>) -> impl Iterator<Item = String> {
    let exclusive = on.iter().filter(|(case, _)| case.is_exclusive());
    exclusive.filter_map(|(case, cost)| {
        let (base, factor, of) = case.base();
        let limit = on.get(&base)?.get * factor;
        above(&format!("on: {case}"), cost.get, limit, of)
    })
}

/// The functions whose code differs between two objects.
fn differing_functions(one: &Path, other: &Path) -> Result<Vec<String>> {
    let (one, other) = (
        functions(&disassemble(one)?),
        functions(&disassemble(other)?),
    );
    let names = one.keys().chain(other.keys());
    let mut differing: Vec<String> = names
        .filter(|name| one.get(*name) != other.get(*name))
        .cloned()
        .collect();
    differing.sort();
    differing.dedup();
    Ok(differing)
}

fn disassemble(object: &Path) -> Result<String> {
    let output = Command::new("aarch64-linux-gnu-objdump")
        .args(["-dr", "--no-addresses", "--no-show-raw-insn"])
        .arg(object)
        .output()
        .context("cannot start aarch64-linux-gnu-objdump")?;
    ensure!(
        output.status.success(),
        "objdump cannot read {}",
        object.display()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Function by function. Where in a section a constant lies does not count, nor do padding and what it does to the distance of a branch.
fn functions(disassembly: &str) -> BTreeMap<String, String> {
    let mut functions: BTreeMap<String, String> = BTreeMap::new();
    let mut current = String::new();
    for line in disassembly.lines() {
        if let Some(name) = line
            .strip_prefix('<')
            .and_then(|line| line.strip_suffix(">:"))
        {
            name.clone_into(&mut current);
        } else if !current.is_empty() {
            if line.trim() == "nop" {
                continue;
            }
            let code = match line.split_once("R_AARCH64_") {
                Some((_, relocation)) if relocation.contains("\t.") => {
                    relocation.split('+').next().unwrap_or(relocation)
                }
                _ => line,
            };
            let body = functions.entry(current.clone()).or_default();
            let within = format!("<{current}+");
            let end = code.find(&within).unwrap_or(code.len());
            body.push_str(code.get(..end).unwrap_or(code).trim());
            body.push('\n');
        }
    }
    functions
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: &str = "gup-bench: memory 1000\ngup-bench: pin_fast anon 1 get 2000 put 1000 of 10\ngup-bench: done\n";

    fn costs(lines: &[(&str, &str, u32, f64)]) -> BTreeMap<Case, Cost> {
        let cost = |(what, memory, batch, get): &(&str, &str, u32, f64)| {
            (
                Case::new(what, memory, *batch),
                Cost {
                    get: *get,
                    put: 0.0,
                },
            )
        };
        lines.iter().map(cost).collect()
    }

    #[test]
    fn lines_become_instructions_for_each_page() {
        let figures = parse(SEEN).unwrap();
        let (case, cost) = figures.costs.first_key_value().unwrap();
        assert_eq!((case.what.as_str(), case.batch), ("pin_fast", 1));
        assert_eq!((cost.get, cost.put), (200.0, 100.0));
        assert!(parse("gup-bench: done\n").is_err());
        assert!(parse("gup-bench: exclusive thp 1 failed: Invalid argument\n").is_err());
    }

    #[test]
    fn each_budget_is_watched() {
        let base = [
            ("pin_fast", "anon", 1, 100.0),
            ("pin_longterm", "anon", 1, 200.0),
            ("life", "anon", 512, 100.0),
        ];
        let mut on = base.to_vec();
        on.push(("exclusive", "anon", 1, 1200.0));
        on.push(("exclusive", "thp", 1, 2400.0));
        on.push(("exclusive", "anon", 512, 1000.0));
        on.push(("exclusive", "thp", 16, 2000.0));
        let base = costs(&base);
        assert!(exceeded(&base, &base, &costs(&on)).is_empty());
        for (batch, off, number) in [(1, 104.0, 0), (1, 105.0, 1), (512, 101.0, 1)] {
            let base = costs(&[("pin_fast", "anon", batch, 100.0)]);
            let off = costs(&[("pin_fast", "anon", batch, off)]);
            assert_eq!(exceeded(&base, &off, &costs(&on)).len(), number);
        }
        for dear in 0..on.len() {
            let mut on = on.clone();
            on[dear].3 *= 1.2;
            let number = exceeded(&base, &base, &costs(&on)).len();
            // An ordinary long-term pin that is dearer makes room instead, and so does one of many small pages.
            let makes_room = matches!(
                on[dear],
                ("pin_longterm", ..) | ("exclusive", "anon", 512, _)
            );
            assert_eq!(number, usize::from(!makes_room), "{:?}", on[dear]);
        }
    }

    #[test]
    fn every_kernel_measures_the_same() {
        assert_eq!(cases(false).len(), 3 * 3 * 2 + 1);
        assert_eq!(cases(true).difference(&cases(false)).count(), 4 * 2);
    }

    #[test]
    fn code_is_compared_by_function() {
        let one =
            "<a>:\n\tmov\tx0, x1\n\t\t\tR_AARCH64_ADR_PREL_PG_HI21\t.rodata+0x10\n<b>:\n\tret\n";
        let other = one.replace("+0x10", "+0x20");
        assert_eq!(functions(one), functions(&other));
        assert_ne!(functions(one), functions(&one.replace("x1", "x2")));
        let padded = "<a>:\n\tnop\n\tcbz\tx0, <a+0x8>\n\tret\n";
        let bare = "<a>:\n\tcbz\tx0, <a+0x4>\n\tret\n";
        assert_eq!(functions(padded), functions(bare));
        assert_ne!(functions(bare), functions(&bare.replace("cbz", "cbnz")));
        assert_eq!(functions(one).len(), 2);
    }
}
