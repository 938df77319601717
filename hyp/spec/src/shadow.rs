//! What the tables must say: the shadows of who owns what, as leaves, and how many tables that takes.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;

use crate::clause::Clause;
use crate::reality::{Leaf, Rights};
use crate::state::{Boot, GFN_LIMIT, Owner, State, in_ranges};
use crate::vm::Vm;

/// Frames of a level-2 block, and of a level-1 block.
pub(crate) const BLOCK: u64 = 512;
const GIB: u64 = 512 * BLOCK;

impl State {
    /// What the host finds at a frame, decoys apart.
    pub(crate) fn host_view(&self, frame: u64) -> Option<Rights> {
        if !self.is_ram(frame) {
            return (!in_ranges(&self.boot.holes, frame)).then_some(Rights::Device);
        }
        match self.owner(frame) {
            None | Some(Owner::SharedGuest(_)) => Some(Rights::Ram),
            Some(Owner::SharedHyp) if frame == self.boot.decoy => None,
            Some(Owner::SharedHyp | Owner::GuestShared(_)) => Some(Rights::SharedRam),
            Some(
                Owner::Hyp
                | Owner::Poisoned
                | Owner::Arriving { .. }
                | Owner::Guest(_)
                | Owner::Wiping { .. },
            ) => None,
        }
    }

    /// The clause by which the host finds that.
    pub(crate) fn host_clause(&self, frame: u64) -> Clause {
        match self.host_view(frame) {
            _ if !self.is_ram(frame) => Clause::HostDevices,
            Some(Rights::Ram) => Clause::HostReaches,
            Some(_) => Clause::HostShares,
            None => Clause::HostShutOut,
        }
    }

    /// Whether RAM, EL2 or a hole is in the range.
    fn is_plain_device(&self, first: u64, count: u64) -> bool {
        let Boot { ram, holes, .. } = &*self.boot;
        let overlaps =
            |(other, frames): &(u64, u64)| first < other + frames && *other < first + count;
        !ram.iter().chain(holes).any(overlaps)
    }

    /// The host's leaves: the largest ones for what is the host's alone or a device, pages for the rest.
    pub(crate) fn host_leaves(&self) -> Vec<Leaf> {
        let leaf = |gfn, frames, rights| Leaf {
            gfn,
            pfn: gfn,
            frames,
            rights,
        };
        let mut leaves = Vec::new();
        for gib in (0..GFN_LIMIT).step_by(1 << 18) {
            if self.is_plain_device(gib, GIB) {
                leaves.push(leaf(gib, GIB, Rights::Device));
                continue;
            }
            let start = leaves.len();
            for block in (gib..gib + GIB).step_by(1 << 9) {
                self.leaves_of_block(block, &mut leaves);
            }
            let blocks = leaves.get(start..).unwrap_or(&[]);
            let is_uniform = |rights| {
                blocks
                    .iter()
                    .all(|leaf| leaf.frames == BLOCK && leaf.rights == rights)
            };
            if blocks.len() == 512 && is_uniform(Rights::Ram) {
                leaves.truncate(start);
                leaves.push(leaf(gib, GIB, Rights::Ram));
            }
        }
        leaves
    }

    fn leaves_of_block(&self, block: u64, leaves: &mut Vec<Leaf>) {
        let leaf = |gfn, frames, rights| Leaf {
            gfn,
            pfn: gfn,
            frames,
            rights,
        };
        let frames = block..block + BLOCK;
        if self.is_plain_device(block, BLOCK) {
            leaves.push(leaf(block, BLOCK, Rights::Device));
        } else if self.is_hosts_block(block) {
            leaves.push(leaf(block, BLOCK, Rights::Ram));
        } else {
            leaves.extend(frames.filter_map(|frame| Some(leaf(frame, 1, self.host_view(frame)?))));
        }
    }

