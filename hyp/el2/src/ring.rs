//! The last host calls of one CPU, for the panic to tell.
//!
//! A ring of [`LENGTH`] entries that only its own CPU writes; a panic may read it from there or elsewhere, and finds at
//! worst an entry half new. Keeping it costs a few stores for each call.

use core::fmt;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many calls are kept.
const LENGTH: usize = 8;

/// One call: the function and its first four arguments.
#[derive(Debug)]
struct Entry([AtomicU64; 5]);

/// The ring.
#[derive(Debug)]
pub(crate) struct CallRing {
    entries: [Entry; LENGTH],
    next: AtomicUsize,
}

impl CallRing {
    /// An empty ring.
    pub(crate) const fn new() -> Self {
        Self {
            entries: [const { Entry([const { AtomicU64::new(0) }; 5]) }; LENGTH],
            next: AtomicUsize::new(0),
        }
    }

    /// Notes a call by its x0 to x4.
    pub(crate) fn note(&self, x: [u64; 5]) {
        let next = self.next.load(Ordering::Relaxed);
        if let Some(Entry(words)) = self.entries.get(next % LENGTH) {
            for (word, value) in words.iter().zip(x) {
                word.store(value, Ordering::Relaxed);
            }
        }
        self.next.store(next.wrapping_add(1), Ordering::Relaxed);
    }
}

impl fmt::Display for CallRing {
    /// One line for each call, the oldest first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let next = self.next.load(Ordering::Relaxed);
        for age in (1..=LENGTH.min(next)).rev() {
            if let Some(Entry(words)) = self.entries.get(next.wrapping_sub(age) % LENGTH) {
                write!(f, "  call")?;
                for word in words {
                    write!(f, " {:#x}", word.load(Ordering::Relaxed))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
