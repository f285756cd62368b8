//! The system under measurement: servers of its own, one ingest replica, and two drains that come and go.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use database::{AnyDatabase, Database as _, DatabaseOptions};
use futures::future::try_join_all;
use model::{DatabaseName, TableName};
use shock_absorber_client::{Client, TableRef};
use shock_absorber_tests::{
    Service, ServiceSettings, eventually, http, payments,
    servers::{KafkaServer, MariaDbServer, RedisServer},
};

use crate::{Arguments, cpu, openings::Opening};

const SCHEMA: &str = "shop";
const REPLICAS: [&str; 2] = ["drain-a", "drain-b"];
const WRITTEN: &str = "shock_absorber_drain_rows_written";
/// Between two looks at the drains' metrics, and so the grain of what is measured by them.
const LOOK: Duration = Duration::from_millis(20);
/// How many shards of a store that began empty are open: only the end of an opening names an incarnation.
const OPEN_SHARDS: &str = "local open = 0 \
    for shard = 0, ARGV[1] - 1 do open = open + redis.call('HEXISTS', 'sa:{s' .. shard .. '}:h', 'inc') end \
    return open";
/// As `docker-compose.yml` starts it.
const REDIS: [&str; 6] = ["--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-min-size", "512mb"];
const PROGRESS: Duration = Duration::from_secs(5);

/// Everything that runs.
pub(crate) struct Stand {
    pub(crate) client: Client,
    pub(crate) database: AnyDatabase,
    drains: Vec<Service>,
    ingest: Service,
    settings: ServiceSettings,
    shards: u16,
    pub(crate) redis: RedisServer,
    pub(crate) kafka: KafkaServer,
    pub(crate) mariadb: MariaDbServer,
}

/// What a drain wrote between two looks at it.
#[derive(Debug)]
pub(crate) struct Drained {
    rows: u64,
    took: Duration,
}

impl Drained {
    pub(crate) fn per_second(&self) -> f64 {
        self.rows as f64 / self.took.as_secs_f64()
    }
}

impl Stand {
    /// Servers as durable as in earnest, and an ingest replica with the table enabled.
    ///
    /// # Errors
    /// If anything doesn't start.
    pub(crate) async fn start(arguments: &Arguments) -> Result<Self> {
        let (redis, kafka, mariadb) = tokio::try_join!(
            RedisServer::start_with(&REDIS),
            KafkaServer::start(),
            MariaDbServer::start_with(&["--innodb-flush-log-at-trx-commit=1", "--innodb-buffer-pool-size=256M"]),
        )?;
        let database = schema(&mariadb, SCHEMA, 4, arguments).await?;
        let settings = ServiceSettings::new()
            .yaml(format!("databases:\n  - name: main\n    url: {}\n    pool: 8\n", mariadb.url(SCHEMA)))
            .set("shards", arguments.shards)
            .set("redis.url", redis.url())
            .set("redis.prefix", "sa")
            .set("kafka.brokers", kafka.brokers())
            .set("kafka.allow_single_node", true)
            .set("kafka.session_timeout", "6s")
            .set("drain.rows_per_second", 0);
        let ingest = Service::start("ingest-svc", settings.clone()).await?;
        // Patient, so that a machine that is too slow shows in the figures and not in refused writes.
        let client = Client::builder(ingest.api_url())
            .connections(4)
            .timeout(Duration::from_secs(60))
            .attempt_timeout(Duration::from_secs(30));
        let client = client.connect().await?;
        client.enable_table(TableRef::from("payments")).await?;
        Ok(Self {
            client,
            database,
            drains: Vec::new(),
            ingest,
            settings,
            shards: arguments.shards,
            redis,
            kafka,
            mariadb,
        })
    }

    /// Starts two drains, without waiting until they are ready.
    ///
    /// # Errors
    /// If they can't be started.
    pub(crate) async fn start_drains(&mut self) -> Result<()> {
        let start = |replica| Service::spawn("drain-svc", self.settings.clone().set("drain.replica", replica));
        self.drains = REPLICAS.into_iter().map(start).collect::<Result<_>>()?;
        try_join_all(self.drains.iter_mut().map(Service::ready)).await.map(drop)
    }

    /// Stops the drains in order, so that the next ones begin where they have ended.
    ///
    /// # Errors
    /// If one doesn't stop.
    pub(crate) async fn stop_drains(&mut self) -> Result<()> {
        try_join_all(self.drains.iter_mut().map(Service::stop)).await?;
        self.drains.clear();
        Ok(())
    }

