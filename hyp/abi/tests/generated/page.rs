//! The reference page of the book.

use std::fmt::Write;

use pinfold_abi::describe::{CallInfo, FieldInfo, GuestCallInfo, ValueInfo};
use pinfold_abi::{Counter, ExitReason, GuestFunction, HostCall, State, Status, TraceKind, limit};

const TOP: &str = "\
# The calls between host, guests and EL2

Made from `hyp/abi/src/table.rs`; edit that and run `PINFOLD_BLESS=1 cargo test -p pinfold-abi`.

A call is an `HVC #0` with the function in x0 (SMCCC fast call, 64 bit, owner 6) and arguments from x1. Back come x0 = 0, x1 = status
and results from x2. A function that EL2 does not know returns x0 = -1 and nothing else. A refused call changed nothing; it returns x2 = index of the
failing frame, x3 = the folio word found there and x4 = the pin word, 0 where none applies. Registers that are not named here keep their values.

The UUID call `0x8600FF01` returns 5d1f8f3c-6c0b-4c0e-9a57-50494e464f4c in w0 to w3.
";

const GUEST_CALLS: &str = "
## Guest calls

An `HVC #0` or `SMC #0` with the function in w0 and arguments from x1; a function of 32 bits takes the lower halves of them. Results come from x0. What is not listed, or
not for the guest that calls, returns x0 = NOT_SUPPORTED (-1), and an argument that does not fit INVALID_PARAMETER (-3), unless said otherwise. A refused call changed nothing.
Results are x0 to x3 in all; of the services from 0x86000000, those that are not named are 0.

";

const PIN_WORD: &str = "
## The pin word

One little-endian u32 for each frame. If the pin is exclusive: bits 23:0 pin count, 27:24 folio order, 30 exclusive, 31 isolated; otherwise bits 29:0 pin count. The word stands at the head of a folio; the words of the tails are 0.
A folio may be donated if its word is exactly `0xC0000001 | order << 24`.

## The folio word

| Bits | Meaning |
|---|---|
| 30, 2:0 | state, its highest bit in bit 30 |
| 6:3 | order |
| 7 | a tail: the frame belongs to the folio whose head is at the PFN rounded down to the order |
| 23:8 | a count: pins of HostSharedHyp, shares of HostSharedGuest, frames cleaned so far of Arriving, frames wiped so far of Wiping, entries in use of a table of EL2 |
| 29:24 | slot of the VM |
| 63:36 | GFN of the first frame |
";

pub(crate) fn text() -> String {
    let mut out = String::from(TOP);
    out.push_str(
        "\n## Host calls\n\n| n | Call | When | Arguments | Results |\n|---|---|---|---|---|\n",
    );
    for call in HostCall::TABLE {
        row(&mut out, call);
    }
    out.push('\n');
    for call in HostCall::TABLE {
        detail(&mut out, call);
    }
    statuses(&mut out);
    values(&mut out, "Exit reasons", ExitReason::TABLE);
    out.push_str(GUEST_CALLS);
    for call in GuestFunction::TABLE {
        guest_detail(&mut out, call);
    }
    values(&mut out, "States", State::TABLE);
    values(&mut out, "Counters", Counter::TABLE);
    values(&mut out, "Kinds of trace entries", TraceKind::TABLE);
    values(&mut out, "Limits", limit::TABLE);
    out.push_str(PIN_WORD);
    out
}

fn row(out: &mut String, call: &CallInfo) {
    let list = |first: usize, fields: &[FieldInfo]| {
        fields
            .iter()
            .enumerate()
            .map(|(index, field)| format!("x{} {}", first + index, field.name))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let debug = if call.debug { " (debug)" } else { "" };
    let (arguments, results) = (list(1, call.arguments), list(2, call.results));
    writeln!(
        out,
        "| {:#04x} | {}{debug} | {} | {arguments} | {results} |",
        call.number, call.name, call.phase
    )
    .expect("a string takes all");
}

fn detail(out: &mut String, call: &CallInfo) {
    writeln!(out, "### {}\n\n{}\n", call.name, call.text).expect("a string takes all");
    fields(out, 1, call.arguments, 2, call.results);
}

fn guest_detail(out: &mut String, call: &GuestCallInfo) {
    let numbers: Vec<_> = call
        .numbers
        .iter()
        .map(|number| format!("`{number:#010X}`"))
        .collect();
    let guests = if call.caller == "any" {
        "any guest"
    } else {
        "protected guests"
    };
    let numbers = numbers.join(", ");
    writeln!(
        out,
        "### {}\n\n{numbers}, {guests}. {}\n",
        call.name, call.text
    )
    .expect("a string takes all");
    fields(out, 1, call.arguments, 0, call.results);
}

/// Arguments and results, from these registers on.
fn fields(
    out: &mut String,
    first_in: usize,
    ins: &[FieldInfo],
    first_out: usize,
    outs: &[FieldInfo],
) {
    for (way, first, fields) in [("in", first_in, ins), ("out", first_out, outs)] {
        for (index, field) in fields.iter().enumerate() {
            writeln!(
                out,
                "* {way} x{}: {} ({}): {}",
                first + index,
                field.name,
                field.unit,
                field.text
            )
            .expect("a string takes all");
        }
    }
    if !(ins.is_empty() && outs.is_empty()) {
        out.push('\n');
    }
}

fn statuses(out: &mut String) {
    out.push_str("## Statuses\n\n| x1 | Name | errno | Meaning |\n|---|---|---|---|\n");
    for status in Status::TABLE {
        writeln!(
            out,
            "| {} | {} | {} | {} |",
            status.number, status.name, status.errno, status.text
        )
        .expect("a string takes all");
    }
}

fn values(out: &mut String, title: &str, table: &[ValueInfo]) {
    writeln!(
        out,
        "\n## {title}\n\n| Number | Name | Meaning |\n|---|---|---|"
    )
    .expect("a string takes all");
    for value in table {
        writeln!(
            out,
            "| {} | {} | {} |",
            value.number, value.name, value.text
        )
        .expect("a string takes all");
    }
}
