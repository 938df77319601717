//! The table: what there is on the wire, each thing once.
//!
//! A line of calls reads: number, name, when it may be made, `any` or `debug`, arguments from x1, results from x2. A line of guest
//! calls: function, also that of 64 bits, name, which guests have it, arguments from x1, results from x0.
//! Whoever adds a line adds it here only; what must think about it does not build until it has.

use crate::FUNCTION_BASE;
use crate::claim;
use crate::describe::{CallInfo, FieldInfo, GuestCallInfo, ValueInfo};
use crate::macros::{guest_functions, host_calls, limits, numbers};

host_calls! {
    #[doc = "Asks which version of this table EL2 speaks."]
    0x00 Version = "VERSION", "always", any,
    () -> (version: "number" = "major in bits 31:16, minor in bits 15:0");

    #[doc = "Asks what this EL2 has and where its limits are."]
    0x01 Features = "FEATURES", "always", any,
    () -> (
        features: "bits" = "bit 0: the debug calls are there",
        max_vms: "count" = "VMs at a time",
        max_vcpus: "count" = "vCPUs of a VM",
        max_frames: "frames" = "frames in one memory call",
        el2_memory: "KiB" = "memory that EL2 took at boot"
    );

    #[doc = "Registers one range of the host's pin table. Its frames become `HostSharedHyp`. More than 64 table frames take several calls: AGAIN with x2 = table frames done; repeat the call as it was."]
    0x10 PinTableRegister = "PIN_TABLE_REGISTER", "always, each range once", any,
    (
        table: Pfn = "first frame of the table",
        first: Pfn = "the frame that its first word speaks for",
        frames: Count = "how many frames it speaks for"
    ) -> (done: "frames" = "table frames shared so far");

    #[doc = "Gives frames of the host to EL2's pool."]
    0x20 PoolDonate = "POOL_DONATE", "always", any,
    (first: Pfn = "first frame", count: Count = "frames, at most 64") -> (taken: "frames" = "frames taken");

    #[doc = "Takes one free frame out of EL2's pool, wiped. `NO_MEMORY` when none that the host gave is free."]
    0x21 PoolReclaim = "POOL_RECLAIM", "always", any,
    () -> (frame: "PFN" = "the frame, the host's again");

    #[doc = "Asks how full EL2's pool is."]
    0x22 PoolStatus = "POOL_STATUS", "always", any,
    () -> (free: "frames" = "free frames", donated: "frames" = "frames that the host gave and has not back");

    #[doc = "Creates a VM without memory. A protected VM owns its memory, which the host donates; an ordinary one uses memory that stays the host's and is shared with it. What is for the one kind is `WRONG_KIND` for the other."]
    0x30 VmCreate = "VM_CREATE", "always", any,
    (flags: Flags = "bit 0: protected; otherwise ordinary", vcpus: Count = "vCPUs, 1 to 8") -> (handle: "VM handle" = "names the VM");

    #[doc = "Makes a range of frames guest RAM: an abort inside is a `MEMORY_FAULT`, outside it is MMIO. At most 16, without overlap."]
    0x31 VmMemoryRegion = "VM_MEMORY_REGION", "before VM_START", any,
    (vm: Handle = "the VM", first: Gfn = "first frame", count: Count = "frames") -> ();

    #[doc = "Says where the guest finds its interrupt controller."]
    0x32 VmGic = "VM_GIC", "before VM_START", any,
    (
        vm: Handle = "the VM",
        distributor: Ipa = "the distributor, 64 KiB aligned",
        redistributors: Ipa = "the redistributors, 64 KiB aligned, 128 KiB for each vCPU"
    ) -> ();

    #[doc = "Seals the configuration; vCPUs may run."]
    0x33 VmStart = "VM_START", "once", any,
    (vm: Handle = "the VM") -> ();

    #[doc = "Begins the teardown: no vCPU runs and no frame comes in any more. BUSY while a vCPU is loaded."]
    0x34 VmTeardownBegin = "VM_TEARDOWN_BEGIN", "always", any,
    (vm: Handle = "the VM") -> ();

    #[doc = "Ends the teardown; the handle names nothing any more. BUSY, with x2 = frames left, while the VM owns frames or frames are shared with it."]
    0x35 VmTeardownFinish = "VM_TEARDOWN_FINISH", "after VM_TEARDOWN_BEGIN", any,
    (vm: Handle = "the VM") -> ();

    #[doc = "Creates a vCPU."]
    0x38 VcpuCreate = "VCPU_CREATE", "before VM_START", any,
    (vm: Handle = "the VM", vcpu: VcpuIndex = "its index", flags: Flags = "bit 0: off until another vCPU starts it") -> ();

    #[doc = "Sets a register of a vCPU that never ran."]
    0x39 VcpuSetRegister = "VCPU_SET_REGISTER", "before the vCPU's first run", any,
    (
        vm: Handle = "the VM",
        vcpu: VcpuIndex = "the vCPU",
        register: Number = "0 to 30: Xn; 32: PC",
        value: Value = "what it holds"
    ) -> ();

    #[doc = "Runs a vCPU until something needs the host."]
    0x3A VcpuRun = "VCPU_RUN", "between VM_START and VM_TEARDOWN_BEGIN", any,
    (
        vm: Handle = "the VM",
        vcpu: VcpuIndex = "the vCPU",
        answer: Value = "the value of an `MMIO_READ`; 0 or 1 after `SHARED` and `UNSHARE_REQUEST`; otherwise ignored"
    ) -> (
        reason: "exit reason" = "exit reason",
        detail0: "value" = "see the exit reasons",
        detail1: "value" = "see the exit reasons",
        detail2: "value" = "see the exit reasons"
    );

    #[doc = "Gives folios of the host to a protected VM: count folios of one order, adjoining in both spaces, at most 512 frames. Work per call is bounded: AGAIN with x2 = folios given; go on after those. A folio of order 5 or more takes several calls: it is taken from the host, then cleaned, then the guest's; until then x2 = 0, and the call is repeated. All that one call moves is checked, pin words included, before the first one moves."]
    0x40 MemDonate = "MEM_DONATE", "before VM_TEARDOWN_BEGIN", any,
    (
        vm: Handle = "the VM",
        gfn: Gfn = "first frame of the guest, aligned to the order, in guest RAM",
        pfn: Pfn = "first frame, aligned to the order",
        count: Count = "folios",
        order: Order = "0 to 9"
    ) -> (done: "folios" = "folios given");

    #[doc = "Takes frames back from a protected VM, wiped. Holes are skipped. Work per call is bounded: AGAIN with x2 = frames done; go on after those. GRANULE if the range starts within a folio or ends within the first; a later folio that it cuts is left (AGAIN)."]
    0x41 MemReclaim = "MEM_RECLAIM", "after VM_TEARDOWN_BEGIN", any,
    (vm: Handle = "the VM", gfn: Gfn = "first frame", count: Count = "frames, at most 512") -> (done: "frames" = "frames done, holes included");

    #[doc = "Shares folios of the host with an ordinary VM: count folios of one order, adjoining in both spaces, at most 512 frames. The host keeps them, and no pin is needed; they cannot be given to anybody while they are shared. A frame may be shared with several VMs, and in several places, 256 in all. EL2 does not clean them: what a guest without caches finds there is the host's business. Work per call is bounded: AGAIN with x2 = folios done; go on after those."]
    0x42 MemShareGuest = "MEM_SHARE_GUEST", "before VM_TEARDOWN_BEGIN", any,
    (
        vm: Handle = "the VM",
        gfn: Gfn = "first frame of the guest, aligned to the order, in guest RAM",
        pfn: Pfn = "first frame, aligned to the order",
        count: Count = "folios",
        order: Order = "0 to 9; the guest has one entry for a folio of order 9",
        access: Access = "bit 0: read, must be 1; bit 1: write; bit 2: execute"
    ) -> (done: "folios" = "folios shared");

    #[doc = "Ends the sharing of frames with an ordinary VM. Holes are skipped. Work per call is bounded: AGAIN with x2 = frames done; go on after those. GRANULE if the range starts within a folio of order 9 or ends within the first; a later one that it cuts is left (AGAIN)."]
    0x43 MemUnshareGuest = "MEM_UNSHARE_GUEST", "always", any,
    (vm: Handle = "the VM", gfn: Gfn = "first frame", count: Count = "frames, at most 512") -> (done: "frames" = "frames done, holes included");

    #[doc = "Changes what an ordinary VM may do with frames that are shared with it. Holes are skipped. Bounded, and cutting folios, as `MEM_UNSHARE_GUEST`."]
    0x44 MemProtectGuest = "MEM_PROTECT_GUEST", "before VM_TEARDOWN_BEGIN", any,
    (
        vm: Handle = "the VM",
        gfn: Gfn = "first frame",
        count: Count = "frames, at most 512",
        access: Access = "as for `MEM_SHARE_GUEST`"
    ) -> (done: "frames" = "frames done, holes included");

    #[doc = "Takes a frame of the host's out of use for good, as after a memory error: nobody reaches it any more, and nobody gets it. A frame that is a guest's or shared comes back first."]
    0x45 MemPoison = "MEM_POISON", "always", any,
    (pfn: Pfn = "the frame") -> ();

    #[doc = "Sets the level of an interrupt line of a VM."]
    0x50 IrqLine = "IRQ_LINE", "before VM_TEARDOWN_BEGIN", any,
    (vm: Handle = "the VM", intid: Number = "the SPI, 32 to 287", level: Number = "0 or 1") -> (vcpu: "vCPU index" = "the vCPU to kick, or all ones");

    #[doc = "Looks at one frame."]
    0x60 FolioQuery = "FOLIO_QUERY", "always", debug,
    (pfn: Pfn = "the frame") -> (
        word: "folio word" = "the folio word",
        state: "state" = "the state's number",
        order: "order" = "order of the folio that holds the frame",
        vm: "VM handle" = "the owner, or 0",
        gfn: "GFN" = "where the owner has the frame, or 0",
        pin: "pin word" = "the pin word, or 0"
    );

    #[doc = "Counts the frames in each state."]
    0x61 FolioCensus = "FOLIO_CENSUS", "always", debug,
    () -> (
        host: "frames" = "Host",
        hyp: "frames" = "Hyp",
        host_shared_hyp: "frames" = "HostSharedHyp",
        guest: "frames" = "Guest",
        guest_shared_host: "frames" = "GuestSharedHost",
        other: "frames" = "HostSharedGuest, Arriving, Wiping and Poisoned"
    );

    #[doc = "Digests folio words: 64-bit FNV-1a with a folio word as the unit (hash ^= word; hash *= prime)."]
    0x62 FolioDigest = "FOLIO_DIGEST", "always", debug,
    (first: Pfn = "first frame", count: Count = "frames, at most 1024") -> (digest: "value" = "the digest");

    #[doc = "Reads a counter."]
    0x63 Counter = "COUNTER", "always", debug,
    (counter: CounterNumber = "which") -> (value: "value" = "how often so far");

    #[doc = "Says how far a state goes: the frames from the first on that have one state, one order and one owner, where they adjoin; looks at 256, or a little more to end with a folio. Before RAM and after it, all are `NotRam`."]
    0x64 FolioRange = "FOLIO_RANGE", "always", debug,
    (first: Pfn = "first frame") -> (
        frames: "frames" = "how many; all ones after the last of RAM",
        state: "state" = "the state's number",
        order: "order" = "order of their folios",
        vm: "VM handle" = "the owner, or 0",
        gfn: "GFN" = "where the owner has the first, or 0"
    );

    #[doc = "Asks which entries of a CPU's trace there are. INVALID if there is no such CPU. Debug calls are not in the trace."]
    0x65 TraceStatus = "TRACE_STATUS", "always", debug,
    (cpu: Number = "the CPU, in the order of the device tree") -> (
        oldest: "number" = "the oldest entry that is kept",
        next: "number" = "the entry that will be written next; they count from 0"
    );

    #[doc = "Reads six of the 18 words of an entry of a CPU's trace. `NOT_MAPPED` if it is not there (any more)."]
    0x66 TraceRead = "TRACE_READ", "always", debug,
    (
        cpu: Number = "the CPU, in the order of the device tree",
        entry: Number = "the entry",
        part: Number = "0 to 2: words 0 to 5, 6 to 11, 12 to 17"
    ) -> (
        word0: "value" = "see the kinds of trace entries",
        word1: "value" = "the next word",
        word2: "value" = "the next word",
        word3: "value" = "the next word",
        word4: "value" = "the next word",
        word5: "value" = "the next word"
    );
}

