//! `pinfold page` and `pinfold pages`: who owns frames, one by one and all of RAM in ranges.
//!
//! Both ask EL2 and decide nothing; what a state is called stands in the ABI table. EL2 may change hands of a frame between two
//! questions: a list of a busy machine is not of one moment.

use std::fmt::Write;

use anyhow::Context;
use pinfold_abi::claim::Pfn;
use pinfold_abi::folio_word::FolioWord;
use pinfold_abi::show::{FolioText, PinText};
use pinfold_abi::{HostCall, State};

use crate::control::{Control, Refused};
use crate::ending::{ExitStatus, Failure};
use crate::inspect::parse_number;
use crate::json::Json;
use crate::layout::PAGE;
use crate::output::{self, Reader};

/// The most frames that `pinfold page` looks at.
const MOST_PAGES: u64 = 4096;

/// The arguments of `pinfold page`.
#[derive(Clone, Debug, clap::Args)]
pub struct PageArguments {
    /// Frame numbers, decimal or 0x...; FIRST-LAST for a range
    #[arg(required = true, value_parser = parse_frames)]
    pub frames: Vec<Frames>,
    /// Print JSON, one object for each frame
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `pinfold pages`.
#[derive(Clone, Debug, clap::Args)]
pub struct PagesArguments {
    /// Only frames in this state (may be given more than once)
    #[arg(long, value_name = "STATE", value_parser = parse_state)]
    pub state: Vec<State>,
    /// Only frames of the VM with this handle
    #[arg(long, value_name = "HANDLE", value_parser = parse_number)]
    pub vm: Option<u64>,
    /// Do not join ranges of one state and owner whose orders or places at the owner differ
    #[arg(long)]
    pub exact: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Frames that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    first: u64,
    count: u64,
}

fn parse_frames(text: &str) -> Result<Frames, String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_number(first)?, parse_number(last)?);
    let count = last.checked_sub(first).map(|more| more.saturating_add(1));
    match count {
        None => Err(format!("the last frame, {last:#x}, is before the first")),
        Some(MOST_PAGES..) if last != first => {
            Err(format!("is a range of more than {MOST_PAGES} frames"))
        }
        Some(count) => Ok(Frames { first, count }),
    }
}

/// Reads the name of a state, as the ABI table has it or in small letters.
pub fn parse_state(text: &str) -> Result<State, String> {
    let wanted = text.to_ascii_uppercase().replace('-', "_");
    let found = State::TABLE.iter().find(|info| info.name == wanted);
    found
        .and_then(|info| State::from_number(info.number))
        .ok_or_else(|| {
            let names: Vec<_> = State::TABLE.iter().map(|info| info.name).collect();
            format!("is no state; there are {}", names.join(" "))
        })
}

/// What EL2 says of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Page {
    pfn: u64,
    word: u64,
    state: u64,
    order: u64,
    vm: u64,
    gfn: u64,
    pin: u64,
}

impl Page {
    fn look(control: &Control, pfn: u64) -> Result<Self, Failure> {
        let reply = control
            .call(HostCall::FolioQuery { pfn: Pfn(pfn) })
            .context("the driver refuses the call")?;
        let [word, state, order, vm, gfn, pin] = match reply.done() {
            Ok(results) => results,
            Err(Refused::NotSupported) => return Err(Failure::NoDebugCalls),
            Err(refused) => {
                let refusal = anyhow::Error::from(refused);
                return Err(refusal.context(format!("EL2 refuses PFN {pfn:#x}")).into());
            }
        };
        Ok(Self {
            pfn,
            word,
            state,
            order,
            vm,
            gfn,
            pin,
        })
    }

    /// The first frame of the folio, if that is another one.
    fn head(&self) -> Option<u64> {
        match FolioWord::decode(self.word) {
            FolioWord::Tail { order } => Some(self.pfn >> order << order),
            FolioWord::Head { .. } => None,
        }
    }

    fn text(&self) -> String {
        let Self { pfn, word, pin, .. } = *self;
        let mut text = format!(
            "PFN {pfn:#x} (address {:#x}): {}, order {}",
            pfn.saturating_mul(PAGE),
            state_name(self.state),
            self.order
        );
        if self.vm != 0 {
            let (vm, gfn) = (self.vm, self.gfn);
            let ipa = gfn.saturating_mul(PAGE);
            write!(text, ", VM {vm:#x}, GFN {gfn:#x} (IPA {ipa:#x})").unwrap_or_default();
        }
        if let Some(head) = self.head() {
            write!(text, "; its folio begins at PFN {head:#x}").unwrap_or_default();
        }
        let (folio, pins) = (FolioText(word), PinText(pin));
        write!(
            text,
            "\n  folio word {word:#x}: {folio}\n  pin word {pin:#x}: {pins}"
        )
        .unwrap_or_default();
        text
    }

