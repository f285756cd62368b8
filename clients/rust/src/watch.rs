//! Changes as they come in, for those who react to them.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use proto::v1::{self, watch_service_client::WatchServiceClient};
use tonic::{Streaming, transport::Channel};

use crate::{
    Client, ClientError, Row, TableRef,
    dead_letter::from_proto,
    retry::{Backoff, Repeat},
};

/// What a write did; as in the API.
pub type ChangeOperation = v1::ChangeOperation;

/// Which changes are wanted, what of them, and from where on.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchOptions {
    /// Only those of these records, by the columns of their primary keys; none: of all records.
    pub keys: Vec<Row>,
    /// Only these columns of each row; none: all.
    pub columns: Vec<String>,
    /// Behind this token of another watch; `None`: from now on.
    pub from: Option<String>,
    /// For how long it is tried to go on when a watch has broken off, 5 minutes unless you say otherwise.
    pub patience: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self { keys: Vec::new(), columns: Vec::new(), from: None, patience: Duration::from_secs(300) }
    }
}

/// A write that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// The columns of the record's primary key.
    pub key: Row,
    /// What the write did.
    pub operation: ChangeOperation,
    /// The row after it; `None` if it was deleted, or is too large for a message.
    pub row: Option<Row>,
    /// The row is too large for a message: read it.
    pub is_row_omitted: bool,
    /// Rises with each change of the record. Keep it with what you know of the record, and take a change only if its
    /// version is higher: some are told twice, and seldom an older one comes behind a newer one.
    pub version: u64,
    /// Names this version of the record, as the etag of a read does.
    pub etag: String,
    /// When it was written, by the hot store's clock.
    pub written_at: Timestamp,
}

/// Some changes, and how far the watch is.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// The changes, in the order in which they are to be looked at; none where it is only told how far the watch is.
    pub changes: Vec<Change>,
    /// Names the place behind them. Keep it when you are done with them, to go on from there another time.
    pub token: String,
    /// Everything that was in the log when the watch began was told.
    pub is_live: bool,
}

/// A watch, on a connection of its own; dropping it ends it. It goes on by itself at the next server when it breaks off.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    request: v1::WatchRequest,
    patience: Duration,
    /// With the connection on which it comes.
    stream: Option<(WatchServiceClient<Channel>, Streaming<v1::WatchResponse>)>,
    /// Since it broke off.
    backoff: Option<Backoff>,
}

impl Client {
    /// Watches a table. Wait for the first message before you read what you want to know: what changes afterwards is told.
    ///
    /// # Errors
    /// [`ClientError`], when the watch can't begin; so the first message may be one that came already.
    pub async fn watch(&self, table: impl Into<TableRef>, options: &WatchOptions) -> Result<Watch, ClientError> {
        let request = v1::WatchRequest {
            table: Some(table.into().to_proto()),
            keys: options.keys.iter().map(Row::to_proto).collect(),
            columns: options.columns.clone(),
            resume_token: options.from.clone().unwrap_or_default(),
        };
        let patience = options.patience;
        let mut watch = Watch { client: self.clone(), request, patience, stream: None, backoff: None };
        watch.begin().await?;
        Ok(watch)
    }
}

impl Watch {
    /// What is told next: a message comes at once, and then at least every 10 s unless the server is configured otherwise.
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`ClientError`]: what trying again does not help against, or has not helped against for so long.
    /// `WATCH_TOKEN_EXPIRED`: read the table anew, and watch from now on.
    pub async fn next(&mut self) -> Result<Watched, ClientError> {
        loop {
            if self.stream.is_none() {
                self.begin().await?;
            }
            let Some((_, stream)) = &mut self.stream else { continue };
            let error = match stream.message().await {
                Ok(Some(told)) => {
                    let told = Watched::from_proto(told)?;
                    self.request.resume_token.clone_from(&told.token);
                    self.backoff = None;
                    return Ok(told);
                }
                Ok(None) => ClientError::Transport("the watch ended without a word".into()),
                Err(status) => ClientError::from(status),
            };
            self.stream = None;
            self.pause(error).await?;
        }
    }

    /// Where it would go on: behind what was told last.
    pub fn token(&self) -> Option<&str> {
        (!self.request.resume_token.is_empty()).then_some(self.request.resume_token.as_str())
    }

    /// Begins, or goes on where it was.
    async fn begin(&mut self) -> Result<(), ClientError> {
        loop {
            let limit = self.client.attempt_timeout();
            let mut connection = self.client.connection_apart();
            let error = match tokio::time::timeout(limit, connection.watch(self.request.clone())).await {
                Ok(Ok(answer)) => {
                    self.stream = Some((connection, answer.into_inner()));
                    return Ok(());
                }
                Ok(Err(status)) => ClientError::from(status),
                Err(_) => ClientError::TimedOut(limit),
            };
            self.pause(error).await?;
        }
    }

    /// Waits before the next attempt; fails where none is to follow.
    async fn pause(&mut self, error: ClientError) -> Result<(), ClientError> {
        if !self.client.retries() || !Repeat::Harmless.may_follow(&error) {
            return Err(error);
        }
        let deadline = Instant::now() + self.patience;
        let backoff = self.backoff.get_or_insert_with(|| Backoff::new(deadline));
        match backoff.delay(error.retry_after(), rand::random()) {
            Some(delay) => {
                tokio::time::sleep(delay).await;
                Ok(())
            }
            None => {
                self.backoff = None;
                Err(error)
            }
        }
    }
}

impl Watched {
    fn from_proto(told: v1::WatchResponse) -> Result<Self, ClientError> {
        let changes = told.changes.into_iter().map(Change::from_proto).collect::<Result<_, _>>()?;
        Ok(Self { changes, token: told.resume_token, is_live: told.live })
    }
}

impl Change {
    fn from_proto(change: v1::Change) -> Result<Self, ClientError> {
        Ok(Self {
            operation: change.operation(),
            key: Row::from_proto(change.key.unwrap_or_default())?,
            row: change.row.map(Row::from_proto).transpose()?,
            is_row_omitted: change.row_omitted,
            version: change.version,
            etag: change.etag,
            written_at: from_proto(change.written_at)?,
        })
    }
}