guest_functions! {
    #[doc = "SMCCC: which version of the calling convention this is."]
    0x8000_0000 SmcccVersion = "SMCCC_VERSION", any,
    () -> (version: "number" = "major in bits 31:16, minor in bits 15:0: 1.1");

    #[doc = "SMCCC: whether a function of the architecture's is there. No workaround is, since no processor here needs one from EL2."]
    0x8000_0001 SmcccArchFeatures = "SMCCC_ARCH_FEATURES", any,
    (function: Number = "its number") -> (result: "result" = "0, or NOT_SUPPORTED");

    #[doc = "PSCI: its version."]
    0x8400_0000 PsciVersion = "PSCI_VERSION", any,
    () -> (version: "number" = "major in bits 31:16, minor in bits 15:0: 1.1");

    #[doc = "PSCI: waits for an interrupt, as WFI does."]
    0x8400_0001 | 0xC400_0001 CpuSuspend = "CPU_SUSPEND", any,
    (state: Value = "power state; any is a standby", entry: Ipa = "ignored", context: Value = "ignored") -> (result: "result" = "0, after the interrupt");

    #[doc = "PSCI: switches the caller off, until another vCPU starts it."]
    0x8400_0002 CpuOff = "CPU_OFF", any,
    () -> ();

    #[doc = "PSCI: starts a vCPU."]
    0x8400_0003 | 0xC400_0003 CpuOn = "CPU_ON", any,
    (target: Value = "its affinity", entry: Ipa = "where it starts", context: Value = "its x0") -> (result: "result" = "0, INVALID_PARAMETERS (-2), ALREADY_ON (-4) or ON_PENDING (-5)");

    #[doc = "PSCI: which power state the vCPUs of an affinity have."]
    0x8400_0004 | 0xC400_0004 AffinityInfo = "AFFINITY_INFO", any,
    (target: Value = "the affinity", level: Number = "the lowest affinity level that counts, 0 to 3") -> (state: "result" = "0 on, 1 off, 2 starting, or INVALID_PARAMETERS (-2)");

    #[doc = "PSCI: whether a Trusted OS has to be migrated."]
    0x8400_0006 MigrateInfoType = "MIGRATE_INFO_TYPE", any,
    () -> (kind: "number" = "2: there is none");

    #[doc = "PSCI: switches the machine off."]
    0x8400_0008 SystemOff = "SYSTEM_OFF", any,
    () -> ();

    #[doc = "PSCI: starts the machine again."]
    0x8400_0009 SystemReset = "SYSTEM_RESET", any,
    () -> ();

    #[doc = "PSCI: whether one of its functions, or `SMCCC_VERSION`, is there."]
    0x8400_000A PsciFeatures = "PSCI_FEATURES", any,
    (function: Number = "its number") -> (result: "result" = "0, or NOT_SUPPORTED");

    #[doc = "PSCI: starts the machine again, in a way of the vendor's or the architecture's."]
    0x8400_0012 | 0xC400_0012 SystemReset2 = "SYSTEM_RESET2", any,
    (kind: Number = "0, or a vendor's with bit 31 set", cookie: Value = "ignored") -> (result: "result" = "INVALID_PARAMETERS (-2) for another kind");

    #[doc = "Which of KVM's services there are."]
    0x8600_0000 Features = "FEATURES", any,
    () -> (features: "bits" = "one for each, by the low byte of its number; an ordinary guest is offered this call alone");

    #[doc = "Whose the services from 0x86000000 are."]
    0x8600_FF01 Uuid = "CALL_UID", any,
    () -> (word0: "value" = "28b46fb6-2ec5-11e9-a9ca-4b564d003a74: KVM's", word1: "value" = "the next word", word2: "value" = "the next word", word3: "value" = "the next word");

    #[doc = "In which units memory is shared."]
    0xC600_0002 HypMeminfo = "HYP_MEMINFO", protected,
    (zero0: Value = "0", zero1: Value = "0", zero2: Value = "0") -> (granule: "bytes" = "4096, or INVALID_PARAMETER");

    #[doc = "Shares a frame with the host: it may read and write, not execute. It hears of it by `SHARED`."]
    0xC600_0003 MemShare = "MEM_SHARE", protected,
    (frame: Ipa = "the frame, aligned", zero1: Value = "0", zero2: Value = "0") -> (result: "result" = "0, or INVALID_PARAMETER: not a frame of the guest's own, or the host declines");

    #[doc = "Takes a frame back that is shared. The host pins it first: it hears of it by `UNSHARE_REQUEST`."]
    0xC600_0004 MemUnshare = "MEM_UNSHARE", protected,
    (frame: Ipa = "the frame, aligned", zero1: Value = "0", zero2: Value = "0") -> (result: "result" = "0, or INVALID_PARAMETER: not shared, or the host declines");

    #[doc = "Gives a frame back to the host, wiped, for good. It hears of it by `RELINQUISHED`."]
    0xC600_0009 MemRelinquish = "MEM_RELINQUISH", protected,
    (frame: Ipa = "the frame, aligned", zero1: Value = "0", zero2: Value = "0") -> (result: "result" = "0, also where nothing is mapped; or INVALID_PARAMETER: not the guest's alone, or not its RAM");
}

