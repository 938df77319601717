//! `pinfold trace`: the last calls and exits of each CPU, as EL2 noted them.
//!
//! EL2 keeps a ring for each CPU and hands it out a part of an entry at a time; an entry that is overwritten meanwhile is
//! left out. What an entry says in words is decided where EL2's own panic takes it from (`pinfold_core::trace`).

use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use pinfold_abi::claim::Number;
use pinfold_abi::trace::{Entry, Event, PART, PARTS, Trap, WORDS};
use pinfold_abi::{HostCall, Status, TraceKind};
use pinfold_core::trace::{Line, Reason};

use crate::control::{Control, Refused, Reply};
use crate::ending::{ExitStatus, Failure};
use crate::inspect::parse_number;
use crate::json::Json;
use crate::output::{self, Reader};
use crate::words;

/// How long `--follow` waits before it asks again.
const PAUSE: Duration = Duration::from_millis(100);
/// More CPUs than EL2 has room for.
const MOST_CPUS: u64 = 64;

/// The arguments of `pinfold trace`.
#[derive(Clone, Debug, clap::Args)]
pub struct TraceArguments {
    /// Only this CPU, counted from 0 as in the device tree
    #[arg(long, value_name = "N", value_parser = parse_number)]
    pub cpu: Option<u64>,
    /// Only the last N entries
    #[arg(long, value_name = "N")]
    pub last: Option<usize>,
    /// Print JSON, one object for each entry
    #[arg(long)]
    pub json: bool,
    /// Go on with what comes, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
}

/// An entry with its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Noted {
    cpu: u64,
    number: u64,
    entry: Entry,
}

impl Noted {
    fn text(&self) -> String {
        format!(
            "{:>14} CPU {} #{:<6} {}",
            self.entry.time,
            self.cpu,
            self.number,
            Line(self.entry)
        )
    }

    fn json(&self) -> Json {
        let mut fields = vec![
            ("cpu", Json::Number(self.cpu)),
            ("entry", Json::Number(self.number)),
            ("time", Json::Number(self.entry.time)),
        ];
        let kind = |kind: TraceKind| ("kind", Json::text(kind.name()));
        match self.entry.event {
            Event::Call { x, answer } => {
                let finished = answer.map_or(TraceKind::Call, |_| TraceKind::Answer);
                fields.push(kind(finished));
                fields.extend(words::call_json(x, answer));
            }
            Event::GuestExit(trap) => {
                fields.push(kind(TraceKind::GuestExit));
                fields.push(("vm", Json::Hex(trap.vm)));
                fields.push(("vcpu", Json::Number(trap.vcpu)));
                fields.extend(trap_json(&trap));
                let exit = trap.exit.map(pinfold_abi::show::Exit);
                fields.push(("exit", exit.map_or(Json::Null, Json::text)));
            }
            Event::HostTrap(trap) => {
                fields.push(kind(TraceKind::HostTrap));
                fields.extend(trap_json(&trap));
            }
        }
        Json::Object(fields)
    }
}

fn trap_json(trap: &Trap) -> [(&'static str, Json); 5] {
    [
        ("pc", Json::Hex(trap.pc)),
        ("reason", Json::text(Reason(*trap))),
        ("esr", Json::Hex(trap.esr)),
        ("far", Json::Hex(trap.far)),
        ("hpfar", Json::Hex(trap.hpfar)),
    ]
}

/// The traces that EL2 keeps.
#[derive(Debug)]
struct Traces<'a> {
    control: &'a Control,
    /// CPU, and the entry that is to be read next.
    cpus: Vec<(u64, u64)>,
}

impl<'a> Traces<'a> {
    /// Finds the CPUs; only `wanted`, if one is.
    fn find(control: &'a Control, wanted: Option<u64>) -> Result<Self, Failure> {
        let mut cpus = Vec::new();
        for cpu in 0..MOST_CPUS {
            let Some((oldest, _)) = status(control, cpu)? else {
                break;
            };
            cpus.push((cpu, oldest));
        }
        if let Some(wanted) = wanted {
            let number = cpus.len();
            cpus.retain(|(cpu, _)| *cpu == wanted);
            if cpus.is_empty() {
                return Err(Failure::BadInput(format!(
                    "there is no CPU {wanted}; EL2 has {number} of them, counted from 0"
                )));
            }
        }
        Ok(Self { control, cpus })
    }

    /// Reads what has come since the last time, in the order of time, and says how many entries were overwritten meanwhile.
    fn news(&mut self) -> Result<(Vec<Noted>, u64), Failure> {
        let (mut news, mut lost) = (Vec::new(), 0);
        for (cpu, seen) in &mut self.cpus {
            let (oldest, next) = status(self.control, *cpu)?
                .with_context(|| format!("EL2 knows CPU {cpu} no more"))?;
            lost += oldest.saturating_sub(*seen);
            for number in oldest.max(*seen)..next {
                match read(self.control, *cpu, number)? {
                    Some(entry) => news.push(Noted {
                        cpu: *cpu,
                        number,
                        entry,
                    }),
                    None => lost += 1,
                }
            }
            *seen = next;
        }
        news.sort_by_key(|noted| (noted.entry.time, noted.cpu, noted.number));
        Ok((news, lost))
    }
}

