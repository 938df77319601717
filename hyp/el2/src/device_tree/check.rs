//! Checks a flattened device tree before anything else looks at it (Devicetree Specification 0.4, chapter 5).
//!
//! Everything that `fdt` 0.1.5 takes for granted is proved here: blocks inside the blob, tokens in order, names that are
//! UTF-8 and end, values inside the block, properties before children, `#…-cells` of four bytes, a bounded depth. The walk
//! reads each token once, so it ends. NOPs, which QEMU leaves in a tree that it was given, are taken out: `fdt` trips over them.

use alloc::vec::Vec;

const MAGIC: u32 = 0xd00d_feed;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The size of the header.
const HEADER: usize = 40;
/// The deepest nesting that is read, the root being 1: what bounds recursion.
pub(crate) const DEEPEST: usize = 16;
/// No memory reservation: the entry that ends their list.
const RESERVATIONS: [u8; 16] = [0; 16];
/// The largest blob that is read: twice what Linux's boot protocol allows, since QEMU doubles a tree that it was given.
pub(crate) const LARGEST: usize = 4 << 20;

/// Reads the total size out of the first bytes of a blob.
pub(crate) fn total_size(header: &[u8]) -> Result<usize, &'static str> {
    if word(header, 0) != Some(MAGIC) {
        return Err("it does not begin with the magic number");
    }
    match size(header, 4) {
        Some(total) if (HEADER..=LARGEST).contains(&total) => Ok(total),
        _ => Err("its total size is not between 40 bytes and 4 MiB"),
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let cell = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_be_bytes(*cell))
}

fn size(bytes: &[u8], offset: usize) -> Option<usize> {
    word(bytes, offset).and_then(|value| usize::try_from(value).ok())
}

/// The block of `blob` whose offset and size stand in the header.
fn block(blob: &[u8], offset_at: usize, size_at: usize) -> Option<&[u8]> {
    let start = size(blob, offset_at)?;
    blob.get(start..start.checked_add(size(blob, size_at)?)?)
}

/// The string that begins `bytes`, without its end.
fn string(bytes: &[u8]) -> Option<&str> {
    let length = bytes.iter().position(|byte| *byte == 0)?;
    core::str::from_utf8(bytes.get(..length)?).ok()
}

/// The walk through the structure block.
struct Walk<'a> {
    rest: &'a [u8],
    strings: &'a [u8],
    depth: usize,
    properties_may_follow: bool,
    has_begun: bool,
}

impl Walk<'_> {
    fn token(&mut self) -> Option<u32> {
        let token = word(self.rest, 0)?;
        self.skip(4)?;
        Some(token)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes.checked_next_multiple_of(4)?..)?;
        Some(())
    }

    fn begin(&mut self) -> Result<(), &'static str> {
        let name = string(self.rest).ok_or("the name of a node does not end, or is not text")?;
        if self.has_begun == name.is_empty() {
            return Err("a node below the root has no name, or the root has one");
        }
        self.has_begun = true;
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("its nodes are nested more than 16 deep");
        }
        self.properties_may_follow = true;
        let bytes = name.len() + 1;
        self.skip(bytes).ok_or("it ends inside the name of a node")
    }

    fn property(&mut self) -> Result<(), &'static str> {
        if !self.properties_may_follow {
            return Err("a property stands behind a child node");
        }
        let length = size(self.rest, 0).ok_or("it ends inside a property")?;
        let name = size(self.rest, 4)
            .and_then(|at| self.strings.get(at..))
            .and_then(string);
        let name = name.ok_or("the name of a property does not end, or is not text")?;
        let end = length.checked_add(8).ok_or("a property is too long")?;
        let value = self
            .rest
            .get(8..end)
            .ok_or("it ends inside the value of a property")?;
        if name.ends_with("-cells") && name.starts_with('#') && value.len() != 4 {
            return Err("a number of cells is not of four bytes");
        }
        self.skip(end)
            .ok_or("it ends inside the value of a property")
    }

    fn end(&mut self) -> Result<(), &'static str> {
        self.properties_may_follow = false;
        self.depth = self
            .depth
            .checked_sub(1)
            .ok_or("a node ends that never began")?;
        Ok(())
    }
}

/// Proves `blob` well-formed, or says what is wrong. If there are NOPs in it, returns it without.
pub(crate) fn check(blob: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if blob.len() < total_size(blob)? {
        return Err("it is shorter than it says");
    }
    if word(blob, 20).is_none_or(|version| version < 17)
        || word(blob, 24).is_none_or(|oldest| oldest > 17)
    {
        return Err("it is not of version 17");
    }
    let strings = block(blob, 12, 32).ok_or("its strings lie outside of it")?;
    let structure = block(blob, 8, 36).ok_or("its structure lies outside of it")?;
    let mut walk = Walk {
        rest: structure,
        strings,
        depth: 0,
        properties_may_follow: false,
        has_begun: false,
    };
    let mut nops = Vec::new();
    loop {
        let before = walk.rest.len();
        match walk.token() {
            Some(NOP) => nops.push(structure.len() - before),
            Some(BEGIN_NODE) => walk.begin()?,
            Some(PROPERTY) => walk.property()?,
            Some(END_NODE) => walk.end()?,
            Some(_) => return Err("it holds an unknown token"),
            None => return Err("it ends before its root node does"),
        }
        if walk.depth == 0 && walk.has_begun {
            break;
        }
    }
    if walk.token() != Some(END) {
        return Err("something follows its root node");
    }
    Ok((!nops.is_empty()).then(|| without(structure, strings, &nops)))
}

/// The blob anew: header, reservations (none), structure without the `nops` at these offsets, strings.
fn without(structure: &[u8], strings: &[u8], nops: &[usize]) -> Vec<u8> {
    let mut kept = Vec::new();
    for (number, word) in structure.chunks(4).enumerate() {
        if nops.binary_search(&(number * 4)).is_err() {
            kept.extend_from_slice(word);
        }
    }
    let structure_at = HEADER + RESERVATIONS.len();
    let strings_at = structure_at + kept.len();
    let total = strings_at + strings.len();
    let sizes = [total, structure_at, strings_at, HEADER];
    let [total, structure_at, strings_at, reservations_at] =
        sizes.map(|size| u32::try_from(size).unwrap_or(0));
    let [strings_size, structure_size] =
        [strings.len(), kept.len()].map(|size| u32::try_from(size).unwrap_or(0));
    let header = [
        MAGIC,
        total,
        structure_at,
        strings_at,
        reservations_at,
        17,
        16,
        0,
        strings_size,
        structure_size,
    ];
    let mut blob: Vec<u8> = header.iter().flat_map(|word| word.to_be_bytes()).collect();
    blob.extend_from_slice(&RESERVATIONS);
    blob.append(&mut kept);
    blob.extend_from_slice(strings);
    blob
}
