//! The budget of `unsafe` at EL2: how many blocks, and which share of the lines of code.
//!
//! `hyp/el2/unsafe-budget` states both limits. Counted is the code of `hyp/el2/src`, without blank
//! lines and comments; a line counts as unsafe if a part of it is inside an `unsafe` block.

use crate::build::Workspace;
use crate::cache::files_below;
use anyhow::{Context, Result, ensure};
use std::fs;

/// Blocks and lines of code.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    blocks: usize,
    unsafe_lines: usize,
    lines: usize,
}

/// Prints the count, and fails when it is above the budget.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let file = workspace.path("hyp/el2/unsafe-budget");
    let budget =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let limit = |name| {
        limit(&budget, name)
            .with_context(|| format!("{} states no `{name} <number>`", file.display()))
    };
    let (blocks, percent) = (limit("blocks")?, limit("percent")?);

    let mut count = Count::default();
    for path in files_below(&workspace.path("hyp/el2/src"))? {
        if path.extension().is_some_and(|end| end == "rs") {
            count.add(&fs::read_to_string(&path)?);
        }
    }
    println!(
        "      {} unsafe blocks (at most {blocks}), {} of {} lines (at most {percent} %)",
        count.blocks, count.unsafe_lines, count.lines
    );
    ensure!(
        count.blocks <= blocks,
        "more unsafe blocks than {} allows",
        file.display()
    );
    ensure!(
        count.unsafe_lines * 100 <= count.lines * percent,
        "a larger share of unsafe lines than {} allows",
        file.display()
    );
    Ok(())
}

fn limit(budget: &str, name: &str) -> Option<usize> {
    budget
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find(|(word, _)| *word == name)
        .and_then(|(_, number)| number.trim().parse().ok())
}

impl Count {
    fn add(&mut self, source: &str) {
        // Braces still open in the unsafe block that the scan is in.
        let mut open = 0_usize;
        for line in source.lines() {
            let code = line.split("//").next().unwrap_or_default();
            if code.trim().is_empty() {
                continue;
            }
            self.lines += 1;
            let mut is_unsafe = open > 0;
            let mut rest = code;
            while !rest.is_empty() {
                if open == 0 {
                    let Some((_, inside)) = rest.split_once("unsafe {") else {
                        break;
                    };
                    self.blocks += 1;
                    is_unsafe = true;
                    open = 1;
                    rest = inside;
                }
                rest = skip_braces(rest, &mut open);
            }
            self.unsafe_lines += usize::from(is_unsafe);
        }
    }
}

/// What follows the brace that closes the block; nothing if it is not closed here.
fn skip_braces<'a>(code: &'a str, open: &mut usize) -> &'a str {
    for (place, character) in code.char_indices() {
        match character {
            '{' => *open += 1,
            '}' => *open -= 1,
            _ => {}
        }
        if *open == 0 {
            return code.get(place + 1..).unwrap_or_default();
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(source: &str) -> Count {
        let mut count = Count::default();
        count.add(source);
        count
    }

    #[test]
    fn blocks_and_their_lines_are_counted() {
        let source = "// unsafe { }\nfn a() {\n    // SAFETY: x.\n    let b = unsafe { c() };\n    unsafe {\n        if d { e() }\n    }\n}\n";
        assert_eq!(
            count(source),
            Count {
                blocks: 2,
                unsafe_lines: 4,
                lines: 6
            }
        );
    }

    #[test]
    fn two_blocks_on_a_line_are_two() {
        assert_eq!(count("x(unsafe { a() }, unsafe { b() });").blocks, 2);
    }

    #[test]
    fn limits_are_read_by_name() {
        assert_eq!(limit("# text\nblocks 12\npercent 9\n", "percent"), Some(9));
        assert_eq!(limit("blocks many\n", "blocks"), None);
    }
}
