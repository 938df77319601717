//! `pinfold census`, `counters`, `stats`: one look at the hypervisor, as text.

use anyhow::Context;
use pinfold_abi::claim::CounterNumber;
use pinfold_abi::{Counter, HostCall};

use crate::control::Control;
use crate::ending::{ExitStatus, Failure};

/// Reads `123`, `0x7b` or `0x4000_0000`.
pub fn parse_number(text: &str) -> Result<u64, String> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let digits = digits.replace('_', "");
    let is_plain = digits.chars().all(|digit| digit.is_digit(radix));
    match u64::from_str_radix(&digits, radix) {
        Ok(number) if is_plain => Ok(number),
        Ok(_) | Err(_) => Err(format!(
            "`{text}` is not a number of 64 bits (decimal or 0x...)"
        )),
    }
}

/// Prints how many frames are in each state.
pub fn census() -> Result<ExitStatus, Failure> {
    let control = Control::open()?;
    control.expect_debug_calls()?;
    let counts = control.must(HostCall::FolioCensus {})?;
    let names = [
        "Host",
        "Hyp",
        "HostSharedHyp",
        "Guest",
        "GuestSharedHost",
        "Wiping, Poisoned",
    ];
    for (name, count) in names.iter().zip(counts) {
        println!("{name:16} {count:10}");
    }
    Ok(ExitStatus::Success)
}

/// Prints EL2's counters.
pub fn counters() -> Result<ExitStatus, Failure> {
    let control = Control::open()?;
    control.expect_debug_calls()?;
    for counter in Counter::TABLE {
        let [value, ..] = control.must(HostCall::Counter {
            counter: CounterNumber(counter.number),
        })?;
        println!("{:18} {value:12}  {}", counter.name, counter.text.trim());
    }
    Ok(ExitStatus::Success)
}

/// Prints the driver's counters.
pub fn stats() -> Result<ExitStatus, Failure> {
    let stats = Control::open()?
        .stats()
        .context("the driver refuses its counters")?;
    println!("{stats:#?}");
    Ok(ExitStatus::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        for (text, number) in [
            ("0", 0),
            ("123", 123),
            ("0x7B", 123),
            ("0x4000_0000", 0x4000_0000),
            ("18446744073709551615", u64::MAX),
            ("0xffffffffffffffff", u64::MAX),
        ] {
            assert_eq!(parse_number(text), Ok(number), "{text}");
        }
        for text in [
            "",
            "x",
            "0x",
            "-1",
            "+1",
            "0x+1",
            "1e3",
            "0x1_0000_0000_0000_0000",
            "_",
            "18446744073709551616",
        ] {
            assert!(parse_number(text).is_err(), "{text}");
        }
    }
}
