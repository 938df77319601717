//! Ordered maps of which a copy costs nothing: [`Map`] and [`Set`].
//!
//! The state is copied at each step, so that the state before is there to fall back to and to compare with. Entries lie in
//! chunks, which copies share until one of them changes something: that one gets a chunk of its own. So [`Map::changes`] finds
//! what differs between two copies without looking at what they share.
//!
//! Invariant: keys ascend within a chunk and from each chunk to the next; no chunk is empty or has more than [`MOST`] entries.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::fmt;
use core::ops::Range;

/// Entries of a chunk, at most.
const MOST: usize = 64;

type Chunk<K, V> = Arc<Vec<(K, V)>>;

/// An ordered map.
pub(crate) struct Map<K, V>(Arc<Vec<Chunk<K, V>>>);

impl<K, V> Clone for Map<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

/// The entries of a map, in order.
pub(crate) struct Iter<'a, K, V> {
    chunks: core::slice::Iter<'a, Chunk<K, V>>,
    entries: core::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, value)) = self.entries.next() {
                return Some((key, value));
            }
            self.entries = self.chunks.next()?.iter();
        }
    }
}

impl<'a, K, V> IntoIterator for &'a Map<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        Iter {
            chunks: self.0.iter(),
            entries: [].iter(),
        }
    }
}

impl<K, V> Map<K, V> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// The entries, in order.
    pub(crate) fn iter(&self) -> Iter<'_, K, V> {
        self.into_iter()
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// The values, in the order of their keys.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.0.iter().map(|chunk| chunk.len()).sum()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Ord, V> Map<K, V> {
    /// The chunk where `key` is or belongs, and the place there.
    fn place(&self, key: &K) -> (usize, Result<usize, usize>) {
        let begins = |chunk: &Chunk<K, V>| chunk.first().is_some_and(|(first, _)| first <= key);
        let chunk = self.0.partition_point(begins).saturating_sub(1);
        let search = |entries: &Chunk<K, V>| entries.binary_search_by(|(other, _)| other.cmp(key));
        (chunk, self.0.get(chunk).map_or(Err(0), search))
    }

    /// The value of `key`.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        let (chunk, place) = self.place(key);
        let (_, value) = self.0.get(chunk)?.get(place.ok()?)?;
        Some(value)
    }

    /// Whether `key` has a value.
    pub(crate) fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// The entries with keys in `range`, in order.
    pub(crate) fn range(&self, range: Range<K>) -> impl Iterator<Item = (&K, &V)> {
        let (chunk, _) = self.place(&range.start);
        let entries = self.0.get(chunk..).into_iter().flatten();
        let entries = entries.flat_map(|chunk| chunk.iter());
        let Range { start, end } = range;
        entries
            .skip_while(move |(key, _)| *key < start)
            .take_while(move |(key, _)| *key < end)
            .map(|(key, value)| (key, value))
    }
}

impl<K: Ord + Clone, V: Clone> Map<K, V> {
    /// The value of `key`, to be changed.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let (chunk, place) = self.place(key);
        let place = place.ok()?;
        let chunk = Arc::make_mut(&mut self.0).get_mut(chunk)?;
        let (_, value) = Arc::make_mut(chunk).get_mut(place)?;
        Some(value)
    }

    /// Gives `key` a value, and returns the one that it had.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (chunk, place) = self.place(&key);
        let chunks = Arc::make_mut(&mut self.0);
        let Some(entries) = chunks.get_mut(chunk).map(Arc::make_mut) else {
            chunks.push(Arc::new(Vec::from([(key, value)])));
            return None;
        };
        match place {
            Ok(place) => {
                let (_, old) = entries.get_mut(place)?;
                return Some(core::mem::replace(old, value));
            }
            Err(place) => entries.insert(place, (key, value)),
        }
        if entries.len() > MOST {
            let rest = entries.split_off(MOST / 2);
            chunks.insert(chunk + 1, Arc::new(rest));
        }
        None
    }

    /// Takes away the value of `key`.
    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        let (chunk, place) = self.place(key);
        let place = place.ok()?;
        let chunks = Arc::make_mut(&mut self.0);
        let entries = Arc::make_mut(chunks.get_mut(chunk)?);
        let (_, value) = entries.remove(place);
        if entries.is_empty() {
            chunks.remove(chunk);
        }
        Some(value)
    }
}

impl<K: Ord + Clone, V: PartialEq> Map<K, V> {
    /// The keys, in order, that have another value in `other`, or none there, or none here.
    pub(crate) fn changes(&self, other: &Self) -> Vec<K> {
        let mut changes = Vec::new();
        if Arc::ptr_eq(&self.0, &other.0) {
            return changes;
        }
        let [ours, theirs] = unshared(&self.0, &other.0);
        let (mut ours, mut theirs) = (ours.into_iter().peekable(), theirs.into_iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return changes,
                (Some((our, _)), Some((their, _))) => our.cmp(their),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
            };
            let our = if order.is_le() { ours.next() } else { None };
            let their = if order.is_ge() { theirs.next() } else { None };
            if our.map(|(_, value)| value) != their.map(|(_, value)| value) {
                changes.extend(our.or(their).map(|(key, _)| key.clone()));
            }
        }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.iter().eq(other)
    }
}

