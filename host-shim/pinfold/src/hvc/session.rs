//! What a session at the prompt holds and does: [`Session`].
//!
//! Pages that were pinned stay until they are let go or the session ends; a page that EL2 or a guest has by then cannot be let go, and
//! is lost to the host until it boots again, which is said.

use std::collections::BTreeMap;
use std::rc::Rc;

use anyhow::{Context, anyhow};
use pinfold_abi::claim::{Count, Pfn};
use pinfold_abi::describe::CallInfo;
use pinfold_abi::show::{Answer, Outcome, PinText, call_of};
use pinfold_abi::{FUNCTION_BASE, HostCall, Status};

use super::help;
use super::line::{Action, KINDS, Word};
use crate::control::{Control, Pin, PinKind, Refused};
use crate::ending::{ExitStatus, Failure};
use crate::json::Json;
use crate::own_pages::Pages;
use crate::{output, pages, trace, words};

/// The most pages that one `pin` takes.
const MOST_PINS: u64 = 4096;
/// The order of a huge page.
const HUGE_ORDER: u64 = 9;

/// How an action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Done.
    Done,
    /// EL2 refused it.
    Refused,
    /// EL2 is a release image.
    NoDebugCalls,
    /// The session is to end.
    Leave,
}

impl Verdict {
    /// What a session that came to this ends with.
    pub(super) fn status(self) -> ExitStatus {
        match self {
            Self::Done | Self::Leave => ExitStatus::Success,
            Self::Refused => ExitStatus::Failed,
            Self::NoDebugCalls => ExitStatus::NoDebugCalls,
        }
    }
}

/// A page that is held.
#[derive(Debug)]
struct Held {
    number: u64,
    kind: PinKind,
    extra: u32,
    pin: Pin,
    /// The page is part of these.
    _memory: Rc<Pages>,
}

impl Held {
    fn text(&self) -> String {
        let Self { number, pin, .. } = self;
        let name = KINDS.iter().find(|(_, kind)| *kind == self.kind);
        let name = name.map_or("", |(name, _)| *name);
        let extra = match self.extra {
            0 => String::new(),
            extra => format!(" with {extra} more"),
        };
        format!(
            "pin {number}: PFN {:#x}, {name}{extra}, pin word {:#x}: {}",
            pin.pfn,
            pin.word,
            PinText(pin.word.into())
        )
    }

    fn json(&self) -> Json {
        Json::Object(vec![
            ("pin", Json::Number(self.number)),
            ("pfn", Json::Hex(self.pin.pfn)),
            ("pin_word", Json::Hex(self.pin.word.into())),
        ])
    }
}

/// A session.
#[derive(Debug, Default)]
pub(super) struct Session {
    control: Option<Control>,
    held: Vec<Held>,
    pinned: u64,
    lent: bool,
    names: BTreeMap<String, u64>,
    json: bool,
}

