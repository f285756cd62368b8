//! From the settings to what the use cases and the API are told.

use std::{collections::HashMap, fmt, time::Duration};

use database::CreateCheck;
use event_log::LogSettings;
use model::{ColumnName, DatabaseName, InvalidName, Namespace, ShardCount, ShardCountError, TableName, TableRef};
use runtime::{Settings, config};

use crate::{
    HotTtl, IngestOptions, MaxBacklog, TableRules, WriteRules,
    accept::{AckLevel, StreamOptions},
    grpc::ServerOptions,
    tables::{TableOptions, TableOverride},
};

/// Beyond the log's own patience nobody waits for an answer of it.
const BEYOND_DELIVERY: Duration = Duration::from_secs(5);

/// A setting that the service can't use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// The number of shards.
    #[error("`shards`: {0}")]
    Shards(#[from] ShardCountError),
    /// A name.
    #[error("`{key}`: {error}")]
    Name {
        /// Where it stands.
        key: String,
        /// What is wrong with it.
        error: InvalidName,
    },
    /// A table that is not named with its database.
    #[error("`tables.per_table.{0}`: name the table as database.table")]
    TableWithoutDatabase(String),
}

pub(super) fn shards(settings: &Settings) -> Result<ShardCount, OptionsError> {
    Ok(ShardCount::new(settings.shards)?)
}

pub(super) fn server(settings: &Settings) -> ServerOptions {
    let ingest = &settings.ingest;
    ServerOptions {
        max_message_bytes: ingest.max_message_bytes,
        max_batch_items: ingest.max_batch_items,
        max_in_flight: ingest.max_in_flight,
        max_streams: ingest.max_streams,
        stream: StreamOptions {
            max_items: ingest.stream_items,
            max_bytes: ingest.stream_bytes,
            idle: ingest.stream_idle,
        },
        reflection: ingest.reflection,
    }
}

pub(super) fn ingest(settings: &Settings) -> Result<IngestOptions, OptionsError> {
    let ingest = &settings.ingest;
    let (mut ttls, mut rules, mut overrides) = (HashMap::new(), HashMap::new(), HashMap::new());
    for name in settings.tables.per_table.keys() {
        let (table, effective) = (table(name)?, settings.table(name));
        ttls.insert(table.clone(), effective.ttl);
        rules.insert(table.clone(), table_rules(&effective));
        overrides.insert(table, table_override(name, effective)?);
    }
    Ok(IngestOptions {
        replica: format!("ingest {}, process {}", Host, std::process::id()),
        max_cold_reads: ingest.max_cold_reads,
        database_patience: ingest.database_patience,
        outage_pause: ingest.outage_pause,
        max_watches: ingest.max_watches,
        watch_progress: ingest.watch_progress,
        max_find_records: ingest.max_find_records,
        max_find_bytes: ingest.max_find_bytes,
        lease_ttl: ingest.lease_ttl,
        absent_ttl: ingest.absent_ttl,
        hot_ttl: HotTtl { default: settings.tables.defaults.ttl, per_table: ttls },
        // No table has this name, so these are the values for all that are not named.
        rules: WriteRules { default: table_rules(&settings.table("")), per_table: rules },
        publish_timeout: settings.kafka.delivery_timeout + BEYOND_DELIVERY,
        max_applied_waits: server(settings).max_waits(),
        relay_batch: ingest.relay_batch,
        relay_interval: ingest.relay_interval,
        checkpoint_interval: ingest.checkpoint_interval,
        table_refresh: settings.table_refresh,
        tables: TableOptions {
            topic_template: settings.kafka.topic_template.clone(),
            log: LogSettings { allow_single_node: settings.kafka.allow_single_node },
            per_table: overrides,
        },
        ..IngestOptions::default()
    })
}

fn table_rules(effective: &config::EffectiveTable) -> TableRules {
    TableRules {
        ack: match effective.ack {
            config::Ack::Logged => AckLevel::Logged,
            config::Ack::Queued => AckLevel::Queued,
            config::Ack::Applied => AckLevel::Applied,
        },
        max_backlog: MaxBacklog {
            records: effective.max_backlog_records,
            bytes: effective.max_backlog_bytes,
            age: effective.max_backlog_age,
        },
        max_parked: effective.max_parked_records,
    }
}

