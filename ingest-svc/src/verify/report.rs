//! What is told of a verification: how far it is, what it came to, and what differs.

use database::DatabaseRow;
use hot_store::{Slot, Stage};
use jiff::Timestamp;
use model::{Content, Key, Row, Shard, TableRef, TableSchema, Version};
use tokio::sync::mpsc;

use super::{
    content,
    law::{DifferenceKind, Held, Hot, HotSlot, Logged, Look, Undecided, Verdict},
    window::Met,
};

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyRequest {
    /// The table.
    pub table: TableRef,
    /// Only records whose newest write is of this time or later, by the hot store's clock.
    pub since: Option<Timestamp>,
    /// Records of the log that are read per second.
    pub records_per_second: u32,
    /// Records that differ and are told, beside their number.
    pub max_listed: usize,
}

/// How far a verification is, and what it came to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Records of the log that are to be read, as far as is known.
    pub records: u64,
    /// Records of the log that were read.
    pub read: u64,
    /// Those that the log had deleted before they could be read, be it before this began.
    pub deleted: u64,
    /// Writes in the log that are void: they were never accepted.
    pub void: u64,
    /// Records in the log that are no writes of the table, or can't be read.
    pub strange: u64,
    /// Records that are the same everywhere.
    pub agree: u64,
    /// Records that wait for the database.
    pub pending: u64,
    /// Records that the database refused, and that wait for an operator.
    pub parked: u64,
    /// Records that the database refused, and an operator gave up.
    pub given_up: u64,
    /// Records that changed each time they were looked at.
    pub moving: u64,
    /// Records whose contents differ, of which one was written under an earlier schema.
    pub of_earlier_schema: u64,
    /// Records that differ, where the log begins: they may be void.
    pub may_be_void: u64,
    /// Records that the database does not have, where the log begins: they may have been deleted and purged.
    pub may_be_purged: u64,
    /// Records that differ.
    pub differ: u64,
}

impl Progress {
    /// Records of which nothing can be said.
    pub fn undecided(&self) -> u64 {
        self.of_earlier_schema + self.may_be_void + self.may_be_purged
    }

    /// Counts a record. One that has something newer is counted where that is met.
    pub(super) fn count(&mut self, verdict: Verdict) {
        let counter = match verdict {
            Verdict::Superseded => return,
            Verdict::Agrees => &mut self.agree,
            Verdict::Pending => &mut self.pending,
            Verdict::Parked => &mut self.parked,
            Verdict::GivenUp => &mut self.given_up,
            Verdict::Moving => &mut self.moving,
            Verdict::AfterTheLog | Verdict::Undecided(Undecided::MayBePurged) => &mut self.may_be_purged,
            Verdict::Undecided(Undecided::EarlierSchema) => &mut self.of_earlier_schema,
            Verdict::Undecided(Undecided::MayBeVoid) => &mut self.may_be_void,
            Verdict::Differs(_) => &mut self.differ,
        };
        *counter += 1;
    }
}

/// A record that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// How.
    pub kind: DifferenceKind,
    /// The columns of its key.
    pub key: Row,
    /// Its shard.
    pub shard: Shard,
    /// The offset of its newest event in the log.
    pub offset: i64,
    /// That event's version.
    pub logged: Version,
    /// The version of the row, or of the tombstone; `None` if there is neither.
    pub database: Option<Version>,
    /// Whether it is a row.
    pub has_row: bool,
    /// The version of the image in the hot store, and how that stands to the database; `None` if there is none.
    pub hot: Option<(Version, Stage)>,
    /// The columns that differ, if it is that; not their values.
    pub columns: Vec<String>,
}

impl Difference {
    pub(super) fn of(schema: &TableSchema, shard: Shard, met: &Met, look: &Look, kind: DifferenceKind) -> Self {
        let Key(key) = met.key.clone();
        let (database, has_row) = match &look.row {
            Held::Row(DatabaseRow::Present { version, .. }) | Held::Unreadable(version) => (Some(*version), true),
            Held::Row(DatabaseRow::Deleted { version }) => (Some(*version), false),
            Held::Row(DatabaseRow::Absent) => (None, false),
        };
        let image = |hot: &Hot| match &hot.slot {
            HotSlot::Slot(Slot::Image { version, stage, .. }) => Some((*version, *stage)),
            _ => None,
        };
        Self {
            kind,
            key: schema.key().map(|column| column.name.clone()).zip(key).collect(),
            shard,
            offset: met.offset,
            logged: met.logged.version,
            database,
            has_row,
            hot: image(&look.after),
            columns: columns(schema, &met.logged, look, kind),
        }
    }
}

fn columns(schema: &TableSchema, logged: &Logged, look: &Look, kind: DifferenceKind) -> Vec<String> {
    let said = match (kind, &look.before.slot) {
        (DifferenceKind::ContentDiffers, _) => &logged.image,
        (DifferenceKind::HotStoreDiffers, HotSlot::Slot(Slot::Image { image, .. })) => image,
        _ => return Vec::new(),
    };
    let (Content::Row(said_row), Held::Row(DatabaseRow::Present { row, .. })) = (&said.content, &look.row) else {
        return Vec::new();
    };
    let is_one_schema = said.fingerprint == schema.fingerprint();
    content::different(said_row, row, is_one_schema).map(str::to_owned).collect()
}

/// Something that is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// How far it is.
    pub progress: Progress,
    /// Records that differ and were not told before.
    pub differences: Vec<Difference>,
    /// This is the last word: all was compared.
    pub is_complete: bool,
}

/// Where it is told.
pub type Tell = mpsc::Sender<Told>;
