//! Which known name is nearest to one that is not.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// How many letters may differ.
const FAR: usize = 3;

/// `; did you mean ...?` for the nearest of the known names, or all of them if none is near.
pub(crate) fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let nearest = known
        .clone()
        .map(|other| (distance(name, other), other))
        .min();
    match nearest {
        None => String::new(),
        Some((..=FAR, other)) => format!("; did you mean `{other}`?"),
        Some(_) => {
            let all: Vec<&str> = known.collect();
            format!("; there are {}", all.join(" "))
        }
    }
}

/// How many letters to insert, remove or replace, whether small or not.
fn distance(from: &str, to: &str) -> usize {
    let from = from.bytes().map(|letter| letter.to_ascii_lowercase());
    let to: Vec<u8> = to
        .bytes()
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, number) in from.zip(1..) {
        let mut diagonal = number - 1;
        let mut left = number;
        let mut next = Vec::with_capacity(row.len());
        next.push(number);
        for (letter, up) in to.iter().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(*letter != above);
            left = replaced.min(left + 1).min(up + 1);
            diagonal = *up;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_letters() {
        for (from, to, letters) in [
            ("", "abc", 3),
            ("same", "SAME", 0),
            ("mem_donat", "mem_donate", 1),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(from, to), letters, "{from} {to}");
        }
    }

    #[test]
    fn the_nearest_is_named() {
        let known = ["exclusive", "isolated", "ordinary"];
        assert_eq!(
            hint("isolatd", known.into_iter()),
            "; did you mean `isolated`?"
        );
        assert!(hint("x", known.into_iter()).contains("there are exclusive isolated"));
    }
}
