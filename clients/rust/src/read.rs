//! Reads: one record, or many in one message.

use std::time::Duration;

use proto::v1::{self, evict_item_result, get_item_result::Outcome};

use crate::{Client, ClientError, Reason, Row, TableRef, retry::Repeat};

/// A record that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The columns that were asked for.
    pub row: Row,
    /// Names this version of the record, for a later precondition. Empty where only the database was asked.
    pub etag: String,
    /// Rises with each change of the record: a change that a watch tells is newer if its version is higher. 0 where only
    /// the database was asked, and of a row that nobody has written through the server.
    pub version: u64,
}

/// What a read is to be true of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Consistency {
    /// The newest acknowledged write, however far the database is behind.
    #[default]
    Newest,
    /// What is committed in the database now, also by others; older than acknowledged writes that it does not have yet.
    Database,
}

/// A read.
#[derive(Debug, Clone, PartialEq)]
pub struct Get {
    table: TableRef,
    key: Row,
    columns: Vec<String>,
    consistency: Consistency,
}

impl Get {
    /// All columns of a record, as its newest acknowledged write has them.
    pub fn new(table: impl Into<TableRef>, key: Row) -> Self {
        Self { table: table.into(), key, columns: Vec::new(), consistency: Consistency::Newest }
    }

    /// Only these columns; all if none is named.
    #[must_use]
    pub fn columns<N: Into<String>>(self, columns: impl IntoIterator<Item = N>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), ..self }
    }

    /// True of something else.
    #[must_use]
    pub fn consistency(self, consistency: Consistency) -> Self {
        Self { consistency, ..self }
    }

    fn to_proto(&self) -> v1::GetRecordRequest {
        let consistency = match self.consistency {
            Consistency::Newest => v1::Consistency::Newest,
            Consistency::Database => v1::Consistency::Database,
        };
        v1::GetRecordRequest {
            table: Some(self.table.to_proto()),
            key: Some(self.key.to_proto()),
            columns: self.columns.clone(),
            consistency: consistency.into(),
        }
    }
}

impl Found {
    fn from_proto(found: v1::GetRecordResponse) -> Result<Self, ClientError> {
        let row = found.row.ok_or_else(|| ClientError::BadAnswer("there is no row in it".into()))?;
        Ok(Self { row: Row::from_proto(row)?, etag: found.etag, version: found.version })
    }
}

/// What became of the wish to forget a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Eviction {
    /// It is forgotten: the next read asks the database.
    Evicted,
    /// There was nothing to forget.
    NotHeld,
    /// It stays: the database does not have it yet.
    Undrained,
    /// It stays: the database has refused it, and it is among the dead letters.
    Parked,
}

impl Eviction {
    fn from_number(number: i32) -> Result<Self, ClientError> {
        match v1::Eviction::try_from(number) {
            Ok(v1::Eviction::Evicted) => Ok(Self::Evicted),
            Ok(v1::Eviction::NotHeld) => Ok(Self::NotHeld),
            Ok(v1::Eviction::Undrained) => Ok(Self::Undrained),
            Ok(v1::Eviction::Parked) => Ok(Self::Parked),
            Ok(v1::Eviction::Unspecified) | Err(_) => {
                Err(ClientError::BadAnswer(format!("{number} is no eviction that this client knows")))
            }
        }
    }
}