    fn json(&self) -> Json {
        let owned = |value| {
            if self.vm == 0 {
                Json::Null
            } else {
                Json::Hex(value)
            }
        };
        Json::Object(vec![
            ("pfn", Json::Hex(self.pfn)),
            ("state", Json::text(state_name(self.state))),
            ("order", Json::Number(self.order)),
            ("vm", owned(self.vm)),
            ("gfn", owned(self.gfn)),
            ("ipa", owned(self.gfn.saturating_mul(PAGE))),
            ("head", Json::Hex(self.head().unwrap_or(self.pfn))),
            ("folio_word", Json::Hex(self.word)),
            ("pin_word", Json::Hex(self.pin)),
            ("pin", Json::text(PinText(self.pin))),
        ])
    }
}

fn state_name(number: u64) -> String {
    State::from_number(number).map_or_else(
        || format!("state {number}"),
        |state| state.name().to_owned(),
    )
}

/// Prints what EL2 says of some frames.
pub fn page(arguments: &PageArguments) -> Result<ExitStatus, Failure> {
    let control = Control::open()?;
    for frames in &arguments.frames {
        let last = frames.first.saturating_add(frames.count - 1);
        for pfn in frames.first..=last {
            let page = Page::look(&control, pfn)?;
            let text = if arguments.json {
                page.json().to_string()
            } else {
                page.text()
            };
            if output::line(&text)? == Reader::Gone {
                return Ok(ExitStatus::Success);
            }
        }
    }
    Ok(ExitStatus::Success)
}

/// One frame in words, for the prompt.
pub(crate) fn page_text(control: &Control, pfn: u64) -> Result<String, Failure> {
    Page::look(control, pfn).map(|page| page.text())
}

/// Adjoining frames in one state and with one owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    first: u64,
    frames: u64,
    state: u64,
    /// Of all their folios, if they have the same.
    order: Option<u64>,
    /// 0 for none.
    vm: u64,
    /// Where the owner has the first, if the others follow there.
    gfn: Option<u64>,
}

impl Range {
    fn end(&self) -> u64 {
        self.first.saturating_add(self.frames)
    }

    /// Whether `next` adjoins and is like this in all that a range says.
    fn is_exactly_like(&self, next: &Self) -> bool {
        let gfn = self.gfn.map(|gfn| {
            if self.vm == 0 {
                gfn
            } else {
                gfn.saturating_add(self.frames)
            }
        });
        self.is_like(next) && self.order == next.order && gfn == next.gfn
    }

    /// Whether `next` adjoins and has the same state and owner.
    fn is_like(&self, next: &Self) -> bool {
        self.end() == next.first && self.state == next.state && self.vm == next.vm
    }

    fn join(&mut self, next: &Self) {
        if !self.is_exactly_like(next) {
            self.gfn = None;
            self.order = self.order.filter(|order| next.order == Some(*order));
        }
        self.frames += next.frames;
    }

    fn text(&self) -> String {
        let order = self
            .order
            .map_or_else(|| "mixed".to_owned(), |order| order.to_string());
        let owner = match (self.vm, self.gfn) {
            (0, _) => String::new(),
            (vm, Some(gfn)) => format!("  VM {vm:#x} GFN {gfn:#x}"),
            (vm, None) => format!("  VM {vm:#x}"),
        };
        let (last, state) = (self.end() - 1, state_name(self.state));
        let line = format!(
            "{:#11x} - {last:#11x} {:>9} {state:<17} {order:>5}{owner}",
            self.first, self.frames
        );
        line.trim_end().to_owned()
    }

    fn json(&self) -> Json {
        Json::Object(vec![
            ("first", Json::Hex(self.first)),
            ("last", Json::Hex(self.end() - 1)),
            ("frames", Json::Number(self.frames)),
            ("state", Json::text(state_name(self.state))),
            ("order", self.order.map_or(Json::Null, Json::Number)),
            (
                "vm",
                if self.vm == 0 {
                    Json::Null
                } else {
                    Json::Hex(self.vm)
                },
            ),
            (
                "gfn",
                self.gfn
                    .filter(|_| self.vm != 0)
                    .map_or(Json::Null, Json::Hex),
            ),
        ])
    }
}

