//! A service in this process, its database, and clients.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use database::{AnyDatabase, DatabaseOptions, TableDirectory};
use event_log::embedded::{EmbeddedLog, EmbeddedOptions};
use hot_store::memory::MemoryStore;
use ingest_svc::{
    Core,
    app::{self, ReadyParts},
};
use model::{DatabaseName, ShardCount};
use proto::v1::{self, record_service_client::RecordServiceClient};
use runtime::{Ending, Readiness, Settings, Shutdown, Signals, config::ConfigSources};
use shock_absorber_client::{Client, Row};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::Channel;

/// The table that most tests use, one that can't be enabled, and one that is never enabled.
const TABLES: &str = "
    CREATE TABLE payments (
        id TEXT NOT NULL PRIMARY KEY, amount INTEGER NOT NULL, currency VARCHAR(3) NOT NULL DEFAULT 'INR', note TEXT
    );
    CREATE TABLE without_key (a INTEGER);
    CREATE TABLE orders (id INTEGER NOT NULL PRIMARY KEY, item TEXT);
";

pub struct World {
    pub address: SocketAddr,
    pub readiness: Readiness,
    pub core: Arc<Core<MemoryStore, EmbeddedLog, AnyDatabase>>,
    shutdown: Shutdown,
    dir: TempDir,
}

impl World {
    /// With payments enabled and every shard open.
    pub async fn new() -> Self {
        Self::with(&[]).await
    }

    /// The same with some settings.
    pub async fn with(flags: &[&str]) -> Self {
        let world = Self::start(flags).await;
        world.readiness.ready().await;
        world.client().enable_table("payments").await.unwrap();
        world
    }

    async fn start(flags: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let fixed = ["shards=4", "databases=[{name: main, url: 'sqlite:unused'}]", "ingest.checkpoint_interval=50ms"];
        let flags = fixed.iter().chain(flags).map(|flag| (*flag).to_owned()).collect();
        let settings = Settings::load(ConfigSources { flags, ..ConfigSources::default() }).unwrap();

        let file = dir.path().join("database.sqlite");
        let database = Arc::new(open(&file).await);
        database.run_script(TABLES).await.unwrap();
        let main = DatabaseName::new("main").unwrap();
        let directory = Arc::new(TableDirectory::new(vec![(main, database)]));
        let log = EmbeddedLog::open(EmbeddedOptions::new(dir.path().join("log"))).await.unwrap();
        let hot = MemoryStore::new(ShardCount::new(settings.shards).unwrap(), 1 << 30);
        let core = Arc::new(app::core(&settings, Arc::new(hot), Arc::new(log), directory, None).unwrap());

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, shutdown) = (Readiness::new(), Shutdown::new());
        let ready = ReadyParts::of(&readiness);
        shutdown.spawn("ingest", {
            let (shutdown, core) = (shutdown.clone(), core.clone());
            async move { app::serve(core, &settings, listener, ready, &shutdown).await }
        });
        Self { address, readiness, core, shutdown, dir }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn client(&self) -> Client {
        // Tests want the first answer, not the last one.
        Client::builder(self.endpoint()).timeout(LONG).attempt_timeout(LONG).without_retries().connect_lazy().unwrap()
    }

    /// A client that shows codes and trailers as they are.
    pub async fn raw(&self) -> RecordServiceClient<Channel> {
        RecordServiceClient::new(self.channel().await)
    }

    pub async fn channel(&self) -> Channel {
        Channel::from_shared(self.endpoint()).unwrap().connect().await.unwrap()
    }

    /// Runs a statement behind the service's back.
    pub async fn sql(&self, statement: &str) {
        open(&self.dir.path().join("database.sqlite")).await.run_script(statement).await.unwrap();
    }

    /// Stops it as a signal would; answers how it ended.
    pub fn stop(&self, deadline: Duration) -> JoinHandle<Ending> {
        let shutdown = self.shutdown.clone();
        let (signals, _) = Signals::by_hand();
        shutdown.begin();
        tokio::spawn(async move { shutdown.run(signals, deadline).await })
    }
}

pub const LONG: Duration = Duration::from_secs(30);

async fn open(file: &std::path::Path) -> AnyDatabase {
    let options = DatabaseOptions::new(DatabaseName::new("main").unwrap(), format!("sqlite:{}", file.display()));
    AnyDatabase::connect(DatabaseOptions { create_if_missing: true, ..options }).await.unwrap()
}

pub fn id(id: &str) -> Row {
    Row::new().set("id", id)
}

pub fn payment(name: &str, amount: i64) -> Row {
    id(name).set("amount", amount)
}

/// The same in the API's own words.
pub fn raw_put(name: &str, acknowledgement: Option<v1::Acknowledgement>) -> v1::PutRecordRequest {
    let value = |kind| v1::Value { kind: Some(kind) };
    let columns = [
        ("id".to_owned(), value(v1::value::Kind::StringValue(name.to_owned()))),
        ("amount".to_owned(), value(v1::value::Kind::Int64Value(1))),
    ];
    v1::PutRecordRequest {
        table: Some(v1::TableRef { database: String::new(), table: "payments".into() }),
        row: Some(v1::Row { columns: columns.into() }),
        acknowledgement,
        ..v1::PutRecordRequest::default()
    }
}

/// A wish that nobody fulfils here, since nothing drains: the call takes as long as it waits.
pub fn prefer_applied(wait: Duration) -> Option<v1::Acknowledgement> {
    Some(v1::Acknowledgement {
        required: v1::AckLevel::Queued.into(),
        preferred: v1::AckLevel::Applied.into(),
        wait: Some(prost_types::Duration::try_from(wait).unwrap()),
    })
}
