//! Several connections to one or more ingest replicas, used in turn.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use proto::v1::{
    operator_service_client::OperatorServiceClient, record_service_client::RecordServiceClient,
    table_service_client::TableServiceClient, watch_service_client::WatchServiceClient,
};
use tonic::transport::{Channel, Endpoint};

use crate::{Acknowledge, Client, ClientError};

/// Makes a [`Client`].
#[derive(Debug, Clone)]
pub struct Builder {
    endpoints: Vec<String>,
    connections: usize,
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) retries: bool,
    pub(crate) request_ids: bool,
    pub(crate) request_window: Duration,
    connect_timeout: Duration,
    max_message_bytes: usize,
    pub(crate) acknowledge: Acknowledge,
}

impl Builder {
    pub(crate) fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoints: vec![endpoint.into()],
            connections: 2,
            timeout: Duration::from_secs(15),
            attempt_timeout: Duration::from_secs(5),
            retries: true,
            request_ids: true,
            request_window: Duration::from_secs(120),
            connect_timeout: Duration::from_secs(2),
            max_message_bytes: 4 * 1024 * 1024,
            acknowledge: Acknowledge::default(),
        }
    }

    /// Another ingest replica. Replicas are used in turn; an attempt that failed is repeated with the next one.
    #[must_use]
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// Connections per endpoint, 2 by default. One HTTP/2 connection serialises its frames, so throughput comes from
    /// several connections, and from batches.
    #[must_use]
    pub fn connections(self, connections: usize) -> Self {
        Self { connections: connections.max(1), ..self }
    }

    /// The limit of a call with all its attempts, 15 s by default.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// The limit of one attempt, 5 s by default; the wait of the acknowledgement comes on top.
    #[must_use]
    pub fn attempt_timeout(self, attempt_timeout: Duration) -> Self {
        Self { attempt_timeout, ..self }
    }

    /// Sends nothing twice, for callers who have rules of their own.
    #[must_use]
    pub fn without_retries(self) -> Self {
        Self { retries: false, ..self }
    }

    /// Gives writes that have no request id of their own none either. Then a write of unknown outcome is not sent
    /// again; and the server has one key less to keep per write.
    #[must_use]
    pub fn without_request_ids(self) -> Self {
        Self { request_ids: false, ..self }
    }

    /// For how long the server remembers request ids: its `request_window`, 2 minutes unless it is told otherwise. A
    /// write of unknown outcome is sent again within this time only.
    #[must_use]
    pub fn request_window(self, request_window: Duration) -> Self {
        Self { request_window, ..self }
    }

    /// The limit for making a connection, 2 s by default.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// The largest message, both ways; 4 MiB by default, as the server's.
    #[must_use]
    pub fn max_message_bytes(self, max_message_bytes: usize) -> Self {
        Self { max_message_bytes, ..self }
    }

    /// How writes are acknowledged, QUEUED by default; [`Client::acknowledging`] changes it later.
    #[must_use]
    pub fn acknowledge(self, acknowledge: Acknowledge) -> Self {
        Self { acknowledge, ..self }
    }

    /// Connects: fails if none of the endpoints can be reached. Connections are made again when they break.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`] or [`ClientError::Connect`].
    pub async fn connect(self) -> Result<Client, ClientError> {
        let endpoints = self.parsed_endpoints()?;
        let mut failed = None;
        for (at, endpoint) in endpoints.iter().enumerate() {
            match endpoint.connect().await {
                Ok(channel) => return Ok(self.client(&endpoints, Some((at, channel)))),
                Err(error) => failed = failed.or(Some((at, error))),
            }
        }
        let (at, error) = match failed {
            Some(failed) => failed,
            None => return Err(ClientError::Connect("no endpoint was given".into())),
        };
        let cause = std::iter::successors(Some(&error as &dyn std::error::Error), |&error| error.source()).last();
        let cause = cause.map(ToString::to_string).unwrap_or_default();
        Err(ClientError::Connect(format!("{}: {cause}", self.endpoints[at])))
    }

    /// A client that connects when it is first used.
    ///
    /// # Errors
    /// [`ClientError::Endpoint`].
    pub fn connect_lazy(self) -> Result<Client, ClientError> {
        let endpoints = self.parsed_endpoints()?;
        Ok(self.client(&endpoints, None))
    }

    fn client(self, endpoints: &[Endpoint], made: Option<(usize, Channel)>) -> Client {
        let mut connections = Vec::with_capacity(endpoints.len() * self.connections);
        let (made_at, mut made) = made.map_or((0, None), |(at, channel)| (at, Some(channel)));
        for _ in 0..self.connections {
            // From the endpoint that is known to answer, so that the first call goes there.
            for at in 0..endpoints.len() {
                let endpoint = &endpoints[(made_at + at) % endpoints.len()];
                let channel = made.take().unwrap_or_else(|| endpoint.connect_lazy());
                connections.push(Connection::new(channel, self.max_message_bytes));
            }
        }
        let (endpoints, max_message_bytes) = (endpoints.to_vec(), self.max_message_bytes);
        Client::new(Connections { all: connections, next: AtomicUsize::new(0), endpoints, max_message_bytes }, &self)
    }

    fn parsed_endpoints(&self) -> Result<Vec<Endpoint>, ClientError> {
        self.endpoints
            .iter()
            .map(|given| {
                let invalid = |problem: String| ClientError::Endpoint { endpoint: given.clone(), problem };
                let address = if given.contains("://") { given.clone() } else { format!("http://{given}") };
                if !address.starts_with("http://") {
                    return Err(invalid("use http://host:port or host:port".into()));
                }
                let endpoint = Endpoint::from_shared(address).map_err(|error| invalid(error.to_string()))?;
                if endpoint.uri().host().is_none() {
                    return Err(invalid("it names no host".into()));
                }
                Ok(endpoint
                    .connect_timeout(self.connect_timeout)
                    .tcp_nodelay(true)
                    .tcp_keepalive(Some(Duration::from_secs(30)))
                    .http2_keep_alive_interval(Duration::from_secs(20))
                    .keep_alive_timeout(Duration::from_secs(10)))
            })
            .collect()
    }
}

