//! Verbs: one for each call of the table, and those around them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use pinfold_abi::HostCall;
use pinfold_abi::describe::CallInfo;

use super::Parser;
use super::values::{bind, bind_all};
use crate::near;
use crate::program::{Access, Action, By, Deed, Expression, PinKind, VmKind};
use crate::words::{Command, Error, Word};

/// What there is besides the calls.
const VERBS: [&str; 15] = [
    "vm", "page", "pages", "folio", "pin", "finish", "raw", "guest", "process", "kernel", "let",
    "repeat", "each", "expect", "join",
];
/// What a guest can do.
const DEEDS: [&str; 9] = [
    "share",
    "unshare",
    "relinquish",
    "read",
    "write",
    "fetch",
    "hvc",
    "spin",
    "resume",
];

/// The call with this name, in capitals or not.
fn call_named(name: &str) -> Option<&'static CallInfo> {
    let wanted = name.to_ascii_uppercase().replace('-', "_");
    HostCall::TABLE.iter().find(|info| info.name == wanted)
}

/// What is called so.
fn one_of<T: Copy>(names: &[(&'static str, T)], word: &Word, what: &str) -> Result<T, Error> {
    let known = names.iter().find(|(name, _)| *name == word.text);
    known.map(|(_, thing)| *thing).ok_or_else(|| {
        let hint = near::hint(&word.text, names.iter().map(|(name, _)| *name));
        word.error(format!("`{}` is no {what}{hint}", word.text))
    })
}

fn unknown_verb(word: &Word) -> Error {
    let calls: Vec<_> = HostCall::TABLE
        .iter()
        .map(|info| info.name.to_ascii_lowercase())
        .collect();
    let known = VERBS.into_iter().chain(calls.iter().map(String::as_str));
    word.error(format!(
        "`{}` is no verb{}",
        word.text,
        near::hint(&word.text, known)
    ))
}

impl Parser {
    /// Any command but loops and `expect`.
    pub(super) fn action(&mut self, command: &Command) -> Result<Action, Error> {
        let (verb, rest) = (&command.first, command.rest.as_slice());
        if let Some(info) = call_named(&verb.text) {
            return self.call(verb, info, rest, false);
        }
        match verb.text.as_str() {
            "vm" => self.vm(verb, rest),
            "page" => self.page(verb, rest),
            "pages" | "folio" => self.folios(verb, rest),
            "pin" => self.pin(verb, rest),
            "finish" => match rest {
                [call, rest @ ..] => match call_named(&call.text) {
                    Some(info) => self.call(call, info, rest, true),
                    None => Err(unknown_verb(call)),
                },
                [] => {
                    Err(verb.error("`finish` takes a call, as in `finish mem_reclaim v ram 512`"))
                }
            },
            "raw" if (1..=8).contains(&rest.len()) => rest
                .iter()
                .map(|word| self.expression(word))
                .collect::<Result<_, _>>()
                .map(Action::Raw),
            "raw" => Err(verb.error("`raw` takes x0 to x7, at least one of them")),
            "guest" => self.guest(verb, rest),
            "process" => self.touch(verb, By::Process, rest),
            "kernel" => self.touch(verb, By::Kernel, rest),
            "let" => match rest {
                [name, equals, value] if equals.text == "=" => {
                    let value = self.expression(value)?;
                    Ok(Action::Let {
                        name: self.new_name(name)?,
                        value,
                    })
                }
                _ => Err(verb.error("`let` goes like this: `let middle = first+8`")),
            },
            _ => Err(unknown_verb(verb)),
        }
    }

    /// `[finish] CALL arguments [-> name]`
    fn call(
        &mut self,
        verb: &Word,
        info: &'static CallInfo,
        rest: &[Word],
        finish: bool,
    ) -> Result<Action, Error> {
        let (rest, result) = match rest {
            [rest @ .., arrow, name] if arrow.text == "->" => (rest, Some(name)),
            _ => (rest, None),
        };
        let names: Vec<_> = info.arguments.iter().map(|field| field.name).collect();
        let words = bind_all(verb, &names, rest)?;
        let arguments = info
            .arguments
            .iter()
            .zip(&words)
            .map(|(field, word)| self.value(word, field.names()))
            .collect::<Result<_, _>>()?;
        let kept = match result {
            Some(name) if info.results.is_empty() => {
                return Err(name.error(format!("`{}` has no result", verb.text)));
            }
            Some(name) => Some(self.new_name(name)?),
            None => None,
        };
        Ok(Action::Call {
            info,
            arguments,
            into: kept,
            finish,
        })
    }

    /// `vm NAME [vcpus=N] [kind=KIND]`
    fn vm(&mut self, verb: &Word, rest: &[Word]) -> Result<Action, Error> {
        let bound = bind(verb, &["name", "vcpus", "kind"], rest)?;
        let [Some(name), vcpus, kind] = bound.as_slice() else {
            return Err(verb.error("`vm` lacks a name"));
        };
        let kind = kind.as_ref().map_or(Ok(VmKind::Protected), |word| {
            one_of(VmKind::NAMES, word, "kind of VM")
        })?;
        let vcpus = self.optional(vcpus.as_ref(), 1)?;
        Ok(Action::Vm {
            name: self.new_name(name)?,
            vcpus,
            kind,
        })
    }

    fn optional(&self, word: Option<&Word>, otherwise: u64) -> Result<Expression, Error> {
        word.map_or(Ok(Expression::number(otherwise)), |word| {
            self.expression(word)
        })
    }

    /// `page NAME`
    fn page(&mut self, verb: &Word, rest: &[Word]) -> Result<Action, Error> {
        let [name] = rest else {
            return Err(verb.error("`page` takes one name"));
        };
        let name = self.new_name(name)?;
        Ok(Action::Take {
            name,
            order: Expression::number(0),
            count: Expression::number(1),
        })
    }

    /// `pages NAME COUNT` or `folio NAME ORDER [COUNT]`
    fn folios(&mut self, verb: &Word, rest: &[Word]) -> Result<Action, Error> {
        let is_folio = verb.text == "folio";
        let names: &[&str] = if is_folio {
            &["name", "order", "count"]
        } else {
            &["name", "count"]
        };
        let bound = bind(verb, names, rest)?;
        let (Some(Some(name)), Some(Some(size))) = (bound.first(), bound.get(1)) else {
            return Err(verb.error(format!("`{}` takes {}", verb.text, names.join(" "))));
        };
        let size = self.expression(size)?;
        let folios = self.optional(bound.get(2).and_then(Option::as_ref), 1)?;
        let (order, count) = if is_folio {
            (size, folios)
        } else {
            (Expression::number(0), size)
        };
        Ok(Action::Take {
            name: self.new_name(name)?,
            order,
            count,
        })
    }

    /// `pin FRAMES KIND [COUNT] [order=N]`
    fn pin(&self, verb: &Word, rest: &[Word]) -> Result<Action, Error> {
        let bound = bind(verb, &["frames", "kind", "count", "order"], rest)?;
        let [Some(frames), Some(kind), count, order] = bound.as_slice() else {
            return Err(verb.error("`pin` takes frames, a kind, and, if need be, count and order"));
        };
        let pin = one_of(PinKind::NAMES, kind, "kind of pin")?;
        if pin == PinKind::Word && count.is_none() {
            return Err(verb.error("`pin ... word` takes the word"));
        }
        let is_name = self.names.contains(&frames.text);
        Ok(Action::Pin {
            what: self.expression(frames)?,
            whole: is_name.then(|| frames.text.clone()),
            order: order
                .as_ref()
                .map(|word| self.expression(word))
                .transpose()?,
            kind: pin,
            count: self.optional(count.as_ref(), 1)?,
        })
    }

    /// `guest VM[.VCPU] DEED arguments`
    fn guest(&self, verb: &Word, rest: &[Word]) -> Result<Action, Error> {
        let [who, deed, rest @ ..] = rest else {
            return Err(verb.error("`guest` takes a VM and what it does"));
        };
        let (vm, vcpu) = match who.text.split_once('.') {
            None => (who.clone(), 0),
            Some((vm, vcpu)) => {
                let number = vcpu
                    .parse()
                    .map_err(|_| who.error(format!("`{vcpu}` is no vCPU's number")))?;
                let mut name = who.clone();
                name.text = vm.to_string();
                (name, number)
            }
        };
        let vm = self.expression(&vm)?;
        Ok(Action::Guest {
            vm,
            vcpu,
            deed: self.deed(deed, rest)?,
        })
    }

    fn deed(&self, deed: &Word, rest: &[Word]) -> Result<Deed<Expression>, Error> {
        let one = |name| {
            let words = bind_all(deed, &[name], rest)?;
            words.first().map_or_else(
                || Err(deed.error("lacks an argument")),
                |word| self.expression(word),
            )
        };
        Ok(match deed.text.as_str() {
            "share" => Deed::Share(one("gfn")?),
            "unshare" => Deed::Unshare(one("gfn")?),
            "relinquish" => Deed::Relinquish(one("gfn")?),
            "read" => Deed::Read(one("gfn")?),
            "fetch" => Deed::Fetch(one("gfn")?),
            "spin" => Deed::Spin(one("times")?),
            "resume" => {
                let bound = bind(deed, &["answer"], rest)?;
                Deed::Resume(self.optional(bound.first().and_then(Option::as_ref), 0)?)
            }
            "write" => match bind_all(deed, &["gfn", "value"], rest)?.as_slice() {
                [gfn, value] => Deed::Write(self.expression(gfn)?, self.expression(value)?),
                _ => return Err(deed.error("`write` takes gfn value")),
            },
            "hvc" => match bind(deed, &["x0", "x1", "x2", "x3"], rest)?.as_slice() {
                [Some(x0), x1, x2, x3] => {
                    let rest = |word: &Option<Word>| self.optional(word.as_ref(), 0);
                    Deed::Hvc([self.expression(x0)?, rest(x1)?, rest(x2)?, rest(x3)?])
                }
                _ => return Err(deed.error("`hvc` lacks x0")),
            },
            _ => {
                let hint = near::hint(&deed.text, DEEDS.into_iter());
                return Err(deed.error(format!(
                    "`{}` is nothing that a guest can do{hint}",
                    deed.text
                )));
            }
        })
    }

    /// `process|kernel read|write|fetch FRAME [VALUE]`
    fn touch(&self, verb: &Word, by: By, rest: &[Word]) -> Result<Action, Error> {
        let (access, frame) = match rest {
            [how, frame] if how.text == "read" => (Access::Read, frame),
            [how, frame, value] if how.text == "write" => {
                (Access::Write(self.expression(value)?), frame)
            }
            [how, frame] if how.text == "fetch" && by == By::Kernel => (Access::Fetch, frame),
            _ => {
                let fetch = if by == By::Kernel {
                    ", or `kernel fetch FRAME`"
                } else {
                    ""
                };
                let name = &verb.text;
                return Err(verb.error(format!("`{name}` goes like this: `{name} read FRAME` or `{name} write FRAME VALUE`{fetch}")));
            }
        };
        Ok(Action::Touch {
            by,
            access,
            frame: self.expression(frame)?,
        })
    }
}