/// The entries of chunks that the two do not share.
fn unshared<'a, K: Ord, V>(
    ours: &'a [Chunk<K, V>],
    theirs: &'a [Chunk<K, V>],
) -> [Vec<&'a (K, V)>; 2] {
    let mut entries = [Vec::new(), Vec::new()];
    let [our_entries, their_entries] = &mut entries;
    let (mut ours, mut theirs) = (ours.iter().peekable(), theirs.iter().peekable());
    loop {
        let order = match (ours.peek(), theirs.peek()) {
            (None, None) => return entries,
            (Some(our), Some(their)) if Arc::ptr_eq(our, their) => {
                ours.next();
                theirs.next();
                continue;
            }
            (Some(our), Some(their)) => {
                let first = |chunk: &'a Chunk<K, V>| chunk.first().map(|(key, _)| key);
                first(our).cmp(&first(their))
            }
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
        };
        if order.is_le() {
            our_entries.extend(ours.next().into_iter().flat_map(|chunk| chunk.iter()));
        }
        if order.is_ge() {
            their_entries.extend(theirs.next().into_iter().flat_map(|chunk| chunk.iter()));
        }
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for Map<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        for (key, value) in entries {
            self.insert(key, value);
        }
    }
}

impl<K: Ord + Clone, V: Clone> FromIterator<(K, V)> for Map<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::new();
        map.extend(entries);
        map
    }
}

/// An ordered set.
pub(crate) struct Set<K>(Map<K, ()>);

impl<K> Clone for Set<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: fmt::Debug> fmt::Debug for Set<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl<K> Set<K> {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(Map::new())
    }

    /// The keys, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a, K> IntoIterator for &'a Set<K> {
    type Item = &'a K;
    type IntoIter = core::iter::Map<Iter<'a, K, ()>, fn((&'a K, &'a ())) -> &'a K>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, ())| key)
    }
}

impl<K: Ord + Clone> Set<K> {
    /// Whether `key` is in it.
    pub(crate) fn contains(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// Puts `key` in; says whether it is new.
    pub(crate) fn insert(&mut self, key: K) -> bool {
        !self.contains(&key) && self.0.insert(key, ()).is_none()
    }

    /// Takes `key` out; says whether it was there.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        self.0.remove(key).is_some()
    }

    /// Takes out what `stays` says no to.
    pub(crate) fn retain(&mut self, mut stays: impl FnMut(&K) -> bool) {
        let gone: Vec<_> = self.iter().filter(|key| !stays(key)).cloned().collect();
        for key in gone {
            self.remove(&key);
        }
    }

    /// What is in here and not in `other`.
    pub(crate) fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a K> {
        self.iter().filter(|key| !other.contains(key))
    }

    /// The keys, in order, that are in just one of the two.
    pub(crate) fn changes(&self, other: &Self) -> Vec<K> {
        self.0.changes(&other.0)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// A map does what a `BTreeMap` does, its copies stay as they were, and what differs between two copies is touched.
        #[test]
        fn a_map_is_a_map(steps in prop::collection::vec((0..400_u64, 0..4_u64), 0..600), at in 0..600_usize) {
            let (mut map, mut model) = (Map::new(), BTreeMap::new());
            let mut copies = None;
            for (number, (key, what)) in steps.into_iter().enumerate() {
                if number == at {
                    copies = Some((map.clone(), model.clone()));
                }
                if what == 0 {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                } else {
                    prop_assert_eq!(map.insert(key, what), model.insert(key, what));
                }
            }
            prop_assert!(map.iter().eq(model.iter()));
            prop_assert!(map.range(100..200).eq(model.range(100..200)));
            prop_assert_eq!(map.len(), model.len());
            for chunk in map.0.iter() {
                prop_assert!((1..=MOST).contains(&chunk.len()));
            }
            if let Some((map_then, model_then)) = copies {
                prop_assert!(map_then.iter().eq(model_then.iter()));
                let keys = 0..400;
                let changes = keys.filter(|key| model_then.get(key) != model.get(key));
                prop_assert_eq!(map_then.changes(&map), changes.collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn copies_share_what_did_not_change() {
        let map: Map<u64, u64> = (0..1000).map(|key| (key, key)).collect();
        let mut copy = map.clone();
        copy.insert(500, 0);
        let [ours, theirs] = unshared(&map.0, &copy.0);
        assert!((1..=MOST).contains(&ours.len()) && ours.len() == theirs.len());
        assert_eq!(map.changes(&copy), [500]);
    }
}
