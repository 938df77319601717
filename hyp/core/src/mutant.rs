//! Seeded mutants: ways to break core on purpose, so that it shows whether the checks notice.
//!
//! [`select`] turns one of them on. Without the feature `mutants` this file is empty, `mutant!` is `false` and `seeded!` is what is
//! right; a release image with the feature does not build. `hyp/spec/tests/mutants` runs all of them against the specification.

#[cfg(all(feature = "mutants", target_os = "none", not(debug_assertions)))]
compile_error!("a release image has no mutants");

/// Whether the mutant of this name is on.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutant::is($crate::mutant::Mutant::$name)
    };
}

#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

/// What is right, or what is wrong while the mutant of this name is on.
macro_rules! seeded {
    ($name:ident, $wrong:expr, $right:expr) => {
        if mutant!($name) { $wrong } else { $right }
    };
}

#[cfg(feature = "mutants")]
pub(crate) use seeds::is;
#[cfg(feature = "mutants")]
pub use seeds::{Mutant, select};

#[cfg(feature = "mutants")]
mod seeds {
    use core::sync::atomic::{AtomicU16, Ordering};

    macro_rules! mutants {
        ($($name:ident = $text:literal;)*) => {
            /// One way to break core.
            #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
            #[repr(u16)]
            pub enum Mutant {
                $(#[doc = $text] $name,)*
            }

            impl Mutant {
                /// All of them.
                pub const ALL: &'static [Self] = &[$(Self::$name,)*];

                /// The one of this name.
                #[must_use]
                pub fn named(name: &str) -> Option<Self> {
                    match name {
                        $(stringify!($name) => Some(Self::$name),)*
                        _ => None,
                    }
                }
            }
        };
    }

    mutants! {
        UnknownCallSucceeds = "An unknown call returns success.";
        NoUuid = "The UUID call is unknown.";
        NoArchFeatures = "`SMCCC_ARCH_FEATURES` is unknown.";
        ClearsSpareResults = "Registers that are no results become 0.";
        HidesPinWord = "A refusal does not say the pin word.";
        IndexWithinFolio = "The index in a refusal of a pin counts from the head of its folio.";
        IndexWithinStep = "The index in a refusal of a pin table counts from the step.";
        DyingThoughBusy = "A refused teardown begins.";
        TeardownWhileLoaded = "A teardown begins while a vCPU is loaded.";
        PoolTakesOneMore = "The frame after a gift to the pool is said to be EL2's.";
        GiftStaysHosts = "A frame in the pool is said to be the host's.";
        NoRoom = "There is never room for an object.";
        NoFloor = "Every call may take the last frames of the pool.";
        WrongVersion = "VERSION is that of another table.";
        PromisesMore = "FEATURES promises more frames in a call.";
        TakesStaleHandle = "A handle of an earlier VM names the one in its slot.";
        ConfiguresStarted = "A started VM is configured.";
        RunsAnyPhase = "A vCPU of any VM runs.";
        GivesToDying = "A dying VM gets frames.";
        ReclaimsFromLiving = "A living VM loses frames.";
        AnyVmFlag = "Unknown flags of a VM are ignored.";
        AnyKind = "What is for protected VMs is done for ordinary ones.";
        FullIsInvalid = "A full table of VMs is said to be a malformed argument.";
        HandleComesBack = "A handle is given out again.";
        RegionBeyondReach = "Guest RAM lies beyond 40-bit addresses.";
        RegionsOverlap = "Regions of guest RAM overlap.";
        SeventeenRegions = "There is one region more than there may be.";
        RegionForgotten = "A region is not guest RAM.";
        GicAnywhere = "The interrupt controller lies anywhere.";
        GicForgotten = "The interrupt controller is not where it was placed.";
        StartsNothing = "A started VM is not live.";
        TeardownForgotten = "A teardown does not begin.";
        OwnersMayGo = "The end of a VM that owns frames is no error.";
        RootLeaks = "The root tables of a VM outlive it.";
        AnyVcpuFlag = "Unknown flags of a vCPU are ignored.";
        AnyVcpuIndex = "A VM has more vCPUs than it was created with.";
        VcpuTwice = "A vCPU is created twice.";
        CreatedRunning = "A vCPU that is created off is on.";
        LoadedIsGone = "A vCPU that runs is said not to be there.";
        SetsAfterRun = "The host sets a register of a vCPU that ran.";
        AnyRegister = "An unknown register is set.";
        PcUnset = "The PC is not set.";
        RunsOn = "A VM that was switched off runs on.";
        RunsCrashed = "A vCPU that crashed runs on.";
        RunsOff = "A vCPU that is off runs.";
        StartsElsewhere = "A vCPU does not start where its guest said.";
        ForgetsRegisters = "A vCPU loses its registers between runs.";
        AnswerUncut = "A load finds more than its width.";
        EmptyIsLimit = "A malformed range of the pin table is said to be one too many.";
        PinsOverlap = "Two ranges of the pin table speak for one frame.";
        FullIsTaken = "A range too many is said to be there.";
        SharesAnything = "Any frame becomes a pin table.";
        DoneTooSoon = "A part of a pin table is said to be all.";
        PinTableUncounted = "The pin table is not noted as in use.";
        LargeGift = "A gift to the pool is larger than it may be.";
        PoolTakesAnything = "Any frame goes into the pool.";
        NoneIsBusy = "An empty pool is said to be busy.";
        ReclaimedStaysHyp = "A frame that left the pool is said to be EL2's.";
        GiftUncounted = "A gift to the pool is not counted.";
        KeepsHypMapping = "EL2 keeps a frame mapped that left the pool.";
        LargeDonation = "A donation is larger than it may be.";
        DonatesUnaligned = "A folio need not be aligned.";
        DonatesOutsideRam = "A frame is donated where there is no guest RAM.";
        DonatesAnything = "Any frame is donated.";
        DonatesWithoutTable = "A frame is donated of which no pin table speaks.";
        SkipsPinCheck = "A frame is donated whatever its pin word says.";
        IgnoresPinCount = "A frame is donated that has several exclusive pins.";
        IgnoresIsolation = "A frame is donated that is not isolated.";
        IgnoresPinOrder = "A folio is donated whose pin is of another order.";
        IgnoresTails = "A folio is donated whose tails are pinned.";
        DonatesOver = "A frame is donated where the guest has one.";
        ForgetsOrder = "A donated folio is noted as frames.";
        DonatesUnbounded = "A call donates as much as there is.";
        NeverGoesOn = "A donation that was begun is not gone on with.";
        GivesUncleaned = "Of a folio that arrives in steps, only the first part is cleaned.";
        SkipsClean = "A donated frame is not cleaned.";
        KeepsInstructions = "CPUs keep instructions of a donated frame.";
        WipesDonation = "A donated frame loses its content.";
        GuestCannotExecute = "A guest cannot execute what it got.";
        MapsOneMore = "A guest gets the frame after a donation, too.";
        LongReclaim = "A reclaim is longer than it may be.";
        CutsFolios = "A reclaim starts within a folio.";
        NeverDone = "A reclaim is never done.";
        Unbounded = "A reclaim wipes as much as there is.";
        TakesCutFolio = "A reclaim takes a folio that it should cut.";
        OwnedStays = "Frames that a VM gave back are counted as its own.";
        ReclaimedIsShared = "The host cannot execute what came back.";
        SharedStaysMapped = "The host keeps a shared frame while it is wiped.";
        WritesWithoutReading = "Frames are shared to be written and not read.";
        SharesOutsideRam = "A frame is shared where there is no guest RAM.";
        SharesAnybodys = "Any frame is shared with an ordinary VM.";
        SharesWithoutEnd = "A frame is shared more often than it can be.";
        SharesOver = "A frame is shared where the guest has one.";
        SharesUnbounded = "A call shares as much as there is.";
        ShareUncounted = "A share is not noted.";
        GrantsAll = "An ordinary VM may do everything with what is shared with it.";
        LongChange = "A change of shared frames is longer than it may be.";
        CutsBlocks = "A change starts within a block.";
        TakesCutBlock = "A change takes a block that it should cut.";
        ChangesUnbounded = "A call changes as much as there is.";
        HolesAreLeft = "A change of shared frames is never done.";
        UnshareUncounted = "The end of a share is not noted.";
        UnsharedStays = "Frames that are not shared any more are counted as the VM's.";
        ProtectsNothing = "A change of what may be done changes nothing.";
        OffersSharing = "An ordinary guest is told that it can share.";
        DeniedIsAbort = "What a share does not allow is the guest's own abort.";
        CutsPoisonPfn = "A frame is poisoned whose number is cut to what it may be.";
        PoisonsAnything = "Any frame is poisoned.";
        PoisonForgotten = "A poisoned frame is said to be EL2's.";
        AnyLevel = "A line takes any level.";
        KicksNobody = "A vCPU is kicked that is not there.";
        CutsPfn = "A frame number is cut to what it may be.";
        QueriesHead = "`FOLIO_QUERY` says where the head is.";
        CensusDrifts = "The census counts a frame where it was, too.";
        LongDigest = "A digest is longer than it may be.";
        DigestsNothing = "A digest does not depend on the words.";
        CutsRangePfn = "A range begins at a frame number that is cut to what it may be.";
        RangeForgetsPlace = "A range goes on where the owner has other frames.";
        EmptyTrace = "A CPU that keeps no trace has an empty one.";
        AnyCounter = "An unknown counter is 0.";
        CountsTwice = "Everything is counted twice.";
        LargeGranule = "A guest is told to share 64 KiB at a time.";
        UnknownGuestCallSucceeds = "A guest is told that an unknown call succeeded.";
        SharesUnaligned = "A guest shares the frame around an address.";
        MissingIsInvalid = "A share of missing guest RAM is refused.";
        RefusedShareSucceeds = "A guest is told that a refused share succeeded.";
        RefusedUnshareSucceeds = "A guest is told that a refused unshare succeeded.";
        ShareUnnoted = "A shared frame is noted as the guest's alone.";
        SharedIsExecutable = "The host executes what a guest shares.";
        DecoyOutlivesShare = "A decoy stays in a folio of which a part is shared.";
        DeclineUntold = "A guest is not told that its share was declined.";
        DeclineAlwaysTold = "A guest is told that its share was declined though the host can use the frame.";
        UnsharesUnpinned = "A guest takes back what the host has not pinned exclusively.";
        AnyWordSpeaks = "A frame is taken back by the word of a folio that it is not in.";
        UnshareUnnoted = "A frame that was taken back is noted as shared.";
        HostStays = "The host keeps what a guest took back.";
        AgreementIsDecline = "A host that agrees to an unshare has declined.";
        DeclinedUnshareSucceeds = "A guest is told that a declined unshare succeeded.";
        RelinquishUntold = "The host is not told what a guest gave back.";
        NothingIsRefused = "A guest that has nothing to give back is refused.";
        RefusedRelinquishSucceeds = "A guest is told that it gave back what it could not.";
        FetchIsLoad = "A missing fetch is told as a load.";
        FaultsAgain = "A fault on a frame that is there is told to the host.";
        FetchesAnywhere = "The host is told of a fetch outside guest RAM.";
        ReadsWide = "A load is told with another width.";
        StoreLeaks = "A store tells the host the whole register.";
        OffIsInterrupt = "The host is not told that a vCPU is off.";
        StartsUntold = "The host is told another vCPU than the one that starts.";
        OnTwice = "`CPU_ON` of a vCPU that is on succeeds.";
        OldPsci = "PSCI is 1.0.";
        OffersAnything = "`PSCI_FEATURES` says that everything is there.";
        AnyPsciWidth = "A PSCI function is there in both widths.";
        WideArguments = "A call with 32-bit arguments has 64-bit ones.";
        CutsAffinity = "Reserved bits of an affinity are ignored.";
        StartingIsOff = "A vCPU that starts is said to be off.";
        NobodyIsOff = "A vCPU that is not there is said to be off.";
        MigratesAnything = "There is a Trusted OS to migrate.";
        SuspendFails = "A standby is said to be unsupported.";
        AnyResetType = "A reserved reset is made.";
        ResetTypeUntold = "The host is not told the type of a reset.";
        SmcRepeats = "A guest that calls by SMC calls for ever.";
        AnyImmediate = "The immediate of a call is ignored.";
        StartsUnmasked = "A vCPU starts with interrupts on.";
        WaitsForEver = "The host is not told when the timer of a vCPU fires.";
        EventRepeats = "A guest that waits for an event waits for ever.";
        NoCeilings = "An ID register shows whatever a listed field says.";
        AbsentIsThere = "A field of an ID register that says that there is nothing is cut to its ceiling.";
        ShowsUnlisted = "An ID register that is not listed is shown.";
        NoOsLock = "There is no OS lock.";
        NoActlr = "`ACTLR_EL1` is undefined.";
        ShowsBypass = "The CPU interface says that it can be bypassed.";
        NoSgis = "A guest cannot send SGIs.";
        SendsForOthers = "SGIs for another security state are undefined.";
        UnknownIsZero = "A register that nobody knows reads as zero.";
        SleepsThrough = "A vCPU waits though an interrupt waits for it.";
        TimerIsHosts = "The host is told that the virtual timer fires.";
        PromisesSpis = "The distributor promises more SPIs than there are.";
        ReservedShows = "A reserved register of a redistributor shows something.";
        AlwaysForwards = "The distributor forwards for ever.";
        GroupZero = "Interrupts are of Group 0.";
        StaysEnabled = "`ICENABLER` does nothing.";
        StaysPending = "`ICPENDR` does nothing.";
        StaysActive = "`ICACTIVER` does nothing.";
        PriorityStays = "`IPRIORITYR` does nothing.";
        TriggerStays = "`ICFGR` does nothing.";
        CutsRoute = "An SPI knows only Aff0.";
        WritesKickNobody = "The host is not told whom a write sends an interrupt.";
        LineKicksFirst = "A line always kicks the first vCPU.";
        SgisGoAnywhere = "An SGI goes to a vCPU though its higher affinity names nobody.";
        EndsUncounted = "The end of an interrupt that is in no list register is forgotten.";
        ForgetsActive = "An interrupt that a vCPU took is forgotten.";
        ChoosesUrgent = "Active interrupts give way to urgent ones.";
        TellsNothing = "Full list registers tell nothing.";
        ListsFlat = "All interrupts have the highest priority in list registers.";
        EndsUntold = "A level tells nobody its end.";
        TimerIsSoftware = "The virtual timer's interrupt is not the hardware's.";
        TimerNeverDue = "The virtual timer is never due.";
        TimerUnheld = "The physical interrupt of the virtual timer is not held back.";
        LosesEdges = "An edge that a vCPU did not take is lost.";
        SkipsUndefined = "An instruction that is not there does nothing.";
        NoFloatingPoint = "FP and Advanced SIMD are undefined.";
        AbortsAsData = "A fetch that fails is said to be a load.";
        EndUntold = "The host is not told that a guest switched itself off.";
        CrashUnclassed = "The host is not told the class of a crash.";
        SwallowsInterrupts = "A guest runs on through an interrupt of the host.";
        NeverRetries = "The host gets an abort for what it may reach.";
        DecoyForProcess = "A process finds a decoy.";
        NoDecoys = "The kernel gets an abort for a guest's frame.";
        UsedDecoy = "A decoy shows what was written to another.";
        DecoyOutlivesRun = "A decoy stays while its VM runs.";
        EndsUnwiped = "The end of the machine wipes nothing.";
        HolesStay = "The host reaches the holes.";
        NeverCollapses = "Tables that say nothing else than their parents stay.";
        SkipsFlush = "Pages are removed without a flush.";
        SkipsBreak = "A block is replaced without a break.";
        FlushesOtherVmid = "What goes from one regime is flushed from another.";
        FlushesOneLess = "The last frame of a range is not flushed.";
        FreesBeforeFlush = "A table is freed before it is flushed.";
        SkipsPublish = "A table is linked before walkers see what it says.";
        SpareLost = "The table of a decoy that goes is not put aside again.";
        LeaksTables = "Tables that are not linked any more stay in use.";
        ReserveLeaks = "Tables stay in hand when there are not enough of them.";
        RootStays = "A root stays in use when there is no room for its VM.";
        SkipsWipe = "What leaves a guest is not wiped.";
    }

    const NONE: u16 = u16::MAX;

    static SELECTED: AtomicU16 = AtomicU16::new(NONE);

    impl Mutant {
        #[expect(
            clippy::as_conversions,
            reason = "the only way to the number of an enum"
        )]
        const fn number(self) -> u16 {
            self as u16
        }
    }

    /// Turns this mutant on and all others off, for everybody.
    pub fn select(mutant: Option<Mutant>) {
        SELECTED.store(mutant.map_or(NONE, Mutant::number), Ordering::Relaxed);
    }

    /// Whether the mutant is on.
    pub(crate) fn is(mutant: Mutant) -> bool {
        SELECTED.load(Ordering::Relaxed) == mutant.number()
    }
}
