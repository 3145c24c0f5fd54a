//! Every conn of the packet path's table, and those just gone: the table's image in the agent, with a digest of each of
//! its 4,096 buckets kept up with every change.
//!
//! A slot has 64 bytes and a number that is its own as long as it is in use; queue and history hold numbers, not keys.
//! Slots lie in chunks, so nothing is ever moved or reallocated as a whole. With the buckets' tables of numbers a conn
//! costs less than 80 bytes.

mod hash;
mod slot;
#[cfg(test)]
mod tests;

use hashbrown::HashTable;

pub use hash::{BUCKETS, bucket_of};
pub(super) use slot::{Bits, Slot};

use super::conn::Key;

/// The number of a slot.
pub(super) type Id = u32;

const CHUNK: usize = 1024;
/// The end of the list of free slots.
const NONE: u64 = u64::MAX;

#[derive(Debug)]
struct Chunk {
    /// The peers that the bits of its slots are about: see [`Index::forget_peer`].
    peer: u32,
    /// As `peer`, for [`Bits::HAS`] alone.
    knowledge: u32,
    slots: Box<[Slot; CHUNK]>,
}

#[derive(Debug, Default)]
struct Bucket {
    ids: HashTable<Id>,
    digest: u64,
}

/// The index.
#[derive(Debug)]
pub(super) struct Index {
    chunks: Vec<Chunk>,
    buckets: Vec<Bucket>,
    free: u64,
    used: usize,
    live: usize,
    digest: u64,
    secret: u64,
    peer: u32,
    knowledge: u32,
}

impl Index {
    /// An empty index; `secret` is a random number of this process.
    pub(super) fn new(secret: u64) -> Self {
        Self {
            chunks: Vec::new(),
            buckets: std::iter::repeat_with(Bucket::default).take(BUCKETS).collect(),
            free: NONE,
            used: 0,
            live: 0,
            digest: 0,
            secret,
            peer: 0,
            knowledge: 0,
        }
    }

    /// Conns.
    pub(super) const fn live(&self) -> usize {
        self.live
    }

    /// Slots in use, those of the dead included.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// Numbers that were ever given out are below this.
    pub(super) fn end(&self) -> Id {
        (self.chunks.len() * CHUNK) as Id
    }

    /// The digest of all conns.
    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// The digest of a bucket.
    pub(super) fn bucket_digest(&self, bucket: u16) -> u64 {
        self.buckets.get(usize::from(bucket)).map_or(0, |bucket| bucket.digest)
    }

    /// The slots of a bucket.
    pub(super) fn bucket(&self, bucket: u16) -> impl Iterator<Item = Id> {
        self.buckets.get(usize::from(bucket)).into_iter().flat_map(|bucket| bucket.ids.iter().copied())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let tables: usize = self.buckets.iter().map(|bucket| bucket.ids.allocation_size()).sum();
        self.chunks.len() * (CHUNK * size_of::<Slot>())
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.buckets.capacity() * size_of::<Bucket>()
            + tables
    }

    /// The slot of a key, live or dead.
    pub(super) fn find(&self, key: &Key) -> Option<Id> {
        let hash = hash::of_key(key);
        let (buckets, chunks) = (&self.buckets, &self.chunks);
        buckets[hash.bucket()].ids.find(hash.local(self.secret), |id| at(chunks, *id).key == *key).copied()
    }

    /// A slot. Numbers that were never given out are a mistake of the caller; they show the first slot.
    pub(super) fn get(&mut self, id: Id) -> &Slot {
        self.refresh(id);
        at(&self.chunks, id)
    }

    /// A slot as it was when its peer was last looked at: for what does not ask about the peer.
    pub(super) fn peek(&self, id: Id) -> &Slot {
        at(&self.chunks, id)
    }

    /// What is known of a slot and its peer, without changing anything.
    pub(super) fn bits(&self, id: Id) -> Bits {
        let chunk = &self.chunks[id as usize / CHUNK];
        let mut bits = at(&self.chunks, id).bits;
        if chunk.peer != self.peer {
            bits = bits.bereft();
        } else if chunk.knowledge != self.knowledge {
            bits.clear(Bits::HAS);
        }
        bits
    }

