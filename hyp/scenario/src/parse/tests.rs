use super::*;

fn wrong(text: &str) -> String {
    parse("test", &format!("# Shows.\n{text}"))
        .unwrap_err()
        .to_string()
}

#[test]
fn a_scenario_says_what_it_shows() {
    assert_eq!(
        parse("x", "page p").unwrap_err().to_string(),
        "1:1: the first line says what the scenario shows: `# What it shows.`"
    );
    assert_eq!(
        parse("x", "# Nothing.").unwrap_err().to_string(),
        "1:1: the scenario does nothing"
    );
    assert_eq!(parse("x", "# A page.\npage p").unwrap().shows, "A page.");
}

/// What is wrong with a text, from its second line on.
const WRONG: &[(&str, &str)] = &[
    (
        "  vm_strat 1",
        "2:3: `vm_strat` is no verb; did you mean `vm_start`?",
    ),
    ("vm_start", "2:1: `vm_start` lacks vm"),
    (
        "mem_donate 1 2 count=3",
        "2:1: `mem_donate` lacks pfn order",
    ),
    (
        "vm_start 1 2",
        "2:12: `2` is one argument too many: `vm_start` takes vm",
    ),
    (
        "vm_start vn=1",
        "2:10: `vn` is no argument: `vm_start` takes vm; did you mean `vm`?",
    ),
    ("vm_start vm=1 vm=2", "2:15: `vm` is given twice"),
    (
        "mem_reclaim vm=1 2 3",
        "2:18: `2` follows an argument with a name, and has none",
    ),
    (
        "version 1",
        "2:9: `1` is one argument too many: `version` takes no arguments",
    ),
    (
        "page first\nvm_start frist+1",
        "3:10: nothing is called `frist` here; did you mean `first`?",
    ),
    (
        "vm_start vm=0x1G",
        "2:13: `0x1G` is no number: decimal or 0x..., at most 64 bits",
    ),
    (
        "vm_start 1++2",
        "2:10: `1++2` has a sign without a number before it",
    ),
    ("vm_start 1 -> v", "2:15: `vm_start` has no result"),
    ("page hyp", "2:6: `hyp` means something already"),
    (
        "page 3",
        "2:6: `3` is no name: a small letter, then letters, digits and _",
    ),
    (
        "page p\npin p isolatd",
        "3:7: `isolatd` is no kind of pin; did you mean `isolated`?",
    ),
    (
        "vm v kind=protcted",
        "2:11: `protcted` is no kind of VM; did you mean `protected`?",
    ),
    (
        "finish",
        "2:1: `finish` takes a call, as in `finish mem_reclaim v ram 512`",
    ),
    (
        "finish mem_reclam 1 2 3",
        "2:8: `mem_reclam` is no verb; did you mean `mem_reclaim`?",
    ),
    (
        "vm v\nguest v shar ram",
        "3:9: `shar` is nothing that a guest can do; did you mean `share`?",
    ),
    ("vm v\nguest v.x share ram", "3:7: `x` is no vCPU's number"),
    (
        "process fetch 1",
        "2:1: `process` goes like this: `process read FRAME` or `process write FRAME VALUE`",
    ),
    (
        "expect OK",
        "2:1: nothing stands before this `expect` that comes to anything",
    ),
    (
        "page p; expect OK",
        "2:9: nothing stands before this `expect` that comes to anything",
    ),
    (
        "version; expect OKAY",
        "2:17: `OKAY` is no outcome; did you mean `OK`?",
    ),
    (
        "version; expect OK versoin=1",
        "2:20: `versoin` is neither a result nor part of a refusal; did you mean `version`?",
    ),
    (
        "version; expect OK |",
        "2:20: nothing stands on one side of `|`",
    ),
    (
        "version; expect OK; expect OK",
        "2:21: the command before has its `expect` already; alternatives are separated by `|`",
    ),
    (
        "page p; expect state p = MINE",
        "2:26: `MINE` is no state; there are HOST HYP HOST_SHARED_HYP GUEST GUEST_SHARED_HOST WIPING POISONED NOT_RAM HOST_SHARED_GUEST ARRIVING",
    ),
    (
        "vm v; guest v spin 1; expect exit SHARD",
        "2:35: `SHARD` is no exit reason; did you mean `SHARED`?",
    ),
    ("repeat 3 {\nversion", "2:1: `repeat` has no `}`"),
    ("}", "2:1: `}` ends nothing"),
    (
        "repeat 3",
        "2:1: `repeat` goes like this: `repeat 3 {` or `repeat 3 as i {`",
    ),
    (
        "cpu0: page p",
        "2:7: a CPU's line has calls, guests, touches, and what is expected of them",
    ),
    ("raw", "2:1: `raw` takes x0 to x7, at least one of them"),
];

#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (text, expected) in WRONG {
        assert_eq!(wrong(text), *expected, "{text}");
    }
}

#[test]
fn every_call_is_a_verb() {
    for info in pinfold_abi::HostCall::TABLE {
        let words: Vec<_> = info
            .arguments
            .iter()
            .map(|field| format!("{}=1", field.name))
            .collect();
        let line = format!(
            "# Shows.\n{} {}",
            info.name.to_ascii_lowercase(),
            words.join(" ")
        );
        parse("test", &line).unwrap();
    }
}

#[test]
fn lines_of_cpus_make_one_statement() {
    let program = parse(
        "test",
        "# Shows.\ncpu0: version; expect OK\ncpu1: version\ncpu0: version\njoin\ncpu0: version",
    )
    .unwrap();
    let lines: Vec<Vec<usize>> = program
        .statements
        .iter()
        .map(|statement| {
            let Action::Parallel(lines) = &statement.action else {
                panic!("{statement:?}");
            };
            lines.iter().map(Vec::len).collect()
        })
        .collect();
    assert_eq!(lines, [vec![2, 1], vec![1]]);
}
