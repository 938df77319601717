//! What walkers and TLBs depend on stands in one module of EL2, `translation`, and nowhere else: DSB, ISB, TLBI, the registers that hold roots.
//!
//! Looked for is each of the words in code, not in comments. What has to be elsewhere is listed with its reason.

use crate::build::Workspace;
use crate::cache::files_below;
use anyhow::{Result, ensure};
use std::fs;

/// Words of instructions and registers.
const WORDS: [&str; 5] = ["dsb", "isb", "tlbi", "vttbr_el2", "ttbr0_el2"];

/// What has to be elsewhere.
const ELSEWHERE: [(&str, &[&str]); 4] = [
    // Before Rust, with the MMU off.
    ("boot.S", &["dsb", "isb", "tlbi", "ttbr0_el2"]),
    // Behind ERET, so that nothing is speculated past it.
    ("vectors.S", &["dsb", "isb"]),
    ("world.S", &["dsb", "isb"]),
    // Between AT and the result that it leaves in a register.
    ("sysreg.rs", &["isb"]),
];

/// The directory where all of them may stand.
const HOME: &str = "translation/";

/// Fails where one of the words stands elsewhere.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let source = workspace.path("hyp/el2/src");
    let mut found = Vec::new();
    for path in files_below(&source)? {
        let name = path.strip_prefix(&source)?.to_string_lossy().into_owned();
        if !name.starts_with(HOME) {
            found.extend(strays(&name, &fs::read_to_string(&path)?));
        }
    }
    ensure!(found.is_empty(), "{}", found.join("; "));
    Ok(())
}

/// Where in a file one of the words stands that must not.
fn strays(name: &str, text: &str) -> Vec<String> {
    let allowed = ELSEWHERE.iter().find(|(file, _)| *file == name);
    let allowed = allowed.map(|(_, words)| *words).unwrap_or_default();
    let mut found = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let code = line.split("//").next().unwrap_or_default();
        let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.map(str::to_ascii_lowercase) {
            if WORDS.contains(&word.as_str()) && !allowed.contains(&word.as_str()) {
                found.push(format!("{name}:{number}: {word}"));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_code_only() {
        let text = "// tlbi\nasm!(\"tlbi alle1is\");\nVTTBR_EL2.set(0);\nlet isbn = dsb_count;\n";
        assert_eq!(
            strays("world.rs", text),
            ["world.rs:2: tlbi", "world.rs:3: vttbr_el2"]
        );
    }

    #[test]
    fn what_has_to_be_elsewhere_may() {
        assert!(strays("vectors.S", "    dsb nsh\n    isb\n").is_empty());
        assert_eq!(strays("vectors.S", "tlbi alle2\n"), ["vectors.S:1: tlbi"]);
    }
}
