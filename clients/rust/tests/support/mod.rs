//! A server in this process that answers what a test tells it to, and remembers what it was asked.

#![allow(clippy::unwrap_used, dead_code, reason = "tests; each uses some of it")]

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use proto::{
    ERROR_DOMAIN, Reason,
    v1::{
        self, record_service_server::RecordService, record_service_server::RecordServiceServer,
        table_service_server::TableService, table_service_server::TableServiceServer,
    },
};
use tokio::{net::TcpListener, sync::Notify};
use tonic::{Request, Response, Status, transport::Server};
use tonic_types::{ErrorDetails, StatusExt};

/// What the server is to do with one call.
pub(crate) enum Script {
    /// Answer that it took effect.
    Accept,
    /// Answer an error.
    Refuse(Status),
    /// Answer item by item; `None` is success.
    Items(Vec<Option<Status>>),
    /// Wait for the signal, then answer that all of it took effect.
    Hold(Arc<Notify>),
    /// Never answer.
    Hang,
}

/// What the server is to do with the writes of one stream.
pub(crate) struct StreamScript {
    /// What becomes of each; `None` is success. Those behind them wait for the end.
    pub(crate) outcomes: Vec<Option<Status>>,
    /// How the stream ends behind them; `None`: when the client ends it, and all that follows succeeds.
    pub(crate) end: Option<Status>,
}

/// What the server was asked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Asked {
    Create(v1::CreateRecordRequest),
    Put(v1::PutRecordRequest),
    Update(v1::UpdateRecordRequest),
    Delete(v1::DeleteRecordRequest),
    Get(v1::GetRecordRequest),
    BatchGet(v1::BatchGetRecordsRequest),
    Batch(v1::BatchWriteRequest),
    Wait(v1::WaitAppliedRequest),
    GetTable,
}

#[derive(Default)]
struct State {
    script: Mutex<VecDeque<Script>>,
    streams: Mutex<VecDeque<StreamScript>>,
    streamed: Mutex<Vec<Vec<(i64, String)>>>,
    holds_streams: std::sync::atomic::AtomicBool,
    asked: Mutex<Vec<(Instant, Asked)>>,
    arrived: Notify,
}

/// The server, and the test's handle on it. Without a script it accepts.
#[derive(Clone)]
pub(crate) struct Scripted {
    state: Arc<State>,
    pub(crate) address: SocketAddr,
}

impl Scripted {
    pub(crate) async fn start(script: impl IntoIterator<Item = Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let state = Arc::new(State { script: Mutex::new(script.into_iter().collect()), ..State::default() });
        let server = Self { state, address: listener.local_addr().unwrap() };
        let serving = Server::builder()
            .add_service(RecordServiceServer::new(server.clone()))
            .add_service(TableServiceServer::new(server.clone()))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        tokio::spawn(async move { serving.await.unwrap() });
        server
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The same with scripts for the streams that are opened, one after the other.
    pub(crate) async fn with_streams(streams: impl IntoIterator<Item = StreamScript>) -> Self {
        let server = Self::start([]).await;
        server.state.streams.lock().unwrap().extend(streams);
        server
    }

    /// Streams are opened and never answered from now on.
    pub(crate) fn hold_streams(&self) {
        self.state.holds_streams.store(true, std::sync::atomic::Ordering::SeqCst);
    }

    /// The writes of each stream: key (column `id`) and request id.
    pub(crate) fn streamed(&self) -> Vec<Vec<(i64, String)>> {
        self.state.streamed.lock().unwrap().clone()
    }

    /// What was asked until now.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().iter().map(|(_, asked)| asked.clone()).collect()
    }

    /// The time between each call and the next.
    pub(crate) fn gaps(&self) -> Vec<Duration> {
        self.state.asked.lock().unwrap().windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
    }

    /// The keys (column `id`) of each batch that was asked for.
    pub(crate) fn batches(&self) -> Vec<Vec<i64>> {
        let ids = |batch: &v1::BatchWriteRequest| batch.items.iter().map(id_of).collect();
        self.asked()
            .iter()
            .filter_map(|asked| match asked {
                Asked::Batch(batch) => Some(ids(batch)),
                _ => None,
            })
            .collect()
    }

    /// Waits until so many calls have come in.
    pub(crate) async fn arrived(&self, calls: usize) {
        loop {
            let next = self.state.arrived.notified();
            if self.state.asked.lock().unwrap().len() >= calls {
                return;
            }
            next.await;
        }
    }

