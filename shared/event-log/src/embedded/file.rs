//! The SQLite file of the log. Used by the writer alone, so that no statement is ever given up half-way.

use std::{path::Path, time::Duration};

use model::{Epoch, Topic};
use sqlx::{
    Connection, Row, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqliteRow, SqliteSynchronous},
};

use super::{blob, blobs::BlobIndex, continuity::Continuity};
use crate::{
    in_process::{Commit, Records},
    log::{Committed, LogError, LogRecord, Progress, TopicPartition},
};

/// The layout of the file, kept in SQLite's `user_version`. 2: with each commit goes its request window.
const FORMAT: i64 = 2;
const PAGE_BYTES: u64 = 4096;
/// Blobs read at once when the log is opened.
const READ_AHEAD: i64 = 16;

/// See the module.
pub(super) struct LogFile {
    connection: SqliteConnection,
    next_sequence: i64,
}

/// What goes into the file in one transaction.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) topics: Vec<(Topic, u16)>,
    pub(super) blob: Option<Vec<u8>>,
    pub(super) committed: Commit,
    pub(super) superfluous: Vec<i64>,
}

impl Changes {
    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty() && self.blob.is_none() && self.committed.is_empty() && self.superfluous.is_empty()
    }
}

/// Why changes are not in the file.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// There is no room; the file is as it was.
    #[error("there is no room on the disk, or the log's file has reached its bound")]
    Full,
    /// What the disk holds is not known any more.
    #[error("{0}")]
    Failed(String),
}

impl LogFile {
    /// Opens the file, makes it if it is not there, and checks all that is in it.
    pub(super) async fn open(path: &Path, max_bytes: u64) -> Result<(Self, Restored), LogError> {
        let pages = (max_bytes / PAGE_BYTES).clamp(1024, u64::from(u32::MAX - 1));
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            // Before the journal mode, so that no shared-memory index is needed.
            .locking_mode(SqliteLockingMode::Exclusive)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(5))
            .pragma("journal_size_limit", "67108864")
            .pragma("max_page_count", pages.to_string());
        let fatal = |error: sqlx::Error| {
            LogError::Fatal(format!("the event log's file {} can't be used: {error}", path.display()))
        };
        let mut connection = SqliteConnection::connect_with(&options).await.map_err(fatal)?;
        // A file system that can't do it would quietly get less.
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut connection).await.map_err(fatal)?;
        let synchronous: i64 =
            sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut connection).await.map_err(fatal)?;
        if mode != "wal" || synchronous != 2 {
            return Err(LogError::Fatal(format!(
                "the event log's file {} can't be written durably here (journal mode {mode}, synchronous \
                 {synchronous}); use a directory on a local disk",
                path.display()
            )));
        }
        let format: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut connection).await.map_err(fatal)?;
        match format {
            0 => create(&mut connection).await.map_err(fatal)?,
            1 => add_windows(&mut connection).await.map_err(fatal)?,
            FORMAT => {}
            other => {
                return Err(LogError::Fatal(format!(
                    "the event log's file {} has format {other}, this version knows {FORMAT}; use the version that \
                     wrote it",
                    path.display()
                )));
            }
        }
        let (restored, next_sequence) = load(&mut connection, path).await?;
        Ok((Self { connection, next_sequence }, restored))
    }

    /// The number that the next blob gets.
    pub(super) fn next_sequence(&self) -> i64 {
        self.next_sequence
    }

    /// Writes the changes; when it answers they are on the disk.
    pub(super) async fn write(&mut self, changes: &Changes) -> Result<(), WriteError> {
        match self.transaction(changes).await {
            Ok(()) => {
                self.next_sequence += i64::from(changes.blob.is_some());
                Ok(())
            }
            Err(error) if is_full(&error) => {
                // SQLite may have rolled back already; then this fails, and that is all right.
                let _ = sqlx::query("ROLLBACK").execute(&mut self.connection).await;
                Err(WriteError::Full)
            }
            Err(error) => Err(WriteError::Failed(error.to_string())),
        }
    }

    async fn transaction(&mut self, changes: &Changes) -> Result<(), sqlx::Error> {
        let connection = &mut self.connection;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *connection).await?;
        for (topic, partitions) in &changes.topics {
            sqlx::query("INSERT INTO topics (name, partitions) VALUES (?, ?)")
                .bind(topic.as_str())
                .bind(i64::from(*partitions))
                .execute(&mut *connection)
                .await?;
        }
        if let Some(body) = &changes.blob {
            sqlx::query("INSERT INTO blobs (sequence, checksum, body) VALUES (?, ?, ?)")
                .bind(self.next_sequence)
                .bind(i64::from(blob::checksum(self.next_sequence, body)))
                .bind(body.as_slice())
                .execute(&mut *connection)
                .await?;
        }
        for (TopicPartition { topic, partition }, Committed { done, window }) in &changes.committed {
            sqlx::query(
                "INSERT INTO committed (topic, partition, next_offset, epoch, window_offset, window_epoch) \
                 VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (topic, partition) DO UPDATE SET \
                 next_offset = excluded.next_offset, epoch = excluded.epoch, \
                 window_offset = excluded.window_offset, window_epoch = excluded.window_epoch",
            )
            .bind(topic.as_str())
            .bind(i64::from(*partition))
            .bind(done.offset)
            .bind(i64::from(done.epoch.0))
            .bind(window.offset)
            .bind(i64::from(window.epoch.0))
            .execute(&mut *connection)
            .await?;
        }
        for sequence in &changes.superfluous {
            sqlx::query("DELETE FROM blobs WHERE sequence = ?").bind(sequence).execute(&mut *connection).await?;
        }
        sqlx::query("COMMIT").execute(&mut *connection).await?;
        Ok(())
    }

    /// Reads one blob again.
    pub(super) async fn read(&mut self, sequence: i64) -> Result<Vec<LogRecord>, LogError> {
        let failed = |why: &dyn std::fmt::Display| LogError::Fatal(format!("blob {sequence} of the event log: {why}"));
        let row = sqlx::query("SELECT sequence, checksum, body FROM blobs WHERE sequence = ?")
            .bind(sequence)
            .fetch_one(&mut self.connection)
            .await
            .map_err(|error| failed(&error))?;
        blob_row(&row).map(|(_, records, _)| records).map_err(|why| failed(&why))
    }

    pub(super) async fn close(self) -> Result<(), sqlx::Error> {
        self.connection.close().await
    }
}

