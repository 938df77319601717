//! `pinfold call`, `folio`, `census`, `counters`, `stats`: one look at the hypervisor, as text.

use anyhow::Context;
use pinfold_abi::claim::{CounterNumber, Pfn};
use pinfold_abi::describe::CallInfo;
use pinfold_abi::{Counter, FUNCTION_BASE, HostCall, SMCCC_SUCCESS, State, Status};

use crate::control::Control;
use crate::ending::{ExitStatus, Failure};

/// The arguments of `pinfold call`.
#[derive(Clone, Debug, clap::Args)]
pub struct CallArguments {
    /// The call's name (`MEM_DONATE` or `mem-donate`) or its number
    pub name: String,
    /// x1 onwards, decimal or 0x...; what is left out is 0
    #[arg(value_parser = parse_number)]
    pub arguments: Vec<u64>,
}

/// Reads `123` or `0x7b`.
pub fn parse_number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| "is not a number (decimal or 0x...)".into())
}

/// Issues one call and prints what came back; status 1 if EL2 refused.
pub fn call(arguments: &CallArguments) -> Result<ExitStatus, Failure> {
    let registers = registers(arguments)?;
    let [function, ..] = registers;
    let info = function
        .checked_sub(FUNCTION_BASE)
        .and_then(|number| HostCall::TABLE.iter().find(|info| info.number == number));
    let returned = Control::open()?
        .raw(registers)
        .context("the driver refuses the call")?;
    println!("{}", describe(info, returned));
    let [smccc, status, ..] = returned;
    Ok(if smccc == SMCCC_SUCCESS && status == Status::Ok.number() {
        ExitStatus::Success
    } else {
        ExitStatus::Failed
    })
}

fn registers(arguments: &CallArguments) -> Result<[u64; 8], Failure> {
    let wanted = arguments.name.to_ascii_uppercase().replace('-', "_");
    let number = match parse_number(&arguments.name) {
        Ok(number) => number,
        Err(_) => HostCall::TABLE
            .iter()
            .find(|info| info.name == wanted)
            .map(|info| info.number)
            .ok_or_else(|| unknown_call(&arguments.name))?,
    };
    if arguments.arguments.len() > 7 {
        return Err(Failure::BadInput("a call has at most 7 arguments".into()));
    }
    let mut registers = [0; 8];
    let words =
        std::iter::once(FUNCTION_BASE.wrapping_add(number)).chain(arguments.arguments.clone());
    for (register, word) in registers.iter_mut().zip(words) {
        *register = word;
    }
    Ok(registers)
}

fn unknown_call(name: &str) -> Failure {
    let names: Vec<_> = HostCall::TABLE.iter().map(|info| info.name).collect();
    Failure::BadInput(format!(
        "there is no call {name}; there are {}",
        names.join(" ")
    ))
}

/// The outcome of a call in words: status, and results by name or the page that was refused.
fn describe(info: Option<&CallInfo>, returned: [u64; 8]) -> String {
    let [smccc, status, results @ ..] = returned;
    if smccc != SMCCC_SUCCESS {
        return "NOT_SUPPORTED: there is no such call".into();
    }
    if status == Status::Ok.number() {
        let fields = info.map_or([].as_slice(), |info| info.results);
        let lines = fields.iter().zip(results).map(|(field, value)| {
            format!("  {} = {value} ({value:#x}) {}", field.name, field.unit)
        });
        return std::iter::once(Status::Ok.name().to_owned())
            .chain(lines)
            .collect::<Vec<_>>()
            .join("\n");
    }
    let known = Status::TABLE.iter().find(|value| value.number == status);
    let status = match known {
        Some(value) => format!("{} ({}): {}", value.name, value.errno, value.text.trim()),
        None => format!("status {status}"),
    };
    let [index, folio_word, pin_word, ..] = results;
    format!("{status}\n  page index {index}, folio word {folio_word:#x}, pin word {pin_word:#x}")
}

/// Prints who owns a frame.
pub fn folio(pfn: u64) -> Result<ExitStatus, Failure> {
    let [word, state, order, vm, gfn, pin] =
        Control::open()?.must(HostCall::FolioQuery { pfn: Pfn(pfn) })?;
    let name = State::from_number(state).map_or("unknown", State::name);
    println!("frame {pfn:#x}: {name}, order {order}, folio word {word:#x}, pin word {pin:#x}");
    if vm != 0 {
        println!("  guest frame {gfn:#x} of VM {vm:#x}");
    }
    Ok(ExitStatus::Success)
}

/// Prints how many frames are in each state.
pub fn census() -> Result<ExitStatus, Failure> {
    let counts = Control::open()?.must(HostCall::FolioCensus {})?;
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

    fn arguments(name: &str, arguments: &[u64]) -> CallArguments {
        CallArguments {
            name: name.into(),
            arguments: arguments.into(),
        }
    }

    #[test]
    fn calls_go_by_name_or_number() {
        for name in ["MEM_DONATE", "mem-donate", "0x40", "64"] {
            let x = registers(&arguments(name, &[1, 2, 3])).unwrap();
            assert_eq!(x, [0xC600_0140, 1, 2, 3, 0, 0, 0, 0], "{name}");
        }
        let error = registers(&arguments("mem-eat", &[])).unwrap_err();
        assert!(error.to_string().contains("MEM_DONATE"), "{error}");
        assert!(registers(&arguments("version", &[0; 8])).is_err());
    }

    #[test]
    fn outcomes_are_in_words() {
        let version = HostCall::TABLE.first();
        let text = describe(version, [0, 0, 0x1_0000, 0, 0, 0, 0, 0]);
        assert!(text.contains("version = 65536 (0x10000)"), "{text}");
        let text = describe(None, [0, 9, 2, 0x5, 0x1, 0, 0, 0]);
        assert!(text.starts_with("NOT_EXCLUSIVELY_PINNED (EBUSY)"), "{text}");
        assert!(
            text.contains("page index 2, folio word 0x5, pin word 0x1"),
            "{text}"
        );
        let text = describe(None, [u64::MAX; 8]);
        assert!(text.starts_with("NOT_SUPPORTED"), "{text}");
    }
}
