//! Thirty-two interrupts, one bit each, as the registers of a GIC show them.

/// No vCPU: the interrupt is nowhere.
pub(super) const NOBODY: u8 = u8::MAX;

/// State of thirty-two interrupts; bit n is interrupt n of the bank.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    /// Forwarding is enabled.
    pub(super) enabled: u32,
    /// An edge came, or software set it pending.
    pub(super) latch: u32,
    /// The input line is high.
    pub(super) line: u32,
    /// Level-sensitive rather than edge-triggered.
    pub(super) level: u32,
    /// Taken and not finished.
    pub(super) active: u32,
    /// Priorities, 0 the highest.
    pub(super) priority: [u8; 32],
    /// `GICD_IROUTER<n>`; not used for private interrupts.
    pub(super) router: [u64; 32],
    /// The vCPU that has it in a list register or active, or [`NOBODY`].
    pub(super) holder: [u8; 32],
}

impl Bank {
    /// A bank out of reset: all disabled; bit n of `level` says how it is triggered.
    pub(super) const fn new(level: u32) -> Self {
        Self {
            enabled: 0,
            latch: 0,
            line: 0,
            level,
            active: 0,
            priority: [0; 32],
            router: [0; 32],
            holder: [NOBODY; 32],
        }
    }

    /// Interrupts that are pending, enabled or not.
    pub(super) fn pending(&self) -> u32 {
        self.latch | self.line & self.level
    }

    /// Interrupts that can be signalled.
    pub(super) fn deliverable(&self) -> u32 {
        self.pending() & self.enabled
    }

    /// Sets the line of the interrupts in `bits`; a rising edge latches where edges count.
    pub(super) fn raise(&mut self, bits: u32) {
        self.latch |= bits & !self.line & !self.level;
        self.line |= bits;
    }

    /// Clears the line of the interrupts in `bits`.
    pub(super) fn lower(&mut self, bits: u32) {
        self.line &= !bits;
    }
}

/// The numbers of the bits that are set, lowest first.
pub(super) fn bits(mut word: u32) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros());
        word &= word.wrapping_sub(1);
        bit
    })
}
