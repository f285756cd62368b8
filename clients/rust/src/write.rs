//! One write, and how it wants to be acknowledged.

use std::time::Duration;

use proto::v1::{self, precondition::Condition, write_item::Operation};

use crate::{ClientError, Row, TableRef};

/// How safe a write is when it is acknowledged; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AckLevel {
    /// In the hot store: as durable as Redis is configured.
    Logged,
    /// In the event log: as durable as Kafka.
    Queued,
    /// Committed in the database.
    Applied,
}

impl AckLevel {
    fn to_proto(self) -> v1::AckLevel {
        match self {
            Self::Logged => v1::AckLevel::Logged,
            Self::Queued => v1::AckLevel::Queued,
            Self::Applied => v1::AckLevel::Applied,
        }
    }
}

/// Which acknowledgement is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledge {
    /// The write fails if this level can't be reached; `None`: the table's default, QUEUED unless it is configured
    /// otherwise.
    pub required: Option<AckLevel>,
    /// A higher level that is waited for.
    pub preferred: Option<AckLevel>,
    /// How long it is waited for; the server allows at most 30 s.
    pub wait: Duration,
}

impl Acknowledge {
    /// That level, without waiting for more.
    pub fn required(level: AckLevel) -> Self {
        Self { required: Some(level), preferred: None, wait: Duration::ZERO }
    }

    /// The same, but waiting so long for a higher level.
    #[must_use]
    pub fn preferring(self, level: AckLevel, wait: Duration) -> Self {
        Self { preferred: Some(level), wait, ..self }
    }

    pub(crate) fn to_proto(self) -> v1::Acknowledgement {
        let wait = prost_types::Duration {
            seconds: i64::try_from(self.wait.as_secs()).unwrap_or(i64::MAX),
            nanos: self.wait.subsec_nanos() as i32,
        };
        let level = |level: Option<AckLevel>| level.map_or(v1::AckLevel::Unspecified, AckLevel::to_proto).into();
        v1::Acknowledgement { required: level(self.required), preferred: level(self.preferred), wait: Some(wait) }
    }
}

impl Default for Acknowledge {
    /// The table's default.
    fn default() -> Self {
        Self { required: None, preferred: None, wait: Duration::ZERO }
    }
}

/// What must hold for a write to take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is such a record (`true`) or there is none (`false`).
    Exists(bool),
    /// The record is still the one with this etag.
    Etag(String),
}

impl Precondition {
    fn to_proto(&self) -> v1::Precondition {
        let condition = match self {
            Self::Exists(exists) => Condition::Exists(*exists),
            Self::Etag(etag) => Condition::Etag(etag.clone()),
        };
        v1::Precondition { condition: Some(condition) }
    }
}

/// What a writer learns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The level that was reached; `None` for one that this client does not know.
    pub reached: Option<AckLevel>,
    /// Names this version of the record, for a later precondition. Of a write that was sent again: the version that its
    /// first attempt wrote.
    pub etag: String,
    /// Names this write, for those who wait until the database has it.
    pub token: String,
}

impl Accepted {
    pub(crate) fn from_answer(result: Option<v1::WriteResult>) -> Result<Self, ClientError> {
        let result = result.ok_or_else(|| ClientError::BadAnswer("there is no result in it".into()))?;
        let reached = match result.reached() {
            v1::AckLevel::Unspecified => None,
            v1::AckLevel::Logged => Some(AckLevel::Logged),
            v1::AckLevel::Queued => Some(AckLevel::Queued),
            v1::AckLevel::Applied => Some(AckLevel::Applied),
        };
        Ok(Self { reached, etag: result.etag, token: result.token })
    }
}

/// The length of the ids that are given here.
const REQUEST_ID_BYTES: usize = 32;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    Create { row: Row },
    Put { row: Row },
    Update { key: Row, changes: Row },
    Delete { key: Row },
}

/// One write.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    pub(crate) table: TableRef,
    pub(crate) change: Change,
    precondition: Option<Precondition>,
    request_id: String,
}

impl Write {
    fn new(table: impl Into<TableRef>, change: Change) -> Self {
        Self { table: table.into(), change, precondition: None, request_id: String::new() }
    }

    /// Creates a record; `ALREADY_EXISTS` if there is one. The row holds the columns of the key, too.
    pub fn create(table: impl Into<TableRef>, row: Row) -> Self {
        Self::new(table, Change::Create { row })
    }

    /// Writes a record whether there is one or not; columns left out get their default or NULL.
    pub fn put(table: impl Into<TableRef>, row: Row) -> Self {
        Self::new(table, Change::Put { row })
    }

