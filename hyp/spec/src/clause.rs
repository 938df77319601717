//! The clauses: every rule of the specification, by name and in one line.
//!
//! [`Clause`] is the table of contents. A clause is *exercised* when it has decided something: a refusal, a result, or what a table
//! must say. [`Exercised`] notes where. A difference between the specification and what was seen is a [`Violation`], and names
//! the clause that was broken.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

macro_rules! clauses {
    ($($name:ident = $text:literal;)*) => {
        /// A rule.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Clause {
            $(#[doc = $text] $name,)*
        }

        impl Clause {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What it says.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

clauses! {
    UnknownCall = "What names no call returns `NOT_SUPPORTED` in x0, and nothing else.";
    Uuid = "The UUID call returns Pinfold's UUID in x0 to x3.";
    Smccc = "SMCCC's own two calls are answered: version 1.2, and which of the two there are.";
    KeptRegisters = "A register that is not a result keeps its value.";
    RefusalSaysWhere = "A refusal says which frame failed, and the folio word and pin word found there; 0 where none applies.";
    RefusalChangesNothing = "What was refused has changed nothing.";
    NothingElseChanges = "A call changes what it says, and nothing else.";
    NoMemoryOnlyWhenDry = "`NO_MEMORY` is said only when the pool is near its floor, and only to who takes memory.";
    PoolFloor = "Only a gift to the pool may take its last 32 frames.";
    Version = "VERSION returns the version of the table.";
    Features = "FEATURES returns the limits of the table, and what EL2 took at boot.";

    HandleUnknown = "A handle names the one VM that it was given out for, until that is gone: otherwise `NO_SUCH_VM`.";
    OnlyBeforeStart = "The configuration changes before `VM_START` only: otherwise `WRONG_PHASE`.";
    OnlyWhileLive = "A vCPU runs between `VM_START` and `VM_TEARDOWN_BEGIN` only: otherwise `WRONG_PHASE`.";
    OnlyBeforeTeardown = "Nothing comes to a VM after `VM_TEARDOWN_BEGIN`: `WRONG_PHASE`.";
    OnlyAfterTeardownBegin = "Nothing leaves a VM before `VM_TEARDOWN_BEGIN`: `WRONG_PHASE`.";

    OnlyForItsKind = "What is for protected VMs is `WRONG_KIND` for ordinary ones, and the other way round.";

    CreateMalformed = "`VM_CREATE`: no flag but that for protected, 1 to 8 vCPUs, or INVALID.";
    CreateLimit = "`VM_CREATE`: LIMIT when there are 64 VMs.";
    Create = "`VM_CREATE` returns a handle that was never given out, of a slot that is free.";
    RegionMalformed = "`VM_MEMORY_REGION`: at least one frame, within 40-bit addresses, or INVALID.";
    RegionOverlap = "`VM_MEMORY_REGION`: EXISTS where a region is already.";
    RegionLimit = "`VM_MEMORY_REGION`: LIMIT after 16 regions.";
    Region = "`VM_MEMORY_REGION` makes the range guest RAM.";
    GicMalformed = "`VM_GIC`: both ranges 64 KiB aligned, apart, within 40-bit addresses, or INVALID.";
    Gic = "`VM_GIC` places the interrupt controller: what is accessed there is no exit.";
    Start = "`VM_START` makes the VM live.";
    TeardownBusy = "`VM_TEARDOWN_BEGIN`: BUSY while a vCPU is loaded.";
    TeardownBegin = "`VM_TEARDOWN_BEGIN` makes the VM dying; it may be repeated.";
    TeardownOwns = "`VM_TEARDOWN_FINISH`: BUSY, with how many, while the VM has frames.";
    TeardownFinish = "`VM_TEARDOWN_FINISH` ends the VM, its tables and its handle.";

    VcpuMalformed = "`VCPU_CREATE`: no flag but that for off, or INVALID.";
    VcpuUnknown = "A vCPU has an index below the count and was created: otherwise `NO_SUCH_VCPU`.";
    VcpuExists = "`VCPU_CREATE`: EXISTS for one that was created.";
    VcpuCreate = "`VCPU_CREATE` makes a vCPU out of reset, off or on.";
    VcpuLoaded = "A vCPU that runs is BUSY.";
    RegisterRan = "`VCPU_SET_REGISTER`: `WRONG_PHASE` after the first run.";
    RegisterMalformed = "`VCPU_SET_REGISTER`: X0 to X30 or the PC, or INVALID.";
    RegisterSet = "`VCPU_SET_REGISTER`: the first run starts with what was set.";
    RunSystemEnded = "`VCPU_RUN` says `SYSTEM_OFF` or `SYSTEM_RESET` once the guest asked for it.";
    RunCrashed = "`VCPU_RUN` says CRASHED for a vCPU that crashed.";
    RunOff = "`VCPU_RUN` says `POWERED_OFF` for a vCPU that is off.";
    RunStarts = "`VCPU_RUN` starts a vCPU where the guest's `CPU_ON` said, with its argument.";
    RunKeeps = "`VCPU_RUN` enters a vCPU with the registers that it left with, but for what the answer is for.";
    MmioAnswer = "After `MMIO_READ`, the answer is what the load finds, in its width, with zeroes or the sign above it.";

    PinsMalformed = "`PIN_TABLE_REGISTER`: ranges of 36-bit frame numbers, not empty, or INVALID.";
    PinsTaken = "`PIN_TABLE_REGISTER`: EXISTS where a range is already, unless it goes on with just that.";
    PinsLimit = "`PIN_TABLE_REGISTER`: LIMIT after 8 ranges.";
    PinsNotHosts = "`PIN_TABLE_REGISTER`: the table's frames are the host's alone, or the first that is not is named.";
    PinsStep = "`PIN_TABLE_REGISTER`: AGAIN with how many frames are shared with EL2, more than before, at most 256 a call.";
    PinsDone = "`PIN_TABLE_REGISTER` shares all frames of the table with EL2.";

    PoolMalformed = "`POOL_DONATE`: 1 to 512 frames with 36-bit numbers, or INVALID.";
    PoolNotHosts = "`POOL_DONATE`: the frames are the host's alone, or the first that is not is named.";
    PoolDonate = "`POOL_DONATE` makes the frames EL2's.";
    PoolReclaimNone = "`POOL_RECLAIM`: `NO_MEMORY` only when no frame that the host gave is free.";
    PoolReclaim = "`POOL_RECLAIM` makes one frame that the host gave, and only such a one, the host's again, wiped.";
    PoolStatus = "`POOL_STATUS` says how many frames are free, and how many the host gave and has not back.";

    DonateMalformed = "`MEM_DONATE`: orders 0 to 9, 1 to 512 frames in all, 36-bit numbers, or INVALID.";
    DonateUnaligned = "`MEM_DONATE`: GRANULE unless PFN and GFN are aligned to the order.";
    DonateOutsideRam = "`MEM_DONATE`: INVALID unless one region of guest RAM holds the whole range.";
    DonateNotHosts = "`MEM_DONATE`: the frames are the host's alone, or the first that is not is named.";
    DonateNoPinTable = "`MEM_DONATE`: `NO_PIN_TABLE` unless one range of the pin table, all of it registered, speaks for the whole folio.";
    DonateNotPinned = "`MEM_DONATE`: `NOT_EXCLUSIVELY_PINNED` unless each head's word is that of one exclusive pin of an isolated folio of the order, and each tail's is 0.";
    DonateOccupied = "`MEM_DONATE`: EXISTS where the guest has a frame already.";
    DonateBounded = "`MEM_DONATE`: AGAIN, with how many folios are done, after 16 frames; a folio of more is taken from the host by one call, and each further one cleans 72 frames of it, every eight entries to be written counting as one.";
    DonateGoesOn = "`MEM_DONATE` goes on with a folio that it has begun at that place, whatever its pin word says by now.";
    DonateGives = "`MEM_DONATE` makes the folios the VM's alone.";
    DonateCleans = "`MEM_DONATE` cleans each frame to the point of coherency, and makes CPUs forget instructions.";

    ReclaimMalformed = "`MEM_RECLAIM`: 1 to 512 frames within 40-bit addresses, or INVALID.";
    ReclaimCuts = "`MEM_RECLAIM`: GRANULE if the range starts within a folio or ends within the first.";
    ReclaimHoles = "`MEM_RECLAIM` skips what the guest has not.";
    ReclaimBounded = "`MEM_RECLAIM`: AGAIN, with how many frames are done, when 40 frames are wiped and there are more, every eight entries to be written of a folio counting as one.";
    ReclaimLeavesCut = "`MEM_RECLAIM`: AGAIN before a later folio that the range cuts.";
    ReclaimGives = "`MEM_RECLAIM` makes the frames the host's alone, wiped.";

    ShareGuestMalformed = "`MEM_SHARE_GUEST`: orders 0 to 9, 1 to 512 frames in all, 36-bit numbers, to read at least, or INVALID; aligned to the order, or GRANULE.";
    ShareGuestOutsideRam = "`MEM_SHARE_GUEST`: INVALID unless one region of guest RAM holds the whole range.";
    ShareGuestNotHosts = "`MEM_SHARE_GUEST`: the frames are the host's alone, or shared with ordinary VMs already, or the first that is not is named.";
    ShareGuestFull = "`MEM_SHARE_GUEST`: a frame that is shared 256 times is not shared again.";
    ShareGuestOccupied = "`MEM_SHARE_GUEST`: EXISTS where the guest has a frame already.";
    ShareGuestBounded = "`MEM_SHARE_GUEST`: AGAIN, with how many folios are done, after 32 frames or one folio of more.";
    ShareGuestLets = "`MEM_SHARE_GUEST` lets the guest use the frames, and counts one more share of each.";
    GuestRangeMalformed = "`MEM_UNSHARE_GUEST`, `MEM_PROTECT_GUEST`: 1 to 512 frames within 40-bit addresses, to read at least, or INVALID.";
    GuestRangeCuts = "`MEM_UNSHARE_GUEST`, `MEM_PROTECT_GUEST`: GRANULE if the range starts within a block or ends within the first.";
    GuestRangeLeavesCut = "`MEM_UNSHARE_GUEST`, `MEM_PROTECT_GUEST`: AGAIN before a later block that the range cuts.";
    GuestRangeBounded = "`MEM_UNSHARE_GUEST`, `MEM_PROTECT_GUEST`: AGAIN, with how many frames are done, after 16 frames or a block when there are more.";
    GuestRangeHoles = "`MEM_UNSHARE_GUEST`, `MEM_PROTECT_GUEST` skip what the guest has not.";
    UnshareGuestTakes = "`MEM_UNSHARE_GUEST` shuts the guest out, and counts one share less of each frame; after the last a frame is the host's alone.";
    ProtectGuestSays = "`MEM_PROTECT_GUEST` says what the guest may do with frames that are shared with it.";

    PoisonMalformed = "`MEM_POISON`: a 36-bit frame number, or INVALID.";
    PoisonNotHosts = "`MEM_POISON`: the frame is the host's alone, or it is said what it is.";
    PoisonTakes = "`MEM_POISON` makes the frame nobody's, for good.";

    LineMalformed = "`IRQ_LINE`: INTIDs 32 to 287, level 0 or 1, or INVALID.";
    Line = "`IRQ_LINE` names a vCPU of the VM to kick, or none.";

    QueryMalformed = "`FOLIO_QUERY`: a 36-bit frame number, or INVALID.";
    Query = "`FOLIO_QUERY` says state, order, owner, place and pin word of a frame.";
    Census = "`FOLIO_CENSUS` counts the frames in each state.";
    DigestMalformed = "`FOLIO_DIGEST`: 1 to 1024 frames from the first of RAM to the last, or INVALID.";
    Digest = "`FOLIO_DIGEST` is the FNV-1a of the folio words.";
    RangeMalformed = "`FOLIO_RANGE`: a 36-bit frame number, or INVALID.";
    Range = "`FOLIO_RANGE` says how far the folios from a frame on are alike, 256 frames or to the end of the folio there, and whose they are.";
    TraceOfNobody = "`TRACE_STATUS`, `TRACE_READ`: INVALID where a CPU keeps no trace.";
    CounterMalformed = "COUNTER: a counter that there is, or INVALID.";
    CounterValue = "COUNTER says how often it happened.";

    GuestQuery = "A guest is told what KVM's services are here, without an exit.";
    GuestOrdinary = "An ordinary guest is not offered what protected ones need: FEATURES has nothing but itself, and the rest is `NOT_SUPPORTED`.";
    GuestUnknown = "A guest's call that is not offered returns `NOT_SUPPORTED`.";
    GuestMalformed = "A guest shares whole frames, one by one: otherwise `INVALID_PARAMETER`.";
    ShareMissing = "`MEM_SHARE` of guest RAM that is missing is a `MEMORY_FAULT`, and the call is made again.";
    ShareRefused = "`MEM_SHARE`: `INVALID_PARAMETER` for what is no guest RAM, or shared already.";
    ShareLets = "`MEM_SHARE` lets the host use the one frame, splits its folio, and tells the host.";
    ShareDeclined = "A share that the host declines is undone if the host's pin is exclusive still, and the guest is told.";
    ShareStands = "A share that the host declines stands if somebody at the host can use the frame.";
    UnshareRefused = "`MEM_UNSHARE`: `INVALID_PARAMETER` for what is not shared.";
    UnshareAsks = "`MEM_UNSHARE` asks the host while its pin is not exclusive; the frame stays shared.";
    UnshareTakes = "`MEM_UNSHARE` shuts the host out of the frame, if the host's pin is exclusive.";
    UnshareRepeats = "If the host agrees to an unshare, the guest's call is made again.";
    UnshareDeclined = "If the host declines an unshare, the guest is told `INVALID_PARAMETER`.";

    RelinquishGives = "`MEM_RELINQUISH` makes a frame that is the guest's alone the host's, wiped, splits its folio, and tells the host.";
    RelinquishNothing = "`MEM_RELINQUISH` of guest RAM that is missing is done: there is nothing to give back, and nothing to tell.";
    RelinquishRefused = "`MEM_RELINQUISH`: `INVALID_PARAMETER` for what is no guest RAM, or is shared.";

    FaultMissing = "An access to missing guest RAM is a `MEMORY_FAULT`: GFN and kind, and the access is made again.";
    FaultServed = "An access to guest RAM that is there by now is made again, without an exit.";
    FaultDenied = "An access that a share with an ordinary VM does not allow is a `MEMORY_FAULT` that says so, and the access is made again.";
    FetchOutside = "A fetch outside guest RAM is the guest's own abort, without an exit.";
    MmioRead = "A load outside guest RAM is `MMIO_READ`: address and width.";
    MmioWrite = "A store outside guest RAM is `MMIO_WRITE`: address, width and value, in its width.";
    PowerOff = "`CPU_OFF`: the vCPU is off.";
    PowerOn = "`CPU_ON` starts a vCPU that is off, and the host is told which.";
    PowerOnRefused = "`CPU_ON` of a vCPU that is on, starting or not there says which.";
    SystemEnds = "`SYSTEM_OFF`, `SYSTEM_RESET` and `SYSTEM_RESET2`, with its type, are told to the host.";
    ResetReserved = "`SYSTEM_RESET2`: `INVALID_PARAMETERS` for a type that is neither 0 nor a vendor's.";
    PsciVersion = "`PSCI_VERSION` is 1.1.";
    PsciFeatures = "`PSCI_FEATURES` returns 0 for what is there, and `NOT_SUPPORTED` for what is not.";
    PsciUnknown = "A PSCI function that is not there, or not in this width, returns `NOT_SUPPORTED`.";
    AffinityInfo = "`AFFINITY_INFO` says ON if one of the vCPUs that are named is on, otherwise `ON_PENDING` if one starts, otherwise OFF.";
    AffinityNobody = "`AFFINITY_INFO`: `INVALID_PARAMETERS` for a level above 3, reserved bits, or where there is no vCPU.";
    MigrateType = "`MIGRATE_INFO_TYPE`: there is no Trusted OS to migrate.";
    Standby = "`CPU_SUSPEND` is a standby, and has succeeded.";
    CallBySmc = "A call by SMC is as one by HVC.";
    CallImmediate = "A call with an immediate returns `NOT_SUPPORTED`.";

    StartState = "A vCPU starts at EL1 with interrupts masked, and MMU and caches off.";
    Wait = "`WFI` is an exit with the deadline of the virtual timer, or none; the vCPU goes on behind it.";
    WaitEvent = "`WFE` is no exit; the vCPU goes on behind it.";
    IdCeiling = "An ID register shows each field that guests may see, up to its ceiling.";
    IdAbsent = "A field of an ID register that says that there is nothing says so.";
    IdHidden = "An ID register that is not listed reads as zero.";
    DebugNothing = "Registers for self-hosted debug read as zero and ignore writes; the OS lock is open.";
    ImplementationNothing = "`AIDR_EL1` and `ACTLR_EL1` read as zero; `ACTLR_EL1` ignores writes.";
    InterfaceFixed = "`ICC_SRE_EL1` says that the CPU interface has system registers only, whatever is written.";
    SgiOfOthers = "SGIs of Group 0 and for another security state go nowhere.";
    RegisterUndefined = "Every other register that traps is undefined.";
    InstructionUndefined = "An instruction of an extension that guests do not have is undefined.";
    FloatingPoint = "The first use of FP or Advanced SIMD is no exit.";
    SgiSends = "`ICC_SGI1R_EL1` makes the SGI pending for the vCPUs that it names, or all others.";
    WaitPending = "A vCPU for which an interrupt waits does not wait.";
    Attention = "The virtual timer and the list registers of a vCPU that runs are no exit.";
    GicIdentity = "The interrupt controller is a GICv3 with 256 SPIs, and the redistributor of each vCPU says whose it is, and which is the last.";
    GicReserved = "What is no register of the interrupt controller reads as zero and ignores writes.";
    GicControl = "`GICD_CTLR` enables Group 1; one security state and affinity routing are fixed.";
    GicGroup = "All interrupts are of Group 1.";
    GicEnable = "`ISENABLER` enables, `ICENABLER` disables, both show what is enabled.";
    GicPend = "`ISPENDR` and `ICPENDR` make pending what comes from no line; both show what is pending.";
    GicActive = "`ISACTIVER` makes active, `ICACTIVER` inactive; both show what is active.";
    GicPriority = "`IPRIORITYR` holds the priority of each interrupt, in eight bits.";
    GicTrigger = "`ICFGR` says that SGIs are edges and PPIs levels, and makes SPIs one or the other.";
    GicRoute = "`IROUTER` holds the affinity that an SPI goes to.";
    GicKicks = "Whatever lets an interrupt come to another vCPU that is on names it to the host, and no vCPU for which nothing waits.";
    LineKicks = "`IRQ_LINE` names the vCPU that has the interrupt, or that it comes to, or none.";
    ListsHold = "A vCPU is entered with what is pending, enabled and for it in list registers, and with nothing else.";
    ListsActive = "What a vCPU took and did not end is active in its list registers.";
    ListsChoose = "Of more than the list registers can hold, they hold what is active, then what is most urgent.";
    ListsTell = "The list registers tell EL2 when they can hold more, if there is more.";
    ListsName = "A list register has INTID, priority and Group 1.";
    ListsEnd = "A level in a list register tells EL2 its end, so that the line is looked at again.";
    ListsTimer = "The virtual timer's interrupt is the hardware's in its list register.";
    TimerDue = "The virtual timer's interrupt is pending from its deadline on.";
    TimerHeld = "The physical interrupt of the virtual timer is held back while a vCPU has it.";
    EdgeStays = "An edge that a vCPU did not take stays pending.";
    Crash = "An exception that a guest cannot raise is a crash of the vCPU; the host sees its class.";
    Interrupted = "An interrupt of the host is an exit that tells nothing else.";

    TouchRetry = "An access of the host to what it may reach is made again.";
    TouchInject = "An access of a process, on its behalf or to execute, to what is not the host's is its abort.";
    TouchDecoy = "An access of the host's kernel to a guest's frame finds a decoy page.";
    DecoyIsZero = "A decoy shows nothing of another folio's decoy.";
    DecoyGoesByRun = "A decoy is gone when the VM that it hides runs.";
    DecoyGoesByMove = "A decoy is gone when its folio, or a part of that, changes hands.";
    MachineEnds = "When the machine ends, no guest runs on, and what was a guest's alone is wiped.";

    HostReaches = "The host reaches what is its alone, or shared with ordinary VMs, to read, write and execute, at its own address.";
    HostShares = "The host reaches what it shares, to read and write, at its own address.";
    HostShutOut = "The host reaches nothing of EL2's, of a guest's alone, or on its way to a guest or from one.";
    HostDevices = "Beyond RAM the host finds devices, but for the holes.";
    LargestEntries = "The host's tables have the largest entries that say this.";
    GuestReaches = "A guest reaches its frames, shared or not, to read, write and execute, and what is shared with it as the host said, where it got them.";
    GuestReachesNoMore = "A guest reaches nothing else.";
    HypReaches = "EL2 reads the pin table, reads and writes what it was given, and maps nothing else.";
    MachineRules = "Tables are broken before they are made, flushed before frames move; nothing that somebody reaches is wiped or freed.";
    PoolBalance = "Each frame of the pool is free or a table.";
    ContentWiped = "What left a guest or EL2 is zeroes.";
    ContentStays = "What was not wiped keeps its content.";
}

/// Which clauses have decided something, and for what call or event.
#[derive(Clone, Debug, Default)]
pub struct Exercised(BTreeMap<Clause, BTreeSet<&'static str>>);

impl Exercised {
    /// Notes that `clause` has decided about `what`.
    pub(crate) fn note(&mut self, clause: Clause, what: &'static str) {
        self.0.entry(clause).or_default().insert(what);
    }

    /// Adds what another run has exercised.
    pub fn add(&mut self, other: &Self) {
        for (clause, whats) in &other.0 {
            self.0.entry(*clause).or_default().extend(whats);
        }
    }

    /// Whether `clause` has decided anything.
    #[must_use]
    pub fn has(&self, clause: Clause) -> bool {
        self.0.contains_key(&clause)
    }

    /// The calls and events that `clause` has decided about.
    pub fn by(&self, clause: Clause) -> impl Iterator<Item = &'static str> + '_ {
        self.0.get(&clause).into_iter().flatten().copied()
    }

    /// Clauses that have decided nothing.
    pub fn missing(&self) -> impl Iterator<Item = Clause> + '_ {
        Clause::ALL
            .iter()
            .copied()
            .filter(|clause| !self.has(*clause))
    }
}

/// What was seen is not what the specification says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// The rule that was broken.
    pub clause: Clause,
    /// What was expected, and what was seen.
    pub what: String,
}

impl Violation {
    /// `clause` was broken.
    #[must_use]
    pub const fn new(clause: Clause, what: String) -> Self {
        Self { clause, what }
    }
}
