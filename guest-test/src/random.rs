//! Repeatable pseudo-random words (xorshift64*, Vigna 2014): the same seed gives the same storm.

/// A generator; one per CPU.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose words depend on `seed` alone.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// The next word.
    pub const fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A word below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        match self.word().checked_rem(bound) {
            Some(word) => word,
            None => 0,
        }
    }
}
