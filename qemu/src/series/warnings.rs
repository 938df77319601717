//! What compilers and checkers warn of, without the lines that change when something is inserted above.

use anyhow::{Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// File and text of warnings, and how often each was said.
#[derive(Debug, Default)]
pub(super) struct Warnings(BTreeMap<(String, String), u32>);

impl Warnings {
    /// The warnings of a build's output about the files that are touched.
    pub(super) fn of(said: &str, source: &Path, touched: &BTreeSet<String>) -> Self {
        let root = format!("{}/", source.display());
        let mut found = BTreeMap::new();
        for line in said.lines() {
            let Some((file, text)) = parse(line) else {
                continue;
            };
            // A build directory beside the source names files from there.
            let file = file.strip_prefix(&root).unwrap_or(file);
            let file = file.trim_start_matches("../").trim_start_matches("source/");
            if touched.contains(file) {
                *found.entry((file.to_owned(), text.to_owned())).or_default() += 1;
            }
        }
        Self(found)
    }

    /// Fails with the warnings that were not there before, or not as often.
    pub(super) fn nothing_new_since(&self, before: &Self) -> Result<()> {
        let new: Vec<String> = self
            .0
            .iter()
            .filter(|(warning, number)| {
                let before = before.0.get(warning).copied().unwrap_or_default();
                // A header is read as often as somebody includes it.
                let is_header = Path::new(&warning.0)
                    .extension()
                    .is_some_and(|end| end == "h");
                if is_header {
                    before == 0
                } else {
                    **number > before
                }
            })
            .map(|((file, text), _)| format!("{file}: {text}"))
            .collect();
        ensure!(new.is_empty(), "new: {}", new.join("; "));
        Ok(())
    }
}

/// File and text of `file:line:column: warning: text`.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (place, text) = line
        .split_once(": warning: ")
        .or_else(|| line.split_once(": error: "))?;
    let (file, _) = place.split_once(':')?;
    Some((file, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warnings(said: &str) -> Warnings {
        let touched = ["mm/gup.c", "include/linux/mm.h"].map(str::to_owned).into();
        Warnings::of(said, Path::new("/cache/source"), &touched)
    }

    #[test]
    fn only_what_is_new_counts() {
        let before = warnings(
            "/cache/source/mm/gup.c:10:3: warning: unused a\n../include/linux/mm.h:1:2: warning: b\n",
        );
        let same = "  CC      mm/gup.o\n/cache/source/mm/gup.c:12:3: warning: unused a\n../include/linux/mm.h:1:2: warning: b\n../include/linux/mm.h:1:2: warning: b\n/cache/source/mm/ksm.c:1:1: warning: c\n";
        assert!(warnings(same).nothing_new_since(&before).is_ok());
        let more = format!("{same}/cache/source/mm/gup.c:13:3: warning: unused a\n");
        let error = warnings(&more).nothing_new_since(&before).unwrap_err();
        assert_eq!(error.to_string(), "new: mm/gup.c: unused a");
        let of_kernel_doc = warnings("../mm/gup.c:99: warning: no description of x\n");
        assert!(of_kernel_doc.nothing_new_since(&before).is_err());
    }
}
