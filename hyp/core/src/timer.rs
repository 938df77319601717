//! The virtual timer, between two runs.
//!
//! While a guest runs, the hardware has the timer (`CNTVOFF_EL2` = 0 for protected guests); while it does not, these
//! functions say what the hardware would. `CNTV_CTL_EL0` is in DDI 0487 D24.10.24.

use crate::vcpu::TimerState;

const ENABLE: u64 = 1;
const MASKED: u64 = 1 << 1;

impl TimerState {
    /// Its interrupt line is high at counter value `now`.
    #[must_use]
    pub fn is_due(self, now: u64) -> bool {
        self.deadline() <= now && self.deadline() != u64::MAX
    }

    /// The counter value at which its interrupt line goes high; [`u64::MAX`] for never.
    #[must_use]
    pub fn deadline(self) -> u64 {
        if self.control & (ENABLE | MASKED) == ENABLE {
            self.compare
        } else {
            u64::MAX
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_follows_control_and_compare() {
        let timer = |control, compare| TimerState { control, compare };
        assert!(timer(1, 100).is_due(100));
        assert!(timer(5, 100).is_due(101), "ISTATUS does not matter");
        assert!(!timer(1, 100).is_due(99));
        assert!(!timer(0, 100).is_due(200));
        assert!(!timer(3, 100).is_due(200));
        assert!(!timer(1, u64::MAX).is_due(u64::MAX - 1));
        assert_eq!(timer(1, 100).deadline(), 100);
        assert_eq!(timer(3, 100).deadline(), u64::MAX);
    }
}
