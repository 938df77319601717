//! Arguments as the caller states them: each a `u64` with its meaning in its type, and nothing checked.

macro_rules! claims {
    ($($(#[$doc:meta])* $name:ident, $unit:literal;)*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
            pub struct $name(pub u64);

            impl $name {
                /// What the number counts, for the reference page.
                pub const UNIT: &'static str = $unit;
            }
        )*
    };
}

claims! {
    /// The handle of a VM.
    Handle, "VM handle";
    /// The number of a physical frame.
    Pfn, "PFN";
    /// The number of a frame of the guest.
    Gfn, "GFN";
    /// A byte address of the guest.
    Ipa, "IPA";
    /// How many.
    Count, "count";
    /// The order of a folio.
    Order, "order";
    /// The index of a vCPU.
    VcpuIndex, "vCPU index";
    /// A set of bits.
    Flags, "bits";
    /// What may be done with memory.
    Access, "access bits";
    /// A number out of a list.
    Number, "number";
    /// The number of a counter.
    CounterNumber, "counter";
    /// A value, all 64 bits of which count.
    Value, "value";
}
