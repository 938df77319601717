//! What must hold before the host has registered a pin table.

use guest_test::{check_eq, tests};

use crate::calls::{self, Status};
use crate::folio::Folio;
use crate::frames;
use crate::vm::{RAM_GFN, Vm};

tests! { "before":
    /// The interface has the version that the table says.
    version {
        check_eq!(calls::version().value("VERSION")?, pinfold_abi::VERSION, "version");
    }

    /// Without a pin table nothing can be donated, whatever the words in it say.
    donation_without_pin_table_is_refused {
        if frames::is_registered() {
            return Err(guest_test::tap::Failure::new(format_args!("a test before this one registered the pin table")));
        }
        let vm = Vm::configured(1)?;
        let folio = Folio::take(0)?;
        folio.set_pin(pinfold_abi::pin_word::donatable(0));
        calls::mem_donate(vm.handle(), RAM_GFN, folio.pfn(), 1, 0).refused(Status::NoPinTable, "donation")?;
        vm.end()?;
    }
}
