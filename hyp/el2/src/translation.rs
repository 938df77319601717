//! All that walkers and TLBs depend on, and the only place for it: stores of descriptors ([`table`]), barriers ([`barrier`]),
//! invalidations ([`tlb`]), VTTBR_EL2 ([`root`]).
//!
//! With the feature `check-protocol` each of them reports what it does to [`watch`], and so do the locks ([`lock`]) and the heap. That is
//! why there must be no second place; `make check` looks for these instructions and registers everywhere else.

/// Tells the checker of a step, if there is a checker.
#[cfg(feature = "check-protocol")]
macro_rules! report {
    ($name:ident $($rest:tt)*) => {
        $crate::translation::watch::see(pinfold_protocol::Event::$name $($rest)*)
    };
}

#[cfg(not(feature = "check-protocol"))]
macro_rules! report {
    ($($event:tt)*) => {};
}

/// Whether the fault of this name is on. An image without a checker has none.
#[cfg(feature = "check-protocol")]
macro_rules! fault {
    ($name:ident) => {
        $crate::translation::watch::is($crate::translation::watch::Fault::$name)
    };
}

#[cfg(not(feature = "check-protocol"))]
macro_rules! fault {
    ($name:ident) => {
        false
    };
}

pub(crate) mod barrier;
pub(crate) mod lock;
pub(crate) mod root;
pub(crate) mod table;
pub(crate) mod tlb;
#[cfg_attr(not(feature = "check-protocol"), path = "translation/unwatched.rs")]
pub(crate) mod watch;
