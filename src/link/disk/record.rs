//! The record of an open area: how it is read with the value that it names, and changed.
//!
//! It lies behind all regions, so it is read by itself, after them. What it names is looked for in
//! the regions just read; if it is not there both are read once more, for the value may have been
//! stored, and named, between the two.

#[cfg(test)]
mod tests;

use standfast_sys::disk::{Error, Sectors};

use super::area::Area;
use crate::link::counters::Count;
use crate::link::now;
use crate::model::NodeId;
use crate::register::{Change, Compared, Place, RecordSeen, Value};
use crate::storage::area::{
    CompareAndWrite, RECORD_LEN, REGION_LEN, SLOT_LEN, Side, SlotError, StoredRecord, decode_block,
    decode_record, encode_record,
};

/// The record as it was last read, or written by this node.
pub(super) struct RecordAt {
    target: Box<dyn CompareAndWrite>,
    /// The logical block: what a change expects, byte for byte. Nothing while nobody knows.
    block: Option<Vec<u8>>,
    stored: Result<StoredRecord, SlotError>,
    fresh: Sectors,
    /// What was told last of it.
    told: Option<RecordSeen>,
    /// The block that holds the value has changed since.
    value_changed: bool,
}

impl RecordAt {
    pub(super) fn new(target: Box<dyn CompareAndWrite>) -> RecordAt {
        let block_bytes = target.block_bytes();
        RecordAt {
            target,
            block: None,
            stored: Ok(StoredRecord::default()),
            fresh: Sectors::new(block_bytes),
            told: None,
            value_changed: false,
        }
    }

    /// A read has found another block of this node, or the same.
    pub(super) fn block_changed(&mut self, node: NodeId, changed: bool) {
        let names = |stored: &StoredRecord| stored.record.place.map(|place| place.node);
        let named = self.stored.as_ref().ok().and_then(names);
        self.value_changed |= changed && named == Some(node);
    }
}

impl Area {
    /// Reads the record after the first `length` bytes of the regions. Returns what it shows if
    /// that is not what was told last.
    pub(super) fn read_record(&mut self, length: usize) -> Result<Option<RecordSeen>, Error> {
        let changed = self.fetch_record()?;
        let record = self.record.as_ref().expect("there is one");
        let good = matches!(record.told, Some(RecordSeen::Blank | RecordSeen::Good(..)));
        if good && !changed && !record.value_changed {
            return Ok(None);
        }
        let mut seen = self.resolve(length)?;
        if matches!(seen, RecordSeen::ValueLost(_) | RecordSeen::Damaged) {
            self.counters.add(Count::Reread);
            self.fetch_record()?;
            seen = self.resolve(0)?;
        }
        let record = self.record.as_mut().expect("there is one");
        record.value_changed = false;
        let news = record.told.as_ref() != Some(&seen);
        record.told = Some(seen.clone());
        Ok(news.then_some(seen))
    }

    /// Reads the block. Says whether it is another one.
    fn fetch_record(&mut self) -> Result<bool, Error> {
        let offset = self.header.geometry.record();
        let record = self.record.as_mut().expect("there is one");
        // The memory is whole pages; a change compares a block and nothing beside it.
        let fresh = &mut record.fresh[..record.target.block_bytes()];
        self.disk.disk().read_at(offset, fresh)?;
        if record.block.as_deref() == Some(&*fresh) {
            return Ok(false);
        }
        record.stored = decode_record(&self.header.nonce, fresh, &self.keyring);
        record.block = Some(fresh.to_vec());
        Ok(true)
    }

    /// The record with its value, which is looked for in the first `length` bytes of the regions as
    /// they were read, or read now.
    fn resolve(&mut self, length: usize) -> Result<RecordSeen, Error> {
        let stored = &self.record.as_ref().expect("there is one").stored;
        let Ok(StoredRecord { record, writer }) = *stored else {
            return Ok(RecordSeen::Damaged);
        };
        if writer.is_none() {
            return Ok(RecordSeen::Blank);
        }
        let Some(place) = record.place else {
            return Ok(RecordSeen::Good(record, Value::default()));
        };
        let side = Side::of_writes(place.writes);
        let Some(offset) = self.header.geometry.block(place.node, side) else {
            return Ok(RecordSeen::Damaged);
        };
        let start = place.node.index() * REGION_LEN + SLOT_LEN * (1 + side as usize);
        let copy = start..start + SLOT_LEN;
        if copy.end > length {
            self.disk
                .disk()
                .read_at(offset, &mut self.fresh[copy.clone()])?;
        }
        let value = self.value_at(place, &self.fresh[copy]);
        let named = value.filter(|value| record.names(value));
        Ok(named.map_or(RecordSeen::ValueLost(record), |value| {
            RecordSeen::Good(record, value)
        }))
    }

    fn value_at(&self, place: Place, slot: &[u8]) -> Option<Value> {
        let at = (place.node, Side::of_writes(place.writes));
        let found = decode_block(&self.header.nonce, at, slot, &self.keyring).ok()?;
        (found.block.writes == place.writes).then_some(found.block.value)
    }

    /// Changes the record, by one command at most; by none once the disk is known to let two win.
    /// To the register that is a change which may be done yet, so it is never taken for done.
    pub(super) fn change(&mut self, change: &Change) -> Compared {
        if self.counters.register_lost.get().is_some() {
            return Compared::Unclear;
        }
        let author = (self.node, self.incarnation);
        let Some(record) = &mut self.record else {
            return Compared::Unclear;
        };
        let (Some(expected), Ok(stored)) = (&record.block, &record.stored) else {
            return Compared::Unclear;
        };
        if stored.record != change.expected {
            // Images never come back: what was read since has taken its place for good.
            let gone = stored.record.count > change.expected.count;
            return if gone {
                Compared::Miscompare
            } else {
                Compared::Unclear
            };
        }
        let mut new = vec![0; expected.len()];
        let sector = new.first_chunk_mut::<RECORD_LEN>();
        let sector = sector.expect("a block holds a record");
        let (nonce, keyring) = (&self.header.nonce, &self.keyring);
        encode_record(nonce, &change.new, author, keyring, sector);
        let offset = self.header.geometry.record();
        let begun = now();
        let outcome = record.target.compare_and_write(offset, expected, &new);
        self.counters.writes.add(now().since(begun));
        match outcome {
            Ok(Compared::Done) => {
                record.stored = Ok(StoredRecord {
                    record: change.new,
                    writer: Some(author),
                });
                record.block = Some(new);
                // The next read tells it as it is.
                record.told = None;
                Compared::Done
            }
            Ok(outcome @ (Compared::Miscompare | Compared::Unclear)) => {
                record.block = None;
                outcome
            }
            Err(error) => {
                record.block = None;
                tracing::warn!(%error, "a change of the register's record has no clear outcome");
                Compared::Unclear
            }
        }
    }

    /// Is it known what a change must expect?
    pub(super) fn knows_record(&self) -> bool {
        let record = self.record.as_ref();
        record.is_none_or(|record| record.block.is_some())
    }
}
