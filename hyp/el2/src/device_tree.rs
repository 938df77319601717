//! The device tree: checked, read, and written anew for the host.
//!
//! [`check`] walks the blob once, bounded; only then `fdt` 0.1.5 reads it, which panics on a damaged one (ADR 6).
//! [`Tree`] is a blob that passed; [`host::write`] makes the host's.

pub(crate) mod check;
pub(crate) mod host;

use fdt::node::FdtNode;

/// A device tree that [`check`] has passed.
pub(crate) struct Tree<'a>(fdt::Fdt<'a>);

impl<'a> Tree<'a> {
    /// Reads `blob`, which passed the check or came from it.
    pub(crate) fn new(blob: &'a [u8]) -> Result<Self, &'static str> {
        fdt::Fdt::new(blob)
            .map(Self)
            .map_err(|_| "its header is damaged")
    }

    /// The root node. The check proved that there is one.
    pub(crate) fn root(&self) -> Option<FdtNode<'_, 'a>> {
        self.0.find_node("/")
    }

    /// A node by its path.
    pub(crate) fn node(&self, path: &str) -> Option<FdtNode<'_, 'a>> {
        self.0.find_node(path)
    }

    /// The children of the root.
    pub(crate) fn top(&self) -> impl Iterator<Item = FdtNode<'_, 'a>> {
        self.root().into_iter().flat_map(FdtNode::children)
    }
}

/// Whether one of the strings of `compatible` is `wanted`.
pub(crate) fn is_compatible(node: FdtNode<'_, '_>, wanted: &str) -> bool {
    node.property("compatible")
        .is_some_and(|property| has_string(property.value, wanted))
}

/// Whether the string list `value` has `wanted`.
pub(crate) fn has_string(value: &[u8], wanted: &str) -> bool {
    value
        .split(|byte| *byte == 0)
        .any(|string| string == wanted.as_bytes())
}

/// The 32-bit cells of a property.
pub(crate) fn cells(value: &[u8]) -> impl Iterator<Item = u32> + '_ {
    value
        .as_chunks::<4>()
        .0
        .iter()
        .map(|cell| u32::from_be_bytes(*cell))
}

/// The pairs of a property that holds addresses and sizes of two cells each.
pub(crate) fn pairs(value: &[u8]) -> impl Iterator<Item = (u64, u64)> + '_ {
    value.as_chunks::<16>().0.iter().map(|pair| {
        let both = u128::from_be_bytes(*pair);
        let [address, size] =
            [both >> 64, both].map(|half| u64::try_from(half & u128::from(u64::MAX)).unwrap_or(0));
        (address, size)
    })
}
