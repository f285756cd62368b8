//! `shock-absorber demo`: a surge at four times what the database takes, a kill -9 in the middle, and every row compared.

mod chart;
mod direct;
mod figures;
mod installation;
mod payments;
mod report;
mod rows;
mod surge;
mod table;

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use database::{Database as _, DatabaseRow};
use model::{Row, TableName, TableSchema};
use runtime::ConfigArgs;
use shock_absorber_client::{Client, TableRef};
use tokio::time::{Instant, MissedTickBehavior, interval};

use self::{
    chart::{Progress, Sample},
    figures::{DirectFigures, Figures, busiest_second, quantile_ms},
    installation::Installation,
    payments::Life,
    surge::{Call, Observed},
};

/// How often accepted and written are looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(250);

/// Rows that one statement of the comparison reads.
const READ_AT_ONCE: usize = 250;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many payments come in.
    #[arg(long, default_value_t = 1000)]
    payments: u32,
    /// How many of them per second.
    #[arg(long, default_value_t = 200)]
    per_second: u32,
    /// Rows per second that the database is to be spared more than.
    #[arg(long, default_value_t = 50)]
    limit: u32,
    /// The same seed makes the same payments.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print one JSON object on one line, and nothing else, to stdout.
    #[arg(long)]
    json: bool,
}

/// Runs the demo, embedded or on the servers of a configuration file; fails on any mismatch.
pub(crate) async fn run(arguments: DemoArgs, config: &ConfigArgs) -> Result<()> {
    if arguments.payments == 0 || arguments.per_second == 0 || arguments.limit == 0 {
        bail!("--payments, --per-second and --limit must be at least 1");
    }
    let directory =
        tempfile::Builder::new().prefix("shock-absorber-demo-").tempdir().context("making a directory for the demo")?;
    let (installation, name) = install(&arguments, config, directory.path().to_owned()).await?;
    let figures = Demo::prepare(&arguments, installation, name, directory.path().to_owned(), config.config.is_some())
        .await?
        .run()
        .await?;
    if arguments.json {
        println!("{}", serde_json::to_string(&figures)?);
    }
    if figures.mismatched > 0 {
        let kept = directory.keep();
        bail!("{} records are not what was acknowledged; everything is kept in {}", figures.mismatched, kept.display());
    }
    Ok(())
}

async fn install(arguments: &DemoArgs, config: &ConfigArgs, directory: PathBuf) -> Result<(Installation, TableName)> {
    let Some(file) = config.config.as_deref() else {
        let name = TableName::new("payments")?;
        let init_sql = directory.join("payments.sql");
        std::fs::write(&init_sql, table::create(table::Dialect::Sqlite, &name))?;
        return Ok((Installation::embedded(&directory, &init_sql, arguments.limit).await?, name));
    };
    let settings = config.load()?;
    let scheme = settings.databases.first().and_then(|d| d.url.scheme());
    let dialect = if scheme == Some("sqlite") { table::Dialect::Sqlite } else { table::Dialect::Mysql };
    // A table of its own, so that nothing of the user's is touched; the same one every time, since its topic stays.
    let name = TableName::new("shock_absorber_demo")?;
    let init_sql = table::create(dialect, &name);
    Ok((Installation::on_servers(&directory, file, &settings, &init_sql, arguments.limit).await?, name))
}

/// A demo about to run.
struct Demo {
    installation: Installation,
    client: Client,
    name: TableName,
    schema: TableSchema,
    table: shock_absorber_client::Table,
    lives: Vec<Life>,
    observed: Arc<Observed>,
    progress: Progress,
    directory: PathBuf,
    limit: u32,
    json: bool,
    on_servers: bool,
    run: String,
}

/// When the kill happened.
struct Outage {
    killed_at: Instant,
    answered_at: Instant,
}

