//! The decoder: any eight words decode or name no call, and what was encoded comes back.

use pinfold_abi::describe::ValueInfo;
use pinfold_abi::{
    Counter, DEBUG_CALLS, ExitReason, FUNCTION_BASE, FUNCTION_COUNT, HostCall, State, Status,
    TraceKind,
};

/// Words at every edge, and a few in between.
const EDGES: [u64; 8] = [
    0,
    1,
    0xFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    1 << 36,
    u64::MAX - 1,
    u64::MAX,
];

#[test]
fn only_listed_functions_decode() {
    for n in 0..FUNCTION_COUNT {
        let listed = HostCall::TABLE.iter().any(|call| call.number == n);
        for edge in EDGES {
            let decoded =
                HostCall::decode([FUNCTION_BASE + n, edge, edge, edge, edge, edge, edge, edge]);
            assert_eq!(decoded.is_some(), listed, "{n:#x}");
            assert!(decoded.is_none_or(|call| call.number() == n));
        }
    }
}

#[test]
fn other_functions_do_not_decode() {
    for function in [
        0,
        1,
        FUNCTION_BASE - 1,
        FUNCTION_BASE + FUNCTION_COUNT,
        FUNCTION_BASE | 1 << 32,
        u64::MAX,
    ] {
        assert_eq!(HostCall::decode([function; 8]), None);
    }
}

#[test]
fn encode_undoes_decode() {
    for call in HostCall::TABLE {
        let mut x = [0; 8];
        x[0] = FUNCTION_BASE + call.number;
        for (word, number) in x.iter_mut().skip(1).zip(11..).take(call.arguments.len()) {
            *word = number;
        }
        assert_eq!(
            HostCall::decode(x).expect(call.name).encode(),
            x,
            "{}",
            call.name
        );
    }
}

#[test]
fn every_call_fits_the_registers() {
    for call in HostCall::TABLE {
        assert!(
            call.arguments.len() <= 7 && call.results.len() <= 6,
            "{}",
            call.name
        );
    }
}

#[test]
fn debug_calls_have_their_own_numbers() {
    for call in HostCall::TABLE {
        assert_eq!(
            call.debug,
            DEBUG_CALLS.contains(&call.number),
            "{}",
            call.name
        );
    }
}

fn is_dense(table: &[ValueInfo]) -> bool {
    (0..)
        .zip(table)
        .all(|(number, value)| value.number == number)
}

#[test]
fn numbers_are_dense_and_come_back() {
    assert!(is_dense(Status::TABLE) && is_dense(ExitReason::TABLE));
    assert!(is_dense(State::TABLE) && is_dense(Counter::TABLE) && is_dense(TraceKind::TABLE));
    for number in 0..40 {
        assert!(Status::from_number(number).is_none_or(|value| value.number() == number));
        assert!(State::from_number(number).is_none_or(|value| value.number() == number));
    }
}