impl Session {
    /// A session without a page; what it prints is JSON if `json`.
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            ..Self::default()
        }
    }

    /// The names that have a value.
    pub(super) fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// The debug device, opened when it is first needed: help does not.
    pub(super) fn control(&mut self) -> Result<&Control, Failure> {
        let control = match self.control.take() {
            Some(control) => control,
            None => Control::open()?,
        };
        Ok(self.control.insert(control))
    }

    fn value(&self, word: &Word) -> Result<u64, Failure> {
        match word {
            Word::Number(number) => Ok(*number),
            Word::Variable(name) => {
                let value = self.names.get(name).copied();
                let value =
                    value.with_context(|| format!("${name} has no value: nothing has set it yet"));
                Ok(value?)
            }
        }
    }

    fn say(&self, text: &str, json: impl FnOnce() -> Json) -> Result<(), Failure> {
        let text = if self.json {
            json().to_string()
        } else {
            text.to_owned()
        };
        output::line(&text)?;
        Ok(())
    }

    /// Does what a line asks for.
    pub(super) fn perform(&mut self, action: &Action) -> Result<Verdict, Failure> {
        match action {
            Action::Call { info, arguments } => self.call(info, arguments),
            Action::Raw(words) => self.raw(words),
            Action::Pin {
                kind,
                count,
                order,
                extra,
            } => self.pin(*kind, count, order, extra),
            Action::Unpin(which) => self.unpin(which.as_ref()),
            Action::Pins => {
                let list = || Json::List(self.held.iter().map(Held::json).collect());
                let lines: Vec<_> = self.held.iter().map(Held::text).collect();
                let text = if lines.is_empty() {
                    "nothing is pinned".to_owned()
                } else {
                    lines.join("\n")
                };
                self.say(&text, list).map(|()| Verdict::Done)
            }
            Action::Lend { count } => self.lend(count),
            Action::Page(pfn) => {
                let pfn = self.value(pfn)?;
                let text = pages::page_text(self.control()?, pfn)?;
                self.say(&text, || Json::text(&text))
                    .map(|()| Verdict::Done)
            }
            Action::Trace { last } => {
                let last = usize::try_from(self.value(last)?).unwrap_or(usize::MAX);
                let text = trace::last_text(self.control()?, last)?;
                self.say(&text, || Json::text(&text))
                    .map(|()| Verdict::Done)
            }
            Action::Set { name, value } => {
                let value = self.value(value)?;
                self.names.insert(name.clone(), value);
                Ok(Verdict::Done)
            }
            Action::Names => {
                let names = self.names.iter();
                let lines: Vec<_> = names
                    .map(|(name, value)| format!("${name} = {value:#x}"))
                    .collect();
                let text = lines.join("\n");
                self.say(&text, || Json::text(&text))
                    .map(|()| Verdict::Done)
            }
            Action::Help(about) => {
                let text = help::text(about.as_deref()).map_err(Failure::BadInput)?;
                self.say(&text, || Json::text(&text))
                    .map(|()| Verdict::Done)
            }
            Action::Quit => Ok(Verdict::Leave),
        }
    }

    fn issue(&mut self, x: [u64; 8]) -> Result<[u64; 8], Failure> {
        let control = self.control()?;
        Ok(control.raw(x).context("the driver refuses the call")?)
    }

    fn call(&mut self, info: &CallInfo, arguments: &[Word]) -> Result<Verdict, Failure> {
        let mut x = [0; 8];
        let [function, places @ ..] = &mut x;
        *function = FUNCTION_BASE + info.number;
        for (place, word) in places.iter_mut().zip(arguments) {
            *place = self.value(word)?;
        }
        let after = self.issue(x)?;
        self.keep_results(info, after);
        self.say(&words::answer(Some(info), after), || {
            Json::Object(words::call_json(x, Some(after)))
        })?;
        Ok(verdict(Some(info), after))
    }

    /// Names the results.
    fn keep_results(&mut self, info: &CallInfo, x: [u64; 8]) {
        let answer = Answer {
            call: Some(info),
            x,
        };
        let [_, _, results @ ..] = x;
        if let Outcome::Results(_) = answer.outcome() {
            for (field, value) in info.results.iter().zip(results) {
                self.names.insert(field.name.to_owned(), value);
            }
        }
    }

    fn raw(&mut self, words: &[Word]) -> Result<Verdict, Failure> {
        let mut x = [0; 8];
        for (place, word) in x.iter_mut().zip(words) {
            *place = self.value(word)?;
        }
        let after = self.issue(x)?;
        let registers: Vec<_> = after
            .iter()
            .zip(0..)
            .map(|(value, number)| format!("x{number} = {value:#x}"))
            .collect();
        self.say(&registers.join("  "), || {
            Json::List(after.map(Json::Hex).into())
        })?;
        let [function, ..] = x;
        Ok(verdict(call_of(function), after))
    }

    fn pin(
        &mut self,
        kind: PinKind,
        count: &Word,
        order: &Word,
        extra: &Word,
    ) -> Result<Verdict, Failure> {
        let (count, order) = (self.value(count)?, self.value(order)?);
        let extra = self.value(extra)?;
        if !(1..=MOST_PINS).contains(&count) {
            let error = anyhow!("count {count} is not 1 to {MOST_PINS}");
            return Err(error.into());
        }
        if order != 0 && order != HUGE_ORDER {
            let error = anyhow!("order {order} is neither 0 nor {HUGE_ORDER}");
            return Err(error.into());
        }
        let extra = u32::try_from(extra).map_err(|_| anyhow!("extra {extra} is too many"))?;
        if order == 0 {
            let memory = Rc::new(Pages::new(count)?);
            for index in 0..count {
                self.hold(&memory, index, kind, extra)?;
            }
        } else {
            for _ in 0..count {
                let memory = Rc::new(Pages::huge()?);
                self.hold(&memory, 0, kind, extra)?;
            }
        }
        Ok(Verdict::Done)
    }

    fn hold(
        &mut self,
        memory: &Rc<Pages>,
        index: u64,
        kind: PinKind,
        extra: u32,
    ) -> Result<u64, Failure> {
        let address = memory.address(index)?;
        let pin = self
            .control()?
            .pin(address, kind, extra)
            .context("the driver does not pin the page")?;
        self.pinned += 1;
        let held = Held {
            number: self.pinned,
            kind,
            extra,
            pin,
            _memory: Rc::clone(memory),
        };
        self.names.insert("pfn".into(), pin.pfn);
        self.names.insert("pin".into(), held.number);
        let said = self.say(&held.text(), || held.json());
        self.held.push(held);
        said.map(|()| pin.pfn)
    }

    fn lend(&mut self, count: &Word) -> Result<Verdict, Failure> {
        let count = self.value(count)?;
        if !(1..=MOST_PINS).contains(&count) {
            let error = anyhow!("count {count} is not 1 to {MOST_PINS}");
            return Err(error.into());
        }
        let memory = Rc::new(Pages::new(count)?);
        self.lent = true;
        for index in 0..count {
            let pfn = self.hold(&memory, index, PinKind::Isolated, 0)?;
            self.control()?.must(HostCall::PoolDonate {
                first: Pfn(pfn),
                count: Count(1),
            })?;
        }
        let text = format!("EL2's pool has {count} pages more");
        self.say(&text, || Json::Object(vec![("lent", Json::Number(count))]))?;
        Ok(Verdict::Done)
    }

    fn unpin(&mut self, which: Option<&Word>) -> Result<Verdict, Failure> {
        let Some(word) = which else {
            let lost = self.let_go_of_all()?;
            let text = match (lost, self.held.is_empty()) {
                (0, _) => "nothing is pinned any more".to_owned(),
                (lost, _) => format!("{lost} pages stay: EL2 or a guest has them"),
            };
            self.say(&text, || Json::Object(vec![("pinned", Json::Number(lost))]))?;
            return Ok(if lost == 0 {
                Verdict::Done
            } else {
                Verdict::Refused
            });
        };
        let wanted = self.value(word)?;
        let place = self
            .held
            .iter()
            .position(|held| held.number == wanted || held.pin.pfn == wanted)
            .with_context(|| {
                format!("no pin has the number or the PFN {wanted:#x}; `pins` lists them")
            })?;
        let held = self.held.swap_remove(place);
        if let Err(error) = self.control()?.unpin(held.pin) {
            let error = anyhow::Error::from(error).context(format!(
                "pin {} stays, PFN {:#x}: EL2 or a guest has it",
                held.number, held.pin.pfn
            ));
            self.held.push(held);
            return Err(error.into());
        }
        let text = format!("pin {} is gone, PFN {:#x}", held.number, held.pin.pfn);
        self.say(&text, || held.json()).map(|()| Verdict::Done)
    }

    /// Lets go of every page that is the host's, after asking EL2 for those that its pool can spare; says how many stay.
    pub(super) fn let_go_of_all(&mut self) -> Result<u64, Failure> {
        if self.held.is_empty() {
            return Ok(0);
        }
        if std::mem::take(&mut self.lent) {
            empty_pool(self.control()?)?;
        }
        let mut stay = Vec::new();
        for held in std::mem::take(&mut self.held) {
            if self.control()?.unpin(held.pin).is_err() {
                stay.push(held);
            }
        }
        self.held = stay;
        self.lent = !self.held.is_empty();
        Ok(u64::try_from(self.held.len()).unwrap_or(u64::MAX))
    }
}

