//! The server: limits, health, reflection, and an end in order.

use std::{sync::Arc, time::Duration};

use database::Database;
use event_log::{EventPublisher, LogReader};
use hot_store::HotStore;
use proto::v1::{
    operator_service_server::OperatorServiceServer, record_service_server::RecordServiceServer,
    table_service_server::TableServiceServer, watch_service_server::WatchServiceServer,
};
use tokio::{net::TcpListener, pin, sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    server::NamedService as _,
    transport::{Server, server::TcpIncoming},
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::Builder as Reflection;

use super::{
    admission::{Admission, Gate},
    operators::OperatorCalls,
    records::Records,
    request::Databases,
    tables::TableCalls,
    watch::Watches,
    work::Work,
};
use crate::{
    Core,
    accept::{StreamOptions, Writer},
    applied::Waiter,
    dead_letters::DeadLetters,
    find::Finder,
    holds::Operators,
    read::Reader,
    tables::Tables,
    verify::Verifier,
    watch::Watcher,
};

/// When the last request has been answered, connections get so long to take the answer and close. One that somebody
/// keeps open for its own purposes (a health watch never ends) does not hold up the end.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What is kept in one stream's and one connection's buffer before the other side has to wait.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;

type RecordServer<H, L, D> = RecordServiceServer<Records<H, L, D>>;
type TableServer<H, L, D> = TableServiceServer<TableCalls<H, L, D>>;
type OperatorServer<H, L, D> = OperatorServiceServer<OperatorCalls<H, L, D>>;
type WatchServer<H, L, D> = WatchServiceServer<Watches<H, L, D>>;

/// The limits of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerOptions {
    /// Larger messages are neither taken nor sent.
    pub max_message_bytes: usize,
    /// Items of one batch.
    pub max_batch_items: usize,
    /// Requests worked on at once.
    pub max_in_flight: usize,
    /// Streams of writes that are open at once.
    pub max_streams: usize,
    /// The bounds of each of them.
    pub stream: StreamOptions,
    /// Whether clients may ask for the API's description.
    pub reflection: bool,
}