/// The services over one connection.
#[derive(Debug, Clone)]
pub(crate) struct Connection {
    pub(crate) records: RecordServiceClient<Channel>,
    pub(crate) tables: TableServiceClient<Channel>,
    pub(crate) operators: OperatorServiceClient<Channel>,
}

impl Connection {
    fn new(channel: Channel, max_message_bytes: usize) -> Self {
        Self {
            records: RecordServiceClient::new(channel.clone())
                .max_decoding_message_size(max_message_bytes)
                .max_encoding_message_size(max_message_bytes),
            tables: TableServiceClient::new(channel.clone())
                .max_decoding_message_size(max_message_bytes)
                .max_encoding_message_size(max_message_bytes),
            operators: OperatorServiceClient::new(channel)
                .max_decoding_message_size(max_message_bytes)
                .max_encoding_message_size(max_message_bytes),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Connections {
    all: Vec<Connection>,
    next: AtomicUsize,
    endpoints: Vec<Endpoint>,
    max_message_bytes: usize,
}

/// What is on its way to a watch whose user is slow, and waits here.
const WATCH_WINDOW_BYTES: u32 = 256 << 10;

impl Connections {
    /// The next one in turn.
    pub(crate) fn next(&self) -> Connection {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        self.all[at % self.all.len()].clone()
    }

    /// A connection for a watch alone, to the next endpoint in turn. What a slow watch has not taken yet counts against the
    /// window of its connection: on one with others it would hold up their calls.
    pub(crate) fn apart(&self) -> WatchServiceClient<Channel> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let endpoint = self.endpoints[at % self.endpoints.len()]
            .clone()
            .initial_stream_window_size(WATCH_WINDOW_BYTES)
            .initial_connection_window_size(WATCH_WINDOW_BYTES);
        WatchServiceClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(self.max_message_bytes)
            .max_encoding_message_size(self.max_message_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_may_leave_out_the_scheme_but_not_name_another() {
        assert!(Builder::new("127.0.0.1:7070").connect_lazy().is_ok());
        assert!(Builder::new("http://localhost:7070").connect_lazy().is_ok());
        for wrong in ["https://localhost:7070", "redis://localhost", "", "http://", "a b"] {
            let error = Builder::new(wrong).connect_lazy().err();
            assert!(matches!(error, Some(ClientError::Endpoint { .. })), "{wrong:?}: {error:?}");
        }
    }
}