fn table(name: &str) -> Result<TableRef, OptionsError> {
    let (database, table) = name.split_once('.').ok_or_else(|| OptionsError::TableWithoutDatabase(name.to_owned()))?;
    let invalid = |error| OptionsError::Name { key: format!("tables.per_table.{name}"), error };
    Ok(TableRef {
        database: DatabaseName::new(database).map_err(invalid)?,
        table: TableName::new(table).map_err(invalid)?,
    })
}

fn table_override(name: &str, effective: config::EffectiveTable) -> Result<TableOverride, OptionsError> {
    let key = |field: &str| format!("tables.per_table.{name}.{field}");
    let namespace =
        Namespace::new(effective.namespace).map_err(|error| OptionsError::Name { key: key("namespace"), error })?;
    let group_by = effective
        .group_by
        .iter()
        .map(ColumnName::new)
        .collect::<Result<_, _>>()
        .map_err(|error| OptionsError::Name { key: key("group_by"), error })?;
    let indexed_fields = effective
        .indexed_fields
        .iter()
        .map(ColumnName::new)
        .collect::<Result<_, _>>()
        .map_err(|error| OptionsError::Name { key: key("indexed_fields"), error })?;
    let create_check = match effective.create_check {
        config::CreateCheck::Database => CreateCheck::Database,
        config::CreateCheck::HotStore => CreateCheck::HotStore,
    };
    Ok(TableOverride { namespace: Some(namespace), group_by, create_check, indexed_fields })
}

/// The name of this machine, for people who read logs and fences.
struct Host;

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::fs::read_to_string("/proc/sys/kernel/hostname") {
            Ok(name) if !name.trim().is_empty() => f.write_str(name.trim()),
            _ => f.write_str("unknown host"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn settings(flags: &[&str]) -> Settings {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        Settings::load(config::ConfigSources { flags, ..Default::default() }).unwrap()
    }

    const DATABASE: &str = "databases=[{name: main, url: 'mysql://localhost/pay'}]";

    #[test]
    fn what_is_set_per_table_reaches_the_table() {
        let settings = settings(&[
            DATABASE,
            "tables.defaults.ttl=5m",
            "tables.per_table={main.payments: {ttl: 1h, ack: logged, max_backlog_records: 5, namespace: p, group_by: [tenant], create_check: hot_store, indexed_fields: [status]}}",
        ]);
        let options = ingest(&settings).unwrap();
        let payments = table("main.payments").unwrap();
        let others = table("main.others").unwrap();
        assert_eq!(options.hot_ttl.of(&payments), Duration::from_secs(3600));
        assert_eq!(options.hot_ttl.of(&others), Duration::from_secs(300));
        let (rules, general) = (options.rules.of(&payments), options.rules.of(&others));
        assert_eq!((rules.ack, general.ack), (AckLevel::Logged, AckLevel::Queued));
        assert_eq!((rules.max_backlog.records, general.max_backlog.records), (Some(5), None));
        let own = &options.tables.per_table[&payments];
        assert_eq!(own.namespace.as_ref().map(Namespace::as_str), Some("p"));
        assert_eq!((own.group_by.len(), own.create_check), (1, CreateCheck::HotStore));
        assert_eq!(own.indexed_fields, [ColumnName::new("status").unwrap()]);
        assert!(options.publish_timeout > settings.kafka.delivery_timeout);
    }

    #[test]
    fn the_defaults_of_the_use_cases_are_those_of_the_configuration() {
        let settings = settings(&[DATABASE]);
        let (from_settings, built_in) = (ingest(&settings).unwrap(), IngestOptions::default());
        let without_name = IngestOptions { replica: built_in.replica.clone(), ..from_settings };
        assert_eq!(format!("{without_name:?}"), format!("{built_in:?}"));
    }

    #[test]
    fn a_name_that_can_t_be_used_is_told_with_its_key() {
        let error = table("payments").unwrap_err().to_string();
        assert!(error.contains("tables.per_table.payments"), "{error}");
        assert!(matches!(table("UPPER.t"), Err(OptionsError::Name { .. })));
    }
}