    /// The leaf by which its VM must find a frame: a block for a folio of 2 MiB or a share by one, a page otherwise.
    pub(crate) fn guest_leaf_of(&self, vm: &Vm, gfn: u64, pfn: u64) -> Option<Leaf> {
        let (is_block, rights) = match (self.owner(pfn)?, vm.grants.get(&gfn)) {
            (Owner::Guest(held) | Owner::GuestShared(held), _) => (held.order == 9, Rights::Ram),
            (Owner::SharedGuest(_), Some(grant)) => (grant.block, Rights::of_access(grant.access)),
            _ => return None,
        };
        let frames = if is_block { BLOCK } else { 1 };
        Some(Leaf {
            gfn: gfn - gfn % frames,
            pfn: pfn - gfn % frames,
            frames,
            rights,
        })
    }

    /// A guest's leaves, by GFN.
    pub(crate) fn guest_leaves(&self, handle: u64) -> Vec<Leaf> {
        let Some(vm) = self.vms.get(&handle) else {
            return Vec::new();
        };
        let leaves = vm.frames.iter().filter_map(|(gfn, pfn)| {
            let leaf = self.guest_leaf_of(vm, *gfn, *pfn)?;
            (leaf.gfn == *gfn).then_some(leaf)
        });
        leaves.collect()
    }

    /// How many tables the leaves take, roots included.
    pub(crate) fn tables(&self) -> u64 {
        let gibs = (0..GFN_LIMIT).step_by(1 << 18);
        let host: u64 = gibs.map(|gib| self.host_tables(gib)).sum();
        let guests: u64 = self
            .vms
            .keys()
            .map(|handle| self.guest_tables(*handle))
            .sum();
        2 + host + guests
    }

    /// How many tables hang below the host's entry for a GiB.
    fn host_tables(&self, gib: u64) -> u64 {
        let blocks = (gib..gib + GIB).step_by(1 << 9);
        if self.is_plain_device(gib, GIB) {
            return 0;
        }
        let is_whole = |block| self.is_plain_device(block, BLOCK) || self.is_hosts_block(block);
        if blocks.clone().all(|block| self.is_hosts_block(block)) {
            return 0;
        }
        let split = blocks.filter(|block| !is_whole(*block) && !self.went_whole(*block));
        split.fold(1, |sum, _| sum + 1)
    }

    /// Whether the block is RAM of the host alone.
    pub(crate) fn is_hosts_block(&self, block: u64) -> bool {
        let frames = block..block + BLOCK;
        let mut others = self.owners.range(frames.clone());
        others.all(|(_, owner)| matches!(owner, Owner::SharedGuest(_)))
            && self
                .boot
                .ram
                .iter()
                .any(|(first, count)| *first <= block && frames.end <= first + count)
    }

    /// Whether the host lost all of the block at once, so that its entry is empty.
    fn went_whole(&self, block: u64) -> bool {
        let mut frames = block..block + BLOCK;
        let held = self.owner(block).and_then(Owner::held);
        held.is_some_and(|held| held.order == 9)
            || frames.clone().all(|frame| in_ranges(&self.boot.hyp, frame))
            || frames.all(|frame| in_ranges(&self.boot.holes, frame))
    }

    /// How many tables a guest has: one for each GiB and each block in which it has frames; a folio of 2 MiB needs no table of pages.
    fn guest_tables(&self, handle: u64) -> u64 {
        let (mut gibs, mut blocks) = (BTreeSet::new(), BTreeSet::new());
        if let Some(vm) = self.vms.get(&handle) {
            for (gfn, pfn) in &vm.frames {
                gibs.insert(gfn / GIB);
                let held = self.owner(*pfn).and_then(Owner::held);
                let is_page = vm.grants.get(gfn).is_some_and(|grant| !grant.block);
                if is_page || held.is_some_and(|held| held.order < 9) {
                    blocks.insert(gfn / BLOCK);
                }
            }
        }
        2 + u64::try_from(gibs.len() + blocks.len()).unwrap_or(0)
    }
}