/// All frames from 0 to the last one of RAM.
fn survey(control: &Control) -> Result<Vec<Range>, Failure> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut first = 0;
    loop {
        let [frames, state, order, vm, gfn, ..] =
            control.must(HostCall::FolioRange { first: Pfn(first) })?;
        if frames == u64::MAX {
            return Ok(ranges);
        }
        if frames == 0 {
            let error = anyhow::anyhow!("EL2 says that no frame follows PFN {first:#x}");
            return Err(error.into());
        }
        let range = Range {
            first,
            frames,
            state,
            order: Some(order),
            vm,
            gfn: Some(gfn),
        };
        match ranges.last_mut() {
            Some(last) if last.is_exactly_like(&range) => last.join(&range),
            _ => ranges.push(range),
        }
        first += frames;
    }
}

/// Joins ranges that have the same state and owner.
fn joined(ranges: &[Range]) -> Vec<Range> {
    let mut joined: Vec<Range> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.is_like(range) => last.join(range),
            _ => joined.push(*range),
        }
    }
    joined
}

impl PagesArguments {
    fn wants(&self, range: &Range) -> bool {
        let is_state = |state: &State| state.number() == range.state;
        (self.state.is_empty() || self.state.iter().any(is_state))
            && self.vm.is_none_or(|vm| vm == range.vm)
    }
}

/// How many frames and ranges of each state.
fn sums(ranges: &[Range]) -> Vec<(&'static str, u64, u64)> {
    let sum = |number| {
        let of_state = ranges.iter().filter(|range| range.state == number);
        of_state.fold((0, 0), |(frames, count), range| {
            (frames + range.frames, count + 1)
        })
    };
    let sums = State::TABLE.iter().map(|info| {
        let (frames, count) = sum(info.number);
        (info.name, frames, count)
    });
    sums.filter(|(_, frames, _)| *frames != 0).collect()
}

/// Prints all frames in ranges of equal state, and how many there are of each.
pub fn pages(arguments: &PagesArguments) -> Result<ExitStatus, Failure> {
    if arguments.vm == Some(0) {
        return Err(Failure::BadInput("0 is no VM's handle".into()));
    }
    let control = Control::open()?;
    control.expect_debug_calls()?;
    let mut ranges = survey(&control)?;
    if !arguments.exact {
        ranges = joined(&ranges);
    }
    ranges.retain(|range| arguments.wants(range));
    let text = if arguments.json {
        as_json(&ranges).to_string()
    } else {
        as_text(&ranges)
    };
    output::line(&text)?;
    Ok(ExitStatus::Success)
}

fn as_text(ranges: &[Range]) -> String {
    let mut lines = vec![format!(
        "{:>11} - {:>11} {:>9} {:<17} {:>5}  owner",
        "first PFN", "last PFN", "frames", "state", "order"
    )];
    lines.extend(ranges.iter().map(Range::text));
    lines.push(String::new());
    lines.extend(
        sums(ranges).iter().map(|(name, frames, count)| {
            format!("{name:<17} {frames:>9} frames in {count} ranges")
        }),
    );
    if ranges.is_empty() {
        lines.push("no such frame".into());
    }
    lines.join("\n")
}

