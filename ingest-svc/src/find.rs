//! Finding records by the value of a declared field: what the database does not have yet and what it has, as one.
//!
//! In this order, or something would be missed: first the index over what is dirty or parked, then the database, then what
//! the hot store holds of all that was found. A record that is no longer in the index when that is asked was drained before, so
//! the database has it; and what was written since stands in the hot store.

mod build;
mod error;
mod merge;
mod page;
mod stored;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use database::{CatalogTable, Database, FoundRow};
use event_log::{EventPublisher, LogReader};
use hot_store::{Answer, FoundInShard, HotStore, HotStoreError, Lookup, RecordId, Slot, Stage};
use model::{ColumnName, Content, Epoch, Key, KeyBytes, Row, Shard, TableIndex, TableRef, Value, Version, Violation};
use tokio::time::Instant;

pub(crate) use build::prepare;
pub use error::FindError;

use self::{
    merge::{Candidates, merge},
    page::{Cursor, Page, Start},
    stored::Stored,
};
use crate::{
    Core, Etag, Part, StoreError,
    read::{
        Found,
        cold::{self, ColdRecord},
    },
};

/// Records of a page where nothing is said.
const DEFAULT_LIMIT: usize = 100;

/// What is looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The table.
    pub table: TableRef,
    /// The field, one of the table's declared ones.
    pub field: String,
    /// Its value.
    pub value: Value,
    /// How many records at most.
    pub limit: usize,
    /// Where an earlier page ended; empty: at the beginning.
    pub page_token: String,
    /// The columns wanted; empty: all.
    pub columns: Vec<String>,
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundPage {
    /// The records; perhaps fewer than were asked for, or none, though there are more.
    pub records: Vec<Found>,
    /// Where the next page begins; empty: there is none.
    pub next_page_token: String,
}

/// Finds records.
pub struct Finder<H, L, D> {
    core: Arc<Core<H, L, D>>,
}

impl<H, L, D> Clone for Finder<H, L, D> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone() }
    }
}

/// A query that the table accepts.
struct Accepted {
    table: Arc<CatalogTable>,
    index: TableIndex,
    field: ColumnName,
    value: Value,
    columns: Vec<ColumnName>,
    limit: usize,
    page: Page,
}

