//! The addresses that `linker/hyp.ld` fixes, as numbers.
//!
//! Invariant: only addresses of these symbols are taken; nothing is read through them.

macro_rules! symbols {
    ($($(#[$meta:meta])* $name:ident;)*) => {
        mod raw {
            // SAFETY: hyp.ld and boot.S define each of these names.
            unsafe extern "C" {
                $(pub(super) safe static $name: u8;)*
            }
        }
        $(
            $(#[$meta])*
            pub(crate) fn $name() -> usize {
                (&raw const raw::$name).expose_provenance()
            }
        )*
    };
}

symbols! {
    /// The first byte of the image, which is text.
    image_start;
    /// One past the text; constants follow.
    text_end;
    /// One past the constants; data and bss follow.
    rodata_end;
    /// One past the data; the CPUs' stacks follow.
    stacks_start;
    /// One past the stacks; bss follows.
    stacks_end;
    /// One past bss: the image ends.
    image_end;
    /// Where `CPU_ON` and `CPU_SUSPEND` come back to.
    secondary_entry;
}