fn as_json(ranges: &[Range]) -> Json {
    let sums = sums(ranges).into_iter().map(|(name, frames, count)| {
        Json::Object(vec![
            ("state", Json::text(name)),
            ("frames", Json::Number(frames)),
            ("ranges", Json::Number(count)),
        ])
    });
    Json::Object(vec![
        (
            "ranges",
            Json::List(ranges.iter().map(Range::json).collect()),
        ),
        ("states", Json::List(sums.collect())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guest(first: u64, frames: u64, order: u64, gfn: u64) -> Range {
        Range {
            first,
            frames,
            state: State::Guest.number(),
            order: Some(order),
            vm: 0x101,
            gfn: Some(gfn),
        }
    }

    #[test]
    fn frames_are_numbers_or_ranges() {
        let frames = |first, count| Ok(Frames { first, count });
        assert_eq!(parse_frames("0x40"), frames(0x40, 1));
        assert_eq!(parse_frames("16-0x11"), frames(16, 2));
        assert_eq!(parse_frames("18446744073709551615"), frames(u64::MAX, 1));
        for (text, expected) in [
            ("x", "not a number"),
            ("5-4", "before the first"),
            ("0-0x100000", "more than 4096"),
            ("0-18446744073709551615", "more than 4096"),
            ("1-", "not a number"),
        ] {
            let error = parse_frames(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn states_go_by_the_table() {
        assert_eq!(parse_state("guest"), Ok(State::Guest));
        assert_eq!(parse_state("host-shared-hyp"), Ok(State::HostSharedHyp));
        let error = parse_state("mine").unwrap_err();
        assert!(error.contains("GUEST_SHARED_HOST"), "{error}");
    }

    #[test]
    fn a_page_is_told_whole() {
        let page = Page {
            pfn: 0x4_a99b,
            word: 3 | 1 << 24 | 0x4_0123 << 36,
            state: 3,
            order: 0,
            vm: 0x101,
            gfn: 0x4_0123,
            pin: 0xC000_0001,
        };
        assert_eq!(
            page.text(),
            "PFN 0x4a99b (address 0x4a99b000): GUEST, order 0, VM 0x101, GFN 0x40123 (IPA 0x40123000)\n  \
             folio word 0x40123001000003: GUEST, order 0, GFN 0x40123 of the VM in slot 1\n  \
             pin word 0xc0000001: 1 pin, exclusive, isolated"
                .replace("0x40123001000003", &format!("{:#x}", page.word))
        );
        assert!(page.json().to_string().starts_with(
            r#"{"pfn":"0x4a99b","state":"GUEST","order":0,"vm":"0x101","gfn":"0x40123","ipa":"0x40123000","head":"0x4a99b","#
        ));
        let tail = Page {
            pfn: 0x205,
            word: 0x80 | 9 << 3,
            order: 9,
            ..page
        };
        assert!(tail.text().contains("its folio begins at PFN 0x200"));
        let host = Page {
            vm: 0,
            state: 0,
            word: 0,
            ..page
        };
        assert!(host.json().to_string().contains(r#""vm":null,"gfn":null"#));
    }

    #[test]
    fn ranges_join_by_state_and_owner() {
        let ranges = [
            guest(0x100, 2, 0, 0x40000),
            guest(0x102, 1, 0, 0x50000),
            guest(0x103, 1, 0, 0x50001),
            guest(0x200, 512, 9, 0x40200),
        ];
        let joined = joined(&ranges);
        assert_eq!(joined.len(), 2);
        assert_eq!((joined[0].frames, joined[0].gfn), (4, None));
        assert_eq!(joined[0].order, Some(0));
        assert_eq!(joined[1], ranges[3]);
        assert!(ranges[1].is_exactly_like(&ranges[2]));
        assert!(!ranges[0].is_exactly_like(&ranges[1]));
        let mut mixed = guest(0x100, 0x100, 0, 0x40100);
        mixed.join(&ranges[3]);
        assert_eq!((mixed.order, mixed.gfn), (None, None));
        assert!(mixed.text().contains("mixed  VM 0x101"), "{}", mixed.text());
        assert!(
            ranges[3]
                .text()
                .ends_with("GUEST                 9  VM 0x101 GFN 0x40200")
        );
    }

    #[test]
    fn filters_and_sums() {
        let host = Range {
            first: 0,
            frames: 7,
            state: 0,
            order: Some(0),
            vm: 0,
            gfn: Some(0),
        };
        let arguments = PagesArguments {
            state: vec![State::Host],
            vm: None,
            exact: false,
            json: false,
        };
        assert!(arguments.wants(&host) && !arguments.wants(&guest(1, 1, 0, 1)));
        let of_vm = PagesArguments {
            state: vec![],
            vm: Some(0x101),
            ..arguments
        };
        assert!(!of_vm.wants(&host) && of_vm.wants(&guest(1, 1, 0, 1)));
        let ranges = [host, guest(7, 2, 0, 1), guest(9, 1, 0, 5)];
        assert_eq!(sums(&ranges), [("HOST", 7, 1), ("GUEST", 3, 2)]);
        assert!(as_text(&ranges).ends_with("GUEST                     3 frames in 2 ranges"));
        assert!(as_text(&[]).ends_with("no such frame"));
        assert!(
            as_json(&ranges)
                .to_string()
                .ends_with(r#""states":[{"state":"HOST","frames":7,"ranges":1},{"state":"GUEST","frames":3,"ranges":2}]}"#)
        );
    }
}
