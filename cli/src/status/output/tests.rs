#![allow(clippy::unwrap_used)]

use shock_absorber_client::{ProtoDuration, ProtoTableRef, ProtoTimestamp, ReplicaTable, TableBacklog};

use super::*;

fn lasting(seconds: i64) -> Option<ProtoDuration> {
    Some(ProtoDuration { seconds, nanos: 0 })
}

fn payments() -> Option<ProtoTableRef> {
    Some(ProtoTableRef { database: "main".into(), table: "payments".into() })
}

fn pause(table: Option<ProtoTableRef>) -> Hold {
    let since = Some(ProtoTimestamp { seconds: 1_700_000_000, nanos: 0 });
    Hold { kind: HoldKind::Pause.into(), table, reason: "upgrade".into(), by: "ann".into(), since }
}

fn drained() -> TableStatus {
    TableStatus {
        table: payments(),
        enabled: true,
        backlog: Some(TableBacklog { records: 12_345, bytes: 7, oldest_age: lasting(200), parked: 3 }),
        rows_per_second: Some(48.04),
        limit: Some(TableLimit::LimitRowsPerSecond(50.0)),
        empty_in: lasting(257),
        state: TableState::Running.into(),
        ..TableStatus::default()
    }
}

fn status(table: TableStatus) -> Status {
    let range = |first, last| PartitionRange { first, last };
    let owned = ReplicaTable {
        table: payments(),
        partitions: vec![range(0, 4), range(7, 7)],
        rows_per_second: 24.0,
        gathered: 120,
        ..ReplicaTable::default()
    };
    let replica = ReplicaStatus { replica: "drain-1".into(), tables: vec![owned], ..ReplicaStatus::default() };
    Status { tables: vec![table], replicas: vec![replica], shards: 8, shards_open: 8, ..Status::default() }
}

#[test]
fn a_table_that_is_drained_fills_a_line() {
    let text = text(&status(drained()));
    let expected = "\
TABLE          STATE    WAITING  OLDEST      ROWS/S OF LIMIT  EMPTY IN    PARKED
main.payments  running  12345    3 min 20 s  48.0 of 50       4 min 17 s  3

1 drain replicas
  drain-1: main.payments 0-4,7 (24.0 rows/s, 120 gathered)
";
    assert_eq!(text, expected);
}

#[test]
fn what_is_not_known_is_said() {
    let table = TableStatus { table: payments(), enabled: true, ..TableStatus::default() };
    let unknown = vec!["what operators have stopped: refused".to_owned()];
    let text = text(&Status { tables: vec![table], unknown, shards: 8, shards_open: 5, ..Status::default() });
    assert!(text.contains("main.payments  ?      ?        ?       ? of ?           ?         ?\n"), "{text}");
    assert!(text.contains("5 of 8 shards could be looked at\nnot known: what operators have stopped: refused\n"));
}

#[test]
fn who_stopped_it_and_why_stands_below() {
    let table = TableStatus {
        holds: vec![pause(payments()), pause(None)],
        state: TableState::Paused.into(),
        empty_in: None,
        attempts: 2,
        last_cause: "deadlock".into(),
        ..drained()
    };
    let text = text(&Status { holds: vec![pause(None)], ..status(table) });
    assert!(text.contains("paused  12345") && text.contains("never, as it is"), "{text}");
    assert!(text.contains("main.payments: paused by ann since 2023-11-14T22:13:20Z: upgrade\n"), "{text}");
    assert!(text.contains("everything: paused by ann since 2023-11-14T22:13:20Z: upgrade\n"), "{text}");
    assert!(text.contains("main.payments: 2 attempts failed, the last one since deadlock\n"), "{text}");
}

#[test]
fn a_bar_goes_from_the_most_that_waited_to_nothing() {
    let mut progress = Progress::default();
    let mut bar = |records| {
        let backlog = Some(TableBacklog { records, ..TableBacklog::default() });
        progress.bar(&status(TableStatus { backlog, ..drained() }))
    };
    assert_eq!(bar(0), None);
    assert!(bar(100).unwrap().starts_with("[....") && bar(200).unwrap().ends_with("0 %, 200 of 200 wait"));
    assert!(bar(50).unwrap().ends_with("75 %, 50 of 200 wait"));
    assert_eq!(bar(0), None);
    assert!(bar(10).unwrap().ends_with("0 %, 10 of 10 wait"), "another surge begins anew");
}

#[test]
fn json_tells_the_same() {
    let told = json(&status(TableStatus { holds: vec![pause(payments())], ..drained() }));
    let table = &told["tables"][0];
    assert_eq!((&table["table"], &table["backlog"]["records"]), (&json!("main.payments"), &json!(12_345)));
    assert_eq!((&table["limit"], &table["empty_in_seconds"]), (&json!(50.0), &json!(257.0)));
    assert_eq!((&table["holds"][0]["kind"], &table["holds"][0]["by"]), (&json!("pause"), &json!("ann")));
    assert_eq!(told["replicas"][0]["tables"][0]["partitions"], json!("0-4,7"));
    let unknown = json(&status(TableStatus::default()));
    assert_eq!((&unknown["tables"][0]["backlog"], &unknown["tables"][0]["limit"]), (&Value::Null, &Value::Null));
}
