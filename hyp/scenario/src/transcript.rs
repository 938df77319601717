//! What is compared between executors: [`Transcript`], the outcomes of a run without what each machine chooses for itself.
//!
//! A frame's number, a handle, how full the pool is differ from machine to machine and are left out, and so is
//! what a scenario leaves open (`A | B`). Behind parallel lines the order in
//! which they ran decides, so that nothing is noted any more.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use pinfold_abi::folio_word::FolioWord;
use pinfold_abi::show::{Answer, Outcome as Meaning};

use crate::executor::Outcome;

/// The lines so far.
#[derive(Clone, Default, Debug)]
pub(crate) struct Transcript {
    lines: Vec<String>,
    is_closed: bool,
}

impl Transcript {
    /// Notes what came of the command at `line`.
    pub(crate) fn note(&mut self, line: u32, outcome: &Outcome) {
        if !self.is_closed {
            self.lines.push(format!("{line}: {}", text(outcome)));
        }
    }

    /// Nothing is comparable from here on.
    pub(crate) const fn close(&mut self) {
        self.is_closed = true;
    }

    /// The lines, and their 64-bit FNV-1a.
    pub(crate) fn finish(self) -> (Vec<String>, u64) {
        let bytes = self
            .lines
            .iter()
            .flat_map(|line| line.bytes().chain([b'\n']));
        let digest = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        (self.lines, digest)
    }
}

fn text(outcome: &Outcome) -> String {
    let Outcome::Answer { call, x } = outcome else {
        return format!("{outcome}");
    };
    let [_, _, results @ ..] = x;
    let [index, folio_word, pin_word, ..] = results;
    match (Answer { call: *call, x: *x }).outcome() {
        Meaning::NotSupported => "NOT_SUPPORTED".into(),
        Meaning::Foreign => "answered".into(),
        Meaning::Unknown(status) => format!("status {status}"),
        Meaning::Refused(status) => format!("{} {index}", status.name()),
        Meaning::RefusedAt(status) => format!(
            "{} {index} {} {pin_word:#x}",
            status.name(),
            word(*folio_word)
        ),
        Meaning::Results(status) => {
            let counted = call
                .filter(|info| !info.debug)
                .and_then(|info| info.results.first());
            match counted.filter(|field| matches!(field.name, "done" | "taken")) {
                Some(field) => format!("{} {}={index}", status.name(), field.name),
                None => status.name().into(),
            }
        }
    }
}

/// A folio word without the VM's slot and EL2's own counts.
fn word(word: u64) -> String {
    match FolioWord::decode(word) {
        FolioWord::Tail { order } => format!("tail {order}"),
        FolioWord::Head {
            state,
            order,
            owner,
            ..
        } => {
            let gfn = owner.map_or(0, |(_, gfn)| gfn);
            format!("{} {order} {gfn:#x}", state.name())
        }
    }
}
