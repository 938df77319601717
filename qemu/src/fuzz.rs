//! `make fuzz`: coverage-guided fuzzing of the core, by libFuzzer.
//!
//! `hyp/fuzz` has the targets; they are built with coverage by the compiler that builds everything else. Seeds are checked in
//! (`hyp/fuzz/corpus`), what a run finds besides stays in `out/fuzz`, and an input that breaks something is left there with the command
//! that plays it again.

use crate::build::{Cargo, Workspace};
use anyhow::{Context, Result, bail};
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What rustc is told: count edges, tell comparisons, and keep checks.
const FLAGS: [&str; 9] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Coverflow-checks",
    "-Ccodegen-units=1",
];

/// With a target named, cargo does not build procedural macros and scripts with coverage.
const HERE: &str = "x86_64-unknown-linux-gnu";

const TARGETS: [&str; 2] = ["calls", "registers"];

/// How long, and on what.
#[derive(Args)]
pub(crate) struct Extent {
    /// Seconds in all.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u64,
    /// The seed of libFuzzer; 0 takes another one every time.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u32,
    /// Play one input again, of the target `calls` or `registers`, which its path says.
    #[arg(long)]
    pub(crate) input: Option<PathBuf>,
}

/// Builds the fuzzers and runs them in turns.
pub(crate) fn run(workspace: &Workspace, extent: &Extent) -> Result<()> {
    let cargo = Cargo::new(workspace);
    let mut build = cargo.instrumented("build", "fuzz", &FLAGS);
    build.args(["--manifest-path", "hyp/fuzz/Cargo.toml", "--locked"]);
    build.args(["--release", "--target", HERE]);
    cargo
        .step("fuzzers")
        .run(&mut build)
        .context("the fuzzers do not build; libFuzzer is C++ and needs g++ (qemu/setup.sh)")?;
    let binaries = cargo.place("fuzz").join(HERE).join("release");
    if let Some(input) = &extent.input {
        return play(&binaries, input);
    }
    let each = (extent.seconds / 2).max(1);
    for target in TARGETS {
        fuzz(workspace, &binaries, target, each, extent.seed)?;
    }
    Ok(())
}

/// Plays one input again, with all that it says.
fn play(binaries: &Path, input: &Path) -> Result<()> {
    let path = input.to_string_lossy();
    let target = TARGETS.iter().find(|target| path.contains(*target));
    let target = target.context("the path says neither `calls` nor `registers`")?;
    let status = Command::new(binaries.join(target)).arg(input).status()?;
    if status.success() {
        println!("pinfold: nothing is wrong with {path}");
        Ok(())
    } else {
        bail!("{path}: {status}")
    }
}

fn fuzz(
    workspace: &Workspace,
    binaries: &Path,
    target: &str,
    seconds: u64,
    seed: u32,
) -> Result<()> {
    let found = workspace.out(&format!("fuzz/{target}/corpus/place"))?;
    let found = found.parent().context("a corpus has a place")?;
    let broken = workspace.out(&format!("fuzz/{target}/broken-"))?;
    let mut fuzzer = Command::new(binaries.join(target));
    fuzzer
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-seed={seed}"))
        .arg(format!("-artifact_prefix={}", broken.display()))
        .args(["-max_len=512", "-timeout=20", "-print_final_stats=1"])
        .arg(found)
        .arg(workspace.path("hyp/fuzz/corpus").join(target));
    let output = fuzzer
        .output()
        .with_context(|| format!("cannot start the fuzzer `{target}`"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    std::fs::write(workspace.log(&format!("fuzz-{target}")), text.as_bytes())?;
    if output.status.success() {
        println!("ok    fuzz {target}: {}", figures(&text));
        return Ok(());
    }
    let cause = text.lines().find(|line| {
        line.contains("Violation {") || line.contains("panicked at") || line.contains("ERROR")
    });
    let artifact = text
        .lines()
        .find_map(|line| line.split("written to ").nth(1));
    bail!(
        "the fuzzer `{target}` found: {}\nplay it again: cargo qemu fuzz --input {}",
        cause.unwrap_or("something that it does not say"),
        artifact.unwrap_or("(no input was left)")
    )
}

/// Runs, inputs kept, and what they cover, out of libFuzzer's last lines.
fn figures(text: &str) -> String {
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or("?", str::trim)
    };
    let last = text.lines().rev().find(|line| line.contains(" cov: "));
    let covered = last.and_then(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "cov:");
        words.nth(1)
    });
    format!(
        "{} runs, {} a second, {} edges, {} inputs that were new",
        number("stat::number_of_executed_units:"),
        number("stat::average_exec_per_sec:"),
        covered.unwrap_or("?"),
        number("stat::new_units_added:"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_last_lines() {
        let text = "#10\tNEW    cov: 11 ft: 20 corp: 2/3b\n#99\tDONE   cov: 12 ft: 21 corp: 2/3b\n\
            stat::number_of_executed_units: 99\nstat::average_exec_per_sec:     33\nstat::new_units_added:          7\n";
        assert_eq!(
            figures(text),
            "99 runs, 33 a second, 12 edges, 7 inputs that were new"
        );
        assert_eq!(
            figures(""),
            "? runs, ? a second, ? edges, ? inputs that were new"
        );
    }
}