impl<H, L, D> Finder<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    /// On these stores.
    pub fn new(core: Arc<Core<H, L, D>>) -> Self {
        Self { core }
    }

    /// How many records a page has at most where so many are asked for; 0: where nothing is said.
    pub fn limit(&self, asked: usize) -> usize {
        if asked == 0 { DEFAULT_LIMIT.min(self.core.options.max_find_records) } else { asked }
    }

    /// The records whose newest accepted version has this value in the field.
    ///
    /// # Errors
    /// See [`FindError`].
    pub async fn find(&self, query: Query) -> Result<FoundPage, FindError> {
        let accepted = self.accept(query)?;
        let began = Instant::now();
        let (looked_up, candidates) = self.look_up(&accepted).await?;
        let start = accepted.page.start.clone().unwrap_or_else(|| Start::of(&looked_up));
        let room = accepted.limit - candidates.keys.len();
        let Stored { rows, has_more } = match (&accepted.page.cursor, candidates.next.is_none() && room > 0) {
            (Cursor::Stored(after), true) => stored::rows(&self.core, &accepted, after.as_ref(), room).await?,
            (Cursor::Lacking(_), true) => stored::rows(&self.core, &accepted, None, room).await?,
            (_, false) => Stored::default(),
        };
        let after_rows = match (rows.last(), candidates.next) {
            (_, Some(after)) => Some(Cursor::Lacking(Some(after))),
            (Some(last), None) if has_more => Some(Cursor::Stored(Some(last.key.clone()))),
            (None, None) if room == 0 => Some(Cursor::Stored(None)),
            (_, None) => None,
        };
        let overlay = Overlay { finder: self, accepted: &accepted, start: &start, began, before: &looked_up };
        let (records, met) = overlay.lay(candidates.keys, rows).await?;
        let next = match met {
            Met::All => after_rows,
            Met::UpTo(cursor) => Some(cursor),
        };
        let page = |cursor| Page { start: Some(start.clone()), cursor }.to_token(&accepted.index, &accepted.seal());
        let next_page_token = next.map(page);
        Ok(FoundPage { records, next_page_token: next_page_token.unwrap_or_default() })
    }

    fn accept(&self, query: Query) -> Result<Accepted, FindError> {
        let core = &*self.core;
        let Query { table, field, value, limit, page_token, columns } = query;
        let enabled = core.directory.table(&table).ok_or_else(|| FindError::TableNotEnabled(table.clone()))?;
        let invalid = |part, violations: Vec<Violation>| FindError::Invalid { part, violations };
        let names = std::slice::from_ref(&field);
        let mut named = enabled.schema.accept_selection(names).map_err(|wrong| invalid(Part::Field, wrong))?;
        let index = enabled.index.clone().filter(|index| named.first().is_some_and(|name| index.has(name)));
        let (Some(index), Some(field)) = (index, named.pop()) else {
            return Err(FindError::NotDeclared { table, field });
        };
        let Some(column) = enabled.schema.column(field.as_str()) else {
            return Err(FindError::NotDeclared { table, field: field.to_string() });
        };
        if value.is_null() {
            return Err(FindError::Null(field));
        }
        let value = column.accept(value).map_err(|wrong| invalid(Part::Value, vec![wrong]))?;
        let columns = enabled.schema.accept_selection(&columns).map_err(|wrong| invalid(Part::Columns, wrong))?;
        let most = core.options.max_find_records;
        if limit > most {
            return Err(FindError::TooMany { limit, most });
        }
        let mut accepted =
            Accepted { table: enabled, index, field, value, columns, limit: limit.max(1), page: Page::default() };
        if !page_token.is_empty() {
            let page = Page::of_token(&page_token, &accepted.index, &accepted.seal());
            accepted.page = page.ok_or(FindError::PageToken)?;
        }
        Ok(accepted)
    }

    /// What every shard has of it in its index; which of that belongs to this page.
    async fn look_up(&self, accepted: &Accepted) -> Result<(Vec<FoundInShard>, Candidates), FindError> {
        let core = &*self.core;
        let shards: Vec<Shard> = core.shards.all().collect();
        let term = accepted
            .index
            .term(&accepted.field, &accepted.value)
            .ok_or_else(|| FindError::Null(accepted.field.clone()))?;
        let mut lookup = Lookup {
            namespace: accepted.table.settings.namespace.clone(),
            index: accepted.index.id(),
            term,
            after: None,
            limit: 0,
        };
        let Cursor::Lacking(after) = &accepted.page.cursor else {
            // Only so as to know what is removed from here on.
            let looked_up = core.hot.look_up(&shards, &lookup).await.map_err(StoreError::from)?;
            return Ok((looked_up, Candidates::default()));
        };
        lookup.after = after.clone();
        // Keys are spread evenly unless the table is grouped; then the shards that had more are asked once more.
        lookup.limit = (accepted.limit / shards.len()) * 2 + 8;
        let mut looked_up = build::looked_up(core, &accepted.table, &accepted.index, &shards, &lookup).await?;
        let mut candidates = merge(&looked_up, lookup.limit, accepted.limit);
        if candidates.next.is_some() && candidates.keys.len() < accepted.limit && lookup.limit < accepted.limit {
            lookup.limit = accepted.limit;
            looked_up = build::looked_up(core, &accepted.table, &accepted.index, &shards, &lookup).await?;
            candidates = merge(&looked_up, lookup.limit, accepted.limit);
        }
        Ok((looked_up, candidates))
    }
}

impl Accepted {
    /// What a token belongs to.
    fn seal(&self) -> Vec<u8> {
        let term = self.index.term(&self.field, &self.value).map(|term| term.0).unwrap_or_default();
        [self.table.settings.namespace.as_str().as_bytes(), b"\0", &term].concat()
    }

    fn record(&self, key: KeyBytes) -> RecordId {
        RecordId { namespace: self.table.settings.namespace.clone(), key }
    }

    fn shard_of(&self, key: &Key, shards: model::ShardCount) -> Shard {
        self.table.schema.shard_of(key, shards)
    }