numbers! {
    /// What a call comes to.
    Status:
    #[doc = "Done."]
    0 Ok = "OK", "0";
    #[doc = "The folio is in a state that does not allow this."]
    1 NotPermitted = "NOT_PERMITTED", "EPERM";
    #[doc = "In use: a loaded vCPU, a VM that owns frames."]
    2 Busy = "BUSY", "EBUSY";
    #[doc = "The pool is dry: donate to it and try again."]
    3 NoMemory = "NO_MEMORY", "ENOMEM";
    #[doc = "The range cuts a folio or is not aligned to its order."]
    4 Granule = "GRANULE", "E2BIG";
    #[doc = "Nothing is mapped there."]
    5 NotMapped = "NOT_MAPPED", "ENOENT";
    #[doc = "The frame may never be used again."]
    6 Poisoned = "POISONED", "EHWPOISON";
    #[doc = "Part of it is done: x2 says how much; go on from there."]
    7 Again = "AGAIN", "EAGAIN";
    #[doc = "An argument is malformed."]
    8 Invalid = "INVALID", "EINVAL";
    #[doc = "The pin word is not that of one exclusive pin of an isolated folio of this order."]
    9 NotExclusivelyPinned = "NOT_EXCLUSIVELY_PINNED", "EBUSY";
    #[doc = "No registered pin table speaks for the frame."]
    10 NoPinTable = "NO_PIN_TABLE", "ENXIO";
    #[doc = "The handle names no VM."]
    11 NoSuchVm = "NO_SUCH_VM", "ENOENT";
    #[doc = "The VM has no such vCPU."]
    12 NoSuchVcpu = "NO_SUCH_VCPU", "ENOENT";
    #[doc = "Too early or too late in the life of the VM or the vCPU."]
    13 WrongPhase = "WRONG_PHASE", "EPERM";
    #[doc = "There is one already."]
    14 Exists = "EXISTS", "EEXIST";
    #[doc = "A fixed limit is reached."]
    15 Limit = "LIMIT", "ENOSPC";
    #[doc = "The frame is not RAM."]
    16 NotRam = "NOT_RAM", "EFAULT";
    #[doc = "This is for protected VMs and the VM is an ordinary one, or the other way round."]
    17 WrongKind = "WRONG_KIND", "EPERM";
}

