//! Locks that guard tables: [`Watched`], a guard of which the checker of the protocol knows.

use core::ops::{Deref, DerefMut};

use crate::lock::{SpinMutex, SpinMutexGuard};

/// The one lock of memory, which guards all stage 2s.
pub(crate) const MEMORY: u8 = 0;
/// The lock of EL2's own stage 1.
pub(crate) const STAGE1: u8 = 1;

/// What a lock guards, while this CPU holds it. `LOCK` is the lock's number.
pub(crate) struct Watched<T: 'static, const LOCK: u8>(SpinMutexGuard<'static, T>);

impl<T, const LOCK: u8> Watched<T, LOCK> {
    /// Takes the lock.
    pub(crate) fn take(mutex: &'static SpinMutex<T>) -> Self {
        let guard = mutex.lock();
        taken::<LOCK>();
        Self(guard)
    }
}

impl<T, const LOCK: u8> Deref for Watched<T, LOCK> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T, const LOCK: u8> DerefMut for Watched<T, LOCK> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T, const LOCK: u8> Drop for Watched<T, LOCK> {
    fn drop(&mut self) {
        released::<LOCK>();
    }
}

/// Notes that this CPU holds what `LOCK` guards: by the lock, or because nobody else runs yet.
pub(crate) fn taken<const LOCK: u8>() {
    report!(Lock(pinfold_protocol::Lock(LOCK)));
}

/// Notes that it is about to hold it no longer.
pub(crate) fn released<const LOCK: u8>() {
    report!(Unlock(pinfold_protocol::Lock(LOCK)));
}
