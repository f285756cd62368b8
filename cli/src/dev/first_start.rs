//! What a newcomer finds: tables, enabled, and a line that works when pasted.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use database::{AnyDatabase, Database as _};
use event_log::embedded::EmbeddedLog;
use hot_store::memory::MemoryStore;
use ingest_svc::{Core, tables::Tables};
use model::{ColumnDefault, ColumnType, DatabaseName, TableRef, TableSchema};
use serde_json::{Map, Value, json};

use super::DATABASE;
use crate::PAYMENTS_SQL;

/// What is shown once everything runs.
pub(super) struct Welcome {
    example: Option<TableSchema>,
    notes: Vec<String>,
}

/// Makes tables if the database has none, and enables all of them that can be carried. Later starts leave both as they are.
pub(super) async fn prepare(
    database: &AnyDatabase,
    core: &Arc<Core<MemoryStore, EmbeddedLog, AnyDatabase>>,
    init_sql: Option<&Path>,
) -> Result<Welcome> {
    let mut notes = Vec::new();
    let tables = Tables::new(core.clone());
    if database.list_tables().await?.is_empty() {
        let sql = match init_sql {
            Some(file) => std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?,
            None => PAYMENTS_SQL.to_owned(),
        };
        database.run_script(&sql).await.context("making the tables")?;
        for table in database.list_tables().await? {
            let table = TableRef { database: DatabaseName::new(DATABASE)?, table };
            if let Err(refusal) = tables.enable(&table).await {
                notes.push(format!("{table} is not enabled: {refusal}"));
            }
        }
    } else if let Some(file) = init_sql {
        notes.push(format!("the database has tables already: {} is not run again", file.display()));
    }
    let example = core.directory.all().first().map(|table| table.schema.clone());
    Ok(Welcome { example, notes })
}

impl Welcome {
    /// Prints where everything is, and what to try.
    pub(super) fn print(&self, address: SocketAddr, admin: SocketAddr, data_dir: &Path) {
        let data_dir = data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
        println!("shock-absorber is running, everything in one process");
        println!("  gRPC API   http://{address}");
        println!("  metrics    http://{admin}/metrics");
        println!("  data       {}", data_dir.display());
        for note in &self.notes {
            println!("  note       {note}");
        }
        let Some(schema) = &self.example else {
            println!("No table is enabled: `shock-absorber table list` shows those that could be.");
            return;
        };
        let program = program();
        let endpoint = if address.port() == 7070 { String::new() } else { format!(" --endpoint http://{address}") };
        let (key, row) = example(schema);
        let table = &schema.table.table;
        println!("\nIn another terminal:");
        println!("  {program}{endpoint} put {table} '{row}'");
        println!("  {program}{endpoint} get {table} '{key}'");
    }
}

/// How this program is called from where the user stands.
fn program() -> String {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("shock-absorber"));
    let here = std::env::current_dir().ok();
    let relative = here.and_then(|here| path.strip_prefix(here).map(Path::to_owned).ok());
    relative.unwrap_or(path).display().to_string()
}

/// A key and a row that the table accepts.
fn example(schema: &TableSchema) -> (Value, Value) {
    let named = schema
        .columns
        .iter()
        .filter(|c| !c.nullable && !matches!(c.default, ColumnDefault::Constant(_) | ColumnDefault::CurrentTimestamp));
    let row: Map<String, Value> = named.map(|c| (c.name.to_string(), example_value(&c.ty))).collect();
    let key: Map<String, Value> = schema.key().map(|c| (c.name.to_string(), example_value(&c.ty))).collect();
    (Value::Object(key), Value::Object(row))
}

fn example_value(ty: &ColumnType) -> Value {
    match ty {
        ColumnType::Bool => json!(true),
        ColumnType::Int { .. } | ColumnType::Uint { .. } => json!(1),
        ColumnType::Double => json!(1.5),
        ColumnType::Decimal { scale: 0, .. } => json!("1"),
        ColumnType::Decimal { .. } => json!("1.5"),
        ColumnType::Padded { chars } => json!("abc".chars().take((*chars).min(3) as usize).collect::<String>()),
        ColumnType::Text { max_chars, .. }
        | ColumnType::Characters { max_chars }
        | ColumnType::Collated { max_chars, .. } => {
            json!("abc".chars().take(max_chars.unwrap_or(3).min(3) as usize).collect::<String>())
        }
        ColumnType::Bytes { .. } | ColumnType::PaddedBytes { .. } => json!("YQ=="),
        ColumnType::Timestamp { .. } | ColumnType::EpochTimestamp { .. } => json!("2026-01-01T10:00:00Z"),
        ColumnType::DateTime { .. } => json!("2026-01-01T10:00:00"),
        ColumnType::Date => json!("2026-01-01"),
        ColumnType::Time { .. } | ColumnType::TimeOfDay { .. } => json!("10:00:00"),
        ColumnType::Json | ColumnType::Jsonb | ColumnType::JsonDocument | ColumnType::JsonText { .. } => json!({}),
        ColumnType::Real => json!(1.5),
        ColumnType::Numeric => json!("1.5"),
        ColumnType::Uuid => json!("00000000-0000-4000-8000-000000000000"),
        ColumnType::Enum { labels } => json!(labels.first()),
        ColumnType::Inet | ColumnType::Inet4 => json!("10.0.0.1"),
        ColumnType::Cidr => json!("10.0.0.0/8"),
        ColumnType::Array { .. } => json!([]),
        ColumnType::Inet6 => json!("2001:db8::1"),
        ColumnType::Set { labels } => json!(labels.first()),
        ColumnType::Year => json!(2026),
        ColumnType::NonNegative(ty) | ColumnType::SignlessZero(ty) => example_value(ty),
    }
}
