//! How it goes, and what operators stop, in the words of the API.

use std::time::Duration;

use database::{Hold, HoldKind, HoldScope};
use hot_store::{BreakerState, DatabaseReport, SeenReport, TableReport};
use model::TableRef;
use proto::{Reason, v1};

use super::{failure::Failure, request::Databases, value::timestamp_to_proto};
use crate::{
    holds::{DrainDown, HoldError},
    status::{State, Status, TableLimit, TableStatus},
};

impl From<HoldError> for Failure {
    fn from(error: HoldError) -> Self {
        let message = error.to_string();
        match error {
            HoldError::NotEnabled(table) => Self::new(Reason::TableNotEnabled, message).with("table", table),
            HoldError::Database(_) => Self::new(Reason::DatabaseUnavailable, message),
        }
    }
}

/// Of what something is stopped: a table that is named, or everything.
pub(super) fn scope(databases: &Databases, table: Option<v1::TableRef>) -> Result<HoldScope, Failure> {
    match table {
        None => Ok(HoldScope::Everything),
        named => databases.table(named).map(HoldScope::Table),
    }
}

fn table_ref(table: &TableRef) -> v1::TableRef {
    v1::TableRef { database: table.database.to_string(), table: table.table.to_string() }
}

pub(super) fn hold(hold: Hold) -> v1::Hold {
    let kind = match hold.kind {
        HoldKind::Pause => v1::HoldKind::Pause,
        HoldKind::DrainDown => v1::HoldKind::DrainDown,
    };
    v1::Hold {
        kind: kind.into(),
        table: match &hold.scope {
            HoldScope::Everything => None,
            HoldScope::Table(table) => Some(table_ref(table)),
        },
        reason: hold.reason,
        by: hold.by,
        since: Some(timestamp_to_proto(hold.since)),
    }
}

pub(super) fn holds(holds: Vec<Hold>) -> Vec<v1::Hold> {
    holds.into_iter().map(hold).collect()
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

pub(super) fn status(status: Status) -> v1::GetStatusResponse {
    v1::GetStatusResponse {
        tables: status.tables.into_iter().map(table).collect(),
        databases: status.databases.into_iter().map(database).collect(),
        replicas: status.replicas.into_iter().map(replica).collect(),
        holds: holds(status.holds),
        shards: status.shards.into(),
        shards_open: status.shards_open.into(),
        unknown: status.unknown,
    }
}

fn table(table: TableStatus) -> v1::TableStatus {
    use v1::table_status::Limit;
    let state = match table.state {
        State::Unknown => v1::TableState::Unspecified,
        State::Running => v1::TableState::Running,
        State::BreakerOpen => v1::TableState::BreakerOpen,
        State::SchemaDrift => v1::TableState::SchemaDrift,
        State::Paused => v1::TableState::Paused,
    };
    v1::TableStatus {
        table: Some(table_ref(&table.table)),
        enabled: table.enabled,
        backlog: table.backlog.map(|backlog| v1::TableBacklog {
            records: backlog.records,
            bytes: backlog.bytes,
            oldest_age: duration(backlog.oldest_age),
            parked: backlog.parked,
        }),
        rows_per_second: table.rows_per_second,
        limit: table.limit.map(|limit| match limit {
            TableLimit::RowsPerSecond(rate) => Limit::LimitRowsPerSecond(rate),
            TableLimit::Unlimited => Limit::Unlimited(true),
        }),
        empty_in: table.empty_in.and_then(duration),
        state: state.into(),
        why: table.why,
        attempts: table.attempts,
        last_cause: table.last_cause,
        holds: holds(table.holds),
    }
}

fn database(database: DatabaseReport) -> v1::DatabaseStatus {
    let breaker = match database.breaker {
        BreakerState::Unknown => v1::BreakerState::Unspecified,
        BreakerState::Closed => v1::BreakerState::Closed,
        BreakerState::Open => v1::BreakerState::Open,
        BreakerState::HalfOpen => v1::BreakerState::HalfOpen,
    };
    v1::DatabaseStatus {
        database: database.database,
        breaker: breaker.into(),
        retry_in: duration(Duration::from_millis(database.retry_in_ms)).filter(|_| database.retry_in_ms > 0),
        adaptive_rows_per_second: database.adaptive_rate,
    }
}

fn replica(seen: SeenReport) -> v1::ReplicaStatus {
    v1::ReplicaStatus {
        replica: seen.report.replica,
        incarnation: seen.report.incarnation,
        told_ago: duration(seen.ago),
        tables: seen.report.tables.into_iter().map(replica_table).collect(),
    }
}

fn replica_table(table: TableReport) -> v1::ReplicaTable {
    let range = |(first, last): (u16, u16)| v1::PartitionRange { first: first.into(), last: last.into() };
    v1::ReplicaTable {
        table: Some(v1::TableRef { database: table.database, table: table.table }),
        partitions: table.partitions.into_iter().map(range).collect(),
        rows_written: table.rows_written,
        rows_per_second: table.rows_per_second,
        gathered: table.gathered,
        batch_rows: table.batch_rows,
    }
}

pub(super) fn drain_down(down: DrainDown) -> v1::GetDrainDownResponse {
    v1::GetDrainDownResponse {
        ready: down.is_ready(),
        hold: down.hold.map(hold),
        shards: down.shards.into(),
        refusing: down.refusing.into(),
        unknown: down.unknown.into(),
        records: down.records,
        gathered: down.gathered,
        parked: down.parked,
        paused: down.paused.iter().map(table_ref).collect(),
        problem: down.problem.unwrap_or_default(),
    }
}