impl Status {
    /// Whether a refusal with this status says at which frame: x2 to x4 are its index, folio word and pin word.
    #[must_use]
    pub const fn names_frame(self) -> bool {
        match self {
            Self::NotPermitted
            | Self::Granule
            | Self::NotMapped
            | Self::Poisoned
            | Self::NotExclusivelyPinned
            | Self::NoPinTable
            | Self::Exists
            | Self::NotRam => true,
            Self::Ok
            | Self::Busy
            | Self::NoMemory
            | Self::Again
            | Self::Invalid
            | Self::NoSuchVm
            | Self::NoSuchVcpu
            | Self::WrongPhase
            | Self::Limit
            | Self::WrongKind => false,
        }
    }
}

numbers! {
    /// Why `VCPU_RUN` returned.
    ExitReason:
    #[doc = "A physical interrupt came; the host takes it when it goes on."]
    0 Interrupt = "INTERRUPT";
    #[doc = "The vCPU waits for an interrupt; x3 = CNTVCT at which its timer fires, or all ones."]
    1 Wfi = "WFI";
    #[doc = "Guest RAM is missing; x3 = GFN, x4 bit 0: a write, bit 1: a fetch, bit 2: the frame is there, and its share does not allow this."]
    2 MemoryFault = "MEMORY_FAULT";
    #[doc = "A device is read; x3 = IPA, x4 = width in bytes; the next run's answer is the value."]
    3 MmioRead = "MMIO_READ";
    #[doc = "A device is written; x3 = IPA, x4 = width in bytes, x5 = value."]
    4 MmioWrite = "MMIO_WRITE";
    #[doc = "The guest shared frames, which the host may map now; x3 = GFN, x4 = count. Answer 0; or 1 to decline: frames that are still pinned exclusively and isolated are the guest's alone again, and it is told that its call failed."]
    5 Shared = "SHARED";
    #[doc = "The guest wants frames back; x3 = GFN, x4 = count; pin them exclusively, isolate them and answer 0, or answer 1."]
    6 UnshareRequest = "UNSHARE_REQUEST";
    #[doc = "Another vCPU may run now; x3 = its index."]
    7 CpuOn = "CPU_ON";
    #[doc = "This vCPU is off until a `CPU_ON` names it."]
    8 PoweredOff = "POWERED_OFF";
    #[doc = "The guest switched itself off."]
    9 SystemOff = "SYSTEM_OFF";
    #[doc = "The guest wants to start again; x3 = type of reset."]
    10 SystemReset = "SYSTEM_RESET";
    #[doc = "The vCPU cannot run again; x3 = ESR without operands."]
    11 Crashed = "CRASHED";
    #[doc = "Other vCPUs have an interrupt to take: wake those that wait, make those that run exit; x3 = one bit for each."]
    12 Kick = "KICK";
    #[doc = "The guest gave frames back: they are wiped, and the host's alone; x3 = GFN, x4 = count. The guest finds nothing there until the host donates again."]
    13 Relinquished = "RELINQUISHED";
}

