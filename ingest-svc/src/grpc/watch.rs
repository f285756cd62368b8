//! WatchService, and its messages.

use std::sync::Arc;

use database::Database;
use event_log::{EventPublisher, LogReader};
use futures::stream::BoxStream;
use hot_store::HotStore;
use model::Operation;
use prost::Message as _;
use proto::{
    Reason,
    v1::{self, watch_service_server::WatchService},
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    admission::InFlight,
    failure::{Failure, FieldProblem},
    request::Databases,
    value::{row_from_proto, row_to_proto, timestamp_to_proto},
    work::Work,
};
use crate::watch::{Change, MAX_KEYS, Told, WatchRequest, Watcher};

/// Bytes of events in one message, about; less where messages must be small.
const MESSAGE_BYTES: usize = 256 << 10;

pub(super) struct Watches<H, L, D> {
    pub(super) watcher: Watcher<H, L, D>,
    /// Ends what never ends by itself.
    pub(super) stopping: CancellationToken,
    pub(super) databases: Arc<Databases>,
    pub(super) max_message_bytes: usize,
    pub(super) work: Work,
}

#[tonic::async_trait]
impl<H, L, D> WatchService for Watches<H, L, D>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(&self, mut request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        // Watches are not among the requests that are worked on at once: there are so many of them, and they last long.
        drop(request.extensions_mut().remove::<InFlight>());
        let (watcher, databases, stopping) = (self.watcher.clone(), self.databases.clone(), self.stopping.clone());
        let max = self.max_message_bytes;
        let watch = move |message, tell| async move {
            let request = asked(&databases, message, max)?;
            Err(watcher.watch(&request, &tell, &stopping).await.into())
        };
        Ok(Response::new(self.work.in_pages("Watch", request, watch, move |told| fitting(told, max))))
    }
}

fn asked(databases: &Databases, request: v1::WatchRequest, max_message_bytes: usize) -> Result<WatchRequest, Failure> {
    let v1::WatchRequest { table, keys, columns, resume_token } = request;
    let table = databases.table(table)?;
    if keys.len() > MAX_KEYS {
        let message = format!("{} keys are named, a watch takes {MAX_KEYS}: watch the table", keys.len());
        return Err(Failure::new(Reason::BatchTooLarge, message).with("max_items", MAX_KEYS));
    }
    let (mut rows, mut problems) = (Vec::with_capacity(keys.len()), Vec::new());
    for (at, key) in keys.into_iter().enumerate() {
        match row_from_proto(Some(key), &format!("keys[{at}]")) {
            Ok(row) => rows.push(row),
            Err(wrong) => problems.extend(wrong),
        }
    }
    let from = match resume_token.as_str() {
        "" => None,
        text => match text.parse() {
            Ok(token) => Some(token),
            Err(error) => {
                problems.push(FieldProblem::invalid("resume_token", format!("is {error}")));
                None
            }
        },
    };
    if !problems.is_empty() {
        return Err(Failure::of_fields(problems));
    }
    Ok(WatchRequest { table, keys: rows, columns, from, max_bytes: MESSAGE_BYTES.min(max_message_bytes / 4) })
}

/// What is told as a message that can be sent: where rows are too large for it, they are left out, the largest first.
fn fitting(told: Told, max_bytes: usize) -> v1::WatchResponse {
    let Told { changes, token, is_live } = told;
    let changes = changes.into_iter().map(change).collect();
    let mut message = v1::WatchResponse { changes, resume_token: token.to_string(), live: is_live };
    while message.encoded_len() > max_bytes {
        let size = |change: &v1::Change| change.row.as_ref().map(v1::Row::encoded_len);
        let largest =
            message.changes.iter_mut().filter(|change| change.row.is_some()).max_by_key(|change| size(change));
        let Some(largest) = largest else { break };
        largest.row = None;
        largest.row_omitted = true;
    }
    message
}

fn change(change: Change) -> v1::Change {
    let operation = match change.operation {
        Operation::Create => v1::ChangeOperation::Create,
        Operation::Put => v1::ChangeOperation::Put,
        Operation::Update => v1::ChangeOperation::Update,
        Operation::Delete => v1::ChangeOperation::Delete,
        // No event says so.
        Operation::Fill => v1::ChangeOperation::Unspecified,
    };
    v1::Change {
        key: Some(row_to_proto(change.key)),
        operation: operation.into(),
        row: change.row.map(row_to_proto),
        version: change.version.get(),
        etag: change.etag.to_string(),
        written_at: Some(timestamp_to_proto(change.written_at)),
        row_omitted: false,
    }
}