    fn matches(&self, row: &Row) -> bool {
        self.index.matches(row, &self.field, &self.value)
    }

    fn found(&self, row: Row, etag: Etag) -> Found {
        let row = if self.columns.is_empty() { row } else { row.select(&self.columns) };
        Found { row, etag: Some(etag) }
    }
}

/// About what a row takes in an answer.
fn bytes_of(row: &Row) -> usize {
    row.iter()
        .map(|(name, value)| {
            name.as_str().len()
                + match value {
                    Value::Decimal(text) | Value::Text(text) | Value::Json(text) => text.len() + 16,
                    Value::Bytes(bytes) => bytes.len() + 16,
                    _ => 32,
                }
        })
        .sum()
}

/// How far a page has got.
enum Met {
    All,
    /// What was read of the hot store was as much as is read at once: the next page goes on behind this.
    UpTo(Cursor),
}

/// The last step: what the hot store holds of what was found.
struct Overlay<'a, H, L, D> {
    finder: &'a Finder<H, L, D>,
    accepted: &'a Accepted,
    start: &'a Start,
    began: Instant,
    before: &'a [FoundInShard],
}

/// A record that was found, and what the database has of it.
struct Item {
    shard: Shard,
    record: RecordId,
    key: Key,
    row: Option<(Version, Row)>,
}

/// What the hot store holds of a record.
enum Held {
    Slot { epoch: Epoch, slot: Slot, is_stable: bool },
    Unreadable { problem: String },
}