    async fn follow(&self, asked: Asked) -> Result<Option<Vec<Option<Status>>>, Status> {
        let scripted = !matches!(asked, Asked::GetTable);
        self.state.asked.lock().unwrap().push((Instant::now(), asked));
        self.state.arrived.notify_waiters();
        let step = if scripted { self.state.script.lock().unwrap().pop_front() } else { None };
        match step.unwrap_or(Script::Accept) {
            Script::Accept => Ok(None),
            Script::Refuse(status) => Err(status),
            Script::Items(items) => Ok(Some(items)),
            Script::Hold(signal) => {
                signal.notified().await;
                Ok(None)
            }
            Script::Hang => std::future::pending().await,
        }
    }
}

fn details_of(status: &Status) -> tonic_types::Status {
    prost::Message::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code().into(),
        message: status.message().into(),
        details: Vec::new(),
    })
}

fn id_of(item: &v1::WriteItem) -> i64 {
    use v1::write_item::Operation::{Create, Delete, Put, Update};
    let row = match item.operation.as_ref().unwrap() {
        Create(v1::CreateRecordRequest { row, .. }) | Put(v1::PutRecordRequest { row, .. }) => row,
        Update(v1::UpdateRecordRequest { key, .. }) | Delete(v1::DeleteRecordRequest { key, .. }) => key,
    };
    match row.as_ref().unwrap().columns["id"].kind {
        Some(v1::value::Kind::Int64Value(id)) => id,
        ref other => panic!("id is {other:?}"),
    }
}

fn request_id_of(item: &v1::WriteItem) -> String {
    use v1::write_item::Operation::{Create, Delete, Put, Update};
    match item.operation.as_ref().unwrap() {
        Create(m) => m.request_id.clone(),
        Put(m) => m.request_id.clone(),
        Update(m) => m.request_id.clone(),
        Delete(m) => m.request_id.clone(),
    }
}

fn item_result(status: Option<Status>) -> v1::WriteItemResult {
    use v1::write_item_result::Outcome;
    let outcome = match status {
        None => Outcome::Result(result().unwrap()),
        Some(status) => Outcome::Status(details_of(&status)),
    };
    v1::WriteItemResult { outcome: Some(outcome) }
}

fn result() -> Option<v1::WriteResult> {
    Some(v1::WriteResult { reached: v1::AckLevel::Queued.into(), etag: "1-1".into(), token: "q-1-1-1-n".into() })
}

/// An error as the real server gives it.
pub(crate) fn refusal(reason: Reason, retry_after: Option<Duration>) -> Status {
    let mut details = ErrorDetails::with_error_info(reason.as_str(), ERROR_DOMAIN, HashMap::new());
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    Status::with_error_details(reason.code(), reason.as_str().to_lowercase(), details)
}

#[tonic::async_trait]
impl RecordService for Scripted {
    async fn create_record(
        &self,
        request: Request<v1::CreateRecordRequest>,
    ) -> Result<Response<v1::CreateRecordResponse>, Status> {
        self.follow(Asked::Create(request.into_inner())).await?;
        Ok(Response::new(v1::CreateRecordResponse { result: result() }))
    }

    async fn put_record(
        &self,
        request: Request<v1::PutRecordRequest>,
    ) -> Result<Response<v1::PutRecordResponse>, Status> {
        self.follow(Asked::Put(request.into_inner())).await?;
        Ok(Response::new(v1::PutRecordResponse { result: result() }))
    }

    async fn update_record(
        &self,
        request: Request<v1::UpdateRecordRequest>,
    ) -> Result<Response<v1::UpdateRecordResponse>, Status> {
        self.follow(Asked::Update(request.into_inner())).await?;
        Ok(Response::new(v1::UpdateRecordResponse { result: result() }))
    }

    async fn delete_record(
        &self,
        request: Request<v1::DeleteRecordRequest>,
    ) -> Result<Response<v1::DeleteRecordResponse>, Status> {
        self.follow(Asked::Delete(request.into_inner())).await?;
        Ok(Response::new(v1::DeleteRecordResponse { result: result() }))
    }

