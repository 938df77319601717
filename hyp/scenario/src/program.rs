//! What a scenario is once it was read: [`Program`].
//!
//! Frames and VMs have names only; where they are, the executor decides. [`layout`] fixes where a guest has things.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use pinfold_abi::describe::CallInfo;
use pinfold_abi::{ExitReason, State, Status, pin_word};

/// Where the VMs that `vm` makes have what.
pub mod layout {
    /// `ram`: the first frame of guest RAM.
    pub const RAM: u64 = 0x40000;
    /// Frames of guest RAM.
    pub const RAM_FRAMES: u64 = 1024;
    /// `home`: the frame that the guest's program is in, a range of its own.
    pub const HOME: u64 = 0x50000;
    /// `port`: the address where the guest asks and tells.
    pub const PORT: u64 = 0x0B00_0000;
    /// The interrupt controller's distributor.
    pub const GICD: u64 = 0x0800_0000;
    /// The interrupt controller's redistributors.
    pub const GICR: u64 = 0x080A_0000;
}

/// A scenario.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub shows: String,
    pub(crate) statements: Vec<Statement>,
    /// The text, line by line.
    pub(crate) lines: Vec<String>,
}

impl Program {
    /// A line of the text, without what is around it; lines count from 1.
    pub(crate) fn line(&self, number: u32) -> &str {
        let index = usize::try_from(number).unwrap_or(0).wrapping_sub(1);
        let line = self.lines.get(index).map_or("", String::as_str);
        line.split('#').next().unwrap_or_default().trim()
    }
}

/// A command with what must come of it.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) line: u32,
    pub(crate) action: Action,
    /// One of these; what is usual if there are none.
    pub(crate) expected: Vec<Pattern>,
    /// The line of that.
    pub(crate) expected_line: u32,
}

/// What a command asks for.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// A VM that runs.
    Vm {
        name: String,
        vcpus: Expression,
        kind: VmKind,
    },
    /// Folios of the host, adjoining.
    Take {
        name: String,
        order: Expression,
        count: Expression,
    },
    /// The pin of each folio of `order` in what is named; its own order if there is none.
    Pin {
        what: Expression,
        whole: Option<String>,
        order: Option<Expression>,
        kind: PinKind,
        count: Expression,
    },
    /// A call of the table; its first result gets a name. If it is to be finished, it is made again as long as it is `AGAIN`.
    Call {
        info: &'static CallInfo,
        arguments: Vec<Expression>,
        into: Option<String>,
        finish: bool,
    },
    /// x0 onwards as they stand.
    Raw(Vec<Expression>),
    /// A guest does something.
    Guest {
        vm: Expression,
        vcpu: u64,
        deed: Deed<Expression>,
    },
    /// The host touches a frame.
    Touch {
        by: By,
        access: Access<Expression>,
        frame: Expression,
    },
    /// The state of a frame, its owner and place there, the order of its folio.
    State {
        frame: Expression,
        state: State,
        owner: Option<(Expression, Expression)>,
        order: Option<Expression>,
    },
    /// How many parallel outcomes were of this kind.
    Count {
        pattern: Box<Pattern>,
        times: Expression,
    },
    /// A name for a number.
    Let { name: String, value: Expression },
    /// Again and again, counted from 0 if a name is given.
    Repeat {
        times: Expression,
        counter: Option<String>,
        body: Vec<Statement>,
    },
    /// Once for each value.
    Each {
        name: String,
        values: Vec<Expression>,
        body: Vec<Statement>,
    },
    /// At the same time; the lines of each CPU.
    Parallel(Vec<Vec<Statement>>),
}

impl Action {
    /// Whether it comes to something that can be expected.
    pub(crate) const fn is_step(&self) -> bool {
        match self {
            Self::Call { .. } | Self::Raw(_) | Self::Guest { .. } | Self::Touch { .. } => true,
            Self::Vm { .. }
            | Self::Take { .. }
            | Self::Pin { .. }
            | Self::State { .. }
            | Self::Count { .. }
            | Self::Let { .. }
            | Self::Repeat { .. }
            | Self::Each { .. }
            | Self::Parallel(_) => false,
        }
    }
}

