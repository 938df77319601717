//! The corpus on the two executors that need no machine, and what it covers.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what it found by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pinfold_abi::claim::{Gfn, Pfn};
use pinfold_abi::{HostCall, State};
use pinfold_scenario::{Cell, Explored, Program, on_core, on_specification, parse};

/// The states that a frame can be in.
const STATES: [State; 10] = [
    State::Host,
    State::Hyp,
    State::HostSharedHyp,
    State::HostSharedGuest,
    State::Arriving,
    State::Guest,
    State::GuestSharedHost,
    State::Wiping,
    State::Poisoned,
    State::NotRam,
];

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// All scenarios, read.
fn corpus() -> Vec<Program> {
    let root = Path::new("corpus");
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().with_extension("");
        let text = std::fs::read_to_string(path).unwrap();
        parse(name.to_str().unwrap(), &text)
            .unwrap_or_else(|error| panic!("{}:{error}", path.display()))
    };
    files(root).iter().map(read).collect()
}

/// Runs each scenario on both; what they came to, by name.
fn run_all(corpus: &[Program]) -> BTreeMap<&str, (Explored, Explored)> {
    let (mut done, mut wrong) = (BTreeMap::new(), Vec::new());
    for program in corpus {
        match (on_specification(program), on_core(program)) {
            (Ok(specified), Ok(core)) => {
                done.insert(program.name.as_str(), (specified, core));
            }
            (specified, core) => {
                let troubles = [("specification", specified.err()), ("core", core.err())];
                wrong.extend(troubles.into_iter().filter_map(|(who, trouble)| {
                    Some(format!("{} on {who}: {:?}", program.name, trouble?))
                }));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        corpus.len(),
        wrong.join("\n")
    );
    done
}

/// What must be done in which states of the frame.
fn matrix() -> BTreeSet<Cell> {
    let mut cells = BTreeSet::new();
    let mut add = |what: &str, states: &[Option<State>]| {
        cells.extend(states.iter().map(|state| Cell {
            what: what.to_owned(),
            state: *state,
        }));
    };
    let frames = STATES.map(Some);
    // At a guest's frame there may be nothing. What is being wiped belongs to a VM that runs no more.
    let places = [
        None,
        Some(State::HostSharedGuest),
        Some(State::Arriving),
        Some(State::Guest),
        Some(State::GuestSharedHost),
        Some(State::Wiping),
    ];
    let [living @ .., _] = places;
    for call in HostCall::TABLE {
        for argument in call.arguments {
            let name = format!("{}.{}", call.name, argument.name);
            match argument.unit {
                Pfn::UNIT => add(&name, &frames),
                Gfn::UNIT => add(&name, &places),
                _ => {}
            }
        }
    }
    for touch in [
        "process read",
        "process write",
        "kernel read",
        "kernel write",
        "kernel fetch",
    ] {
        add(touch, &frames);
    }
    for deed in [
        "guest share",
        "guest unshare",
        "guest relinquish",
        "guest read",
        "guest write",
        "guest fetch",
    ] {
        add(deed, &living);
    }
    cells
}

#[test]
fn specification_and_core_agree_and_every_cell_is_covered() {
    let corpus = corpus();
    assert!(corpus.len() >= 150, "only {} scenarios", corpus.len());
    let done = run_all(&corpus);
    let (mut covered, mut orders) = (BTreeSet::new(), 0);
    for (name, (specified, core)) in &done {
        assert_eq!(
            specified.report.transcript, core.report.transcript,
            "{name}"
        );
        assert_eq!(specified.report.digest, core.report.digest, "{name}");
        covered.extend(specified.cells.iter().cloned());
        orders += core.orders;
    }
    let missing: Vec<_> = matrix()
        .difference(&covered)
        .map(|cell| format!("{} of {:?}", cell.what, cell.state))
        .collect();
    assert!(
        missing.is_empty(),
        "{} cells are not covered:\n{}",
        missing.len(),
        missing.join("\n")
    );
    println!(
        "{} scenarios, {orders} orders, {} cells",
        done.len(),
        matrix().len()
    );
}

#[test]
fn a_scenario_that_expects_the_wrong_thing_fails() {
    for (text, expected) in [
        (
            "version\nexpect INVALID",
            "line 2, `version`: came to OK version=65536; line 3 says `expect INVALID`",
        ),
        (
            "vm v\nvm_start v",
            "came to WRONG_PHASE, and nothing is said of that",
        ),
        ("page p\nexpect state p = GUEST", "it is HOST, order 0"),
        (
            "page p\nkernel write p 7\nkernel read p\nexpect value 8",
            "came to value 0x7",
        ),
        (
            "page p\nmem_donate 1 2 p 1 0\nexpect NO_SUCH_VM x2=5",
            "came to NO_SUCH_VM",
        ),
        ("vm v\nguest v resume", "the vCPU has nothing to go on with"),
        (
            "page p\npin p isolated\nvm v\nmem_donate v ram p 1 0\nprocess read p",
            "came to abort",
        ),
        (
            "cpu0: version\ncpu1: version\nexpect count OK = 1",
            "2 outcomes are so",
        ),
    ] {
        let program = parse("test", &format!("# Shows.\n{text}")).unwrap();
        for trouble in [on_specification(&program).err(), on_core(&program).err()] {
            let trouble = format!("{:?}", trouble.unwrap());
            assert!(trouble.contains(expected), "{text}: {trouble}");
        }
    }
}

#[test]
fn parallel_lines_run_in_every_order() {
    let text = "# Shows.\nvm v\ncpu0: guest v spin 5; version\ncpu1: version; version";
    let program = parse("test", text).unwrap();
    // The guest's deed has a beginning and an end: 3 events beside 2.
    assert_eq!(on_core(&program).unwrap().orders, 10);
    assert_eq!(on_specification(&program).unwrap().orders, 10);
}