    /// Changes some columns of a record; `NOT_FOUND` if there is none.
    pub fn update(table: impl Into<TableRef>, key: Row, changes: Row) -> Self {
        Self::new(table, Change::Update { key, changes })
    }

    /// Deletes a record; deleting what is not there succeeds, unless a precondition says otherwise.
    pub fn delete(table: impl Into<TableRef>, key: Row) -> Self {
        Self::new(table, Change::Delete { key })
    }

    /// The same, only if that holds. A create has a condition of its own and leaves this one aside.
    #[must_use]
    pub fn only_if(self, precondition: Precondition) -> Self {
        Self { precondition: Some(precondition), ..self }
    }

    /// The same with an id of this write, which is carried into the event: 1 to 128 visible ASCII characters. The
    /// server makes a write with the same id once, however often it is sent within its request window, and refuses
    /// another write with that id. Without one each call gets its own, so that its attempts are one write; with one of
    /// yours a later call, of another process even, can settle what became of this one.
    #[must_use]
    pub fn request_id(self, id: impl Into<String>) -> Self {
        Self { request_id: id.into(), ..self }
    }

    /// Its table.
    pub fn table(&self) -> &TableRef {
        &self.table
    }

    /// The columns among which those of the key are.
    pub(crate) fn columns(&self) -> &Row {
        match &self.change {
            Change::Create { row } | Change::Put { row } => row,
            Change::Update { key, .. } | Change::Delete { key } => key,
        }
    }

    /// No fewer bytes than the write has as an item of a batch.
    pub(crate) fn bytes_at_most(&self) -> usize {
        let rows = match &self.change {
            Change::Create { row } | Change::Put { row } | Change::Delete { key: row } => row.bytes_at_most(),
            Change::Update { key, changes } => key.bytes_at_most() + changes.bytes_at_most(),
        };
        let etag = match &self.precondition {
            Some(Precondition::Etag(etag)) => etag.len(),
            _ => 0,
        };
        let id = self.request_id.len().max(REQUEST_ID_BYTES);
        64 + self.table.database.len() + self.table.table.len() + id + etag + rows
    }

    /// Its request id: its own, else one that nobody else has; `None` if it has none and shall have none.
    pub(crate) fn id(&self, give_one: bool) -> Option<String> {
        if !self.request_id.is_empty() {
            return Some(self.request_id.clone());
        }
        give_one.then(|| format!("{:032x}", rand::random::<u128>()))
    }

    pub(crate) fn to_proto(&self, acknowledge: Option<Acknowledge>, id: Option<&str>) -> Operation {
        let table = Some(self.table.to_proto());
        let precondition = self.precondition.as_ref().map(Precondition::to_proto);
        let acknowledgement = acknowledge.map(Acknowledge::to_proto);
        let request_id = id.unwrap_or_default().to_owned();
        match &self.change {
            Change::Create { row } => Operation::Create(v1::CreateRecordRequest {
                table,
                row: Some(row.to_proto()),
                acknowledgement,
                request_id,
            }),
            Change::Put { row } => Operation::Put(v1::PutRecordRequest {
                table,
                row: Some(row.to_proto()),
                precondition,
                acknowledgement,
                request_id,
            }),
            Change::Update { key, changes } => Operation::Update(v1::UpdateRecordRequest {
                table,
                key: Some(key.to_proto()),
                changes: Some(changes.to_proto()),
                precondition,
                acknowledgement,
                request_id,
            }),
            Change::Delete { key } => Operation::Delete(v1::DeleteRecordRequest {
                table,
                key: Some(key.to_proto()),
                precondition,
                acknowledgement,
                request_id,
            }),
        }
    }

    pub(crate) fn to_item(&self, id: Option<&str>) -> v1::WriteItem {
        v1::WriteItem { operation: Some(self.to_proto(None, id)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    proptest! {
        #[test]
        fn a_write_is_never_larger_than_it_says(
            columns in prop::collection::vec((".{0,70}", ".*"), 0..30), etag in ".*", id in ".*", n in any::<i64>(),
        ) {
            let row: Row = columns.into_iter().map(|(name, text)| (name, text.into())).collect();
            let key = Row::new().set("id", n).set("instant", jiff::Timestamp::MIN).set("x", -1.5).set("none", None::<i64>);
            for write in [
                Write::create("main.table", row.clone()),
                Write::update("main.table", key.clone(), row.clone()),
                Write::put("main.table", row),
                Write::delete("main.table", key),
            ] {
                let write = write.only_if(Precondition::Etag(etag.clone())).request_id(id.clone());
                let batch = v1::BatchWriteRequest { items: vec![write.to_item(write.id(true).as_deref())], acknowledgement: None };
                prop_assert!(batch.encoded_len() <= write.bytes_at_most());
            }
        }
    }
}
