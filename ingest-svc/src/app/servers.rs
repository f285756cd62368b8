//! The service on real servers: Redis, Kafka, and the databases of the settings.

use std::{io, net::SocketAddr, sync::Arc};

use database::{AnyDatabase, DatabaseOptions, TableDirectory};
use event_log::kafka::{KafkaLog, KafkaOptions, KafkaSecurity};
use hot_store::redis::{RedisOptions, RedisStore};
use model::{DatabaseName, ShardCount};
use runtime::{Readiness, Settings, Shutdown, admin, config, telemetry::Metrics};
use tokio::net::TcpListener;

use super::{OptionsError, ReadyParts, ServeError, core, options, persist, serve};
use crate::startup::StartError;

/// Why the service ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting can't be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// The admin listener can't listen.
    #[error(transparent)]
    Admin(#[from] admin::AdminError),
    /// The API can't listen.
    #[error("the gRPC API can't listen on {address}: {problem}; set another ingest.listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        problem: io::Error,
    },
    /// The service failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Connects to the servers, waiting for those that can't be reached yet, and runs the service until it is stopped.
///
/// # Errors
/// See [`RunError`].
pub async fn run(settings: Settings, metrics: Metrics, shutdown: Shutdown) -> Result<(), RunError> {
    let shards = options::shards(&settings)?;
    let databases = databases(&settings)?;
    let address = settings.ingest.listen;
    let listen = |problem| RunError::Listen { address, problem };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;

    let readiness = Readiness::new();
    let ready = ReadyParts::of(&readiness);
    let admin = admin::serve(settings.ingest.admin_listen, metrics, readiness, &shutdown).await?;
    tracing::info!(address = %bound, %admin, "listening");

    let connect = || connect(&settings, shards, &databases);
    let stores = persist("connecting to the servers", &ready.stores, shutdown.stopping(), connect).await;
    let Some((hot, log, databases)) = stores.map_err(ServeError::from)? else { return Ok(()) };
    let directory = Arc::new(TableDirectory::new(databases));
    let core = Arc::new(core(&settings, Arc::new(hot), Arc::new(log), directory, Some(settings.kafka.retention))?);
    Ok(serve(core, &settings, listener, ready, &shutdown).await?)
}

type Stores = (RedisStore, KafkaLog, Vec<(DatabaseName, Arc<AnyDatabase>)>);

async fn connect(settings: &Settings, shards: ShardCount, databases: &[DatabaseOptions]) -> Result<Stores, StartError> {
    let hot = RedisStore::connect(redis(settings, shards)).await?;
    let log = KafkaLog::connect(kafka(settings)).await?;
    let mut connected = Vec::with_capacity(databases.len());
    for options in databases {
        connected.push((options.name.clone(), Arc::new(AnyDatabase::connect(options.clone()).await?)));
    }
    Ok((hot, log, connected))
}

fn databases(settings: &Settings) -> Result<Vec<DatabaseOptions>, OptionsError> {
    let options = |database: &config::DatabaseSettings| {
        let name = DatabaseName::new(&database.name)
            .map_err(|error| OptionsError::Name { key: "databases".to_owned(), error })?;
        Ok(DatabaseOptions { pool: database.pool, ..DatabaseOptions::new(name, database.url.expose()) })
    };
    settings.databases.iter().map(options).collect()
}

fn redis(Settings { redis: settings, request_window, .. }: &Settings, shards: ShardCount) -> RedisOptions {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    RedisOptions {
        url: settings.url.expose().to_owned(),
        username: given(&settings.username),
        password: given(settings.password.expose()),
        // 0 is the default of both; a number in the url counts then.
        db: (settings.db != 0).then_some(i64::from(settings.db)),
        pool: u16::try_from(settings.pool).unwrap_or(u16::MAX),
        connect_timeout: settings.connect_timeout,
        response_timeout: settings.response_timeout,
        prefix: settings.prefix.clone(),
        shards,
        request_window: *request_window,
    }
}

fn kafka(Settings { kafka: settings, request_window, .. }: &Settings) -> KafkaOptions {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    KafkaOptions {
        linger: settings.linger,
        delivery_timeout: settings.delivery_timeout,
        max_message_bytes: settings.max_message_bytes,
        replication_factor: settings.replication_factor,
        min_insync_replicas: settings.min_insync_replicas,
        retention: settings.retention,
        allow_single_node: settings.allow_single_node,
        request_window: *request_window,
        security: KafkaSecurity {
            protocol: Some(settings.security_protocol.as_str().to_owned()),
            mechanism: given(&settings.sasl_mechanism),
            username: given(&settings.sasl_username),
            password: given(settings.sasl_password.expose()),
            ca: given(&settings.ssl_ca_location),
        },
        ..KafkaOptions::new(&settings.brokers, &settings.group)
    }
}