fn ask(control: &Control, call: HostCall) -> Result<Reply, Failure> {
    let reply = control.call(call);
    Ok(reply.context("the driver refuses the call")?)
}

/// The oldest entry and the next; nothing if there is no such CPU.
fn status(control: &Control, cpu: u64) -> Result<Option<(u64, u64)>, Failure> {
    let call = HostCall::TraceStatus { cpu: Number(cpu) };
    match ask(control, call)?.done() {
        Ok([oldest, next, ..]) => Ok(Some((oldest, next))),
        Err(refused) if refused.is(Status::Invalid) => Ok(None),
        Err(Refused::NotSupported) => Err(Failure::NoDebugCalls),
        Err(refused) => Err(anyhow::Error::from(refused).into()),
    }
}

/// An entry, if it is still there.
fn read(control: &Control, cpu: u64, number: u64) -> Result<Option<Entry>, Failure> {
    let mut words = [0; WORDS];
    let (places, _) = words.as_chunks_mut::<PART>();
    for (place, part) in places.iter_mut().zip(0..PARTS) {
        let call = HostCall::TraceRead {
            cpu: Number(cpu),
            entry: Number(number),
            part: Number(part),
        };
        match ask(control, call)?.done() {
            Ok(results) => *place = results,
            Err(refused) if refused.is(Status::NotMapped) => return Ok(None),
            Err(Refused::NotSupported) => return Err(Failure::NoDebugCalls),
            Err(refused) => return Err(anyhow::Error::from(refused).into()),
        }
    }
    Ok(Entry::decode(words))
}

/// Prints the trace.
pub fn trace(arguments: &TraceArguments) -> Result<ExitStatus, Failure> {
    let control = Control::open()?;
    let mut traces = Traces::find(&control, arguments.cpu)?;
    let (mut entries, _) = traces.news()?;
    if let Some(last) = arguments.last {
        entries.drain(..entries.len().saturating_sub(last));
    }
    if print(&entries, arguments.json)? == Reader::Gone {
        return Ok(ExitStatus::Success);
    }
    if arguments.follow {
        follow(&mut traces, arguments.json)?;
    }
    Ok(ExitStatus::Success)
}

/// Prints what comes, for as long as somebody reads it.
fn follow(traces: &mut Traces<'_>, json: bool) -> Result<(), Failure> {
    loop {
        sleep(PAUSE);
        let (entries, lost) = traces.news()?;
        if lost != 0 {
            crate::logger::say(&format!("{lost} entries came too fast and are lost"));
        }
        if print(&entries, json)? == Reader::Gone {
            return Ok(());
        }
    }
}

/// The last entries of all CPUs as text, for the prompt.
pub(crate) fn last_text(control: &Control, last: usize) -> Result<String, Failure> {
    let (entries, _) = Traces::find(control, None)?.news()?;
    let skipped = entries.len().saturating_sub(last);
    let lines: Vec<_> = entries.iter().skip(skipped).map(Noted::text).collect();
    Ok(lines.join("\n"))
}

fn print(entries: &[Noted], json: bool) -> Result<Reader, Failure> {
    for noted in entries {
        let text = if json {
            noted.json().to_string()
        } else {
            noted.text()
        };
        if output::line(&text)? == Reader::Gone {
            return Ok(Reader::Gone);
        }
    }
    Ok(Reader::Listens)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pinfold_abi::FUNCTION_BASE;
    use pinfold_abi::trace::Cause;

    fn noted(event: Event) -> Noted {
        Noted {
            cpu: 1,
            number: 7,
            entry: Entry { time: 99, event },
        }
    }

    #[test]
    fn a_refused_call_is_told() {
        let call = noted(Event::Call {
            x: [FUNCTION_BASE + 0x33, 0x101, 0, 0, 0, 0, 0, 0],
            answer: Some([0, 11, 0, 0, 0, 0, 0, 0]),
        });
        assert_eq!(
            call.text(),
            "            99 CPU 1 #7      VM_START vm=0x101 -> NO_SUCH_VM"
        );
        assert_eq!(
            call.json().to_string(),
            r#"{"cpu":1,"entry":7,"time":99,"kind":"ANSWER","call":"VM_START","arguments":{"vm":"0x101"},"status":"NO_SUCH_VM","x2":0}"#
        );
    }

    #[test]
    fn an_exit_is_told() {
        let trap = Trap {
            vm: 0x101,
            vcpu: 0,
            pc: 0x4000_0000,
            cause: Cause::Exception,
            esr: 1 << 26,
            far: 0,
            hpfar: 0,
            exit: Some([1, 5, 0, 0]),
            x: [0; 4],
        };
        let exit = noted(Event::GuestExit(trap));
        assert!(
            exit.text()
                .ends_with("guest 0x101.0 at 0x40000000: WFI -> WFI x3=0x5")
        );
        let json = exit.json().to_string();
        assert!(
            json.contains(r#""kind":"GUEST_EXIT","vm":"0x101","vcpu":0"#),
            "{json}"
        );
        assert!(json.ends_with(r#""exit":"WFI x3=0x5"}"#), "{json}");
        let host = noted(Event::HostTrap(Trap { exit: None, ..trap }));
        assert!(host.text().ends_with("host at 0x40000000: WFI"));
    }
}
