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
use std::collections::BTreeMap;
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

/// Frames of the machine, and bytes that each may cost with the option on: four for the pin word, the rest is code.
const FRAMES: f64 = 262_144.0;
const BYTES_PER_FRAME: f64 = 4.5;

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
    let measure = |kernel: &BenchKernel, run: &str, arguments: &str| {
        measure(workspace, &hosts.initramfs, kernel, run, arguments)
    };
    let unpatched = measure(&hosts.unpatched, "unpatched", "")?;
    let off = measure(&hosts.off, "off", "")?;
    let on = measure(&hosts.on, "on", "exclusive=1")?;
    let again = measure(&hosts.on, "on-again", "exclusive=1")?;

    print_table(&unpatched, &off, &on);
    let bytes = (off.memory - on.memory) / FRAMES;
    println!("memory: {bytes:.2} bytes for each frame, code included");
    let differing = differing_functions(&hosts.unpatched.object, &hosts.off.object)?;
    if differing.is_empty() {
        println!("mm/gup.o with the option off: the same code as unpatched");
    } else {
        println!(
            "mm/gup.o with the option off: differs in {}",
            differing.join(", ")
        );
    }

    let mut exceeded = exceeded(&unpatched.costs, &off.costs, &on.costs);
    if bytes > BYTES_PER_FRAME {
        exceeded.push(format!("memory: {bytes:.2} bytes for each frame"));
    }
    for (case, cost) in &on.costs {
        let again = again.costs.get(case).copied();
        if again != Some(*cost) {
            exceeded.push(format!(
                "{case}: a second run gave other figures: {cost:?}, {again:?}"
            ));
        }
    }
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
    arguments: &str,
) -> Result<Figures> {
    let machine = Machine {
        cpu: Cpu::Max,
        cpus: 1,
        memory: 1024,
        counts_instructions: true,
        ..Machine::new(Boot::Bare(Modules {
            kernel: kernel.image.clone(),
            initramfs: Some(initramfs.to_path_buf()),
            arguments: format!("console=ttyAMA0 nokaslr panic=-1 quiet {arguments}"),
        }))
    };
    let log = workspace.out(&format!("logs/gup-bench-{run}.log"))?;
    let mut console = Console::start(&machine, &log)?;
    console.expect("gup-bench: done", GUARD)?;
    without_complaints(&mut console)?;
    parse(console.seen()).with_context(|| format!("the log is {}", log.display()))
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
                let case = Case {
                    what: what.to_owned(),
                    memory: kind.to_owned(),
                    batch: batch.parse()?,
                };
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
        if case.what != "exclusive" {
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
        if case.what == "exclusive" {
            println!(
                "{:42}{:>10.1}, back {:.1}",
                case.to_string(),
                cost.get,
                cost.put
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
            other => other,
        };
        // `pad` would cut; the table pads the whole.
        write!(f, "{what}, {}, {}", self.memory, self.batch)
    }
}

/// The budgets that are exceeded, in words.
fn exceeded(
    unpatched: &BTreeMap<Case, Cost>,
    off: &BTreeMap<Case, Cost>,
    on: &BTreeMap<Case, Cost>,
) -> Vec<String> {
    let mut exceeded = Vec::new();
    let mut at_most = |case: String, value: f64, limit: f64, of: &str| {
        if value > limit {
            exceeded.push(format!(
                "{case}: {value:.1} instructions, {of} allows {limit:.1}"
            ));
        }
    };
    for (case, base) in unpatched {
        let Some(off) = off.get(case) else { continue };
        let limit = base.both() * (1.0 + ROUNDING / 1000.0) + OWN_LOOP / f64::from(case.batch);
        at_most(
            format!("off: {case}"),
            off.both(),
            limit,
            "the unpatched kernel",
        );
        let Some(on) = on.get(case) else { continue };
        if case.what == "pin_fast" {
            at_most(
                format!("on: {case}"),
                on.both(),
                base.both() * 1.1,
                "10 % more than unpatched",
            );
        }
    }
    let cost = |what: &str, memory: &str, batch| {
        on.get(&Case {
            what: what.to_owned(),
            memory: memory.to_owned(),
            batch,
        })
    };
    for memory in ["anon", "memfd"] {
        for batch in [1, 512] {
            let (Some(exclusive), Some(ordinary)) = (
                cost("exclusive", memory, batch),
                cost("pin_longterm", memory, batch),
            ) else {
                continue;
            };
            at_most(
                format!("on: exclusive pin + isolation, {memory}, {batch}"),
                exclusive.get,
                ordinary.get * 6.0,
                "6x a long-term pin",
            );
        }
    }
    match (cost("exclusive", "thp", 1), cost("exclusive", "anon", 1)) {
        (Some(large), Some(small)) => at_most(
            "on: exclusive pin + isolation of 2 MiB".to_owned(),
            large.get,
            small.get * 2.0,
            "2x that of 4 KiB",
        ),
        _ => exceeded.push("on: exclusive pins are not measured".to_owned()),
    }
    exceeded
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

/// Function by function; where in a section a constant lies does not count.
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
            let code = match line.split_once("R_AARCH64_") {
                Some((_, relocation)) if relocation.contains("\t.") => {
                    relocation.split('+').next().unwrap_or(relocation)
                }
                _ => line,
            };
            let body = functions.entry(current.clone()).or_default();
            body.push_str(code.trim());
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
            let case = Case {
                what: (*what).to_owned(),
                memory: (*memory).to_owned(),
                batch: *batch,
            };
            (
                case,
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
        ];
        let mut on = base.to_vec();
        on.push(("exclusive", "anon", 1, 1200.0));
        on.push(("exclusive", "thp", 1, 2400.0));
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
            // An ordinary long-term pin that is dearer makes room instead.
            assert_eq!(number, usize::from(dear != 1), "{:?}", on[dear]);
        }
        assert!(!exceeded(&base, &base, &base).is_empty());
    }

    #[test]
    fn code_is_compared_by_function() {
        let one =
            "<a>:\n\tmov\tx0, x1\n\t\t\tR_AARCH64_ADR_PREL_PG_HI21\t.rodata+0x10\n<b>:\n\tret\n";
        let other = one.replace("+0x10", "+0x20");
        assert_eq!(functions(one), functions(&other));
        assert_ne!(functions(one), functions(&one.replace("x1", "x2")));
        assert_eq!(functions(one).len(), 2);
    }
}
