//! Is the specification sharp? Core is broken in each way that it can be, one at a time, and the clause that is meant must notice.
//!
//! The mutants are chosen for the whole process, so this is a program of its own with one test.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says what it found by panicking"
)]

#[path = "../agree/directed/mod.rs"]
mod directed;
#[path = "../agree/host.rs"]
mod host;
#[path = "../agree/lockstep.rs"]
mod lockstep;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pinfold_core::mutant::{Mutant, select};
use pinfold_spec::{Clause, Exercised, Violation};

use directed::{Scenario, scenarios};

/// The mutants that break each clause.
const MEANT: &[(Clause, &[Mutant])] = &[
    (Clause::UnknownCall, &[Mutant::UnknownCallSucceeds]),
    (Clause::Uuid, &[Mutant::NoUuid]),
    (Clause::Smccc, &[Mutant::NoArchFeatures]),
    (Clause::KeptRegisters, &[Mutant::ClearsSpareResults]),
    (
        Clause::RefusalSaysWhere,
        &[
            Mutant::HidesPinWord,
            Mutant::IndexWithinFolio,
            Mutant::IndexWithinStep,
        ],
    ),
    (Clause::RefusalChangesNothing, &[Mutant::DyingThoughBusy]),
    (Clause::TeardownBusy, &[Mutant::TeardownWhileLoaded]),
    (Clause::NothingElseChanges, &[Mutant::PoolTakesOneMore]),
    (Clause::PoolDonate, &[Mutant::GiftStaysHosts]),
    (Clause::NoMemoryOnlyWhenDry, &[Mutant::NoRoom]),
    (Clause::PoolFloor, &[Mutant::NoFloor]),
    (Clause::Version, &[Mutant::WrongVersion]),
    (Clause::Features, &[Mutant::PromisesMore]),
    (Clause::HandleUnknown, &[Mutant::TakesStaleHandle]),
    (Clause::OnlyBeforeStart, &[Mutant::ConfiguresStarted]),
    (Clause::OnlyWhileLive, &[Mutant::RunsAnyPhase]),
    (Clause::OnlyBeforeTeardown, &[Mutant::GivesToDying]),
    (
        Clause::OnlyAfterTeardownBegin,
        &[Mutant::ReclaimsFromLiving],
    ),
    (Clause::OnlyForItsKind, &[Mutant::AnyKind]),
    (Clause::CreateMalformed, &[Mutant::AnyVmFlag]),
    (Clause::CreateLimit, &[Mutant::FullIsInvalid]),
    (Clause::Create, &[Mutant::HandleComesBack]),
    (Clause::RegionMalformed, &[Mutant::RegionBeyondReach]),
    (Clause::RegionOverlap, &[Mutant::RegionsOverlap]),
    (Clause::RegionLimit, &[Mutant::SeventeenRegions]),
    (Clause::Region, &[Mutant::RegionForgotten]),
    (Clause::GicMalformed, &[Mutant::GicAnywhere]),
    (Clause::Gic, &[Mutant::GicForgotten]),
    (Clause::Start, &[Mutant::StartsNothing]),
    (Clause::TeardownBegin, &[Mutant::TeardownForgotten]),
    (Clause::TeardownOwns, &[Mutant::OwnersMayGo]),
    (Clause::TeardownFinish, &[Mutant::RootLeaks]),
    (Clause::VcpuMalformed, &[Mutant::AnyVcpuFlag]),
    (Clause::VcpuUnknown, &[Mutant::AnyVcpuIndex]),
    (Clause::VcpuExists, &[Mutant::VcpuTwice]),
    (Clause::VcpuCreate, &[Mutant::CreatedRunning]),
    (Clause::VcpuLoaded, &[Mutant::LoadedIsGone]),
    (Clause::RegisterRan, &[Mutant::SetsAfterRun]),
    (Clause::RegisterMalformed, &[Mutant::AnyRegister]),
    (Clause::RegisterSet, &[Mutant::PcUnset]),
    (Clause::RunSystemEnded, &[Mutant::RunsOn]),
    (Clause::RunCrashed, &[Mutant::RunsCrashed]),
    (Clause::RunOff, &[Mutant::RunsOff]),
    (Clause::RunStarts, &[Mutant::StartsElsewhere]),
    (Clause::RunKeeps, &[Mutant::ForgetsRegisters]),
    (Clause::MmioAnswer, &[Mutant::AnswerUncut]),
    (Clause::PinsMalformed, &[Mutant::EmptyIsLimit]),
    (Clause::PinsTaken, &[Mutant::PinsOverlap]),
    (Clause::PinsLimit, &[Mutant::FullIsTaken]),
    (Clause::PinsNotHosts, &[Mutant::SharesAnything]),
    (Clause::PinsStep, &[Mutant::DoneTooSoon]),
    (Clause::PinsDone, &[Mutant::PinTableUncounted]),
    (Clause::PoolMalformed, &[Mutant::LargeGift]),
    (Clause::PoolNotHosts, &[Mutant::PoolTakesAnything]),
    (Clause::PoolReclaimNone, &[Mutant::NoneIsBusy]),
    (Clause::PoolReclaim, &[Mutant::ReclaimedStaysHyp]),
    (Clause::PoolStatus, &[Mutant::GiftUncounted]),
    (Clause::HypReaches, &[Mutant::KeepsHypMapping]),
    (Clause::DonateMalformed, &[Mutant::LargeDonation]),
    (Clause::DonateUnaligned, &[Mutant::DonatesUnaligned]),
    (Clause::DonateOutsideRam, &[Mutant::DonatesOutsideRam]),
    (Clause::DonateNotHosts, &[Mutant::DonatesAnything]),
    (Clause::DonateNoPinTable, &[Mutant::DonatesWithoutTable]),
    (
        Clause::DonateNotPinned,
        &[
            Mutant::SkipsPinCheck,
            Mutant::IgnoresPinCount,
            Mutant::IgnoresIsolation,
            Mutant::IgnoresPinOrder,
            Mutant::IgnoresTails,
        ],
    ),
    (Clause::DonateOccupied, &[Mutant::DonatesOver]),
    (Clause::DonateBounded, &[Mutant::DonatesUnbounded]),
    (Clause::DonateGoesOn, &[Mutant::NeverGoesOn]),
    (Clause::DonateGives, &[Mutant::ForgetsOrder]),
    (
        Clause::DonateCleans,
        &[
            Mutant::SkipsClean,
            Mutant::GivesUncleaned,
            Mutant::KeepsInstructions,
        ],
    ),
    (Clause::ContentStays, &[Mutant::WipesDonation]),
    (
        Clause::GuestReaches,
        &[Mutant::GuestCannotExecute, Mutant::GrantsAll],
    ),
    (Clause::GuestReachesNoMore, &[Mutant::MapsOneMore]),
    (Clause::ReclaimMalformed, &[Mutant::LongReclaim]),
    (Clause::ReclaimCuts, &[Mutant::CutsFolios]),
    (Clause::ReclaimHoles, &[Mutant::NeverDone]),
    (Clause::ReclaimBounded, &[Mutant::Unbounded]),
    (Clause::ReclaimLeavesCut, &[Mutant::TakesCutFolio]),
    (Clause::ReclaimGives, &[Mutant::OwnedStays]),
    (Clause::HostReaches, &[Mutant::ReclaimedIsShared]),
    (
        Clause::MachineRules,
        &[
            Mutant::SharedStaysMapped,
            Mutant::SkipsFlush,
            Mutant::SkipsBreak,
            Mutant::FlushesOtherVmid,
            Mutant::FlushesOneLess,
            Mutant::FreesBeforeFlush,
            Mutant::SkipsPublish,
            Mutant::LeaksTables,
        ],
    ),
    (Clause::ShareGuestMalformed, &[Mutant::WritesWithoutReading]),
    (Clause::ShareGuestOutsideRam, &[Mutant::SharesOutsideRam]),
    (Clause::ShareGuestNotHosts, &[Mutant::SharesAnybodys]),
    (Clause::ShareGuestFull, &[Mutant::SharesWithoutEnd]),
    (Clause::ShareGuestOccupied, &[Mutant::SharesOver]),
    (Clause::ShareGuestBounded, &[Mutant::SharesUnbounded]),
    (Clause::ShareGuestLets, &[Mutant::ShareUncounted]),
    (Clause::GuestRangeMalformed, &[Mutant::LongChange]),
    (Clause::GuestRangeCuts, &[Mutant::CutsBlocks]),
    (Clause::GuestRangeLeavesCut, &[Mutant::TakesCutBlock]),
    (Clause::GuestRangeBounded, &[Mutant::ChangesUnbounded]),
    (Clause::GuestRangeHoles, &[Mutant::HolesAreLeft]),
    (
        Clause::UnshareGuestTakes,
        &[Mutant::UnshareUncounted, Mutant::UnsharedStays],
    ),
    (Clause::ProtectGuestSays, &[Mutant::ProtectsNothing]),
    (Clause::GuestOrdinary, &[Mutant::OffersSharing]),
    (Clause::FaultDenied, &[Mutant::DeniedIsAbort]),
    (Clause::PoisonMalformed, &[Mutant::CutsPoisonPfn]),
    (Clause::PoisonNotHosts, &[Mutant::PoisonsAnything]),
    (Clause::PoisonTakes, &[Mutant::PoisonForgotten]),
    (Clause::LineMalformed, &[Mutant::AnyLevel]),
    (Clause::Line, &[Mutant::KicksNobody]),
    (Clause::QueryMalformed, &[Mutant::CutsPfn]),
    (Clause::Query, &[Mutant::QueriesHead]),
    (Clause::Census, &[Mutant::CensusDrifts]),
    (Clause::DigestMalformed, &[Mutant::LongDigest]),
    (Clause::Digest, &[Mutant::DigestsNothing]),
    (Clause::RangeMalformed, &[Mutant::CutsRangePfn]),
    (Clause::Range, &[Mutant::RangeForgetsPlace]),
    (Clause::TraceOfNobody, &[Mutant::EmptyTrace]),
    (Clause::CounterMalformed, &[Mutant::AnyCounter]),
    (Clause::CounterValue, &[Mutant::CountsTwice]),
    (Clause::GuestQuery, &[Mutant::LargeGranule]),
    (Clause::GuestUnknown, &[Mutant::UnknownGuestCallSucceeds]),
    (Clause::GuestMalformed, &[Mutant::SharesUnaligned]),
    (Clause::ShareMissing, &[Mutant::MissingIsInvalid]),
    (Clause::ShareRefused, &[Mutant::RefusedShareSucceeds]),
    (Clause::UnshareRefused, &[Mutant::RefusedUnshareSucceeds]),
    (Clause::ShareLets, &[Mutant::ShareUnnoted]),
    (Clause::HostShares, &[Mutant::SharedIsExecutable]),
    (Clause::DecoyGoesByMove, &[Mutant::DecoyOutlivesShare]),
    (Clause::ShareDeclined, &[Mutant::DeclineUntold]),
    (Clause::ShareStands, &[Mutant::DeclineAlwaysTold]),
    (
        Clause::UnshareAsks,
        &[Mutant::UnsharesUnpinned, Mutant::AnyWordSpeaks],
    ),
    (Clause::UnshareTakes, &[Mutant::UnshareUnnoted]),
    (Clause::HostShutOut, &[Mutant::HostStays]),
    (Clause::UnshareRepeats, &[Mutant::AgreementIsDecline]),
    (Clause::UnshareDeclined, &[Mutant::DeclinedUnshareSucceeds]),
    (Clause::RelinquishGives, &[Mutant::RelinquishUntold]),
    (Clause::RelinquishNothing, &[Mutant::NothingIsRefused]),
    (
        Clause::RelinquishRefused,
        &[Mutant::RefusedRelinquishSucceeds],
    ),
    (Clause::FaultMissing, &[Mutant::FetchIsLoad]),
    (Clause::FaultServed, &[Mutant::FaultsAgain]),
    (
        Clause::FetchOutside,
        &[Mutant::FetchesAnywhere, Mutant::AbortsAsData],
    ),
    (Clause::MmioRead, &[Mutant::ReadsWide]),
    (Clause::MmioWrite, &[Mutant::StoreLeaks]),
    (Clause::PowerOff, &[Mutant::OffIsInterrupt]),
    (
        Clause::PowerOn,
        &[Mutant::StartsUntold, Mutant::WideArguments],
    ),
    (
        Clause::PowerOnRefused,
        &[Mutant::OnTwice, Mutant::CutsAffinity],
    ),
    (
        Clause::SystemEnds,
        &[Mutant::EndUntold, Mutant::ResetTypeUntold],
    ),
    (Clause::ResetReserved, &[Mutant::AnyResetType]),
    (Clause::PsciVersion, &[Mutant::OldPsci]),
    (Clause::PsciFeatures, &[Mutant::OffersAnything]),
    (Clause::PsciUnknown, &[Mutant::AnyPsciWidth]),
    (Clause::AffinityInfo, &[Mutant::StartingIsOff]),
    (Clause::AffinityNobody, &[Mutant::NobodyIsOff]),
    (Clause::MigrateType, &[Mutant::MigratesAnything]),
    (Clause::Standby, &[Mutant::SuspendFails]),
    (Clause::CallBySmc, &[Mutant::SmcRepeats]),
    (Clause::CallImmediate, &[Mutant::AnyImmediate]),
    (Clause::StartState, &[Mutant::StartsUnmasked]),
    (Clause::Wait, &[Mutant::WaitsForEver]),
    (Clause::WaitEvent, &[Mutant::EventRepeats]),
    (Clause::IdCeiling, &[Mutant::NoCeilings]),
    (Clause::IdAbsent, &[Mutant::AbsentIsThere]),
    (Clause::IdHidden, &[Mutant::ShowsUnlisted]),
    (Clause::DebugNothing, &[Mutant::NoOsLock]),
    (Clause::ImplementationNothing, &[Mutant::NoActlr]),
    (Clause::InterfaceFixed, &[Mutant::ShowsBypass]),
    (Clause::SgiOfOthers, &[Mutant::SendsForOthers]),
    (Clause::SgiSends, &[Mutant::NoSgis]),
    (Clause::WaitPending, &[Mutant::SleepsThrough]),
    (Clause::Attention, &[Mutant::TimerIsHosts]),
    (Clause::GicIdentity, &[Mutant::PromisesSpis]),
    (Clause::GicReserved, &[Mutant::ReservedShows]),
    (Clause::GicControl, &[Mutant::AlwaysForwards]),
    (Clause::GicGroup, &[Mutant::GroupZero]),
    (Clause::GicEnable, &[Mutant::StaysEnabled]),
    (Clause::GicPend, &[Mutant::StaysPending]),
    (Clause::GicActive, &[Mutant::StaysActive]),
    (Clause::GicPriority, &[Mutant::PriorityStays]),
    (Clause::GicTrigger, &[Mutant::TriggerStays]),
    (Clause::GicRoute, &[Mutant::CutsRoute]),
    (Clause::GicKicks, &[Mutant::WritesKickNobody]),
    (Clause::LineKicks, &[Mutant::LineKicksFirst]),
    (
        Clause::ListsHold,
        &[Mutant::SgisGoAnywhere, Mutant::EndsUncounted],
    ),
    (Clause::ListsActive, &[Mutant::ForgetsActive]),
    (Clause::ListsChoose, &[Mutant::ChoosesUrgent]),
    (Clause::ListsTell, &[Mutant::TellsNothing]),
    (Clause::ListsName, &[Mutant::ListsFlat]),
    (Clause::ListsEnd, &[Mutant::EndsUntold]),
    (Clause::ListsTimer, &[Mutant::TimerIsSoftware]),
    (Clause::TimerDue, &[Mutant::TimerNeverDue]),
    (Clause::TimerHeld, &[Mutant::TimerUnheld]),
    (Clause::EdgeStays, &[Mutant::LosesEdges]),
    (Clause::RegisterUndefined, &[Mutant::UnknownIsZero]),
    (Clause::InstructionUndefined, &[Mutant::SkipsUndefined]),
    (Clause::FloatingPoint, &[Mutant::NoFloatingPoint]),
    (Clause::Crash, &[Mutant::CrashUnclassed]),
    (Clause::Interrupted, &[Mutant::SwallowsInterrupts]),
    (Clause::TouchRetry, &[Mutant::NeverRetries]),
    (Clause::TouchInject, &[Mutant::DecoyForProcess]),
    (Clause::TouchDecoy, &[Mutant::NoDecoys]),
    (Clause::DecoyIsZero, &[Mutant::UsedDecoy]),
    (Clause::DecoyGoesByRun, &[Mutant::DecoyOutlivesRun]),
    (Clause::MachineEnds, &[Mutant::EndsUnwiped]),
    (Clause::HostDevices, &[Mutant::HolesStay]),
    (Clause::LargestEntries, &[Mutant::NeverCollapses]),
    (Clause::PoolBalance, &[Mutant::SpareLost]),
    (Clause::ContentWiped, &[Mutant::SkipsWipe]),
];

