//! The oracle: what must be true between two calls, looked up frame by frame.

use pinfold_abi::{HostCall, State, claim};
use pinfold_core::addr::{Frame, Pfn};
use pinfold_core::folio::FolioState;
use pinfold_core::hypervisor::Hypervisor;
use pinfold_core::machine::test::{FakeMachine, HOLE, Leaf, POOL_FRAMES, RAM, USED, boot, call};
use pinfold_core::machine::{HypAccess, Machine, Vmid};

/// A hypervisor, and what the oracle needs beside it.
pub(crate) struct World {
    pub(crate) hypervisor: Hypervisor<FakeMachine>,
    pub(crate) frames: u64,
}

/// What a guest leaves in its frames.
pub(crate) const SECRET: u64 = 0x5EC2_E700;

/// Where the tests keep the pin table: the last frames of RAM.
pub(crate) const PIN_TABLE_FRAMES: u64 = 16;

const EXECUTE_NEVER: u64 = 1 << 54;

fn frame(raw: u64) -> Pfn {
    Frame::new(raw).unwrap()
}

impl World {
    /// A host with `frames` frames of RAM, all of which its registered pin table speaks for.
    pub(crate) fn new(frames: u64) -> Self {
        let mut world = Self {
            hypervisor: boot(frames),
            frames,
        };
        let done = world.call(HostCall::PinTableRegister {
            table: claim::Pfn(world.pin_table()),
            first: claim::Pfn(RAM),
            frames: claim::Count(frames),
        });
        assert_eq!(done[..2], [0, 0]);
        world
    }

    pub(crate) fn pin_table(&self) -> u64 {
        RAM + self.frames - PIN_TABLE_FRAMES
    }

    pub(crate) fn call(&mut self, host_call: HostCall) -> [u64; 8] {
        call(&mut self.hypervisor, host_call)
    }

    pub(crate) fn machine(&self) -> &FakeMachine {
        self.hypervisor.memory.machine()
    }

    /// Writes a pin word for the frame.
    pub(crate) fn pin(&mut self, pfn: u64, word: u32) {
        let table = self.pin_table();
        let index = usize::try_from(pfn - RAM).unwrap();
        self.hypervisor
            .memory
            .machine_mut()
            .set_pin_word(table, index, word);
    }

    /// Pins a folio as a donation wants it.
    pub(crate) fn pin_folio(&mut self, pfn: u64, order: u8) {
        for tail in 1..1 << order {
            self.pin(pfn + tail, 0);
        }
        self.pin(pfn, pinfold_abi::pin_word::donatable(order));
    }

    /// The guest writes its secret to every frame that is its alone.
    pub(crate) fn guests_write(&mut self) {
        for pfn in RAM..RAM + self.frames {
            if let FolioState::Guest { vm, .. } =
                self.hypervisor.memory.folios().whole(frame(pfn)).state
            {
                let secret = SECRET + u64::from(vm.raw());
                self.hypervisor
                    .memory
                    .machine_mut()
                    .content
                    .insert(pfn, secret);
            }
        }
    }

