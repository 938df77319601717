//! What every call of the mini host came to, counted by call and status; and the first answer that no call may give.
//!
//! [`note`] sees every reply. It counts once [`begin`] was called; an answer that makes no sense is remembered always.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest_test::line;
use guest_test::lock::SpinMutex;
use guest_test::tap::{Failure, Outcome};
use pinfold_abi::{FUNCTION_BASE, HostCall, Status};

use crate::calls::Reply;
use guest_test::smccc;

/// Calls that are told apart: those of the table, and all others.
const CALLS: usize = HostCall::TABLE.len() + 1;
/// Answers that are told apart: statuses by number, and `NOT_SUPPORTED` last.
const ANSWERS: usize = 65;

static COUNTS: [[AtomicU64; ANSWERS]; CALLS] =
    [const { [const { AtomicU64::new(0) }; ANSWERS] }; CALLS];
static COUNTING: AtomicBool = AtomicBool::new(false);
static WRONG: SpinMutex<Option<Failure>> = SpinMutex::new(None);

/// Begins to count.
pub(crate) fn begin() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Notes what the call `id` came to.
pub(crate) fn note(id: u32, reply: &Reply) {
    let number = u64::from(id).checked_sub(FUNCTION_BASE);
    let mut table = HostCall::TABLE.iter();
    let call = table.position(|info| Some(info.number) == number);
    let status = Status::from_number(reply.status);
    let answer = match (call, reply.x0, status) {
        (Some(_), 0, Some(status)) => usize::try_from(status.number()).ok(),
        (_, smccc::NOT_SUPPORTED, _) => Some(ANSWERS - 1),
        // The calls of SMCCC itself have answers of their own.
        (None, ..) if number.is_none() => Some(0),
        _ => None,
    };
    let place = COUNTS.get(call.unwrap_or(CALLS - 1));
    match place
        .zip(answer)
        .and_then(|(answers, answer)| answers.get(answer))
    {
        Some(count) if COUNTING.load(Ordering::Relaxed) => {
            count.fetch_add(1, Ordering::Relaxed);
        }
        Some(_) => {}
        None => report(Failure::new(format_args!("call {id:#x} gave {reply:x?}"))),
    }
}

/// Remembers the first failure.
pub(crate) fn report(failure: Failure) {
    WRONG.lock().get_or_insert(failure);
}

/// Whether something went wrong.
pub(crate) fn is_wrong() -> bool {
    WRONG.lock().is_some()
}

/// What went wrong first.
pub(crate) fn verdict() -> Outcome {
    WRONG.lock().map_or(Ok(()), Err)
}

fn count(call: usize, answer: usize) -> u64 {
    let count = COUNTS.get(call).and_then(|answers| answers.get(answer));
    count.map_or(0, |count| count.load(Ordering::Relaxed))
}

/// How many calls there were, and how many of them were done.
pub(crate) fn totals() -> [u64; 2] {
    let all = (0..CALLS).flat_map(|call| (0..ANSWERS).map(move |answer| count(call, answer)));
    let done = (0..CALLS - 1).map(|call| {
        let again = usize::try_from(Status::Again.number()).unwrap_or(0);
        count(call, 0) + count(call, again)
    });
    [all.sum(), done.sum()]
}

/// One number for all counts: two runs that are the same have the same.
pub(crate) fn digest() -> u64 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let counts = (0..CALLS).flat_map(|call| (0..ANSWERS).map(move |answer| count(call, answer)));
    counts.fold(0xcbf2_9ce4_8422_2325, |hash: u64, count| {
        (hash ^ count).wrapping_mul(PRIME)
    })
}

/// Prints all counts that are not 0.
pub(crate) fn print() {
    let names = HostCall::TABLE.iter().map(|info| info.name);
    for (call, name) in names.chain(["(not in the table)"]).enumerate() {
        for answer in 0..ANSWERS {
            let count = count(call, answer);
            let number = u64::try_from(answer).unwrap_or(0);
            match Status::from_number(number) {
                _ if count == 0 => {}
                Some(status) if answer < ANSWERS - 1 => line!("#   {count:>9} {name} {status:?}"),
                _ => line!("#   {count:>9} {name} NOT_SUPPORTED"),
            }
        }
    }
}