impl<H, L, D> Overlay<'_, H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    async fn lay(
        &self,
        candidates: Vec<(Shard, KeyBytes)>,
        rows: Vec<FoundRow>,
    ) -> Result<(Vec<Found>, Met), FindError> {
        let core = &*self.finder.core;
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
                let shard = self.accepted.shard_of(&key, core.shards);
                items.push(Item { shard, record: self.accepted.record(bytes), key, row: Some((version, row)) });
            }
        }
        let mut slots = self.read(&items).await?;
        let mut found: Vec<Found> = Vec::with_capacity(items.len());
        let (mut last, mut bytes): (Option<Cursor>, usize) = (None, 0);
        for item in items {
            if let Some(last) = last.take_if(|_| bytes > core.options.max_find_bytes) {
                return Ok((found, Met::UpTo(last)));
            }
            let cursor = match item.row {
                None => Cursor::Lacking(Some(item.record.key.clone())),
                Some(_) => Cursor::Stored(Some(item.key.clone())),
            };
            let held = match (slots.remove(&item.record), last.take()) {
                (Some(held), _) => held,
                (None, Some(last)) => return Ok((found, Met::UpTo(last))),
                // The first one must come in any case, or the next page would be this one again.
                (None, None) => self.held(item.shard, &item.record).await?,
            };
            last = Some(cursor);
            let (epoch, slot, was_stable) = match held {
                Held::Slot { epoch, slot, is_stable } => (epoch, slot, is_stable),
                // Whether it is to be found nobody can tell; the others must be.
                Held::Unreadable { problem } => {
                    let (table, shard) = (&self.accepted.table.schema.table, item.shard);
                    tracing::warn!(%table, %shard, problem, "a record is left out of what is found: the hot store's value can't be read");
                    continue;
                }
            };
            let slot = match slot {
                // What the database was seen to have is the newest, if nothing can have been in this place since.
                Slot::Empty | Slot::Leased | Slot::Absent if was_stable && item.row.is_some() => slot,
                Slot::Empty | Slot::Leased | Slot::Absent => {
                    let cold = ColdRecord { shard: item.shard, record: item.record.clone(), key: item.key.clone() };
                    let looked = cold::look(core, &self.accepted.table, &[cold]).await.pop();
                    let looked = looked.unwrap_or(Ok(Slot::Empty))?;
                    match looked {
                        Slot::Image { .. } => looked,
                        Slot::Absent | Slot::Leased | Slot::Empty => continue,
                    }
                }
                image => image,
            };
            if let Some((version, row)) = self.judge(&item, slot) {
                bytes += bytes_of(&row);
                found.push(self.accepted.found(row, Etag { version, epoch }));
            }
        }
        Ok((found, Met::All))
    }

    /// What the hot store holds of these; of some nothing, if that is more than is read at once.
    async fn read(&self, items: &[Item]) -> Result<BTreeMap<RecordId, Held>, FindError> {
        let mut groups: BTreeMap<Shard, Vec<RecordId>> = BTreeMap::new();
        for item in items {
            groups.entry(item.shard).or_default().push(item.record.clone());
        }
        let mut slots = BTreeMap::new();
        let unreadable = self.ask(groups.into_iter().collect(), &mut slots).await?;
        // It may be the fault of one value, which must not be that of the others.
        self.ask(unreadable, &mut slots).await?;
        Ok(slots)
    }

    /// Asks the hot store for these groups; each record alone of those of several in which something can't be read.
    async fn ask(
        &self,
        groups: Vec<(Shard, Vec<RecordId>)>,
        slots: &mut BTreeMap<RecordId, Held>,
    ) -> Result<Vec<(Shard, Vec<RecordId>)>, FindError> {
        let core = &*self.finder.core;
        let mut alone = Vec::new();
        if groups.is_empty() {
            return Ok(alone);
        }
        let answers = core.hot.read_many(groups.clone(), core.options.max_find_bytes).await;
        for ((shard, mut records), answer) in groups.into_iter().zip(answers) {
            match answer {
                Ok(answer) => {
                    let (epoch, is_stable) = (answer.epoch, self.is_stable(shard, &answer));
                    let held = answer.slots.into_iter().map(|slot| Held::Slot { epoch, slot, is_stable });
                    slots.extend(records.into_iter().zip(held));
                }
                Err(HotStoreError::Corrupt { .. }) if records.len() > 1 => {
                    alone.extend(records.into_iter().map(|record| (shard, vec![record])));
                }
                Err(HotStoreError::Corrupt { problem, .. }) => {
                    slots.extend(records.pop().map(|record| (record, Held::Unreadable { problem })));
                }
                Err(error) => return Err(StoreError::from(error).into()),
            }
        }
        Ok(alone)
    }

    /// What the hot store holds of one, whatever it has.
    async fn held(&self, shard: Shard, record: &RecordId) -> Result<Held, FindError> {
        match self.finder.core.hot.read(shard, vec![record.clone()]).await {
            Ok(answer) => {
                let is_stable = self.is_stable(shard, &answer);
                let slot = answer.slots.into_iter().next().unwrap_or(Slot::Empty);
                Ok(Held::Slot { epoch: answer.epoch, slot, is_stable })
            }
            Err(HotStoreError::Corrupt { problem, .. }) => Ok(Held::Unreadable { problem }),
            Err(error) => Err(StoreError::from(error).into()),
        }
    }

    /// Whether what is empty now was not dirty when the database was asked ([`Answer::removed`]).
    fn is_stable(&self, shard: Shard, now: &Answer) -> bool {
        let before = self.before.iter().find(|found| found.shard == shard);
        let ttl = self.finder.core.options.hot_ttl.of(&self.accepted.table.schema.table);
        before.is_some_and(|before| before.epoch == now.epoch && before.removed == now.removed)
            && self.began.elapsed() < ttl / 2
    }

    /// The record as it is now, if it is to be on this page.
    fn judge(&self, item: &Item, slot: Slot) -> Option<(Version, Row)> {
        match (slot, item.row.clone()) {
            // The same, or somebody else has written it since.
            (Slot::Image { version, stage: Stage::Clean, .. }, Some((stored, row))) if version <= stored => {
                Some((stored, row))
            }
            (Slot::Image { version, image, stage }, stored) => {
                let was_met =
                    stored.is_some() && stage != Stage::Clean && self.start.has(item.shard, version, self.before);
                match image.content {
                    Content::Row(row) if !was_met && self.accepted.matches(&row) => Some((version, row)),
                    Content::Row(_) | Content::Tombstone => None,
                }
            }
            (Slot::Absent | Slot::Leased | Slot::Empty, stored) => stored,
        }
    }
}