impl Client {
    /// Makes the server forget what it remembers of records that others have changed in the database, so that later reads
    /// see that. Each key has a result of its own, in their order.
    ///
    /// # Errors
    /// [`ClientError`] for all, and for each key by itself.
    pub async fn evict(
        &self,
        table: impl Into<TableRef>,
        keys: &[Row],
    ) -> Result<Vec<Result<Eviction, ClientError>>, ClientError> {
        let table = table.into();
        let build = || v1::EvictRecordsRequest {
            table: Some(table.to_proto()),
            keys: keys.iter().map(|key| key.clone().to_proto()).collect(),
        };
        let answer = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.records.evict_records(request).await
            })
            .await?;
        let results = answer.results.into_iter().map(|result| match result.outcome {
            Some(evict_item_result::Outcome::Eviction(number)) => Eviction::from_number(number),
            Some(evict_item_result::Outcome::Status(status)) => Err(ClientError::from_item(&status)),
            None => Err(ClientError::BadAnswer("a key has no outcome".into())),
        });
        let results: Vec<_> = results.collect();
        if results.len() == keys.len() {
            return Ok(results);
        }
        let problem = format!("it has {} results for {} keys", results.len(), keys.len());
        Err(ClientError::BadAnswer(problem))
    }

    /// Reads a record: always its newest acknowledged write. `NOT_FOUND` if there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, table: impl Into<TableRef>, key: Row) -> Result<Found, ClientError> {
        self.read(&Get::new(table, key)).await
    }

    /// Reads some columns of a record; all if none is named.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_columns(
        &self,
        table: impl Into<TableRef>,
        key: Row,
        columns: &[&str],
    ) -> Result<Found, ClientError> {
        self.read(&Get::new(table, key).columns(columns.iter().copied())).await
    }

    /// Makes one read.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn read(&self, get: &Get) -> Result<Found, ClientError> {
        let found = self
            .call(
                Repeat::Harmless,
                Duration::ZERO,
                || get.to_proto(),
                |mut connection, request| async move { connection.records.get_record(request).await },
            )
            .await?;
        Found::from_proto(found)
    }

    /// Makes many reads in one message, each with a result of its own, in their order. What the answer has no room for is
    /// asked for again, and so is what failed in a way that passes. More items than the server takes (1,000 unless
    /// configured otherwise) fail as a whole.
    pub async fn batch_get(&self, gets: &[Get]) -> Vec<Result<Found, ClientError>> {
        let mut results: Vec<Result<Found, ClientError>> = Vec::with_capacity(gets.len());
        let mut pending: Vec<usize> = (0..gets.len()).collect();
        let mut backoff = self.backoff_of_reads();
        while !pending.is_empty() {
            let asked: Vec<&Get> = pending.iter().map(|&at| &gets[at]).collect();
            let outcomes = self.send_gets(&asked, self.attempt_limit(&backoff)).await;
            if results.is_empty() {
                results = outcomes;
            } else {
                for (&at, outcome) in pending.iter().zip(outcomes) {
                    results[at] = outcome;
                }
            }
            let is_full = |at: &usize| results[*at].as_ref().is_err_and(|error| error.is(Reason::AnswerFull));
            let again = |at: &usize| {
                let passes = |error: &ClientError| Repeat::Harmless.may_follow(error);
                is_full(at) || results[*at].as_ref().is_err_and(passes)
            };
            let next: Vec<usize> = pending.iter().copied().filter(again).collect();
            // An answer that was full has brought something: the rest is no second attempt.
            let is_progress = next.len() < pending.len() && next.iter().all(is_full);
            if !is_progress && !next.is_empty() {
                let wait = next.iter().filter_map(|&at| results[at].as_ref().err()?.retry_after()).max();
                let Some(delay) = backoff.delay(wait, rand::random()) else { break };
                tokio::time::sleep(delay).await;
            }
            pending = next;
        }
        results
    }

    /// One attempt at some reads.
    async fn send_gets(&self, gets: &[&Get], limit: Duration) -> Vec<Result<Found, ClientError>> {
        let message = v1::BatchGetRecordsRequest { items: gets.iter().map(|get| get.to_proto()).collect() };
        let answer = self
            .attempt(limit, message, |mut connection, request| async move {
                connection.records.batch_get_records(request).await
            })
            .await;
        let all = |error: ClientError| gets.iter().map(|_| Err(error.clone())).collect();
        match answer {
            Err(error) => all(error),
            Ok(answer) if answer.results.len() != gets.len() => {
                all(ClientError::BadAnswer(format!("it has {} results for {} items", answer.results.len(), gets.len())))
            }
            Ok(answer) => answer
                .results
                .into_iter()
                .map(|result| match result.outcome {
                    Some(Outcome::Record(found)) => Found::from_proto(found),
                    Some(Outcome::Status(status)) => Err(ClientError::from_item(&status)),
                    None => Err(ClientError::BadAnswer("an item has no outcome".into())),
                })
                .collect(),
        }
    }
}