    async fn find_records(
        &self,
        _: Request<v1::FindRecordsRequest>,
    ) -> Result<Response<v1::FindRecordsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_record(
        &self,
        request: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::GetRecordResponse>, Status> {
        let asked = request.into_inner();
        let row = asked.key.clone();
        self.follow(Asked::Get(asked)).await?;
        Ok(Response::new(v1::GetRecordResponse { row, etag: "1-1".into(), version: 1 }))
    }

    async fn batch_get_records(
        &self,
        request: Request<v1::BatchGetRecordsRequest>,
    ) -> Result<Response<v1::BatchGetRecordsResponse>, Status> {
        use v1::get_item_result::Outcome;
        let asked = request.into_inner();
        let keys: Vec<Option<v1::Row>> = asked.items.iter().map(|item| item.key.clone()).collect();
        let items = self.follow(Asked::BatchGet(asked)).await?.unwrap_or_else(|| vec![None; keys.len()]);
        let outcome = |(row, status): (Option<v1::Row>, Option<Status>)| match status {
            None => Outcome::Record(v1::GetRecordResponse { row, etag: "1-1".into(), version: 1 }),
            Some(status) => Outcome::Status(details_of(&status)),
        };
        let results = keys.into_iter().zip(items).map(|it| v1::GetItemResult { outcome: Some(outcome(it)) }).collect();
        Ok(Response::new(v1::BatchGetRecordsResponse { results }))
    }

    async fn evict_records(
        &self,
        _: Request<v1::EvictRecordsRequest>,
    ) -> Result<Response<v1::EvictRecordsResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn wait_applied(
        &self,
        request: Request<v1::WaitAppliedRequest>,
    ) -> Result<Response<v1::WaitAppliedResponse>, Status> {
        self.follow(Asked::Wait(request.into_inner())).await?;
        Ok(Response::new(v1::WaitAppliedResponse { applied: true }))
    }

    type WriteStreamStream = tonic::codegen::BoxStream<v1::WriteStreamResponse>;

    async fn write_stream(
        &self,
        request: Request<tonic::Streaming<v1::WriteStreamRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        let mut messages = request.into_inner();
        let (answers, taken) = tokio::sync::mpsc::channel(1);
        let state = self.state.clone();
        let script = state.streams.lock().unwrap().pop_front();
        let nth = {
            let mut streamed = state.streamed.lock().unwrap();
            streamed.push(Vec::new());
            streamed.len() - 1
        };
        tokio::spawn(async move {
            let StreamScript { outcomes, end } = script.unwrap_or(StreamScript { outcomes: Vec::new(), end: None });
            let mut left = outcomes.into_iter();
            while let Ok(Some(message)) = messages.message().await {
                for item in message.items {
                    state.streamed.lock().unwrap()[nth].push((id_of(&item), request_id_of(&item)));
                    let status = match (left.next(), &end) {
                        (Some(status), _) => status,
                        (None, None) => None,
                        (None, Some(end)) => {
                            drop(answers.send(Err(end.clone())).await);
                            return;
                        }
                    };
                    if state.holds_streams.load(std::sync::atomic::Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    let answer = v1::WriteStreamResponse { results: vec![item_result(status)] };
                    if answers.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(taken))))
    }

    async fn batch_write(
        &self,
        request: Request<v1::BatchWriteRequest>,
    ) -> Result<Response<v1::BatchWriteResponse>, Status> {
        let asked = request.into_inner();
        let all = asked.items.len();
        let items = self.follow(Asked::Batch(asked)).await?.unwrap_or_else(|| vec![None; all]);
        let results = items.into_iter().map(item_result).collect();
        Ok(Response::new(v1::BatchWriteResponse { results }))
    }
}

#[tonic::async_trait]
impl TableService for Scripted {
    async fn list_tables(&self, _: Request<v1::ListTablesRequest>) -> Result<Response<v1::ListTablesResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_table(&self, request: Request<v1::GetTableRequest>) -> Result<Response<v1::GetTableResponse>, Status> {
        self.follow(Asked::GetTable).await?;
        let table = v1::Table {
            table: request.into_inner().table,
            enabled: true,
            primary_key: vec!["id".into()],
            ..v1::Table::default()
        };
        Ok(Response::new(v1::GetTableResponse { table: Some(table) }))
    }

    async fn enable_table(
        &self,
        _: Request<v1::EnableTableRequest>,
    ) -> Result<Response<v1::EnableTableResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn disable_table(
        &self,
        _: Request<v1::DisableTableRequest>,
    ) -> Result<Response<v1::DisableTableResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn set_table_rate(
        &self,
        _: Request<v1::SetTableRateRequest>,
    ) -> Result<Response<v1::SetTableRateResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

/// A listener that takes connections, lets the client send its request, and hangs up. Answers how often it did.
pub(crate) async fn start_hanging_up() -> (SocketAddr, Arc<Mutex<usize>>) {
    use tokio::io::AsyncReadExt;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(Mutex::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut read = [0; 4096];
            let mut seen = Vec::new();
            while !has_headers_frame(&seen) {
                match connection.read(&mut read).await {
                    Ok(0) | Err(_) => break,
                    Ok(n) => seen.extend_from_slice(&read[..n]),
                }
            }
            *counted.lock().unwrap() += 1;
        }
    });
    (address, count)
}

/// Whether a request has begun: behind the preface of 24 bytes there is a frame of type HEADERS.
fn has_headers_frame(seen: &[u8]) -> bool {
    let mut rest = &seen[24.min(seen.len())..];
    while rest.len() >= 9 {
        let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
        if rest[3] == 1 {
            return true;
        }
        rest = rest.get(9 + length..).unwrap_or_default();
    }
    false
}
