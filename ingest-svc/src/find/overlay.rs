//! The last step of a find: what is newer than what was found, over it.

use std::collections::BTreeSet;

use database::{Database, FoundRow};
use event_log::{EventPublisher, LogReader};
use futures::{StreamExt as _, stream};
use hot_store::{HotStore, RecordId, Slot, Stage};
use model::{Content, Epoch, Key, KeyBytes, Row, Shard, Version};

use super::{
    FindError,
    accepted::{Accepted, bytes_of},
    hot::{Held, Hot},
    page::{Cursor, Start},
};
use crate::{
    Etag, StoreError,
    read::{
        Found,
        cold::{self, ColdRecord, RECORDS_AT_ONCE},
        form::{self, Use},
    },
};

/// Records of which the database is asked at once what an ALTER has given them.
const FORMS_AT_ONCE: usize = 4;

/// How far a page has got.
pub(super) enum Met {
    All,
    /// It is as large as a page may be: the next one goes on behind this.
    UpTo(Cursor),
}

/// The last step: what the hot store holds of what was found.
pub(super) struct Overlay<'a, H, L, D> {
    pub(super) accepted: &'a Accepted,
    pub(super) start: &'a Start,
    pub(super) hot: Hot<'a, H, L, D>,
}

/// A record that was found, and what the database has of it.
struct Item {
    shard: Shard,
    record: RecordId,
    key: Key,
    row: Option<(Version, Row)>,
}

impl Item {
    fn cursor(&self) -> Cursor {
        match self.row {
            None => Cursor::Lacking(Some(self.record.key.clone())),
            Some(_) => Cursor::Stored(Some(self.key.clone())),
        }
    }

    /// Whether the database's row is the newest: the same, or somebody else has written it since.
    fn is_newer_than(&self, newest: &Newest) -> bool {
        let Some((stored, _)) = &self.row else { return false };
        let is_as_old = matches!(&newest.slot, Slot::Image { version, stage: Stage::Clean, .. } if version <= stored);
        is_as_old && !newest.is_later
    }

    fn cold(&self) -> ColdRecord {
        ColdRecord { shard: self.shard, record: self.record.clone(), key: self.key.clone() }
    }
}

/// What there is of a record, in its table's present form.
struct Newest {
    epoch: Epoch,
    slot: Slot,
    /// Whether it was read after the row.
    is_later: bool,
    /// Whether the index has the image under what is looked for, if it has it at all.
    is_indexed: bool,
}

