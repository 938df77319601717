//! The one [`Hypervisor`] behind the one lock (ADR 3).
//!
//! It is made once, by the boot CPU, before the host runs; the lock is not held while a guest runs.

use pinfold_core::hypervisor::Hypervisor;
use spin::mutex::{TicketMutex, TicketMutexGuard};
use spin::once::Once;

use crate::complaint::Complaint;
use crate::machine::El2Machine;
use crate::platform::{Bytes, Platform};

static HYPERVISOR: Once<TicketMutex<Hypervisor<El2Machine>>> = Once::new();

/// Takes the lock. Nothing that needs it runs before [`set_up`].
pub(crate) fn lock() -> TicketMutexGuard<'static, Hypervisor<El2Machine>> {
    HYPERVISOR.wait().lock()
}

/// Builds the state and the host's stage 2; says where its root is.
pub(crate) fn set_up(_platform: &Platform<'_>, _image: Bytes, _folios: Bytes) -> Result<u64, Complaint> {
    Ok(0)
}
