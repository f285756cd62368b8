//! RecordService: each call taken apart, handed to its use case, answered.

use std::sync::Arc;

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::stream::BoxStream;
use hot_store::HotStore;
use proto::{
    Reason,
    v1::{self, record_service_server::RecordService, write_item::Operation, write_item_result::Outcome},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    admission::{Gate, InFlight},
    answer, batch,
    failure::Failure,
    request::{Databases, acknowledge, name, tokens},
    value::{row_from_proto, value_from_proto},
    work::Work,
    write_stream::{Arrivals, results},
};
use crate::{
    accept::{Accepted, StreamOptions, Writer},
    applied::Waiter,
    find::{Finder, Query},
    read::{ReadError, Reader},
};

pub(super) struct Records<H, L, D> {
    pub(super) writer: Writer<H, L, D>,
    pub(super) reader: Reader<H, L, D>,
    pub(super) finder: Finder<H, L, D>,
    pub(super) waiter: Waiter<H, L, D>,
    pub(super) databases: Arc<Databases>,
    pub(super) max_batch_items: usize,
    /// Clients that wait for the database: fewer than requests may be in flight, so that they are not in the way of
    /// writes while it is away.
    pub(super) waits: Semaphore,
    /// Streams of writes that may still be opened.
    pub(super) streams: Arc<Semaphore>,
    pub(super) stream: StreamOptions,
    /// Where each batch of a stream has to get in.
    pub(super) gate: Gate,
    pub(super) stopping: CancellationToken,
    pub(super) work: Work,
}

impl<H, L, D> Records<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    async fn write(
        &self,
        method: &'static str,
        request: Request<Operation>,
    ) -> Result<Response<v1::WriteResult>, Status> {
        let (writer, databases) = (self.writer.clone(), self.databases.clone());
        let write = |operation| async move {
            let (write, acknowledgement) = databases.write(operation)?;
            let named = write.request_id.is_some();
            let accepted = writer.write(write, acknowledge(acknowledgement)?).await;
            accepted.map(answer::write_result).map_err(|error| Failure::from(error).repeatable(named))
        };
        self.work.on(method, request, write).await
    }
}

