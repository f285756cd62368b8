//! `get`, `put`, `update`, `delete`: records as JSON, in the types of the table's columns.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use shock_absorber_client::{
    Accepted, AckLevel, Acknowledge, Client, Consistency, Eviction, Get, Precondition, Row, Table, TableRef, Write,
};

/// Which table, `table` or `database.table`.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// `table`, or `database.table` if several databases are configured
    table: String,
}

/// How a write is to be done.
#[derive(Debug, Args)]
pub(crate) struct WriteOptions {
    /// Only if the record still has this etag
    #[arg(long)]
    etag: Option<String>,
    /// The level to wait for: logged, queued, applied; the table's default if it is not given
    #[arg(long)]
    ack: Option<String>,
    /// An id of this write: sent again with the same one within the request window, it takes effect once
    #[arg(long)]
    request_id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// The tokens that writes have answered
    #[arg(required = true)]
    token: Vec<String>,
    /// How long to wait, at most 30s
    #[arg(long, default_value = "30s", value_parser = runtime::config::parse_duration)]
    wait: std::time::Duration,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    target: Target,
    /// The primary key, as JSON: '{"id": "p1"}'; several are read in one call
    #[arg(required = true)]
    key: Vec<String>,
    /// Only these columns; may be repeated
    #[arg(long)]
    column: Vec<String>,
    /// newest: the newest accepted write; database: what is committed in the database now
    #[arg(long, default_value = "newest", value_parser = consistency)]
    consistency: Consistency,
}

fn consistency(name: &str) -> Result<Consistency, String> {
    match name {
        "newest" => Ok(Consistency::Newest),
        "database" => Ok(Consistency::Database),
        other => Err(format!("{other} is none: use newest or database")),
    }
}

#[derive(Debug, Args)]
pub(crate) struct EvictArgs {
    #[command(flatten)]
    target: Target,
    /// The primary keys, as JSON
    #[arg(required = true)]
    key: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    target: Target,
    /// The row, as JSON
    row: String,
    #[command(flatten)]
    options: WriteOptions,
}

#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    target: Target,
    /// The primary key, as JSON
    key: String,
    /// The columns to change, as JSON
    changes: String,
    #[command(flatten)]
    options: WriteOptions,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    target: Target,
    /// The primary key, as JSON
    key: String,
    #[command(flatten)]
    options: WriteOptions,
}

/// A connection and the table that a command is about.
struct Session {
    client: Client,
    table: Table,
}

impl Session {
    async fn open(endpoint: &str, target: &Target) -> Result<Self> {
        let client = Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it")?;
        let table = client.get_table(&TableRef::from(target.table.as_str())).await?;
        Ok(Self { client, table })
    }

    fn row(&self, json: &str) -> Result<Row> {
        Ok(Row::from_json(json, &self.table)?)
    }

    async fn write(&self, write: Write, options: &WriteOptions) -> Result<()> {
        let write = match &options.etag {
            Some(etag) => write.only_if(Precondition::Etag(etag.clone())),
            None => write,
        };
        let write = match &options.request_id {
            Some(id) => write.request_id(id),
            None => write,
        };
        let acknowledge = match options.ack.as_deref() {
            None => Acknowledge::default(),
            Some("logged") => Acknowledge::required(AckLevel::Logged),
            Some("queued") => Acknowledge::required(AckLevel::Queued),
            Some("applied") => Acknowledge::required(AckLevel::Applied),
            Some(other) => bail!("{other} is no level: use logged, queued or applied"),
        };
        let Accepted { reached, etag, token } = self.client.acknowledging(acknowledge).write(&write).await?;
        let reached = reached.map_or_else(|| "accepted".into(), |level| format!("{level:?}").to_uppercase());
        println!("{reached}  etag {etag}  token {token}");
        Ok(())
    }
}

pub(crate) async fn get(arguments: GetArgs, endpoint: &str) -> Result<()> {
    let session = Session::open(endpoint, &arguments.target).await?;
    let get = |key: &String| -> Result<Get> {
        let get = Get::new(&session.table.table, session.row(key)?);
        Ok(get.columns(&arguments.column).consistency(arguments.consistency))
    };
    let gets = arguments.key.iter().map(get).collect::<Result<Vec<_>>>()?;
    if let [get] = gets.as_slice() {
        let found = session.client.read(get).await?;
        println!("{}", found.row.to_json()?);
        if !found.etag.is_empty() {
            eprintln!("etag {}", found.etag);
        }
        return Ok(());
    }
    let mut missing = 0;
    for (key, found) in arguments.key.iter().zip(session.client.batch_get(&gets).await) {
        match found {
            Ok(found) => println!("{}", found.row.to_json()?),
            Err(error) => {
                missing += 1;
                eprintln!("{key}: {error}");
            }
        }
    }
    if missing > 0 {
        bail!("{missing} of {} could not be read", gets.len());
    }
    Ok(())
}

pub(crate) async fn evict(arguments: EvictArgs, endpoint: &str) -> Result<()> {
    let session = Session::open(endpoint, &arguments.target).await?;
    let keys = arguments.key.iter().map(|key| session.row(key)).collect::<Result<Vec<_>>>()?;
    let mut failed = 0;
    for (key, result) in arguments.key.iter().zip(session.client.evict(&session.table.table, &keys).await?) {
        let said = match result {
            Ok(Eviction::Evicted) => "EVICTED",
            Ok(Eviction::NotHeld) => "NOT_HELD",
            Ok(Eviction::Undrained) => "UNDRAINED  the database does not have it yet, so it stays",
            Ok(Eviction::Parked) => "PARKED  it is among the dead letters, so it stays",
            Err(error) => {
                failed += 1;
                eprintln!("{key}: {error}");
                continue;
            }
        };
        println!("{key}  {said}");
    }
    if failed > 0 {
        bail!("{failed} of {} could not be asked for", keys.len());
    }
    Ok(())
}

pub(crate) async fn put(arguments: PutArgs, endpoint: &str) -> Result<()> {
    let session = Session::open(endpoint, &arguments.target).await?;
    let write = Write::put(&session.table.table, session.row(&arguments.row)?);
    session.write(write, &arguments.options).await
}

pub(crate) async fn update(arguments: UpdateArgs, endpoint: &str) -> Result<()> {
    let session = Session::open(endpoint, &arguments.target).await?;
    let write = Write::update(&session.table.table, session.row(&arguments.key)?, session.row(&arguments.changes)?);
    session.write(write, &arguments.options).await
}

pub(crate) async fn delete(arguments: DeleteArgs, endpoint: &str) -> Result<()> {
    let session = Session::open(endpoint, &arguments.target).await?;
    let write = Write::delete(&session.table.table, session.row(&arguments.key)?);
    session.write(write, &arguments.options).await
}

pub(crate) async fn wait(arguments: WaitArgs, endpoint: &str) -> Result<()> {
    let client = Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it")?;
    if !client.wait_applied(&arguments.token, arguments.wait).await? {
        bail!("the database does not have all of it yet");
    }
    println!("APPLIED");
    Ok(())
}