numbers! {
    /// Who may use a frame.
    State:
    #[doc = "The host alone."]
    0 Host = "HOST";
    #[doc = "EL2 alone."]
    1 Hyp = "HYP";
    #[doc = "The host, and EL2 reads it."]
    2 HostSharedHyp = "HOST_SHARED_HYP";
    #[doc = "One VM alone."]
    3 Guest = "GUEST";
    #[doc = "One VM, which lets the host."]
    4 GuestSharedHost = "GUEST_SHARED_HOST";
    #[doc = "Nobody: it is on its way from a VM to the host."]
    5 Wiping = "WIPING";
    #[doc = "Nobody, for ever."]
    6 Poisoned = "POISONED";
    #[doc = "Not RAM, or a hole in it."]
    7 NotRam = "NOT_RAM";
    #[doc = "The host, and ordinary VMs with which it is shared."]
    8 HostSharedGuest = "HOST_SHARED_GUEST";
    #[doc = "Nobody: it is on its way from the host to a VM."]
    9 Arriving = "ARRIVING";
}

numbers! {
    /// What EL2 counts since boot.
    Counter:
    #[doc = "Host calls."]
    0 Calls = "CALLS";
    #[doc = "Host calls that were refused."]
    1 Refusals = "REFUSALS";
    #[doc = "Frames donated to VMs."]
    2 FramesDonated = "FRAMES_DONATED";
    #[doc = "Frames that VMs gave back."]
    3 FramesReclaimed = "FRAMES_RECLAIMED";
    #[doc = "Frames wiped."]
    4 FramesWiped = "FRAMES_WIPED";
    #[doc = "Aborts that EL2 gave to the host."]
    5 HostAborts = "HOST_ABORTS";
    #[doc = "Decoy pages mapped for the host's kernel."]
    6 Decoys = "DECOYS";
    #[doc = "Exceptions that brought a guest to EL2."]
    7 GuestExits = "GUEST_EXITS";
    #[doc = "Host calls with an unknown function id."]
    8 UnknownCalls = "UNKNOWN_CALLS";
}