/// A sum of numbers and names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Expression {
    pub(crate) terms: Vec<(Sign, Term)>,
}

/// How a term counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Sign {
    Plus,
    Minus,
}

/// A number, or what stands for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Term {
    Number(u64),
    Name(String),
    Place(Place),
}

impl Expression {
    /// Just a number.
    pub(crate) fn number(value: u64) -> Self {
        Self {
            terms: Vec::from([(Sign::Plus, Term::Number(value))]),
        }
    }
}

macro_rules! named {
    ($(#[$outer:meta])* $enum:ident: $($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $(#[$outer])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum $enum {
            $($(#[$doc])* $name,)*
        }

        impl $enum {
            /// All of them, by what they are called in a scenario.
            pub const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$name)),*];
        }
    };
}

named! {
    /// A frame that every machine has.
    Place:
    /// EL2's.
    Hyp = "hyp";
    /// Device registers that the host reaches.
    Mmio = "mmio";
    /// Device registers that it does not.
    Hole = "hole";
    /// Beyond RAM.
    Nowhere = "nowhere";
    /// Of the pin table.
    Table = "table";
    /// The host's, and no pin table speaks for it.
    Unspoken = "unspoken";
}

named! {
    /// A kind of VM.
    VmKind:
    /// It owns its memory.
    Protected = "protected";
    /// Its memory is the host's.
    Ordinary = "ordinary";
}

named! {
    /// A kind of pin.
    PinKind:
    /// No pin.
    None = "none";
    /// Ordinary ones.
    Ordinary = "ordinary";
    /// One exclusive one; with a count, others beside it.
    Exclusive = "exclusive";
    /// The same, and the folio is isolated.
    Isolated = "isolated";
    /// The word itself.
    Word = "word";
}

named! {
    /// Who touches a frame on the host's side.
    By:
    /// A process, or the kernel on its behalf, by a user address.
    Process = "process";
    /// The kernel, by an address of its own.
    Kernel = "kernel";
}

/// The pin of a folio.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin {
    /// What kind.
    pub kind: PinKind,
    /// How many pins; the word of [`PinKind::Word`].
    pub count: u32,
}

impl Pin {
    /// The word at the head of a folio.
    #[must_use]
    pub const fn word(self, order: u8) -> u32 {
        let exclusive = (pin_word::donatable(order) & !1) | self.count;
        match self.kind {
            PinKind::None => 0,
            PinKind::Ordinary | PinKind::Word => self.count,
            PinKind::Exclusive => exclusive & !pin_word::ISOLATED,
            PinKind::Isolated => exclusive,
        }
    }
}

/// How the host touches a frame: its first eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access<V> {
    /// It reads.
    Read,
    /// It writes this.
    Write(V),
    /// It jumps there.
    Fetch,
}

/// What a guest does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed<V> {
    /// `MEM_SHARE` of a frame.
    Share(V),
    /// `MEM_UNSHARE` of a frame.
    Unshare(V),
    /// `MEM_RELINQUISH` of a frame.
    Relinquish(V),
    /// Reads the first eight bytes of a frame.
    Read(V),
    /// Writes them.
    Write(V, V),
    /// Calls what is there.
    Fetch(V),
    /// `HVC #0` with X0 to X3.
    Hvc([V; 4]),
    /// Counts down.
    Spin(V),
    /// Goes on with what it was at, with this answer of the host.
    Resume(V),
}

/// What may come of something.
#[derive(Clone, Debug)]
pub(crate) enum Pattern {
    /// A status, with some of its results or of what it found; no status is `NOT_SUPPORTED`.
    Status {
        status: Option<Status>,
        fields: Vec<(String, Expression)>,
    },
    /// The vCPU exits, with some of its details.
    Exit {
        reason: ExitReason,
        details: Vec<Expression>,
    },
    /// It is done, and this is what was read or returned.
    Value(Expression),
    /// It is done.
    Done,
    /// The host gets an abort.
    Abort,
    /// The host finds a decoy.
    Decoy,
}
