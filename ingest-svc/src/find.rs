//! Finding records by the value of a declared field: what the database does not have yet and what it has, as one.
//!
//! In this order, or something would be missed: first the index over what is dirty or parked, then the database, then what
//! the hot store holds of all that was found. A record that is no longer in the index when that is asked was drained before, so
//! the database has it; and what was written since stands in the hot store.

mod accepted;
mod build;
mod error;
mod hot;
mod merge;
mod overlay;
mod page;
mod stored;
mod unindexed;

use std::sync::Arc;

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::{FoundInShard, HotStore, Lookup};
use model::{Shard, TableRef, Value};
use planted::Bug;
use tokio::time::Instant;

pub(crate) use build::prepare;
pub use error::FindError;
pub(crate) use unindexed::{Unindexed, look_for_indexes};

use self::{
    accepted::Accepted,
    hot::Hot,
    merge::{Candidates, merge},
    overlay::{Met, Overlay},
    page::{Cursor, Page, Start},
    stored::Stored,
};
use crate::{Core, StoreError, read::Found};

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
        let core = &*self.core;
        let accepted = Accepted::new(core, query)?;
        let began = Instant::now();
        let (looked_up, mut candidates) = self.look_up(&accepted).await?;
        if planted::is(Bug::FindForgetsUndrained) {
            candidates = Candidates::default();
        }
        let start = accepted.page.start.clone().unwrap_or_else(|| Start::of(&looked_up));
        let room = accepted.limit - candidates.keys.len();
        let Stored { rows, has_more } = match (&accepted.page.cursor, candidates.next.is_none() && room > 0) {
            (Cursor::Stored(after), true) => stored::rows(core, &accepted, after.as_ref(), room).await?,
            (Cursor::Lacking(_), true) => stored::rows(core, &accepted, None, room).await?,
            (_, false) => Stored::default(),
        };
        let after_rows = match (rows.last(), candidates.next) {
            (_, Some(after)) => Some(Cursor::Lacking(Some(after))),
            (Some(last), None) if has_more => Some(Cursor::Stored(Some(last.key.clone()))),
            (None, None) if room == 0 => Some(Cursor::Stored(None)),
            (_, None) => None,
        };
        let ttl = core.options.hot_ttl.of(&accepted.table.schema.table);
        let hot = Hot { core, before: &looked_up, began, ttl };
        let overlay = Overlay { accepted: &accepted, start: &start, hot };
        let (records, met) = overlay.lay(candidates.keys, rows).await?;
        let next = match met {
            Met::All => after_rows,
            Met::UpTo(cursor) => Some(cursor),
        };
        let page = |cursor| Page { start: Some(start.clone()), cursor }.to_token(&accepted.index, &accepted.seal());
        let next_page_token = next.map(page);
        Ok(FoundPage { records, next_page_token: next_page_token.unwrap_or_default() })
    }

    /// What every shard has of it in its index; which of that belongs to this page.
    async fn look_up(&self, accepted: &Accepted) -> Result<(Vec<FoundInShard>, Candidates), FindError> {
        let core = &*self.core;
        let shards: Vec<Shard> = core.shards.all().collect();
        let mut lookup = Lookup {
            namespace: accepted.table.settings.namespace.clone(),
            index: accepted.index.id(),
            term: accepted.term,
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
