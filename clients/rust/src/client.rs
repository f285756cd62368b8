//! The calls.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use proto::v1::{self, watch_service_client::WatchServiceClient, write_item::Operation};
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    Accepted, Acknowledge, Builder, ClientError, Precondition, Rate, Row, Table, TableRef, Write,
    connections::{Connection, Connections},
    error::is_timeout,
    retry::{Backoff, Repeat},
};

#[derive(Debug)]
struct Shared {
    connections: Connections,
    timeout: Duration,
    attempt_timeout: Duration,
    retries: bool,
    request_ids: bool,
    request_window: Duration,
    /// The columns of primary keys that were looked up; a primary key does not change while a table is in use.
    keys: Mutex<HashMap<TableRef, Arc<[String]>>>,
}

/// A client. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
    acknowledge: Acknowledge,
}

impl Client {
    /// Connects to one server, `http://host:port`, with the defaults of [`Builder`].
    ///
    /// # Errors
    /// If the address is none, or nobody answers there.
    pub async fn connect(endpoint: impl Into<String>) -> Result<Self, ClientError> {
        Self::builder(endpoint).connect().await
    }

    /// Sets up a client.
    pub fn builder(endpoint: impl Into<String>) -> Builder {
        Builder::new(endpoint)
    }

    pub(crate) fn new(connections: Connections, builder: &Builder) -> Self {
        let shared = Shared {
            connections,
            timeout: builder.timeout,
            attempt_timeout: builder.attempt_timeout,
            retries: builder.retries,
            request_ids: builder.request_ids,
            request_window: builder.request_window,
            keys: Mutex::default(),
        };
        Self { shared: Arc::new(shared), acknowledge: builder.acknowledge }
    }

    /// The same client, asking for another acknowledgement of its writes.
    #[must_use]
    pub fn acknowledging(&self, acknowledge: Acknowledge) -> Self {
        Self { shared: self.shared.clone(), acknowledge }
    }

    /// Creates a record; `ALREADY_EXISTS` if there is one.
    ///
    /// # Errors
    /// [`ClientError`]; as with all writes see [`ClientError::is_outcome_unknown`].
    pub async fn create(&self, table: impl Into<TableRef>, row: Row) -> Result<Accepted, ClientError> {
        self.write(&Write::create(table, row)).await
    }

