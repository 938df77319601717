//! The C header of the driver.

use std::fmt::Write;

use pinfold_abi::describe::{CallInfo, ValueInfo};
use pinfold_abi::{Counter, ExitReason, HostCall, State, Status, TraceKind, limit, pin_word};

const TOP: &str = "\
/* SPDX-License-Identifier: (GPL-2.0 OR MIT) */
/*
 * The calls between the host and Pinfold at EL2.
 *
 * Made from hyp/abi/src/table.rs; edit that and run
 * PINFOLD_BLESS=1 cargo test -p pinfold-abi
 *
 * x0 = function, x1... = arguments. Back come x0 = PINFOLD_SMCCC_SUCCESS,
 * x1 = status, x2... = results; on a refusal x2 = index of the failing frame,
 * x3 = the folio word found there, x4 = the pin word.
 */
#ifndef PINFOLD_ABI_H
#define PINFOLD_ABI_H

#include <linux/errno.h>
#include <linux/types.h>
";

pub(crate) fn text() -> String {
    let mut out = String::from(TOP);
    identity(&mut out);
    out.push_str("\n/* Functions: arguments from x1, results from x2. */\n");
    for call in HostCall::TABLE {
        function(&mut out, call);
    }
    values(&mut out, "Statuses (x1).", "STATUS", Status::TABLE);
    values(
        &mut out,
        "Exit reasons (x2 of VCPU_RUN).",
        "EXIT",
        ExitReason::TABLE,
    );
    values(
        &mut out,
        "States of a folio (x3 of FOLIO_QUERY).",
        "STATE",
        State::TABLE,
    );
    values(
        &mut out,
        "Counters (x1 of COUNTER).",
        "COUNTER",
        Counter::TABLE,
    );
    values(
        &mut out,
        "Kinds of trace entries (word 0).",
        "TRACE",
        TraceKind::TABLE,
    );
    values(&mut out, "Limits.", "LIMIT", limit::TABLE);
    pins(&mut out);
    errno(&mut out);
    out.push_str("\n#endif /* PINFOLD_ABI_H */\n");
    out
}

fn define(out: &mut String, name: &str, value: &str) {
    let tabs = "\t".repeat(5_usize.saturating_sub((8 + name.len()) / 8).max(1));
    writeln!(out, "#define {name}{tabs}{value}").expect("a string takes all");
}

fn identity(out: &mut String) {
    out.push('\n');
    define(out, "PINFOLD_SMCCC_SUCCESS", "0");
    define(out, "PINFOLD_SMCCC_NOT_SUPPORTED", "(-1)");
    define(
        out,
        "PINFOLD_VERSION_1_0",
        &format!("{:#010x}", pinfold_abi::VERSION),
    );
    define(
        out,
        "PINFOLD_UUID_FUNCTION",
        &format!("{:#010x}", pinfold_abi::UUID_FUNCTION),
    );
    for (index, word) in pinfold_abi::UUID_WORDS.iter().enumerate() {
        define(
            out,
            &format!("PINFOLD_UUID_WORD{index}"),
            &format!("{word:#010x}"),
        );
    }
    define(
        out,
        "PINFOLD_FEATURE_DEBUG_CALLS",
        &format!("{:#x}", pinfold_abi::FEATURE_DEBUG_CALLS),
    );
    define(
        out,
        "PINFOLD_VM_PROTECTED",
        &format!("{:#x}", pinfold_abi::VM_PROTECTED),
    );
    for (name, value) in [
        ("PINFOLD_ACCESS_READ", pinfold_abi::ACCESS_READ),
        ("PINFOLD_ACCESS_WRITE", pinfold_abi::ACCESS_WRITE),
        ("PINFOLD_ACCESS_EXECUTE", pinfold_abi::ACCESS_EXECUTE),
    ] {
        define(out, name, &format!("{value:#x}"));
    }
    define(
        out,
        "PINFOLD_VCPU_POWERED_OFF",
        &format!("{:#x}", pinfold_abi::VCPU_POWERED_OFF),
    );
    define(out, "PINFOLD_REGISTER_PC", "32");
}

fn function(out: &mut String, call: &CallInfo) {
    let names = |fields: &[pinfold_abi::describe::FieldInfo]| {
        fields
            .iter()
            .map(|field| field.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let results = names(call.results);
    let arrow = if results.is_empty() {
        String::new()
    } else {
        format!(" -> {results}")
    };
    writeln!(out, "\n/* ({}){arrow} */", names(call.arguments)).expect("a string takes all");
    let function = pinfold_abi::FUNCTION_BASE + call.number;
    define(
        out,
        &format!("PINFOLD_CALL_{}", call.name),
        &format!("{function:#010x}"),
    );
}

fn values(out: &mut String, title: &str, kind: &str, table: &[ValueInfo]) {
    writeln!(out, "\n/* {title} */").expect("a string takes all");
    for value in table {
        define(
            out,
            &format!("PINFOLD_{kind}_{}", value.name),
            &value.number.to_string(),
        );
    }
}

fn pins(out: &mut String) {
    out.push_str("\n/* The pin word: one u32 for each frame, at the head of a folio. */\n");
    define(
        out,
        "PINFOLD_PIN_COUNT_MASK",
        &format!("{:#010x}", pin_word::COUNT_MASK),
    );
    define(
        out,
        "PINFOLD_PIN_ORDER_SHIFT",
        &pin_word::ORDER_SHIFT.to_string(),
    );
    define(
        out,
        "PINFOLD_PIN_ORDER_MASK",
        &format!("{:#010x}", pin_word::ORDER_MASK),
    );
    define(
        out,
        "PINFOLD_PIN_EXCLUSIVE",
        &format!("{:#010x}", pin_word::EXCLUSIVE),
    );
    define(
        out,
        "PINFOLD_PIN_ISOLATED",
        &format!("{:#010x}", pin_word::ISOLATED),
    );
}

fn errno(out: &mut String) {
    out.push_str("\n/* What a status means to the rest of Linux: 0 or a negative errno. */\n");
    out.push_str("static inline int pinfold_status_errno(__u64 status)\n{\n\tswitch (status) {\n");
    for status in Status::TABLE {
        let errno = if status.errno == "0" {
            "0".to_owned()
        } else {
            format!("-{}", status.errno)
        };
        writeln!(
            out,
            "\tcase PINFOLD_STATUS_{}:\n\t\treturn {errno};",
            status.name
        )
        .expect("a string takes all");
    }
    out.push_str("\tdefault:\n\t\treturn -EIO;\n\t}\n}\n");
}