impl ServerOptions {
    /// How many of the requests may wait for the database: while it is away, the others still find room.
    pub fn max_waits(&self) -> usize {
        (self.max_in_flight / 2).clamp(1, Semaphore::MAX_PERMITS)
    }
}

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The listener or its connections failed.
    #[error("the gRPC API can't be served: {0}")]
    Transport(#[from] tonic::transport::Error),
    /// The descriptors that are compiled in can't be read.
    #[error("the description of the API can't be read: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// Serves the API on a listener until `stopping`, then works off what has come through the gate, and ends. Health
/// says SERVING while the gate is open and every shard is.
///
/// # Errors
/// See [`ApiError`].
pub async fn serve<H, L, D>(
    core: Arc<Core<H, L, D>>,
    options: ServerOptions,
    listener: TcpListener,
    gate: Gate,
    stopping: CancellationToken,
) -> Result<(), ApiError>
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let databases = Arc::new(Databases::new(core.directory.databases().iter().map(|(name, _)| name.clone())));
    let work = Work::new(core.tasks.clone(), options.max_message_bytes);
    let records = RecordServer::new(Records {
        writer: Writer::new(core.clone()),
        reader: Reader::new(core.clone()),
        finder: Finder::new(core.clone()),
        waiter: Waiter::new(core.clone()),
        databases: databases.clone(),
        max_batch_items: options.max_batch_items,
        waits: Semaphore::new(options.max_waits()),
        streams: Arc::new(Semaphore::new(options.max_streams.min(Semaphore::MAX_PERMITS))),
        stream: options.stream,
        gate: gate.clone(),
        stopping: stopping.clone(),
        work: work.clone(),
    })
    .max_decoding_message_size(options.max_message_bytes)
    .max_encoding_message_size(options.max_message_bytes);
    let operators = OperatorServer::new(OperatorCalls {
        core: core.clone(),
        letters: DeadLetters::new(core.clone()),
        operators: Operators::new(core.clone()),
        verifier: Verifier::new(core.clone()),
        stopping: stopping.clone(),
        databases: databases.clone(),
        max_batch_items: options.max_batch_items,
        work: work.clone(),
    })
    .max_decoding_message_size(options.max_message_bytes)
    .max_encoding_message_size(options.max_message_bytes);
    let watches = WatchServer::new(Watches {
        watcher: Watcher::new(core.clone()),
        stopping: stopping.clone(),
        databases: databases.clone(),
        max_message_bytes: options.max_message_bytes,
        work: work.clone(),
    })
    .max_decoding_message_size(options.max_message_bytes)
    .max_encoding_message_size(options.max_message_bytes);
    let tables = TableServer::new(TableCalls { tables: Tables::new(core.clone()), databases, work })
        .max_decoding_message_size(options.max_message_bytes)
        .max_encoding_message_size(options.max_message_bytes);
    let (reporter, health) = tonic_health::server::health_reporter();
    set_health::<H, L, D>(&reporter, ServingStatus::NotServing).await;
    let (reflection, old_reflection) = if options.reflection {
        (Some(describe().build_v1()?), Some(describe().build_v1alpha()?))
    } else {
        (None, None)
    };

    // Refused requests cost little, and a refusal tells a client more than a stream that it can't open: so a
    // connection may have more of them open than may be worked on.
    let streams = u32::try_from(options.max_in_flight.saturating_mul(2).saturating_add(options.max_streams))
        .unwrap_or(u32::MAX)
        .max(128);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(Duration::from_secs(60)));
    let serving = Server::builder()
        .max_concurrent_streams(streams)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_service(health)
        .add_service(Admission::new(records, gate.clone()))
        .add_service(Admission::new(tables, gate.clone()))
        .add_service(Admission::new(operators, gate.clone()))
        .add_service(Admission::new(watches, gate.clone()))
        .add_optional_service(reflection)
        .add_optional_service(old_reflection)
        .serve_with_incoming_shutdown(incoming, stopping.clone().cancelled_owned());
    pin!(serving);
    let ended = tokio::select! {
        ended = &mut serving => Some(ended),
        () = report_health(&core, &reporter, &stopping) => None,
    };
    // Not only what is still connected: a client that hung up has left its work behind.
    let worked_off = async {
        gate.close().await;
        core.tasks.close();
        core.tasks.wait().await;
    };
    pin!(worked_off);
    let ended = match ended {
        Some(ended) => ended,
        None => tokio::select! {
            ended = &mut serving => ended,
            () = &mut worked_off => return Ok(timeout(LAST_ANSWERS, serving).await.unwrap_or(Ok(()))?),
        },
    };
    worked_off.await;
    Ok(ended?)
}

fn describe() -> Reflection<'static> {
    Reflection::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Says what health there is as it changes, until `stopping`: from then on it is not serving.
async fn report_health<H, L, D>(core: &Core<H, L, D>, reporter: &HealthReporter, stopping: &CancellationToken)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let mut opening = core.opening_progress();
    loop {
        let open = opening.borrow_and_update().is_complete();
        let status = if open { ServingStatus::Serving } else { ServingStatus::NotServing };
        set_health::<H, L, D>(reporter, status).await;
        tokio::select! {
            () = stopping.cancelled() => break,
            Ok(()) = opening.changed() => {}
            else => stopping.cancelled().await,
        }
    }
    set_health::<H, L, D>(reporter, ServingStatus::NotServing).await;
}

/// For the services and for the server as a whole, which has no name.
async fn set_health<H, L, D>(reporter: &HealthReporter, status: ServingStatus)
where
    H: HotStore,
    L: EventPublisher + LogReader,
    D: Database,
{
    let services = [
        RecordServer::<H, L, D>::NAME,
        TableServer::<H, L, D>::NAME,
        OperatorServer::<H, L, D>::NAME,
        WatchServer::<H, L, D>::NAME,
    ];
    for name in [""].into_iter().chain(services) {
        reporter.set_service_status(name, status).await;
    }
}