    /// Writes a record whether there is one or not.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put(&self, table: impl Into<TableRef>, row: Row) -> Result<Accepted, ClientError> {
        self.write(&Write::put(table, row)).await
    }

    /// Changes some columns of a record; `NOT_FOUND` if there is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn update(&self, table: impl Into<TableRef>, key: Row, changes: Row) -> Result<Accepted, ClientError> {
        self.write(&Write::update(table, key, changes)).await
    }

    /// Deletes a record; of one that is not there, too.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, table: impl Into<TableRef>, key: Row) -> Result<Accepted, ClientError> {
        self.write(&Write::delete(table, key)).await
    }

    /// Deletes a record if it is still the one with that etag.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_at(
        &self,
        table: impl Into<TableRef>,
        key: Row,
        etag: impl Into<String>,
    ) -> Result<Accepted, ClientError> {
        self.write(&Write::delete(table, key).only_if(Precondition::Etag(etag.into()))).await
    }

    /// Makes one write, with its precondition and request id.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn write(&self, write: &Write) -> Result<Accepted, ClientError> {
        let id = self.id_of(write);
        let build = || write.to_proto(Some(self.acknowledge), id.as_deref());
        let repeat = if id.is_some() { Repeat::NamedWrite } else { Repeat::Write };
        let result = self
            .call(repeat, self.acknowledge.wait, build, |mut connection, request| async move {
                let (metadata, extensions, operation) = request.into_parts();
                macro_rules! send {
                    ($method:ident, $message:expr) => {{
                        let request = Request::from_parts(metadata, extensions, $message);
                        connection.records.$method(request).await.map(|answer| answer.map(|answer| answer.result))
                    }};
                }
                match operation {
                    Operation::Create(message) => send!(create_record, message),
                    Operation::Put(message) => send!(put_record, message),
                    Operation::Update(message) => send!(update_record, message),
                    Operation::Delete(message) => send!(delete_record, message),
                }
            })
            .await?;
        Accepted::from_answer(result)
    }

    /// Waits until the database has the writes that the tokens of their answers name, or newer ones of their records;
    /// `false` if it has not by the end of the wait. The server takes as many tokens as items of a batch, and a wait of
    /// 30 s at most.
    ///
    /// # Errors
    /// [`ClientError`]; `OUTCOME_UNKNOWN` for a write that was LOGGED only, if the hot store was restarted since.
    pub async fn wait_applied(&self, tokens: &[String], wait: Duration) -> Result<bool, ClientError> {
        let given = prost_types::Duration {
            seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            nanos: wait.subsec_nanos() as i32,
        };
        let build = || v1::WaitAppliedRequest { tokens: tokens.to_vec(), wait: Some(given) };
        let answer = self
            .call(Repeat::Harmless, wait, build, |mut connection, request| async move {
                connection.records.wait_applied(request).await
            })
            .await?;
        Ok(answer.applied)
    }

    /// The tables of the configured databases, enabled or not.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_tables(&self) -> Result<Vec<Table>, ClientError> {
        let answer = self
            .call(
                Repeat::Harmless,
                Duration::ZERO,
                || v1::ListTablesRequest {},
                |mut connection, request| async move { connection.tables.list_tables(request).await },
            )
            .await?;
        Ok(answer.tables.into_iter().map(Table::from_proto).collect())
    }

    /// One table with its columns.
    ///
    /// # Errors
    /// [`ClientError`]; `UNKNOWN_TABLE` if the database has none of that name.
    pub async fn get_table(&self, table: impl Into<TableRef>) -> Result<Table, ClientError> {
        let table = Some(table.into().to_proto());
        let build = || v1::GetTableRequest { table: table.clone() };
        let answer = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.tables.get_table(request).await
            })
            .await?;
        Table::from_answer(answer.table)
    }

    /// Enables a table; no harm if it is enabled.
    ///
    /// # Errors
    /// [`ClientError`]; `TABLE_UNSUPPORTED` with the reason if it can't be carried.
    pub async fn enable_table(&self, table: impl Into<TableRef>) -> Result<Table, ClientError> {
        self.enable(table.into(), None).await
    }

    /// Enables a table whose records are found by these columns ([`Client::find`]), or changes them.
    ///
    /// # Errors
    /// [`ClientError`]; `TABLE_UNSUPPORTED` with the reason if one of them can't be looked for.
    pub async fn enable_table_with(
        &self,
        table: impl Into<TableRef>,
        indexed_fields: &[&str],
    ) -> Result<Table, ClientError> {
        let columns = indexed_fields.iter().map(|name| (*name).to_owned()).collect();
        self.enable(table.into(), Some(v1::IndexedFields { columns })).await
    }

    async fn enable(&self, table: TableRef, indexed_fields: Option<v1::IndexedFields>) -> Result<Table, ClientError> {
        let table = Some(table.to_proto());
        let build = || v1::EnableTableRequest { table: table.clone(), indexed_fields: indexed_fields.clone() };
        let answer = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.tables.enable_table(request).await
            })
            .await?;
        Table::from_answer(answer.table)
    }

    /// Disables a table; what was accepted is still drained.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn disable_table(&self, table: impl Into<TableRef>) -> Result<Table, ClientError> {
        let table = Some(table.into().to_proto());
        let build = || v1::DisableTableRequest { table: table.clone() };
        let answer = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.tables.disable_table(request).await
            })
            .await?;
        Table::from_answer(answer.table)
    }

    /// Sets how fast a table's rows are written to the database, over all replicas, in place of what is configured;
    /// all drain replicas follow within two seconds.
    ///
    /// # Errors
    /// [`ClientError`]; `INVALID_ARGUMENT` if that is no rate.
    pub async fn set_table_rate(&self, table: impl Into<TableRef>, rate: Rate) -> Result<Table, ClientError> {
        let table = Some(table.into().to_proto());
        let build = || v1::SetTableRateRequest { table: table.clone(), rate: rate.to_proto() };
        let answer = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.tables.set_table_rate(request).await
            })
            .await?;
        Table::from_answer(answer.table)
    }

    /// The request id under which all attempts of a call make a write.
    pub(crate) fn id_of(&self, write: &Write) -> Option<String> {
        write.id(self.shared.request_ids)
    }

    /// The same, but no longer than the server remembers request ids: behind that a second attempt could be a second
    /// write.
    pub(crate) fn backoff_of_writes(&self) -> Backoff {
        let within = (self.shared.timeout + self.acknowledge.wait).min(self.shared.request_window);
        self.backoff_within(within)
    }

    pub(crate) fn backoff_of_reads(&self) -> Backoff {
        self.backoff_within(self.shared.timeout)
    }

    pub(crate) fn acknowledge(&self) -> Acknowledge {
        self.acknowledge
    }

    fn backoff_within(&self, within: Duration) -> Backoff {
        let deadline = Instant::now() + within;
        if self.shared.retries { Backoff::new(deadline) } else { Backoff::none(deadline) }
    }

    /// The columns of a table's primary key, asked for once.
    pub(crate) async fn known_key_columns(&self, table: &TableRef) -> Result<Arc<[String]>, ClientError> {
        let known = self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned();
        if let Some(columns) = known {
            return Ok(columns);
        }
        let columns: Arc<[String]> = self.get_table(table).await?.primary_key.into();
        if !columns.is_empty() {
            self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone(), columns.clone());
        }
        Ok(columns)
    }

    pub(crate) fn attempt_timeout(&self) -> Duration {
        self.shared.attempt_timeout
    }

    /// The columns of a table's primary key, asked for once; `None` if the server can't say now.
    pub(crate) async fn key_columns(&self, table: &TableRef) -> Option<Arc<[String]>> {
        let known = |keys: &Mutex<HashMap<TableRef, Arc<[String]>>>| {
            keys.lock().unwrap_or_else(PoisonError::into_inner).get(table).cloned()
        };
        if let Some(columns) = known(&self.shared.keys) {
            return Some(columns);
        }
        let request = v1::GetTableRequest { table: Some(table.to_proto()) };
        let answer = self
            .attempt(self.shared.attempt_timeout, request, |mut connection, request| async move {
                connection.tables.get_table(request).await
            })
            .await;
        let columns: Arc<[String]> = Table::from_answer(answer.ok()?.table).ok()?.primary_key.into();
        if columns.is_empty() {
            return None;
        }
        self.shared.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(table.clone(), columns.clone());
        Some(columns)
    }

    /// A call with its attempts.
    pub(crate) async fn call<Q, A, F>(
        &self,
        repeat: Repeat,
        wait: Duration,
        build: impl Fn() -> Q,
        send: impl Fn(Connection, Request<Q>) -> F,
    ) -> Result<A, ClientError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut backoff = match repeat {
            Repeat::Harmless => self.backoff_within(self.shared.timeout + wait),
            Repeat::Write | Repeat::NamedWrite => self.backoff_of_writes(),
        };
        let mut settled = true;
        loop {
            let limit = backoff.remaining().min(self.shared.attempt_timeout + wait);
            let error = match self.attempt(limit, build(), &send).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let delay =
                if repeat.may_follow(&error) { backoff.delay(error.retry_after(), rand::random()) } else { None };
            if let Some(delay) = delay {
                tokio::time::sleep(delay).await;
            }
            if delay.is_none() || !backoff.is_in_time() {
                let hides_unknown = !settled && repeat != Repeat::Harmless && error.is_refusal();
                return Err(if hides_unknown { ClientError::Unsettled(Box::new(error)) } else { error });
            }
            settled &= error.is_refusal();
        }
    }

    /// Whether what failed is tried again at all.
    pub(crate) fn retries(&self) -> bool {
        self.shared.retries
    }

    /// A connection of its own, for a watch.
    pub(crate) fn connection_apart(&self) -> WatchServiceClient<Channel> {
        self.shared.connections.apart()
    }

    /// The next connection, for a call that is made once.
    pub(crate) fn connection(&self) -> Connection {
        self.shared.connections.next()
    }

    /// One attempt over the next connection.
    pub(crate) async fn attempt<Q, A, F>(
        &self,
        limit: Duration,
        message: Q,
        send: impl Fn(Connection, Request<Q>) -> F,
    ) -> Result<A, ClientError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        request.set_timeout(limit);
        match tokio::time::timeout(limit, send(self.shared.connections.next(), request)).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if !is_timeout(&status) => Err(ClientError::from(status)),
            Ok(Err(_)) | Err(_) => Err(ClientError::TimedOut(limit)),
        }
    }

    pub(crate) fn attempt_limit(&self, backoff: &Backoff) -> Duration {
        backoff.remaining().min(self.shared.attempt_timeout + self.acknowledge.wait)
    }
}