/// Mutants that show only where an allocation fails though the pool is not dry: `tests/exhaustive` kills them.
const ELSEWHERE: &[Mutant] = &[Mutant::ReserveLeaks, Mutant::RootStays];

/// The clause that a mutant breaks.
fn meant(mutant: Mutant) -> Clause {
    let mut rows = MEANT
        .iter()
        .filter(|(_, mutants)| mutants.contains(&mutant));
    let row = rows.next().unwrap();
    assert!(rows.next().is_none(), "{mutant:?} is meant for two clauses");
    row.0
}

/// Runs a scenario. A machine that panics has seen a rule of the architecture broken.
fn outcome((_, scenario): &Scenario) -> Result<Exercised, Violation> {
    let run = AssertUnwindSafe(|| scenario().map(|both| both.spec.exercised().clone()));
    catch_unwind(run).unwrap_or_else(|panic| {
        let what = panic.downcast_ref::<String>().cloned().unwrap_or_default();
        Err(Violation::new(Clause::MachineRules, what))
    })
}

/// Runs the scenarios, those that exercise the clause first, until one of them finds it broken. Otherwise tells what they found.
fn hunt(
    mutant: Mutant,
    clean: &[(&Scenario, Exercised)],
) -> Result<(), BTreeMap<&'static str, Violation>> {
    let clause = meant(mutant);
    select(Some(mutant));
    let mut order: Vec<_> = clean.iter().collect();
    order.sort_by_key(|(_, exercised)| !exercised.has(clause));
    let mut found = BTreeMap::new();
    for (scenario, _) in order {
        match outcome(scenario) {
            Err(violation) if violation.clause == clause => return Ok(()),
            Err(violation) => found.insert(scenario.0, violation),
            Ok(_) => None,
        };
    }
    Err(found)
}

#[test]
fn every_mutant_is_killed_by_its_clause() {
    select(None);
    let clean: Vec<_> = scenarios()
        .map(|scenario| (scenario, outcome(scenario).unwrap()))
        .collect();
    // Mutants that panic are expected; what they say is in the violation.
    std::panic::set_hook(Box::new(|_| {}));
    let mut alive = Vec::new();
    let ours = Mutant::ALL
        .iter()
        .filter(|mutant| !ELSEWHERE.contains(mutant));
    for mutant in ours.clone() {
        if let Err(found) = hunt(*mutant, &clean) {
            alive.push((mutant, meant(*mutant), found));
        }
    }
    select(None);
    drop(std::panic::take_hook());
    assert!(alive.is_empty(), "alive: {alive:#?}");
    let without = Clause::ALL
        .iter()
        .find(|clause| MEANT.iter().all(|row| row.0 != **clause));
    assert_eq!(without, None, "a clause has no mutant");
    println!(
        "{} mutants are killed by {} clauses",
        ours.count(),
        Clause::ALL.len()
    );
}
