//! What operators ask for: how it goes, and to stop and let go on.

use std::time::Duration;

use proto::v1;

use crate::{Client, ClientError, TableRef, retry::Repeat};

/// A table's name in the messages below.
pub type ProtoTableRef = v1::TableRef;
/// A time span in the messages below.
pub type ProtoDuration = prost_types::Duration;
/// A moment in the messages below.
pub type ProtoTimestamp = prost_types::Timestamp;
/// How it goes; as in the API.
pub type Status = v1::GetStatusResponse;
/// How it goes with one table; as in the API.
pub type TableStatus = v1::TableStatus;
/// What of a table waits for the database; as in the API.
pub type TableBacklog = v1::TableBacklog;
/// The limit of a table; as in the API.
pub type TableLimit = v1::table_status::Limit;
/// How a table gets on; as in the API.
pub type TableState = v1::TableState;
/// How replicas get on with a database; as in the API.
pub type DatabaseStatus = v1::DatabaseStatus;
/// Whether attempts to write a database are let through; as in the API.
pub type BreakerState = v1::BreakerState;
/// A drain replica; as in the API.
pub type ReplicaStatus = v1::ReplicaStatus;
/// A table, as one replica drains it; as in the API.
pub type ReplicaTable = v1::ReplicaTable;
/// Partitions next to each other; as in the API.
pub type PartitionRange = v1::PartitionRange;
/// Something that an operator has stopped; as in the API.
pub type Hold = v1::Hold;
/// What an operator has stopped; as in the API.
pub type HoldKind = v1::HoldKind;
/// How far a drain-down has come; as in the API.
pub type DrainDown = v1::GetDrainDownResponse;

/// What became of the wish to let something go on.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumed {
    /// Whether it was stopped.
    pub was_held: bool,
    /// What is stopped still, of any kind.
    pub still: Vec<Hold>,
}

fn named(table: Option<&TableRef>) -> Option<v1::TableRef> {
    table.map(TableRef::to_proto)
}

impl Client {
    /// How it goes with one table, or with all.
    ///
    /// # Errors
    /// [`ClientError`]. What a store that is away would have told is no error, but named in the answer.
    pub async fn status(&self, table: Option<&TableRef>) -> Result<Status, ClientError> {
        let build = || v1::GetStatusRequest { table: named(table) };
        self.call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
            connection.operators.get_status(request).await
        })
        .await
    }

    /// Writes nothing of a table, or of all tables, to the database any more; writes are accepted and wait. All drain
    /// replicas follow within two seconds.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pause(&self, table: Option<&TableRef>, reason: &str, by: &str) -> Result<Hold, ClientError> {
        let (reason, by) = (reason.to_owned(), by.to_owned());
        let build = || v1::PauseRequest { table: named(table), reason: reason.clone(), by: by.clone() };
        let answer = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.operators.pause(request).await
            })
            .await?;
        Ok(answer.hold.unwrap_or_default())
    }

    /// Lets a table, or all that are not paused by themselves, be written to the database again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn resume(&self, table: Option<&TableRef>) -> Result<Resumed, ClientError> {
        let build = || v1::ResumeRequest { table: named(table) };
        let v1::ResumeResponse { was_held, still } = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.operators.resume(request).await
            })
            .await?;
        Ok(Resumed { was_held, still })
    }

    /// Lets no more writes of a table, or of all tables, in (`DRAINING_DOWN`), so that what waits for the database comes
    /// to an end; reads go on.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn start_drain_down(
        &self,
        table: Option<&TableRef>,
        reason: &str,
        by: &str,
    ) -> Result<Hold, ClientError> {
        let (reason, by) = (reason.to_owned(), by.to_owned());
        let build = || v1::StartDrainDownRequest { table: named(table), reason: reason.clone(), by: by.clone() };
        let answer = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.operators.start_drain_down(request).await
            })
            .await?;
        Ok(answer.hold.unwrap_or_default())
    }

    /// How far a drain-down has come.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain_down(&self, table: Option<&TableRef>) -> Result<DrainDown, ClientError> {
        let build = || v1::GetDrainDownRequest { table: named(table) };
        self.call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
            connection.operators.get_drain_down(request).await
        })
        .await
    }

    /// Lets the writes of a table, or of all that are not drained down by themselves, in again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn end_drain_down(&self, table: Option<&TableRef>) -> Result<Resumed, ClientError> {
        let build = || v1::EndDrainDownRequest { table: named(table) };
        let v1::EndDrainDownResponse { was_held, still } = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.operators.end_drain_down(request).await
            })
            .await?;
        Ok(Resumed { was_held, still })
    }
}