#[tonic::async_trait]
impl<H, L, D> RecordService for Records<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    async fn create_record(
        &self,
        request: Request<v1::CreateRecordRequest>,
    ) -> Result<Response<v1::CreateRecordResponse>, Status> {
        let answer = self.write("CreateRecord", request.map(Operation::Create)).await?;
        Ok(answer.map(|result| v1::CreateRecordResponse { result: Some(result) }))
    }

    async fn put_record(
        &self,
        request: Request<v1::PutRecordRequest>,
    ) -> Result<Response<v1::PutRecordResponse>, Status> {
        let answer = self.write("PutRecord", request.map(Operation::Put)).await?;
        Ok(answer.map(|result| v1::PutRecordResponse { result: Some(result) }))
    }

    async fn update_record(
        &self,
        request: Request<v1::UpdateRecordRequest>,
    ) -> Result<Response<v1::UpdateRecordResponse>, Status> {
        let answer = self.write("UpdateRecord", request.map(Operation::Update)).await?;
        Ok(answer.map(|result| v1::UpdateRecordResponse { result: Some(result) }))
    }

    async fn delete_record(
        &self,
        request: Request<v1::DeleteRecordRequest>,
    ) -> Result<Response<v1::DeleteRecordResponse>, Status> {
        let answer = self.write("DeleteRecord", request.map(Operation::Delete)).await?;
        Ok(answer.map(|result| v1::DeleteRecordResponse { result: Some(result) }))
    }

    async fn get_record(
        &self,
        request: Request<v1::GetRecordRequest>,
    ) -> Result<Response<v1::GetRecordResponse>, Status> {
        let (reader, databases) = (self.reader.clone(), self.databases.clone());
        let get = |request: v1::GetRecordRequest| async move {
            let found = reader.read(databases.get(request)?).await?;
            Ok(answer::found(found))
        };
        self.work.on("GetRecord", request, get).await
    }

    async fn batch_get_records(
        &self,
        request: Request<v1::BatchGetRecordsRequest>,
    ) -> Result<Response<v1::BatchGetRecordsResponse>, Status> {
        let (reader, databases, max) = (self.reader.clone(), self.databases.clone(), self.max_batch_items);
        let max_bytes = self.work.max_message_bytes();
        let get = move |request: v1::BatchGetRecordsRequest| async move {
            let count = request.items.len();
            if count > max {
                let message = format!("the batch has {count} items, the server takes {max}");
                return Err(Failure::new(Reason::BatchTooLarge, message).with("max_items", max));
            }
            let (mut gets, mut refused) = (Vec::with_capacity(count), Vec::with_capacity(count));
            for item in request.items {
                refused.push(match databases.get(item) {
                    Ok(get) => {
                        gets.push(get);
                        None
                    }
                    Err(failure) => Some(failure),
                });
            }
            let mut found = reader.read_many(gets, max_bytes).await.into_iter();
            let mut results = Vec::with_capacity(count);
            for (at, refused) in refused.into_iter().enumerate() {
                let result = match refused {
                    Some(failure) => Err(failure),
                    None => found.next().unwrap_or(Err(ReadError::NoRoom)).map_err(Failure::from),
                };
                results.push(result.map_err(|failure| failure.within(&format!("items[{at}]"))));
            }
            Ok(batch::answer(results, max_bytes))
        };
        self.work.on("BatchGetRecords", request, get).await
    }

    async fn evict_records(
        &self,
        request: Request<v1::EvictRecordsRequest>,
    ) -> Result<Response<v1::EvictRecordsResponse>, Status> {
        let (reader, databases, max) = (self.reader.clone(), self.databases.clone(), self.max_batch_items);
        let evict = move |request: v1::EvictRecordsRequest| async move {
            let count = request.keys.len();
            if count > max {
                let message = format!("there are {count} keys, the server takes {max}");
                return Err(Failure::new(Reason::BatchTooLarge, message).with("max_items", max));
            }
            let table = databases.table(request.table)?;
            let (mut keys, mut refused) = (Vec::with_capacity(count), Vec::with_capacity(count));
            for (at, key) in request.keys.into_iter().enumerate() {
                refused.push(match row_from_proto(Some(key), &format!("keys[{at}]")) {
                    Ok(key) => {
                        keys.push(key);
                        None
                    }
                    Err(problems) => Some(Failure::of_fields(problems)),
                });
            }
            let mut evicted = reader.evict(&table, &keys).await?.into_iter();
            let mut results = Vec::with_capacity(count);
            for (at, refused) in refused.into_iter().enumerate() {
                let result = match refused {
                    Some(failure) => Err(failure),
                    None => match evicted.next() {
                        Some(result) => {
                            result.map_err(|error| Failure::from(error).in_place_of("key", &format!("keys[{at}]")))
                        }
                        None => Err(Failure::new(Reason::Internal, "the key has no result")),
                    },
                };
                results.push(answer::evicted(result));
            }
            Ok(v1::EvictRecordsResponse { results })
        };
        self.work.on("EvictRecords", request, evict).await
    }

    async fn find_records(
        &self,
        request: Request<v1::FindRecordsRequest>,
    ) -> Result<Response<v1::FindRecordsResponse>, Status> {
        let (finder, databases) = (self.finder.clone(), self.databases.clone());
        let find = |request: v1::FindRecordsRequest| async move {
            let v1::FindRecordsRequest { table, field, value, limit, page_token, columns } = request;
            let table = databases.table(table)?;
            let value = value_from_proto(value, "value").map_err(Failure::of_fields)?;
            let limit = finder.limit(usize::try_from(limit).unwrap_or(usize::MAX));
            let page = finder.find(Query { table, field, value, limit, page_token, columns }).await?;
            Ok(answer::found_page(page))
        };
        self.work.on("FindRecords", request, find).await
    }

    async fn batch_write(
        &self,
        request: Request<v1::BatchWriteRequest>,
    ) -> Result<Response<v1::BatchWriteResponse>, Status> {
        let (writer, databases, max) = (self.writer.clone(), self.databases.clone(), self.max_batch_items);
        let write = move |request: v1::BatchWriteRequest| async move {
            let count = request.items.len();
            if count > max {
                let message = format!("the batch has {count} items, the server takes {max}");
                return Err(Failure::new(Reason::BatchTooLarge, message).with("max_items", max));
            }
            let acknowledge = acknowledge(request.acknowledgement)?;
            let (mut writes, mut places) = (Vec::with_capacity(count), Vec::with_capacity(count));
            let mut outcomes = Vec::with_capacity(count);
            for (at, item) in request.items.into_iter().enumerate() {
                let field = item.operation.as_ref().map_or("", name);
                // What stays so till the end was given to the writer, and got no result from it.
                outcomes.push(match databases.item(at, item) {
                    Ok(write) => {
                        places.push((at, field, write.request_id.is_some()));
                        writes.push(write);
                        Err(Failure::new(Reason::OutcomeUnknown, "the item has no result"))
                    }
                    Err(failure) => Err(failure),
                });
            }
            if !writes.is_empty() {
                let results = writer.write_batch(writes, acknowledge).await;
                for ((at, field, named), result) in places.into_iter().zip(results) {
                    let failed = |error| Failure::from(error).repeatable(named).within(&format!("items[{at}].{field}"));
                    outcomes[at] = result.map_err(failed);
                }
            }
            let results = outcomes.into_iter().map(item_result).collect();
            Ok(v1::BatchWriteResponse { results })
        };
        self.work.on("BatchWrite", request, write).await
    }

    type WriteStreamStream = BoxStream<'static, Result<v1::WriteStreamResponse, Status>>;

    async fn write_stream(
        &self,
        mut request: Request<Streaming<v1::WriteStreamRequest>>,
    ) -> Result<Response<Self::WriteStreamStream>, Status> {
        let Ok(place) = self.streams.clone().try_acquire_owned() else {
            let message = "as many streams of writes are open as may be: try again, or another replica";
            return Err(Failure::new(Reason::Overloaded, message).into_status());
        };
        // It is no request in flight as long as nothing comes: each of its batches is one.
        drop(request.extensions_mut().remove::<InFlight>());
        let (writer, databases) = (self.writer.clone(), self.databases.clone());
        let (options, max_message_items) = (self.stream, self.max_batch_items);
        let (gate, stopping) = (self.gate.clone(), self.stopping.clone());
        let write = move |messages, results| async move {
            let mut arrivals = Arrivals::new(messages, databases, max_message_items);
            let ack = arrivals.begin(options.idle, &stopping).await?;
            let enter = || async { stopping.run_until_cancelled(gate.wait()).await.flatten() };
            let end = writer.stream(ack, options, &mut arrivals, results, enter, &stopping).await;
            drop(place);
            arrivals.ended(end)
        };
        Ok(Response::new(self.work.in_pages("WriteStream", request, write, results)))
    }

    async fn wait_applied(
        &self,
        request: Request<v1::WaitAppliedRequest>,
    ) -> Result<Response<v1::WaitAppliedResponse>, Status> {
        let (request, max) = (request.into_inner(), self.max_batch_items);
        let wait = async {
            let count = request.tokens.len();
            if count > max {
                let message = format!("there are {count} tokens, the server takes {max}");
                return Err(Failure::new(Reason::BatchTooLarge, message).with("max_items", max));
            }
            let (tokens, wait) = tokens(request)?;
            let Ok(_waiting) = self.waits.try_acquire() else {
                let message = "as many clients are waiting for the database as may: ask again";
                return Err(Failure::new(Reason::Overloaded, message));
            };
            Ok(v1::WaitAppliedResponse { applied: self.waiter.wait(&tokens, wait).await? })
        };
        self.work.while_asked("WaitApplied", wait).await
    }
}

pub(super) fn item_result(outcome: Result<Accepted, Failure>) -> v1::WriteItemResult {
    let outcome = match outcome {
        Ok(accepted) => Outcome::Result(answer::write_result(accepted)),
        Err(failure) => Outcome::Status(failure.into_item_status()),
    };
    v1::WriteItemResult { outcome: Some(outcome) }
}