    /// All that a refused call must leave alone.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let machine = self.machine();
        let words = (RAM..RAM + self.frames)
            .map(|pfn| self.hypervisor.memory.folios().word(frame(pfn)).word());
        Snapshot {
            words: words.collect(),
            leaves: machine
                .vmids()
                .map(|vmid| (vmid.0, machine.leaves(vmid)))
                .collect(),
            hyp: machine.hyp_frames(),
            tables: machine.tables_in_use(),
            wiped: machine.wiped,
            // What a frame of the pool holds is nobody's concern.
            content: machine
                .content
                .clone()
                .into_iter()
                .filter(|(_, word)| *word != USED)
                .collect(),
        }
    }

    /// Compares the folio array with everything else.
    pub(crate) fn check(&self) {
        assert!(
            self.machine().is_flushed(),
            "a TLB still has what the tables have not"
        );
        assert_eq!(self.machine().walk(Vmid::HOST, HOLE), None);
        self.check_pool();
        self.check_guests();
        let mut recount = [0_u64; 10];
        for pfn in RAM..RAM + self.frames {
            let state = self.hypervisor.memory.folios().whole(frame(pfn)).state;
            recount[usize::try_from(state.number().number()).unwrap()] += 1;
            self.check_frame(pfn, state);
        }
        for (count, info) in recount.iter().zip(State::TABLE) {
            let state = State::from_number(info.number).unwrap();
            assert_eq!(
                self.hypervisor.memory.folios().census().frames(state),
                *count,
                "census of {}",
                info.name
            );
        }
    }

    fn check_pool(&self) {
        let memory = &self.hypervisor.memory;
        let all = POOL_FRAMES + memory.given_to_pool();
        assert_eq!(
            self.machine().pool_free() + self.machine().tables_in_use(),
            all,
            "frames of the pool were lost or made"
        );
        for (pfn, access) in self.machine().hyp_frames() {
            let state = memory.folios().whole(frame(pfn)).state;
            let expected = match access {
                HypAccess::ReadOnly => matches!(state, FolioState::HostSharedHyp { .. }),
                HypAccess::ReadWrite => matches!(state, FolioState::Hyp { .. }),
            };
            assert!(
                expected,
                "EL2 maps {pfn:#x} as {access:?}, which is {state:?}"
            );
        }
    }

    fn check_guests(&self) {
        for vmid in self.machine().vmids().filter(|vmid| *vmid != Vmid::HOST) {
            for Leaf {
                gfn,
                pfn,
                frames: count,
                raw,
            } in self.machine().leaves(vmid)
            {
                assert_eq!(raw & EXECUTE_NEVER, 0);
                for offset in 0..count {
                    let folio = self.hypervisor.memory.folios().whole(frame(pfn + offset));
                    let (FolioState::Guest { vm, gfn: head }
                    | FolioState::GuestSharedHost { vm, gfn: head }) = folio.state
                    else {
                        panic!(
                            "{vmid:?} maps {:#x}, which is {:?}",
                            pfn + offset,
                            folio.state
                        );
                    };
                    assert_eq!(vm.vmid(), vmid);
                    assert_eq!(head.raw() + (pfn + offset - folio.head.raw()), gfn + offset);
                }
            }
        }
    }

    fn check_frame(&self, pfn: u64, state: FolioState) {
        let machine = self.machine();
        let decoy = self.hypervisor.memory.decoy_page().raw();
        let content = machine.content.get(&pfn).copied().unwrap_or(0);
        let is_secret = content & !0xFF == SECRET;
        match (state, machine.walk(Vmid::HOST, pfn)) {
            (FolioState::Host | FolioState::HostSharedGuest { .. }, Some((found, raw))) => {
                assert!(
                    found == pfn && raw & EXECUTE_NEVER == 0,
                    "the host's {pfn:#x} maps {found:#x}, {raw:#x}"
                );
                assert!(!is_secret && content != USED, "{pfn:#x} came back unwiped");
                let has_decoy = self.hypervisor.memory.has_decoy(frame(pfn));
                assert!(!has_decoy, "the host's {pfn:#x} has a decoy");
            }
            (FolioState::HostSharedHyp { .. }, found) if pfn == decoy => assert_eq!(found, None),
            (
                FolioState::HostSharedHyp { .. } | FolioState::GuestSharedHost { .. },
                Some((found, raw)),
            ) => {
                assert!(
                    found == pfn && raw & EXECUTE_NEVER != 0,
                    "shared {pfn:#x} maps {found:#x}, {raw:#x}"
                );
            }
            (FolioState::Hyp { .. }, None) => assert!(!is_secret, "EL2's {pfn:#x} is unwiped"),
            (
                FolioState::Arriving { .. }
                | FolioState::Guest { .. }
                | FolioState::Wiping { .. }
                | FolioState::Poisoned,
                None,
            ) => {}
            (
                FolioState::Hyp { .. }
                | FolioState::Arriving { .. }
                | FolioState::Guest { .. }
                | FolioState::Wiping { .. }
                | FolioState::Poisoned,
                Some((found, raw)),
            ) => {
                assert!(
                    self.hypervisor.memory.has_decoy(frame(pfn)),
                    "the host maps {pfn:#x}, which is {state:?}"
                );
                assert!(
                    found == decoy && raw & EXECUTE_NEVER != 0,
                    "{pfn:#x} maps {found:#x}, {raw:#x}"
                );
            }
            (state, found) => panic!("{pfn:#x} is {state:?}, and the host finds {found:?}"),
        }
        self.check_owner(pfn, state);
    }

    /// The VM that has a frame finds it.
    fn check_owner(&self, pfn: u64, state: FolioState) {
        let (FolioState::Guest { vm, .. } | FolioState::GuestSharedHost { vm, .. }) = state else {
            return;
        };
        let folio = self.hypervisor.memory.folios().whole(frame(pfn));
        let (_, head) = folio.state.owner().unwrap();
        let gfn = head.raw() + (pfn - folio.head.raw());
        assert_eq!(
            self.machine().walk(vm.vmid(), gfn).map(|(found, _)| found),
            Some(pfn),
            "{vm:?} does not map {pfn:#x}"
        );
    }
}

/// The state of everything.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Snapshot {
    words: Vec<u64>,
    leaves: Vec<(u16, Vec<Leaf>)>,
    hyp: Vec<(u64, HypAccess)>,
    tables: u64,
    wiped: u64,
    content: Vec<(u64, u64)>,
}
