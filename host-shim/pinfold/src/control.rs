//! `/dev/pinfold`, the driver's debug device: [`Control`] issues raw calls, pins pages, touches
//! frames. The structures are those of `host-shim/driver/uapi/pinfold.h`.
//!
//! Invariant: a call is passed on as it stands; what EL2 answers is decoded here and nowhere else.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::raw::c_ulong;

use anyhow::Context;
use pinfold_abi::{FEATURE_DEBUG_CALLS, HostCall, SMCCC_SUCCESS, Status, UUID_FUNCTION};
use vmm_sys_util::ioctl::{
    _IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl_expr, ioctl_with_mut_ref, ioctl_with_val,
};

use crate::ending::Failure;

/// Where the device is.
pub const DEVICE: &str = "/dev/pinfold";

const MAGIC: u32 = 0xB9;

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct RawCall {
    x: [u64; 8],
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct RawPin {
    addr: u64,
    kind: u32,
    extra: u32,
    pfn: u64,
    word: u32,
    cookie: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct RawTouch {
    frame: u64,
    offset: u32,
    flags: u32,
    value: u64,
}

/// What the driver has counted since it was loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// VMs that exist now.
    pub vms: u64,
    /// Frames that guests own or share now.
    pub donated: u64,
    /// Of these, frames that the guest shares with the host.
    pub shared: u64,
    /// Frames that EL2's pool holds now.
    pub pool: u64,
    /// Frames that EL2 did not give back.
    pub leaked: u64,
    /// Frames donated so far.
    pub donations: u64,
    /// Frames reclaimed so far.
    pub reclaims: u64,
    /// Donations that failed because somebody else held the page.
    pub pin_busy: u64,
    /// Isolations that had to be tried again.
    pub isolate_retries: u64,
    /// Entries into guests so far.
    pub runs: u64,
    /// Interrupts sent to a CPU to make its guest exit.
    pub kicks: u64,
    /// Exits from guests by reason.
    pub exits: [u64; 16],
}

/// `_IOC(dir, 0xb9, number, size)`.
const fn request(direction: u32, number: u32, size: u32) -> c_ulong {
    ioctl_expr(direction, MAGIC, number, size)
}

const CALL: c_ulong = request(_IOC_READ | _IOC_WRITE, 0x00, 64);
const PIN: c_ulong = request(_IOC_READ | _IOC_WRITE, 0x01, 32);
const UNPIN: c_ulong = request(_IOC_NONE, 0x02, 0);
const TOUCH: c_ulong = request(_IOC_READ | _IOC_WRITE, 0x03, 24);
const STATS: c_ulong = request(_IOC_READ, 0x04, 216);

const _: () = assert!(
    size_of::<RawCall>() == 64
        && size_of::<RawPin>() == 32
        && size_of::<RawTouch>() == 24
        && size_of::<Stats>() == 216
);

const TOUCH_WRITE: u32 = 1 << 0;
const TOUCH_NOFAULT: u32 = 1 << 1;

/// How a page is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinKind {
    /// A plain reference, no pin.
    None,
    /// One ordinary pin.
    Ordinary,
    /// One exclusive pin.
    Exclusive,
    /// One exclusive pin, and isolated: what a donation asks for.
    Isolated,
}

/// A page that the driver holds for us.
#[derive(Clone, Copy, Debug)]
pub struct Pin {
    /// Its frame number.
    pub pfn: u64,
    /// Its folio's pin word.
    pub word: u32,
    cookie: u32,
}

/// The registers that a call came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    x: [u64; 8],
}

impl Reply {
    /// x2 to x7 if EL2 did what it was asked.
    pub fn done(&self) -> Result<[u64; 6], Refused> {
        let [smccc, status, results @ ..] = self.x;
        if smccc != SMCCC_SUCCESS {
            return Err(Refused::NotSupported);
        }
        if status == Status::Ok.number() {
            return Ok(results);
        }
        let [index, folio_word, pin_word, ..] = results;
        Err(Refused::Status {
            status,
            index,
            folio_word,
            pin_word,
        })
    }
}

/// What EL2 said instead of doing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such call.
    NotSupported,
    /// There is, but not so.
    Status {
        /// The status's number.
        status: u64,
        /// Which page it was.
        index: u64,
        /// The folio word found there.
        folio_word: u64,
        /// The pin word found there.
        pin_word: u64,
    },
}

impl Refused {
    /// Whether EL2 said `expected`.
    #[must_use]
    pub fn is(&self, expected: Status) -> bool {
        matches!(self, Self::Status { status, .. } if *status == expected.number())
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Status {
            status,
            index,
            folio_word,
            pin_word,
        } = self
        else {
            return f.write_str("NOT_SUPPORTED");
        };
        match Status::from_number(*status) {
            Some(known) => f.write_str(known.name())?,
            None => write!(f, "status {status}")?,
        }
        write!(
            f,
            ", page {index}, folio word {folio_word:#x}, pin word {pin_word:#x}"
        )
    }
}

impl std::error::Error for Refused {}

/// An open `/dev/pinfold`.
#[derive(Debug)]
pub struct Control(File);

impl Control {
    /// Opens the device.
    pub fn open() -> anyhow::Result<Self> {
        File::options()
            .read(true)
            .write(true)
            .open(DEVICE)
            .map(Self)
            .with_context(|| format!("cannot open {DEVICE} (is pinfold.ko loaded? are you root?)"))
    }

