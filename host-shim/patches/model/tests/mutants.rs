//! The checker notices whatever is done wrong, where it should and for the reason that it should.

use pinfold_pin_model::{Mutant, SCENARIOS, check};

const NOT_THE_ONLY_ONE: &str = "an exclusive pin is not the only one";
const TOUCHED: &str = "the host touched a page of EL2's";
const UNORDERED: &str = "Causality violation";
const SEEN: &str = "an isolation that failed was seen";
const FROZEN: &str = "a reference was added to a frozen count";

/// What is wrong, the scenario that shows it, and what the checker says.
const CAUGHT: &[(Mutant, &str, &str)] = &[
    (
        Mutant::DropUnmap,
        "isolation of anonymous memory, slow FOLL_GET",
        UNORDERED,
    ),
    (
        Mutant::DropSlowPathTest,
        "isolation of anonymous memory, slow pin",
        NOT_THE_ONLY_ONE,
    ),
    (
        Mutant::DropSlowPathTest,
        "isolation of anonymous memory, slow FOLL_GET",
        TOUCHED,
    ),
    (
        Mutant::DropFastTest,
        "isolation of anonymous memory, fast FOLL_GET",
        TOUCHED,
    ),
    (
        Mutant::DropFastTest,
        "isolation while a pipe has a reference",
        NOT_THE_ONLY_ONE,
    ),
    (
        Mutant::DropCacheTest,
        "isolation of shmem, read() of the file",
        TOUCHED,
    ),
    (
        Mutant::DropScanTest,
        "isolation of anonymous memory, KSM scan",
        TOUCHED,
    ),
    (
        Mutant::DropForkTest,
        "isolation, fork() of the owner",
        TOUCHED,
    ),
    (Mutant::DropCount, "exclusive pin, fast pin", UNORDERED),
    (Mutant::DropCount, "exclusive pin, slow pin", UNORDERED),
    (
        Mutant::DropUncount,
        "exclusive pin, fast pin",
        "pins are left in the word",
    ),
    (
        Mutant::TestBeforeReference,
        "isolation of anonymous memory, fast FOLL_GET",
        TOUCHED,
    ),
    (
        Mutant::TestBeforeReference,
        "isolation of shmem, read() of the file",
        TOUCHED,
    ),
    (
        Mutant::AddToFrozen,
        "isolation of anonymous memory, fast pin",
        FROZEN,
    ),
    (
        Mutant::MarkAfterUnfreeze,
        "isolation of anonymous memory, fast FOLL_GET",
        TOUCHED,
    ),
    (
        Mutant::CompareOnly,
        "isolation of anonymous memory, fast FOLL_GET",
        TOUCHED,
    ),
    (
        Mutant::RelaxedUnfreeze,
        "isolation of anonymous memory, fast FOLL_GET",
        TOUCHED,
    ),
    (
        Mutant::RelaxedPut,
        "last unpin, munmap",
        "a pinned folio was freed",
    ),
    (
        Mutant::RelaxedTest,
        "isolation ends, read() of the file",
        UNORDERED,
    ),
    (Mutant::NonAtomicGrab, "exclusive pin, fast pin", UNORDERED),
    (
        Mutant::LookAfterwards,
        "exclusive pin, memfd_pin_folios()",
        "both were refused",
    ),
    (
        Mutant::IgnoreOtherPins,
        "exclusive pin, fast pin",
        UNORDERED,
    ),
    (
        Mutant::PromoteAnyPin,
        "one of two pins made exclusive",
        NOT_THE_ONLY_ONE,
    ),
    (
        Mutant::PutReferenceBeforeWord,
        "last unpin, munmap",
        "a pinned folio was freed",
    ),
    (
        Mutant::FreeIsolated,
        "unpin of an isolated folio, fast FOLL_GET",
        "a page of EL2's was let go",
    ),
    (
        Mutant::UnisolateTooEarly,
        "isolation ends, fast FOLL_GET",
        UNORDERED,
    ),
    (
        Mutant::ForgetPin,
        "isolation while a pipe has a reference",
        "the word has changed",
    ),
    (
        Mutant::ForgetRemap,
        "isolation of anonymous memory, fast pin",
        "a migration entry is left",
    ),
    (
        Mutant::RemapBeforeDecision,
        "two anonymous folios isolated, slow FOLL_GET",
        SEEN,
    ),
    (
        Mutant::RemapBeforeDecision,
        "two anonymous folios, a pipe has one, fast FOLL_GET",
        SEEN,
    ),
    (
        Mutant::FolioByFolio,
        "two anonymous folios isolated, slow FOLL_GET",
        SEEN,
    ),
    (
        Mutant::FolioByFolio,
        "two anonymous folios isolated backwards, slow FOLL_GET",
        "half of the folios were isolated",
    ),
    (
        Mutant::FolioByFolio,
        "two folios of shmem isolated, slow FOLL_GET",
        SEEN,
    ),
    (
        Mutant::FolioByFolio,
        "two folios of shmem isolated, read() of one",
        SEEN,
    ),
    (
        Mutant::NoFolioLock,
        "isolation of anonymous memory, compaction",
        TOUCHED,
    ),
    (
        Mutant::NoMmapLock,
        "isolation, fork() of the owner",
        "a child shares",
    ),
    (
        Mutant::TailWordsLate,
        "split of an isolated folio, fast FOLL_GET of its tail",
        TOUCHED,
    ),
    (
        Mutant::TailWordsNever,
        "split of an isolated folio, fast FOLL_GET of its tail",
        TOUCHED,
    ),
    (
        Mutant::TailWordsNever,
        "split of a pinned folio, fast pin of the same page",
        "exclusive",
    ),
    (
        Mutant::MarkAfterUnfreeze,
        "isolation of a large folio, fast FOLL_GET of its tail",
        TOUCHED,
    ),
    (
        Mutant::GuessByWord,
        "split of a pinned folio, fast pin of the other page",
        "references are left",
    ),
];

#[test]
fn every_mutant_is_caught() {
    let mut missed = Vec::new();
    for (mutant, name, reason) in CAUGHT {
        let scenario = SCENARIOS.iter().find(|scenario| scenario.name == *name);
        let outcome = check(scenario.expect("no such scenario"), Some(*mutant));
        let violation = outcome.violation.unwrap_or_else(|| "nothing".into());
        println!(
            "{mutant:?}: execution {} of \"{name}\": {violation}",
            outcome.executions
        );
        if !violation.contains(reason) {
            missed.push(format!("{mutant:?} in \"{name}\": {violation}"));
        }
    }
    assert!(missed.is_empty(), "missed:\n{}", missed.join("\n"));
}

#[test]
fn every_mutant_has_its_test() {
    for mutant in Mutant::ALL {
        assert!(
            CAUGHT.iter().any(|(caught, _, _)| *caught == mutant),
            "{mutant:?}"
        );
    }
}