numbers! {
    /// What an entry of the trace tells; word 0. Word 1 is the physical counter.
    TraceKind:
    #[doc = "A host call that is not answered yet, or that ran a vCPU and is answered by a later entry; words 2 to 9 = x0 to x7."]
    0 Call = "CALL";
    #[doc = "A host call and its answer; words 2 to 9 = x0 to x7 before, words 10 to 17 = x0 to x7 after."]
    1 Answer = "ANSWER";
    #[doc = "A guest came to EL2; words 2 to 8 = VM handle, vCPU, PC, cause (0 an exception with a syndrome, 1 an interrupt of the host, 2 the virtual timer, 3 list registers, 4 an `SError`), ESR, FAR, HPFAR; word 9 = exit reason, or all ones if the guest went on; words 10 to 12 = its details; words 13 to 16 = x0 to x3 of an HVC or SMC."]
    2 GuestExit = "GUEST_EXIT";
    #[doc = "The host came to EL2 without a host call; words as for a guest."]
    3 HostTrap = "HOST_TRAP";
}

/// How much of everything there can be.
pub mod limit {
    use super::limits;

    limits! {
        #[doc = "VMs at a time."]
        MAX_VMS: u64 = 64;
        #[doc = "vCPUs of a VM."]
        MAX_VCPUS: u64 = 8;
        #[doc = "Frames that `POOL_DONATE` takes."]
        MAX_GIFT: u64 = 64;
        #[doc = "Frames in one memory call."]
        MAX_FRAMES: u64 = 512;
        #[doc = "The largest order of a folio."]
        MAX_ORDER: u8 = 9;
        #[doc = "Ranges of guest RAM of a VM."]
        MAX_REGIONS: usize = 16;
        #[doc = "Ranges of the pin table."]
        MAX_PIN_RANGES: usize = 8;
        #[doc = "Frames in one digest."]
        MAX_DIGEST: u64 = 1024;
        #[doc = "Frames that `FOLIO_RANGE` looks at."]
        MAX_RANGE: u64 = 256;
        #[doc = "How often a frame of the host is shared with ordinary VMs."]
        MAX_SHARES: u16 = 256;
        #[doc = "Entries of the trace of a CPU."]
        TRACE_LENGTH: usize = 64;
        #[doc = "The lowest INTID of an interrupt line."]
        MIN_SPI: u64 = 32;
        #[doc = "The highest INTID of an interrupt line."]
        MAX_SPI: u64 = 287;
    }
}