/// Takes every frame out of EL2's pool that it can spare.
fn empty_pool(control: &Control) -> Result<(), Failure> {
    loop {
        let reply = control
            .call(HostCall::PoolReclaim {})
            .context("the driver refuses the call")?;
        match reply.done() {
            Ok(_) => {}
            Err(refused) if refused.is(Status::NoMemory) => return Ok(()),
            Err(refused @ (Refused::NotSupported | Refused::Status { .. })) => {
                let error = anyhow::Error::from(refused).context("EL2 refuses to empty its pool");
                return Err(error.into());
            }
        }
    }
}

fn verdict(call: Option<&CallInfo>, x: [u64; 8]) -> Verdict {
    match (Answer { call, x }).outcome() {
        Outcome::Results(_) | Outcome::Foreign => Verdict::Done,
        Outcome::NotSupported if call.is_some_and(|info| info.debug) => Verdict::NoDebugCalls,
        Outcome::NotSupported
        | Outcome::RefusedAt(_)
        | Outcome::Refused(_)
        | Outcome::Unknown(_) => Verdict::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_when_a_call_has_set_them() {
        let mut session = Session::new(false);
        let word = Word::Variable("handle".into());
        let error = session.value(&word).unwrap_err().to_string();
        assert!(error.contains("$handle has no value"), "{error}");
        let create = call_of(FUNCTION_BASE + 0x30).unwrap();
        session.keep_results(create, [0, 3, 9, 0, 0, 0, 0, 0]);
        assert!(session.value(&word).is_err());
        session.keep_results(create, [0, 0, 0x101, 0, 0, 0, 0, 0]);
        assert_eq!(session.value(&word).unwrap(), 0x101);
        assert_eq!(session.names(), ["handle"]);
    }

    #[test]
    fn nothing_is_opened_for_help() {
        let mut session = Session::new(true);
        assert_eq!(session.perform(&Action::Help(None)).unwrap(), Verdict::Done);
        assert!(session.control.is_none());
        assert_eq!(session.perform(&Action::Quit).unwrap(), Verdict::Leave);
    }

    #[test]
    fn verdicts_follow_the_answer() {
        let debug = call_of(FUNCTION_BASE + 0x60);
        let call = call_of(FUNCTION_BASE + 0x40);
        assert_eq!(verdict(debug, [u64::MAX; 8]), Verdict::NoDebugCalls);
        assert_eq!(verdict(call, [u64::MAX; 8]), Verdict::Refused);
        assert_eq!(verdict(call, [0, 9, 0, 0, 0, 0, 0, 0]), Verdict::Refused);
        assert_eq!(verdict(call, [0, 7, 0, 0, 0, 0, 0, 0]), Verdict::Done);
        assert_eq!(Verdict::NoDebugCalls.status(), ExitStatus::NoDebugCalls);
    }
}