    /// Changes a slot in use, and the digests with it. The key must stay.
    pub(super) fn change(&mut self, id: Id, change: impl FnOnce(&mut Slot)) -> &Slot {
        self.refresh(id);
        let slot = at_mut(&mut self.chunks, id);
        let (key, before, was_live) = (slot.key, hash::of_slot(slot), slot.is_live());
        change(slot);
        debug_assert_eq!(slot.key, key);
        let (after, is_live) = (hash::of_slot(slot), slot.is_live());
        let delta = if was_live { before } else { 0 } ^ if is_live { after } else { 0 };
        if delta != 0 {
            self.digest ^= delta;
            self.buckets[hash::of_key(&key).bucket()].digest ^= delta;
        }
        self.live = self.live + usize::from(is_live) - usize::from(was_live);
        at(&self.chunks, id)
    }

    /// Changes what is not part of the digest: numbers, times, what the peer knows.
    pub(super) fn touch(&mut self, id: Id) -> &mut Slot {
        self.refresh(id);
        at_mut(&mut self.chunks, id)
    }

    /// A new slot for a key that has none, neither live nor dead yet.
    pub(super) fn insert(&mut self, key: Key) -> Id {
        debug_assert!(self.find(&key).is_none());
        if self.free == NONE {
            self.grow();
        }
        let id = self.free as Id;
        self.refresh(id);
        let slot = at_mut(&mut self.chunks, id);
        self.free = slot.born;
        *slot = Slot { key, bits: slot.bits.only(Bits::OF_NUMBER), ..Slot::FREE };
        self.used += 1;
        let hash = hash::of_key(&key);
        let (chunks, secret) = (&self.chunks, self.secret);
        self.buckets[hash.bucket()]
            .ids
            .insert_unique(hash.local(secret), id, |id| hash::of_key(&at(chunks, *id).key).local(secret));
        id
    }

    /// Gives a slot back; its number stays in the queue if it is there.
    pub(super) fn free(&mut self, id: Id) {
        self.change(id, |slot| slot.bits.clear(Bits::LIVE.and(Bits::DEAD)));
        let slot = at_mut(&mut self.chunks, id);
        let key = slot.key;
        *slot = Slot { born: self.free, bits: slot.bits.only(Bits::OF_NUMBER), ..Slot::FREE };
        self.free = u64::from(id);
        self.used -= 1;
        let hash = hash::of_key(&key);
        if let Ok(entry) = self.buckets[hash.bucket()].ids.find_entry(hash.local(self.secret), |other| *other == id) {
            entry.remove();
        }
    }

    /// What was known about a peer is about nobody: it has lost its memory. The slots notice when they are looked at.
    pub(super) const fn forget_peer(&mut self) {
        self.peer = self.peer.wrapping_add(1);
    }

    /// Which conns the peer has is not known any more.
    pub(super) const fn forget_knowledge(&mut self) {
        self.knowledge = self.knowledge.wrapping_add(1);
    }

    fn refresh(&mut self, id: Id) {
        let (peer, knowledge) = (self.peer, self.knowledge);
        let Some(chunk) = self.chunks.get_mut(id as usize / CHUNK) else { return };
        if chunk.peer != peer {
            chunk.slots.iter_mut().for_each(|slot| slot.bits = slot.bits.bereft());
            (chunk.peer, chunk.knowledge) = (peer, knowledge);
        } else if chunk.knowledge != knowledge {
            chunk.slots.iter_mut().for_each(|slot| slot.bits.clear(Bits::HAS));
            chunk.knowledge = knowledge;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let first = self.end();
        let mut slots = vec![Slot::FREE; CHUNK].into_boxed_slice();
        for (id, slot) in (first..).zip(&mut slots) {
            slot.born = u64::from(id) + 1;
        }
        if let Some(last) = slots.last_mut() {
            last.born = self.free;
        }
        // It has that length.
        let Ok(slots) = slots.try_into() else { return };
        self.chunks.push(Chunk { peer: self.peer, knowledge: self.knowledge, slots });
        self.free = u64::from(first);
    }
}

fn at(chunks: &[Chunk], id: Id) -> &Slot {
    let id = id as usize;
    &chunks[id / CHUNK].slots[id % CHUNK]
}

fn at_mut(chunks: &mut [Chunk], id: Id) -> &mut Slot {
    let id = id as usize;
    &mut chunks[id / CHUNK].slots[id % CHUNK]
}
