//! `make coverage`: which lines of `hyp/core` the tests on this machine run.
//!
//! The tests of `hyp` are built with LLVM's instrumentation and run; LLVM's own tools, of the version that rustc has, read what they
//! leave. Tests and the machine of the tests are not counted.

use crate::build::{Cargo, Workspace};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The least share of lines, in percent.
const LEAST: f64 = 95.0;

const PACKAGES: [&str; 3] = ["pinfold-abi", "pinfold-core", "pinfold-spec"];

/// Lines of a file that could be run, and that were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lines {
    all: u32,
    run: u32,
}

impl Lines {
    fn percent(self) -> f64 {
        100.0 * f64::from(self.run) / f64::from(self.all.max(1))
    }
}

/// Runs the tests, prints the table, and fails below the least share.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let tools = tools()?;
    let cargo = Cargo::new(workspace);
    let profiles = workspace.out("coverage/profiles/place")?;
    let profiles = profiles.parent().context("profiles have a place")?;
    std::fs::remove_dir_all(profiles)?;
    let mut test = cargo.instrumented("test", "coverage", &["-Cinstrument-coverage"]);
    for package in PACKAGES {
        test.args(["--package", package]);
    }
    test.args(["--lib", "--tests"])
        .env("LLVM_PROFILE_FILE", profiles.join("%m-%p.profraw"));
    cargo.step("tests with coverage").run(&mut test)?;
    let binaries = binaries(&workspace.log("tests-with-coverage"), &workspace.root)?;
    let report = export(workspace, &tools, profiles, &binaries)?;
    let core = workspace.path("hyp/core/src");
    conclude(&lines(&report, &core))
}

/// LLVM's tools of rustc's version.
fn tools() -> Result<PathBuf> {
    let version = Command::new("/usr/bin/rustc").arg("-vV").output()?;
    let text = String::from_utf8_lossy(&version.stdout);
    let major = text
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: ")?.split('.').next())
        .context("rustc does not say which LLVM it has")?;
    let place = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    ensure!(
        place.join("llvm-cov").exists(),
        "install llvm-{major} (qemu/setup.sh): {} is missing",
        place.join("llvm-cov").display()
    );
    Ok(place)
}

/// The programs that cargo says it has run.
fn binaries(log: &Path, root: &Path) -> Result<Vec<PathBuf>> {
    let text = std::fs::read_to_string(log)?;
    let named = text.lines().filter_map(|line| {
        let line = line.trim_start().strip_prefix("Running ")?;
        let path = line.rsplit_once('(')?.1.strip_suffix(')')?;
        Some(root.join(path))
    });
    let binaries: Vec<_> = named.collect();
    ensure!(
        !binaries.is_empty(),
        "cargo ran no test; all of it: {}",
        log.display()
    );
    Ok(binaries)
}

/// What the programs covered, as lcov.
fn export(
    workspace: &Workspace,
    tools: &Path,
    profiles: &Path,
    binaries: &[PathBuf],
) -> Result<String> {
    let merged = workspace.out("coverage/merged.profdata")?;
    let mut raw = std::fs::read_dir(profiles)?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    raw.sort();
    let mut merge = Command::new(tools.join("llvm-profdata"));
    merge
        .args(["merge", "-sparse", "-o"])
        .arg(&merged)
        .args(&raw);
    output(&mut merge)?;
    let mut export = Command::new(tools.join("llvm-cov"));
    export
        .args(["export", "--format=lcov", "--instr-profile"])
        .arg(&merged);
    for binary in binaries {
        export.arg("--object").arg(binary);
    }
    output(&mut export)
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let errors = errors.lines().take(3).collect::<Vec<_>>().join("; ");
    bail!("{}: {errors}", command.get_program().to_string_lossy())
}

/// Adds the lines of each file up. A file that several programs have is told once, with the lines that any of them ran.
fn lines(report: &str, core: &Path) -> BTreeMap<PathBuf, Lines> {
    let mut files: BTreeMap<PathBuf, BTreeMap<u32, bool>> = BTreeMap::new();
    let mut file = None;
    for line in report.lines() {
        if let Some(name) = line.strip_prefix("SF:") {
            let name = Path::new(name).strip_prefix(core).ok();
            file = name.filter(|name| !is_test(name)).map(Path::to_path_buf);
        }
        if let (Some(name), Some(data)) = (&file, line.strip_prefix("DA:"))
            && let Some((number, count)) = data.split_once(',')
            && let Ok(number) = number.parse()
        {
            let was_run = files
                .entry(name.clone())
                .or_default()
                .entry(number)
                .or_default();
            *was_run |= count.split(',').next() != Some("0");
        }
    }
    let count = |lines: &BTreeMap<u32, bool>| Lines {
        all: u32::try_from(lines.len()).unwrap_or(u32::MAX),
        run: u32::try_from(lines.values().filter(|run| **run).count()).unwrap_or(0),
    };
    files
        .iter()
        .map(|(name, lines)| (name.clone(), count(lines)))
        .collect()
}

fn is_test(name: &Path) -> bool {
    name.ends_with("tests.rs") || name.ends_with("machine/test.rs")
}

fn conclude(files: &BTreeMap<PathBuf, Lines>) -> Result<()> {
    let mut sum = Lines::default();
    for (name, lines) in files {
        println!(
            "{:6.2} %  {:4} of {:4}  {}",
            lines.percent(),
            lines.run,
            lines.all,
            name.display()
        );
        sum.all += lines.all;
        sum.run += lines.run;
    }
    println!(
        "{:6.2} %  {:4} of {:4}  hyp/core",
        sum.percent(),
        sum.run,
        sum.all
    );
    ensure!(sum.all > 0, "nothing was counted");
    ensure!(
        sum.percent() >= LEAST,
        "{:.2} % of the lines of hyp/core are run; at least {LEAST} % must be",
        sum.percent()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_once() {
        let report = "SF:/x/core/src/a.rs\nDA:1,0\nDA:2,5\nend_of_record\nSF:/x/core/src/a.rs\nDA:1,3\nDA:9,0\n\
            SF:/x/core/src/b/tests.rs\nDA:1,1\nSF:/x/spec/src/c.rs\nDA:1,1\n";
        let found = lines(report, Path::new("/x/core/src"));
        let expected = BTreeMap::from([(PathBuf::from("a.rs"), Lines { all: 3, run: 2 })]);
        assert_eq!(found, expected);
        assert!(conclude(&found).is_err());
    }

    #[test]
    fn programs_are_read_from_what_cargo_says() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let text = "   Compiling x\n     Running unittests src/lib.rs (target/debug/deps/core-1f)\n   Doc-tests x\n";
        std::fs::write(&log, text).unwrap();
        let found = binaries(&log, Path::new("/x")).unwrap();
        assert_eq!(found, [PathBuf::from("/x/target/debug/deps/core-1f")]);
    }
}