    /// Kills Redis, throws away all that it had, starts it again, and says what it took from then until every shard was
    /// open again.
    ///
    /// # Errors
    /// If that takes longer than `within`.
    pub(crate) async fn reopened_after_losing_everything(&mut self, within: Duration) -> Result<Opening> {
        self.redis.kill9();
        self.redis.empty()?;
        self.redis.restart().await?;
        let begun = Instant::now();
        let cpu = |of: &Self| -> Result<_> {
            Ok([cpu::used(of.ingest.dir())?, cpu::used(of.redis.dir())?, cpu::used(of.kafka.dir())?])
        };
        let before = cpu(self)?;
        let shards = self.shards.to_string();
        let (redis, admin) = (&self.redis, self.ingest.admin());
        // Ingest first, since its answer costs next to nothing. For a moment it has not noticed yet, so Redis has the word.
        let ask = async || {
            if !matches!(http::get(admin, "/readyz").await, Ok((200, _))) {
                return Ok(None);
            }
            let open = redis.cli(&["EVAL", OPEN_SHARDS, "0", &shards]).await?;
            Ok((open.trim() == shards).then_some(()))
        };
        eventually("opening of all shards", within, ask).await?;
        let (took, after) = (begun.elapsed(), cpu(self)?);
        let cpu = [0, 1, 2].map(|at| after[at].saturating_sub(before[at]));
        Ok(Opening { took, cpu })
    }

    /// Stops all that is ours; the servers go on.
    ///
    /// # Errors
    /// If a process doesn't stop.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.stop_drains().await?;
        self.ingest.stop().await.map(drop)
    }

    /// Rows that the drains have written since they were started.
    ///
    /// # Errors
    /// If one doesn't answer.
    pub(crate) async fn written(&self) -> Result<u64> {
        let texts = try_join_all(self.drains.iter().map(Service::metrics)).await?;
        let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
        let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with(WRITTEN));
        Ok(lines.filter_map(value).sum::<f64>() as u64)
    }

    /// Waits until the drains have written so many rows above `before`. The clock runs from the first rows on.
    ///
    /// # Errors
    /// If that takes longer than `within`, or a drain ends.
    pub(crate) async fn drained(&self, before: u64, rows: u64, within: Duration) -> Result<Drained> {
        let begun = Instant::now();
        let mut told = begun;
        let mut first: Option<(Instant, u64)> = None;
        loop {
            let written = self.written().await.context("a drain doesn't tell what it has written")? - before;
            let now = Instant::now();
            let (since, already) = match first {
                Some(first) => first,
                None if written > 0 => *first.insert((now, written)),
                None => (now, 0),
            };
            if written >= rows {
                return Ok(Drained { rows: rows - already.min(rows), took: now - since });
            }
            if now - begun > within {
                let logs: String = self.drains.iter().map(|drain| tail(&drain.log())).collect();
                bail!("after {within:?} the drains had written {written} of {rows} rows; their logs end:\n{logs}");
            }
            if now - told >= PROGRESS {
                told = now;
                eprintln!("  {written} of {rows} rows are in the database");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Rows in the database.
    ///
    /// # Errors
    /// If it can't be asked.
    pub(crate) async fn rows(&self) -> Result<u64> {
        let answer = self.database.query_integers("SELECT COUNT(*) FROM payments").await?;
        answer
            .first()
            .and_then(|&rows| u64::try_from(rows).ok())
            .context("the database did not say how many rows it has")
    }
}

/// A schema with the table in it, prepared as an operator would.
///
/// # Errors
/// If the server refuses.
pub(crate) async fn schema(
    mariadb: &MariaDbServer,
    name: &str,
    pool: u32,
    arguments: &Arguments,
) -> Result<AnyDatabase> {
    mariadb.create_schema(name).await?;
    let options = DatabaseOptions { pool, ..DatabaseOptions::new(DatabaseName::new("main")?, mariadb.url(name)) };
    let database = AnyDatabase::connect(options).await?;
    database.run_script(payments::TABLE).await?;
    if !arguments.ledger {
        database.add_version_column(&TableName::new("payments")?).await?;
    }
    Ok(database)
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    format!("{}\n", lines[lines.len().saturating_sub(10)..].join("\n"))
}
