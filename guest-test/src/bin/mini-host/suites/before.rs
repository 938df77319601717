//! What must hold before the host has registered a pin table.

use guest_test::tap::Failure;
use guest_test::{check, check_eq, tests};
use pinfold_abi::pin_word;

use super::snapshot::Snapshot;
use crate::calls::{self, Counter, Status};
use crate::folio::Folio;
use crate::frames;
use crate::vm::{RAM_GFN, Vm};

tests! { "before":
    /// Without a pin table nothing can be donated, whatever the words in it say.
    donation_without_pin_table_is_refused {
        if frames::is_registered() {
            return Err(Failure::new(format_args!("a test before this one registered the pin table")));
        }
        let vm = Vm::configured(1)?;
        let folio = Folio::take(0)?;
        let before = Snapshot::take()?;
        let donated = calls::counter(Counter::FramesDonated)?;
        for word in [0, 1, pin_word::donatable(0), u32::MAX] {
            folio.set_pin(word);
            let found = calls::mem_donate(vm.handle(), RAM_GFN, folio.pfn(), 1, 0).refused(Status::NoPinTable, "donation")?;
            check_eq!(found.index, 0, "index");
            check_eq!(found.pin, 0, "pin word of a frame that no table speaks for");
        }
        check_eq!(calls::counter(Counter::FramesDonated)?, donated, "donated frames");
        before.is_still_so("after refusals")?;
        check!(folio.write(0, 1).is_ok(), "the frame is not the host's any more");
        vm.end()?;
    }

    /// The debug calls that the other tests need are there.
    debug_calls_are_there {
        let [features, ..] = calls::features().done("FEATURES")?;
        check!(features & pinfold_abi::FEATURE_DEBUG_CALLS != 0, "this EL2 is built without debug calls");
    }
}
