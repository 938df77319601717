//! The folio array at one moment: [`Snapshot`], and who owns what in it: [`Holdings`].

use std::ops::Range;

use anyhow::{Context, ensure};
use pinfold_abi::claim::{Count, CounterNumber, Pfn};
use pinfold_abi::limit::MAX_DIGEST;
use pinfold_abi::pin_word::donatable;
use pinfold_abi::{Counter, HostCall, State};

use crate::control::Control;

/// Census of all frames, and a digest of every stretch of the host's RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) census: [u64; 6],
    digests: Vec<Stretch>,
}

/// The digest of some adjoining frames.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    frames: Range<u64>,
    digest: u64,
}

impl Snapshot {
    pub(super) fn take(control: &Control) -> anyhow::Result<Self> {
        let census = control.must(HostCall::FolioCensus {})?;
        let mut digests = Vec::new();
        for range in host_ram()? {
            let mut first = range.start;
            while first < range.end {
                let count = MAX_DIGEST.min(range.end - first);
                let [digest, ..] = control.must(HostCall::FolioDigest {
                    first: Pfn(first),
                    count: Count(count),
                })?;
                digests.push(Stretch {
                    frames: first..first + count,
                    digest,
                });
                first += count;
            }
        }
        Ok(Self { census, digests })
    }

    /// Says what differs from `before`, or, if nothing does, what was compared.
    pub(super) fn compare(&self, before: &Self) -> anyhow::Result<String> {
        ensure!(
            self.census == before.census,
            "the census was {:?} and is {:?}",
            before.census,
            self.census
        );
        let changed: Vec<_> = self
            .changed_since(before)
            .map(|stretch| format!("{:#x}", stretch.start))
            .collect();
        ensure!(
            changed.is_empty(),
            "the folio words of {} stretches differ, from frames {}",
            changed.len(),
            changed.join(" ")
        );
        let total: u64 = self.census.iter().sum();
        Ok(format!(
            "census of {total} frames and {} digests are as before",
            self.digests.len()
        ))
    }
}

impl Snapshot {
    /// The stretches whose folio words are not as they were.
    fn changed_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = Range<u64>> + 'a {
        self.digests
            .iter()
            .filter(|now| !before.digests.contains(now))
            .map(|now| now.frames.clone())
    }
}

/// One frame that a guest holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) pfn: u64,
    pub(super) gfn: u64,
}

/// What guests hold, frame by frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Holdings {
    /// Frames that a guest has alone.
    pub(super) alone: Vec<Held>,
    /// How many frames guests share with the host.
    pub(super) shared: u64,
    /// How many of `alone` lack an exclusive pin.
    pub(super) badly_pinned: u64,
}

impl Holdings {
    /// Looks at every frame of the stretches that are not as they were `before` the first guest.
    pub(super) fn look(control: &Control, before: &Snapshot) -> anyhow::Result<Self> {
        let mut holdings = Self::default();
        let now = Snapshot::take(control)?;
        for stretch in now.changed_since(before) {
            for pfn in stretch {
                holdings.note(control, pfn)?;
            }
        }
        Ok(holdings)
    }

    fn note(&mut self, control: &Control, pfn: u64) -> anyhow::Result<()> {
        let [_, state, order, _, gfn, pin] =
            control.must(HostCall::FolioQuery { pfn: Pfn(pfn) })?;
        if state == State::Guest.number() {
            self.alone.push(Held { pfn, gfn });
            self.badly_pinned += u64::from(!is_exclusively_pinned(pfn, order, pin));
        } else if state == State::GuestSharedHost.number() {
            self.shared += 1;
        }
        Ok(())
    }
}

/// The pin word is at a folio's head; those of its tails are 0.
fn is_exclusively_pinned(pfn: u64, order: u64, pin: u64) -> bool {
    let Ok(order) = u8::try_from(order) else {
        return false;
    };
    let head = u64::from(donatable(order));
    let is_head = pfn.trailing_zeros() >= u32::from(order);
    pin == head || !is_head && pin == 0
}

/// The value of one of EL2's counters.
pub(super) fn counter(control: &Control, counter: Counter) -> anyhow::Result<u64> {
    let [value, ..] = control.must(HostCall::Counter {
        counter: CounterNumber(counter.number()),
    })?;
    Ok(value)
}

/// The frames that Linux knows as its RAM.
fn host_ram() -> anyhow::Result<Vec<Range<u64>>> {
    let map = std::fs::read_to_string("/proc/iomem").context("cannot read /proc/iomem")?;
    let ranges = system_ram(&map);
    ensure!(
        ranges.iter().any(|range| range.start != 0),
        "/proc/iomem hides its addresses (are you root?)"
    );
    Ok(ranges)
}

/// The top-level `System RAM` lines as ranges of frame numbers.
fn system_ram(map: &str) -> Vec<Range<u64>> {
    map.lines()
        .filter_map(|line| {
            let (addresses, name) = line.split_once(" : ")?;
            let (first, last) = addresses.split_once('-')?;
            if name != "System RAM" || first.starts_with(' ') {
                return None;
            }
            let first = u64::from_str_radix(first, 16).ok()?;
            let last = u64::from_str_radix(last, 16).ok()?;
            Some(first.div_ceil(4096)..(last + 1) / 4096)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iomem_is_read() {
        let map = "09000000-09000fff : pl011@9000000\n\
                   40000000-401fffff : System RAM\n\
                   40600000-7fbfffff : System RAM\n  \
                   41000000-41ffffff : Kernel code\n";
        assert_eq!(system_ram(map), [0x40000..0x40200, 0x40600..0x7FC00]);
    }

    #[test]
    fn pins_are_judged_by_the_head() {
        assert!(is_exclusively_pinned(5, 0, 0xC000_0001));
        assert!(!is_exclusively_pinned(5, 0, 0xC000_0002));
        assert!(!is_exclusively_pinned(5, 0, 0));
        assert!(is_exclusively_pinned(0x200, 9, 0xC900_0001));
        assert!(is_exclusively_pinned(0x201, 9, 0));
        assert!(!is_exclusively_pinned(0x200, 9, 0));
    }

    #[test]
    fn differences_are_named() {
        let before = Snapshot {
            census: [10, 1, 0, 0, 0, 0],
            digests: vec![
                Stretch {
                    frames: 0x100..0x500,
                    digest: 7,
                },
                Stretch {
                    frames: 0x500..0x600,
                    digest: 8,
                },
            ],
        };
        assert!(before.compare(&before).is_ok());
        let mut after = before.clone();
        after.digests[1].digest = 9;
        let error = after.compare(&before).unwrap_err().to_string();
        assert!(
            error.contains("0x500") && !error.contains("0x100"),
            "{error}"
        );
        after.census[3] = 1;
        assert!(
            after
                .compare(&before)
                .unwrap_err()
                .to_string()
                .contains("census")
        );
    }
}
