//! Frames that EL2 wrote and has not cleaned to the point of coherency: [`Dirty`].

/// As many as EL2 works on at a time, with room to spare.
const MOST: usize = 64;

/// The frames, in no order.
#[derive(Clone)]
pub(crate) struct Dirty {
    frames: [u64; MOST],
    count: usize,
}

impl Dirty {
    pub(crate) const fn new() -> Self {
        Self {
            frames: [0; MOST],
            count: 0,
        }
    }

    fn all(&self) -> &[u64] {
        self.frames.get(..self.count).unwrap_or_default()
    }

    /// Notes a frame; says whether there was room.
    pub(crate) fn add(&mut self, frame: u64) -> bool {
        if self.all().contains(&frame) {
            return true;
        }
        let Some(place) = self.frames.get_mut(self.count) else {
            return false;
        };
        *place = frame;
        self.count = self.count.saturating_add(1);
        true
    }

    /// Forgets a frame.
    pub(crate) fn remove(&mut self, frame: u64) {
        if let Some(place) = self.all().iter().position(|known| *known == frame) {
            self.count = self.count.saturating_sub(1);
            self.frames.swap(place, self.count);
        }
    }

    /// The first of those within `count` frames from `first`.
    pub(crate) fn within(&self, first: u64, count: u64) -> Option<u64> {
        let known = |frame: &&u64| frame.checked_sub(first).is_some_and(|at| at < count);
        self.all().iter().find(known).copied()
    }
}
