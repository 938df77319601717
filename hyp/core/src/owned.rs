//! A box whose allocation can be refused.
//!
//! `Box::new` aborts when the pool is dry, and a host can dry it; [`Owned`] says no instead. Stable Rust has a
//! fallible reservation only for `Vec`, so the value is a boxed array of one.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// One value on the heap.
#[derive(Debug)]
#[cfg_attr(any(test, feature = "test-machine"), derive(Clone))]
pub struct Owned<T>(Box<[T; 1]>);

impl<T> Owned<T> {
    /// Makes a value on the heap, or returns nothing when the heap has no room for it. A large value made first would be copied there.
    #[must_use]
    #[inline]
    pub fn try_new(make: impl FnOnce() -> T) -> Option<Self> {
        let mut cell = Vec::new();
        make_room(&mut cell)?;
        cell.push(make());
        cell.into_boxed_slice().try_into().ok().map(Self)
    }
}

/// Makes room for one more, or returns nothing when the heap has none.
pub(crate) fn make_room<T>(list: &mut Vec<T>) -> Option<()> {
    #[cfg(any(test, feature = "test-machine"))]
    if crate::machine::test::is_scarce() {
        return None;
    }
    list.try_reserve_exact(1).ok()
}

impl<T> Deref for Owned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        let [value] = &*self.0;
        value
    }
}

impl<T> DerefMut for Owned<T> {
    fn deref_mut(&mut self) -> &mut T {
        let [value] = &mut *self.0;
        value
    }
}
