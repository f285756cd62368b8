//! `shock-absorber watch`: changes as they come in.

use std::io::{self, ErrorKind, Write as _};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::value::RawValue;
use shock_absorber_client::{Change, ChangeOperation, Client, Row, TableRef, WatchOptions, Watched};

/// What is watched.
#[derive(Debug, Args)]
pub(crate) struct WatchArgs {
    /// `table`, or `database.table` if several databases are configured
    table: String,
    /// Only the record with this primary key, as JSON: '{"id": "p1"}'
    key: Option<String>,
    /// Only these columns; may be repeated
    #[arg(long)]
    column: Vec<String>,
    /// Go on behind this token of another watch, instead of now
    #[arg(long)]
    from: Option<String>,
    /// As JSON: one object a line for each change, and one with the token behind each message
    #[arg(long)]
    json: bool,
}

/// Watches until it is stopped, or nobody reads what it prints; tells at the end where to go on.
pub(crate) async fn run(arguments: WatchArgs, endpoint: &str) -> Result<()> {
    let WatchArgs { table, key, column, from, json } = arguments;
    let client = Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it")?;
    let table = client.get_table(&TableRef::from(table.as_str())).await?;
    let keys = key.map(|key| Row::from_json(&key, &table)).transpose()?.into_iter().collect();
    let options = WatchOptions { keys, columns: column, from, ..WatchOptions::default() };
    let mut watch = client.watch(&table.table, &options).await?;
    let mut is_live = false;
    let ended = loop {
        let told = tokio::select! {
            biased;
            _ = tokio::signal::ctrl_c() => break Ok(()),
            told = watch.next() => told,
        };
        let told = match told {
            Ok(told) => told,
            Err(error) => break Err(error.into()),
        };
        if told.is_live && !std::mem::replace(&mut is_live, told.is_live) && !json {
            eprintln!("live: what changes from now on is shown");
        }
        match print(&told, json) {
            Err(error) if is_closed(&error) => break Ok(()),
            printed => printed?,
        }
    };
    if let (false, Some(token)) = (json, watch.token()) {
        eprintln!("go on behind this with --from {token}");
    }
    ended
}

fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

fn print(told: &Watched, json: bool) -> Result<()> {
    let mut out = io::stdout().lock();
    for change in &told.changes {
        writeln!(out, "{}", if json { json_line(change)? } else { line(change)? })?;
    }
    if json {
        let progress = ProgressJson { resume_token: &told.token, live: told.is_live };
        writeln!(out, "{}", serde_json::to_string(&progress)?)?;
    }
    Ok(out.flush()?)
}

/// What an operation is called, as in the API.
fn name(operation: ChangeOperation) -> String {
    operation.as_str_name().trim_start_matches("CHANGE_OPERATION_").to_lowercase()
}

#[derive(Serialize)]
struct ChangeJson<'a> {
    operation: String,
    key: Box<RawValue>,
    row: Option<Box<RawValue>>,
    row_omitted: bool,
    version: u64,
    etag: &'a str,
    written_at: String,
}

#[derive(Serialize)]
struct ProgressJson<'a> {
    resume_token: &'a str,
    live: bool,
}

fn json_line(change: &Change) -> Result<String> {
    let raw = |row: &Row| -> Result<Box<RawValue>> { Ok(RawValue::from_string(row.to_json()?)?) };
    let json = ChangeJson {
        operation: name(change.operation),
        key: raw(&change.key)?,
        row: change.row.as_ref().map(raw).transpose()?,
        row_omitted: change.is_row_omitted,
        version: change.version,
        etag: &change.etag,
        written_at: change.written_at.to_string(),
    };
    Ok(serde_json::to_string(&json)?)
}

fn line(change: &Change) -> Result<String> {
    let row = match &change.row {
        Some(row) => row.to_json()?,
        None if change.is_row_omitted => "too large to be shown: read it".to_owned(),
        None => String::new(),
    };
    let (operation, key) = (name(change.operation), change.key.to_json()?);
    Ok(format!("{} {operation:<6} {key} {row}", change.written_at).trim_end().to_owned())
}