    /// Issues a hypercall with x0 to x7 as given, and returns x0 to x7.
    pub fn raw(&self, x: [u64; 8]) -> io::Result<[u64; 8]> {
        let mut call = RawCall { x };
        // SAFETY: the driver reads and writes exactly one struct pinfold_call.
        check(unsafe { ioctl_with_mut_ref(&self.0, CALL, &mut call) })?;
        Ok(call.x)
    }

    /// Issues one of Pinfold's calls.
    pub fn call(&self, call: HostCall) -> io::Result<Reply> {
        self.raw(call.encode()).map(|x| Reply { x })
    }

    /// Issues one of Pinfold's calls that has to succeed.
    pub fn must(&self, call: HostCall) -> anyhow::Result<[u64; 6]> {
        self.call(call)
            .with_context(|| format!("{DEVICE} refuses {call:?}"))?
            .done()
            .with_context(|| format!("EL2 refuses {call:?}"))
    }

    /// Refuses to go on under a release image of EL2.
    pub fn expect_debug_calls(&self) -> Result<(), Failure> {
        let [features, ..] = self.must(HostCall::Features {})?;
        if features & FEATURE_DEBUG_CALLS == 0 {
            return Err(Failure::NoDebugCalls);
        }
        Ok(())
    }

    /// Asks whose vendor-specific calls these are.
    pub fn uuid_words(&self) -> io::Result<[u64; 4]> {
        let [w0, w1, w2, w3, ..] = self.raw([UUID_FUNCTION, 0, 0, 0, 0, 0, 0, 0])?;
        Ok([w0, w1, w2, w3])
    }

    /// Holds the page of ours at `address`, with `extra` ordinary pins on top.
    pub fn pin(&self, address: usize, kind: PinKind, extra: u32) -> io::Result<Pin> {
        let mut pin = RawPin {
            addr: u64::try_from(address).map_err(io::Error::other)?,
            kind: match kind {
                PinKind::None => 0,
                PinKind::Ordinary => 1,
                PinKind::Exclusive => 2,
                PinKind::Isolated => 3,
            },
            extra,
            ..RawPin::default()
        };
        // SAFETY: the driver reads and writes exactly one struct pinfold_pin.
        check(unsafe { ioctl_with_mut_ref(&self.0, PIN, &mut pin) })?;
        Ok(Pin {
            pfn: pin.pfn,
            word: pin.word,
            cookie: pin.cookie,
        })
    }

    /// Lets go of a page; refused while EL2 or a guest has it.
    pub fn unpin(&self, pin: Pin) -> io::Result<()> {
        // SAFETY: the argument is a number.
        check(unsafe { ioctl_with_val(&self.0, UNPIN, pin.cookie.into()) })
    }

    /// Makes the kernel read the first eight bytes of a frame as it would by mistake.
    pub fn kernel_reads(&self, pfn: u64) -> io::Result<u64> {
        self.touch(pfn, 0, 0)
    }

    /// Makes the kernel write the first eight bytes of a frame as it would by mistake.
    pub fn kernel_writes(&self, pfn: u64, value: u64) -> io::Result<()> {
        self.touch(pfn, TOUCH_WRITE, value).map(|_| ())
    }

    /// Makes the kernel read a frame where the access may abort: then the error is `EFAULT`.
    pub fn kernel_probes(&self, pfn: u64) -> io::Result<u64> {
        self.touch(pfn, TOUCH_NOFAULT, 0)
    }

    /// Makes the kernel write a frame where the access may abort: then the error is `EFAULT`.
    pub fn kernel_probes_write(&self, pfn: u64, value: u64) -> io::Result<()> {
        self.touch(pfn, TOUCH_NOFAULT | TOUCH_WRITE, value)
            .map(|_| ())
    }

    fn touch(&self, pfn: u64, flags: u32, value: u64) -> io::Result<u64> {
        let mut touch = RawTouch {
            frame: pfn,
            offset: 0,
            flags,
            value,
        };
        // SAFETY: the driver reads and writes exactly one struct pinfold_touch.
        check(unsafe { ioctl_with_mut_ref(&self.0, TOUCH, &mut touch) })?;
        Ok(touch.value)
    }

    /// What the driver has counted.
    pub fn stats(&self) -> io::Result<Stats> {
        let mut stats = Stats::default();
        // SAFETY: the driver writes exactly one struct pinfold_stats.
        check(unsafe { ioctl_with_mut_ref(&self.0, STATS, &mut stats) })?;
        Ok(stats)
    }
}

fn check(returned: i32) -> io::Result<()> {
    if returned < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ioctl_numbers_are_those_of_the_header() {
        // _IOC(dir, 0xb9, nr, size), asm-generic/ioctl.h
        assert_eq!(CALL, 0xC040_B900);
        assert_eq!(PIN, 0xC020_B901);
        assert_eq!(UNPIN, 0x0000_B902);
        assert_eq!(TOUCH, 0xC018_B903);
        assert_eq!(STATS, 0x80D8_B904);
    }

    #[test]
    fn replies_are_told_apart() {
        let done = Reply {
            x: [0, 0, 7, 0, 0, 0, 0, 0],
        };
        assert_eq!(done.done(), Ok([7, 0, 0, 0, 0, 0]));
        let unknown = Reply {
            x: [u64::MAX, 0, 0, 0, 0, 0, 0, 0],
        };
        assert_eq!(unknown.done(), Err(Refused::NotSupported));
        let refused = Reply {
            x: [0, 9, 3, 0x10, 0x2, 0, 0, 0],
        };
        let error = refused.done().unwrap_err();
        assert!(error.is(Status::NotExclusivelyPinned));
        assert_eq!(
            error.to_string(),
            "NOT_EXCLUSIVELY_PINNED, page 3, folio word 0x10, pin word 0x2"
        );
    }
}
