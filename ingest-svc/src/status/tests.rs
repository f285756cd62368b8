#![allow(clippy::unwrap_used)]

use std::time::Duration;

use database::{CatalogTable, CreateCheck, Hold, HoldKind, HoldScope, Holds, TableSettings};
use hot_store::{BreakerState, DatabaseReport, ReplicaReport, SeenReport, TableReport, TableState};
use jiff::Timestamp;
use model::{DatabaseName, Namespace, TableName, TableRef, TableSchema, Topic, VersionGuard};

use super::*;

fn name() -> TableRef {
    TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("payments").unwrap() }
}

fn table() -> CatalogTable {
    let schema = TableSchema {
        table: name(),
        columns: Vec::new(),
        key_columns: Vec::new(),
        group: Vec::new(),
        has_secondary_unique: false,
        guard: VersionGuard::Column,
    };
    let settings = TableSettings {
        topic: Topic::new("payments").unwrap(),
        namespace: Namespace::new("main.payments").unwrap(),
        group_by: Vec::new(),
        create_check: CreateCheck::Database,
        indexed_fields: Vec::new(),
    };
    CatalogTable::new(schema, true, settings, None)
}

fn part(rate: f64) -> TableReport {
    TableReport {
        database: "main".into(),
        table: "payments".into(),
        partitions: vec![(0, 1)],
        rows_per_second: rate,
        limit: Some(50.0),
        state: TableState::Running,
        ..TableReport::default()
    }
}

fn waiting(records: u64) -> Option<TableBacklog> {
    Some(TableBacklog { records, ..TableBacklog::default() })
}

fn status(backlog: Option<TableBacklog>, parts: &[TableReport], databases: &[DatabaseReport]) -> TableStatus {
    one(&table(), backlog, &parts.iter().collect::<Vec<_>>(), databases, &Holds::default())
}

#[test]
fn the_rate_is_that_of_all_replicas_and_tells_when_nothing_will_wait() {
    let told = status(waiting(90), &[part(20.0), part(10.0)], &[]);
    assert_eq!((told.rows_per_second, told.limit), (Some(30.0), Some(TableLimit::RowsPerSecond(50.0))));
    assert_eq!((told.state, told.empty_in), (State::Running, Some(Duration::from_secs(3))));
    assert_eq!(status(waiting(0), &[], &[]).empty_in, Some(Duration::ZERO));
    let free = TableReport { limit: None, ..part(0.0) };
    let told = status(waiting(1), &[free], &[]);
    assert_eq!((told.limit, told.empty_in), (Some(TableLimit::Unlimited), None), "at no rate it takes for ever");
}

#[test]
fn what_nobody_tells_is_not_known() {
    let told = status(None, &[], &[]);
    assert_eq!((told.rows_per_second, told.limit, told.empty_in), (None, None, None));
    assert_eq!((told.state, told.backlog), (State::Unknown, None));
}

#[test]
fn the_worst_replica_decides_and_an_operator_before_all() {
    let drifted = TableReport { state: TableState::SchemaDrift, why: "no column".into(), ..part(0.0) };
    // Who owns nothing has nothing to say.
    let idle = TableReport { partitions: Vec::new(), state: TableState::Paused, ..part(0.0) };
    let failing = TableReport { attempts: 3, last_cause: "deadlock".into(), ..part(1.0) };
    let told = status(waiting(1), &[drifted.clone(), idle, failing], &[]);
    assert_eq!((told.state, told.why.as_str()), (State::SchemaDrift, "no column"));
    assert_eq!((told.attempts, told.last_cause.as_str()), (3, "deadlock"));
    let open = |database: &str, breaker| DatabaseReport { database: database.into(), breaker, ..Default::default() };
    assert_eq!(status(None, &[part(1.0)], &[open("main", BreakerState::Open)]).state, State::BreakerOpen);
    assert_eq!(status(None, &[part(1.0)], &[open("other", BreakerState::Open)]).state, State::Running);
    assert_eq!(status(None, &[part(1.0)], &[open("main", BreakerState::Closed)]).state, State::Running);

    let hold = |scope, kind| Hold { scope, kind, reason: "r".into(), by: "ann".into(), since: Timestamp::UNIX_EPOCH };
    let other = TableRef { table: TableName::new("orders").unwrap(), ..name() };
    let list = vec![
        hold(HoldScope::Everything, HoldKind::DrainDown),
        hold(HoldScope::Table(other), HoldKind::Pause),
        hold(HoldScope::Table(name()), HoldKind::Pause),
    ];
    let told = one(&table(), waiting(1), &[&drifted], &[], &Holds { revision: 1, list });
    assert_eq!((told.state, told.why.as_str(), told.holds.len()), (State::Paused, "ann: r", 2));
}

#[test]
fn of_a_database_the_worst_view_is_told() {
    let seen = |breaker| {
        let databases = vec![DatabaseReport { database: "main".into(), breaker, ..Default::default() }];
        SeenReport { report: ReplicaReport { databases, ..Default::default() }, ago: Duration::ZERO }
    };
    let told = databases(&[seen(BreakerState::Closed), seen(BreakerState::Open), seen(BreakerState::HalfOpen)]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].breaker, BreakerState::Open);
}