impl Demo {
    async fn prepare(
        arguments: &DemoArgs,
        installation: Installation,
        name: TableName,
        directory: PathBuf,
        on_servers: bool,
    ) -> Result<Self> {
        let client = Client::connect(installation.endpoint.as_str()).await?;
        let reference = TableRef::new(installation.database_name.as_str(), name.as_str());
        let table = client.enable_table(&reference).await.context("enabling the demo's table")?;
        let schema = installation.database.introspect(&installation.database_name, &name).await?;
        // Ids that no earlier run has used: their images may still be in the hot store.
        let run = format!("{}-", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let lives = payments::lives(&run, arguments.seed, arguments.payments, arguments.per_second);
        let steps: usize = lives.iter().map(|life| life.steps.len()).sum();
        if !arguments.json {
            println!(
                "{} payments at {}/s ({steps} writes) through {},\nto a database that takes {} rows/s; kill -9 in the middle.\n",
                arguments.payments, arguments.per_second, installation.description, arguments.limit
            );
        }
        let observed = Arc::new(Observed::of(lives.len()));
        let (limit, json) = (arguments.limit, arguments.json);
        let progress = Progress::new(json);
        Ok(Self {
            installation,
            client,
            name,
            schema,
            table,
            lives,
            observed,
            progress,
            directory,
            limit,
            json,
            on_servers,
            run,
        })
    }

    async fn run(mut self) -> Result<Figures> {
        let start = Instant::now();
        let mut clients = surge::start(&self.client, &self.table, &self.lives, &self.observed);
        let last_step = self.lives.iter().flat_map(|l| &l.steps).map(|(at, _)| *at).max().unwrap_or_default();
        let mut ticks = interval(SAMPLE_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut killed_at = None;
        let mut surge_over: Option<Instant> = None;
        let mut comparison: Option<tokio::task::JoinHandle<Result<DirectFigures>>> = None;
        let caught_up = loop {
            ticks.tick().await;
            self.installation.assert_running()?;
            if killed_at.is_none() && start.elapsed() > last_step / 2 {
                self.installation.kill().await?;
                killed_at = Some(Instant::now());
                self.installation.start_again()?;
                self.progress.say(format!("kill -9 after {:.1} s, and started again", start.elapsed().as_secs_f64()));
            }
            while let Some(client) = clients.try_join_next() {
                client??;
            }
            if surge_over.is_none() && clients.is_empty() {
                surge_over = Some(Instant::now());
                self.progress.say("every write is acknowledged; the database is catching up");
                let (directory, lives, limit) = (self.directory.clone(), self.lives.clone(), self.limit);
                comparison = Some(tokio::spawn(async move { direct::run(&directory, &lives, limit).await }));
            }
            let differing = self.sample(start).await?;
            if surge_over.is_some() && differing == 0 {
                break true;
            }
            if surge_over.is_some_and(|since| since.elapsed() > self.patience()) {
                break false;
            }
        };
        let ended = Instant::now();
        let direct = comparison.context("the surge never ended")?.await??;
        let outage = self.outage(killed_at.context("nothing was killed")?)?;
        let caught_up_after = ended - surge_over.unwrap_or(ended);
        if !caught_up {
            self.progress.say("the database has not caught up in time");
        }
        self.figures(direct, &outage, caught_up_after).await
    }

    /// The drain may take as long as the limit wants, and as long again, and a minute.
    fn patience(&self) -> Duration {
        let steps: usize = self.lives.iter().map(|life| life.steps.len()).sum();
        Duration::from_secs(60) + Duration::from_secs(2) * steps as u32 / self.limit
    }

    /// Compares every payment with its row and shows where things stand; says how many differ.
    async fn sample(&mut self, start: Instant) -> Result<u64> {
        let (differing, settled) = self.compare().await?;
        let written = table::writes(&self.installation.database, &self.name).await?;
        let accepted = self.observed.acked_steps.load(Ordering::Relaxed);
        self.progress.sample(Sample { at: start.elapsed(), accepted, settled, written });
        Ok(differing)
    }

    /// How many payments differ from what was acknowledged last, and how many acknowledged steps the others have.
    async fn compare(&self) -> Result<(u64, u64)> {
        let (mut differing, mut settled) = (0, 0);
        for (chunk, lives) in self.lives.chunks(READ_AT_ONCE).enumerate() {
            let acked: Vec<usize> = (0..lives.len())
                .map(|at| self.observed.acked[chunk * READ_AT_ONCE + at].load(Ordering::Acquire))
                .collect();
            let keys: Vec<_> = lives.iter().map(|life| model::Key(vec![model::Value::Text(life.id.clone())])).collect();
            let found = self.installation.database.read(&self.schema, &keys).await?;
            for ((life, acked), found) in lives.iter().zip(acked).zip(found) {
                if self.is_settled(life, acked, found)? {
                    settled += acked as u64;
                } else {
                    differing += 1;
                }
            }
        }
        Ok((differing, settled))
    }

    fn is_settled(&self, life: &Life, acked: usize, found: DatabaseRow) -> Result<bool> {
        let expected: Option<Row> =
            life.row_after(acked).map(|columns| rows::whole_row(&self.schema, &columns)).transpose()?;
        Ok(match (expected, found) {
            (Some(expected), DatabaseRow::Present { row, .. }) => rows::same(&expected, &row),
            (None, DatabaseRow::Deleted { .. } | DatabaseRow::Absent) => true,
            _ => false,
        })
    }

    /// From the kill to the first call that began after it and was answered.
    fn outage(&self, killed_at: Instant) -> Result<Outage> {
        let calls = self.observed.writes.lock().map_err(|_| anyhow::anyhow!("a client panicked"))?;
        let answered_at = calls.iter().filter(|c| c.begun > killed_at).map(|c| c.ended).min();
        Ok(Outage { killed_at, answered_at: answered_at.unwrap_or(killed_at) })
    }

    async fn figures(self, direct: DirectFigures, outage: &Outage, caught_up_after: Duration) -> Result<Figures> {
        let (differing, _) = self.compare().await?;
        let expected_rows = self.lives.iter().filter(|life| life.row_after(life.steps.len()).is_some()).count() as u64;
        let phantoms = table::rows(&self.installation.database, &self.name, &self.run).await?.abs_diff(expected_rows);
        let mut times = table::write_times(&self.installation.database, &self.name).await?;
        let (acked, written) = (self.observed.acked_steps.load(Ordering::Relaxed), times.len() as u64);
        let usual = |calls: &std::sync::Mutex<Vec<Call>>| -> Result<Vec<Duration>> {
            let calls = calls.lock().map_err(|_| anyhow::anyhow!("a client panicked"))?;
            // The second after the first answer still belongs to the restart: everybody comes back at once.
            let (from, to) = (outage.killed_at, outage.answered_at + Duration::from_secs(1));
            Ok(calls.iter().filter(|c| c.ended < from || c.begun > to).map(|c| c.ended - c.begun).collect())
        };
        let (mut acks, mut reads) = (usual(&self.observed.writes)?, usual(&self.observed.reads)?);
        let figures = Figures {
            acked,
            written,
            coalesced: acked.saturating_sub(written),
            mismatched: differing.max(phantoms) + self.observed.stale_reads.load(Ordering::Relaxed),
            max_writes_in_any_second: busiest_second(&mut times),
            limit: self.limit,
            batch_rows: (self.limit / 20).max(1),
            read_p99_ms: quantile_ms(&mut reads, 0.99),
            ack_p99_ms: quantile_ms(&mut acks, 0.99),
            ack_p50_ms: quantile_ms(&mut acks, 0.5),
            killed: 1,
            recovered_s: (outage.answered_at - outage.killed_at).as_secs_f64(),
            caught_up_s: caught_up_after.as_secs_f64(),
            direct,
        };
        if self.on_servers {
            self.client.disable_table(&self.table.table).await?;
        }
        self.progress.finish();
        if !self.json {
            report::print(&figures);
        }
        Ok(figures)
    }
}