/// SQLITE_FULL. It is found before anything was synced, and the transaction leaves no trace.
fn is_full(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "13")
}

async fn create(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    // AUTOINCREMENT keeps the highest number ever given: by it a lost tail is noticed.
    sqlx::raw_sql(
        "BEGIN IMMEDIATE; \
         CREATE TABLE topics (name TEXT PRIMARY KEY, partitions INTEGER NOT NULL) STRICT; \
         CREATE TABLE blobs (sequence INTEGER PRIMARY KEY AUTOINCREMENT, checksum INTEGER NOT NULL, \
           body BLOB NOT NULL) STRICT; \
         CREATE TABLE committed (topic TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL, \
           epoch INTEGER NOT NULL, window_offset INTEGER, window_epoch INTEGER, PRIMARY KEY (topic, partition)) STRICT, WITHOUT ROWID; \
         PRAGMA user_version = 2; \
         COMMIT;",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What was committed before has no window: nothing is kept for it.
async fn add_windows(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(
        "BEGIN IMMEDIATE; \
         ALTER TABLE committed ADD COLUMN window_offset INTEGER; \
         ALTER TABLE committed ADD COLUMN window_epoch INTEGER; \
         PRAGMA user_version = 2; \
         COMMIT;",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What is in a file.
#[derive(Debug, Default)]
pub(super) struct Restored {
    pub(super) records: Records,
    pub(super) blobs: BlobIndex,
}

async fn load(connection: &mut SqliteConnection, path: &Path) -> Result<(Restored, i64), LogError> {
    let unreadable =
        |error: sqlx::Error| LogError::Fatal(format!("the event log's file {} can't be read: {error}", path.display()));
    let damaged = |what: String| {
        LogError::Fatal(format!(
            "the event log's file {} is damaged: {what}. Put a copy back, or move the directory away and accept the \
             loss of what was not drained",
            path.display()
        ))
    };
    let mut restored = Restored::default();
    let records = &mut restored.records;
    let rows = sqlx::query("SELECT name, partitions FROM topics").fetch_all(&mut *connection).await;
    for row in rows.map_err(unreadable)? {
        let (topic, partitions) =
            topic_row(&row).ok_or_else(|| damaged("a topic has an impossible name or number of partitions".into()))?;
        records.topics.insert(topic, partitions);
    }
    let rows = sqlx::query("SELECT topic, partition, next_offset, epoch, window_offset, window_epoch FROM committed")
        .fetch_all(&mut *connection);
    let mut continuity = Continuity::default();
    for row in rows.await.map_err(unreadable)? {
        let (partition, committed) =
            committed_row(&row).ok_or_else(|| damaged("a committed offset is impossible".into()))?;
        if !records.has(&partition) {
            return Err(damaged(format!(
                "an offset is committed for {}/{}, which is no partition of the log",
                partition.topic, partition.partition
            )));
        }
        continuity.begin(partition.clone(), committed);
        records.restore_committed(partition, committed);
    }
    let newest: Option<i64> = sqlx::query_scalar("SELECT seq FROM sqlite_sequence WHERE name = 'blobs'")
        .fetch_optional(&mut *connection)
        .await
        .map_err(unreadable)?;
    let newest = newest.unwrap_or(0);
    let mut last = 0;
    loop {
        let rows =
            sqlx::query("SELECT sequence, checksum, body FROM blobs WHERE sequence > ? ORDER BY sequence LIMIT ?")
                .bind(last)
                .bind(READ_AHEAD)
                .fetch_all(&mut *connection)
                .await
                .map_err(|error| damaged(format!("the blobs behind blob {last} can't be read: {error}")))?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            let sequence: i64 = row.try_get(0).map_err(unreadable)?;
            let broken = |why: &dyn std::fmt::Display| damaged(format!("blob {sequence}: {why}"));
            let (_, found, bytes) = blob_row(&row).map_err(|why| broken(&why))?;
            restored.blobs.add(sequence, bytes);
            continuity.blob(sequence, found, &mut restored).map_err(|why| broken(&why))?;
            last = sequence;
        }
    }
    if last != newest {
        return Err(damaged(format!("the newest blob is {last}, but blob {newest} was written")));
    }
    continuity.end().map_err(damaged)?;
    Ok((restored, newest + 1))
}

fn topic_row(row: &SqliteRow) -> Option<(Topic, u16)> {
    let name: &str = row.try_get(0).ok()?;
    let partitions: i64 = row.try_get(1).ok()?;
    Some((Topic::new(name).ok()?, u16::try_from(partitions).ok()?))
}

/// Number, records and size of a blob.
fn blob_row(row: &SqliteRow) -> Result<(i64, Vec<LogRecord>, u64), String> {
    let read = |error: sqlx::Error| error.to_string();
    let sequence: i64 = row.try_get(0).map_err(read)?;
    let checksum: i64 = row.try_get(1).map_err(read)?;
    let checksum = u32::try_from(checksum).map_err(|error| error.to_string())?;
    let body: &[u8] = row.try_get(2).map_err(read)?;
    let records = blob::decode(sequence, checksum, body).map_err(|error| error.to_string())?;
    Ok((sequence, records, body.len() as u64))
}

fn committed_row(row: &SqliteRow) -> Option<(TopicPartition, Committed)> {
    let topic: &str = row.try_get(0).ok()?;
    let partition: i64 = row.try_get(1).ok()?;
    let offset: i64 = row.try_get(2).ok()?;
    let epoch: i64 = row.try_get(3).ok()?;
    let partition = TopicPartition { topic: Topic::new(topic).ok()?, partition: u16::try_from(partition).ok()? };
    let done = Progress { offset, epoch: Epoch(u32::try_from(epoch).ok()?) };
    let window_offset: Option<i64> = row.try_get(4).ok()?;
    let window_epoch: Option<i64> = row.try_get(5).ok()?;
    let window = match (window_offset, window_epoch) {
        (Some(offset), Some(epoch)) => Progress { offset, epoch: Epoch(u32::try_from(epoch).ok()?) },
        _ => done,
    };
    (0 <= window.offset && window.offset <= offset).then_some((partition, Committed { done, window }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::log::Outgoing;

    fn blob_of(bytes: usize, offset: i64) -> Vec<u8> {
        let record = Outgoing {
            to: TopicPartition { topic: Topic::new("orders").unwrap(), partition: 0 },
            key: Bytes::from_static(b"k"),
            payload: Bytes::from(vec![7; bytes]),
        };
        blob::encode([(&record, offset)])
    }

    #[tokio::test]
    async fn a_full_file_takes_nothing_keeps_what_it_has_and_goes_on_once_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        // The least bound: 1024 pages of 4 KiB.
        let (mut file, _) = LogFile::open(&path, 0).await.unwrap();
        let topics = vec![(Topic::new("orders").unwrap(), 1)];
        file.write(&Changes { topics, ..Changes::default() }).await.unwrap();
        let mut written = 0;
        let full = loop {
            match file.write(&Changes { blob: Some(blob_of(500_000, written)), ..Changes::default() }).await {
                Ok(()) => written += 1,
                Err(error) => break error,
            }
            assert!(written < 100, "the file has no bound");
        };
        assert!(matches!(full, WriteError::Full), "{full}");
        assert!(written > 3);
        let partition = TopicPartition { topic: Topic::new("orders").unwrap(), partition: 0 };
        let done = Progress { offset: 2, epoch: Epoch(1) };
        let committed = vec![(partition.clone(), Committed { done, window: done })];
        file.write(&Changes { committed, superfluous: vec![1, 2], ..Changes::default() }).await.unwrap();
        file.write(&Changes { blob: Some(blob_of(500_000, written)), ..Changes::default() }).await.unwrap();
        file.close().await.unwrap();
        let (file, restored) = LogFile::open(&path, 0).await.unwrap();
        assert_eq!(restored.records.bounds(&partition), Some((2, written + 1)));
        file.close().await.unwrap();
    }
}