impl<H, L, D> Overlay<'_, H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    pub(super) async fn lay(
        &self,
        candidates: Vec<(Shard, KeyBytes)>,
        rows: Vec<FoundRow>,
    ) -> Result<(Vec<Found>, Met), FindError> {
        let items = self.items(candidates, rows)?;
        let mut slots = self.hot.read(items.iter().map(|item| (item.shard, item.record.clone()))).await?;
        let mut reached: Vec<(Item, Held)> = Vec::with_capacity(items.len());
        let mut is_cut = false;
        for item in items {
            let held = match slots.remove(&item.record) {
                Some(held) => held,
                // The first one must come in any case, or the next page would be this one again.
                None if reached.is_empty() => self.hot.read_one(item.shard, &item.record).await?,
                None => {
                    is_cut = true;
                    break;
                }
            };
            reached.push((item, held));
        }
        let (mut found, mut last, mut bytes): (Vec<Found>, Option<Cursor>, usize) = (Vec::new(), None, 0);
        let mut reached = reached.into_iter().peekable();
        while reached.peek().is_some() {
            let some: Vec<(Item, Held)> = reached.by_ref().take(RECORDS_AT_ONCE).collect();
            let (some, held): (Vec<Item>, Vec<Held>) = some.into_iter().unzip();
            for (item, newest) in some.iter().zip(self.newest(&some, held).await?) {
                let epoch = newest.as_ref().map(|newest| newest.epoch);
                let judged = newest.and_then(|newest| self.judge(item, newest));
                if let (Some((version, row)), Some(epoch)) = (judged, epoch) {
                    bytes += bytes_of(&row);
                    // The one that finds no room is the first of the next page, which has it however large it is.
                    if let Some(last) =
                        last.take_if(|_| bytes > self.hot.core.options.max_find_bytes && !found.is_empty())
                    {
                        return Ok((found, Met::UpTo(last)));
                    }
                    found.push(self.accepted.found(row, Etag { version, epoch }));
                }
                last = Some(item.cursor());
            }
        }
        Ok((found, last.filter(|_| is_cut).map_or(Met::All, Met::UpTo)))
    }

    /// What is to be looked at, each record once.
    fn items(&self, candidates: Vec<(Shard, KeyBytes)>, rows: Vec<FoundRow>) -> Result<Vec<Item>, FindError> {
        let mut items = Vec::with_capacity(candidates.len() + rows.len());
        let mut met: BTreeSet<KeyBytes> = BTreeSet::new();
        for (shard, key) in candidates {
            let unreadable = |problem: model::CodecError| StoreError::Corrupt {
                shard,
                problem: format!("a key of an index can't be read: {problem}"),
            };
            let decoded = key.decode().map_err(unreadable)?;
            met.insert(key.clone());
            items.push(Item { shard, record: self.accepted.record(key), key: decoded, row: None });
        }
        for FoundRow { key, version, row } in rows {
            let bytes = key.to_bytes();
            // It is on this page already.
            if !met.contains(&bytes) {
                let shard = self.accepted.table.schema.shard_of(&key, self.hot.core.shards);
                items.push(Item { shard, record: self.accepted.record(bytes), key, row: Some((version, row)) });
            }
        }
        Ok(items)
    }

    /// What there is of some records, at most [`RECORDS_AT_ONCE`]; `None`: nothing, or what can't be read.
    async fn newest(&self, items: &[Item], held: Vec<Held>) -> Result<Vec<Option<Newest>>, FindError> {
        let (core, table) = (self.hot.core, &*self.accepted.table);
        let mut newest = Vec::with_capacity(items.len());
        let mut cold = Vec::new();
        for (at, (item, held)) in items.iter().zip(held).enumerate() {
            let (epoch, slot, was_stable) = match held {
                Held::Slot { epoch, slot, is_stable } => (epoch, slot, is_stable),
                // Whether it is to be found nobody can tell; the others must be.
                Held::Unreadable { problem } => {
                    let (table, shard) = (&table.schema.table, item.shard);
                    tracing::warn!(%table, %shard, problem, "a record is left out of what is found: the hot store's value can't be read");
                    newest.push(None);
                    continue;
                }
            };
            // What the database was seen to have is the newest, if nothing can have been in this place since.
            let is_seen = was_stable && item.row.is_some();
            if matches!(slot, Slot::Empty | Slot::Leased | Slot::Absent) && !is_seen {
                cold.push(at);
            }
            newest.push(Some(Newest { epoch, slot, is_later: false, is_indexed: true }));
        }
        let records: Vec<ColdRecord> = cold.iter().map(|&at| items[at].cold()).collect();
        for (at, looked) in cold.into_iter().zip(cold::look(core, table, &records).await) {
            let image = Some(looked?).filter(|slot| matches!(slot, Slot::Image { .. }));
            newest[at] = newest[at].take().zip(image).map(|(newest, slot)| Newest { slot, is_later: true, ..newest });
        }
        self.bring_up_to_date(items, &mut newest).await?;
        Ok(newest)
    }

    /// What was stored before its table was altered is looked at as the table is now.
    async fn bring_up_to_date(&self, items: &[Item], newest: &mut [Option<Newest>]) -> Result<(), FindError> {
        let (core, table) = (self.hot.core, &*self.accepted.table);
        let earlier = newest.iter().zip(items).enumerate().filter_map(|(at, (newest, item))| {
            let newest = newest.as_ref()?;
            (form::is_earlier(table, &newest.slot) && !item.is_newer_than(newest)).then(|| (at, newest.slot.clone()))
        });
        let earlier: Vec<(usize, Slot)> = earlier.collect();
        let present = |(at, slot): (usize, Slot)| async move {
            let is_indexed = self.is_indexed(&slot);
            let slot = form::present(core, table, &items[at].key, slot, Use::Read(&[])).await;
            (at, is_indexed, slot)
        };
        let presented: Vec<_> = stream::iter(earlier).map(present).buffered(FORMS_AT_ONCE).collect().await;
        for (at, is_indexed, slot) in presented {
            let slot = slot?;
            newest[at] = newest[at].take().map(|newest| Newest { slot, is_indexed, ..newest });
        }
        Ok(())
    }

    /// Whether the index has a record that was stored before its table was altered: not by what only the database knows.
    fn is_indexed(&self, slot: &Slot) -> bool {
        let Slot::Image { image, .. } = slot else { return false };
        let Content::Row(row) = &image.content else { return false };
        self.accepted.matches(&form::certain(&self.accepted.table.schema, row))
    }

    /// The record as it is now, if it is to be on this page.
    fn judge(&self, item: &Item, newest: Newest) -> Option<(Version, Row)> {
        if item.is_newer_than(&newest) {
            return item.row.clone();
        }
        let Newest { slot, is_indexed, .. } = newest;
        match (slot, item.row.clone()) {
            (Slot::Image { version, image, stage }, stored) => {
                let was_met = stored.is_some()
                    && stage != Stage::Clean
                    && is_indexed
                    && self.start.has(item.shard, version, self.hot.before);
                match image.content {
                    Content::Row(row) if !was_met && self.accepted.matches(&row) => Some((version, row)),
                    Content::Row(_) | Content::Tombstone => None,
                }
            }
            (Slot::Absent | Slot::Leased | Slot::Empty, stored) => stored,
        }
    }
}
