//! What drain replicas tell of themselves.

use hot_store::{HotStore, MAX_REPORTS, REPORT_TTL, ReplicaReport, TableReport, TableState};

use super::{Backend, kit::*};

fn report(replica: &str, incarnation: &str, rows_written: u64) -> ReplicaReport {
    let table = TableReport {
        database: "main".into(),
        table: "payments".into(),
        partitions: vec![(0, 4), (7, 7)],
        rows_written,
        rows_per_second: 0.1,
        limit: Some(0.2),
        batch_rows: 1,
        state: TableState::Paused,
        why: "\"ann\": żółć".into(),
        ..TableReport::default()
    };
    let (replica, incarnation) = (replica.into(), incarnation.into());
    ReplicaReport { replica, incarnation, tables: vec![table], ..ReplicaReport::default() }
}

async fn listed(b: &impl Backend) -> Vec<ReplicaReport> {
    b.store().reports().await.unwrap().into_iter().map(|seen| seen.report).collect()
}

pub async fn the_last_report_of_each_replica_is_shown(b: &impl Backend) {
    assert_eq!(listed(b).await, []);
    for told in [report("b", "2", 1), report("a", "9", 1), report("b", "1", 1), report("b", "2", 70)] {
        b.store().report(&told).await.unwrap();
    }
    assert_eq!(listed(b).await, [report("a", "9", 1), report("b", "1", 1), report("b", "2", 70)]);
    assert!(b.store().reports().await.unwrap().iter().all(|seen| seen.ago < REPORT_TTL));
    // Whoever ends says so, perhaps twice.
    for _ in 0..2 {
        b.store().withdraw_report("1").await.unwrap();
        assert_eq!(listed(b).await, [report("a", "9", 1), report("b", "2", 70)]);
    }
}

pub async fn who_tells_nothing_any_more_is_shown_no_more(b: &impl Backend) {
    b.store().report(&report("a", "1", 1)).await.unwrap();
    tokio::time::sleep(REPORT_TTL / 2).await;
    b.store().report(&report("b", "2", 1)).await.unwrap();
    eventually("the older one is gone", async || listed(b).await == [report("b", "2", 1)]).await;
    let seen = b.store().reports().await.unwrap();
    assert!(seen[0].ago >= REPORT_TTL / 4, "{:?}", seen[0].ago);
    eventually("both are gone", async || listed(b).await.is_empty()).await;
}

pub async fn so_many_reports_are_kept_at_most(b: &impl Backend) {
    for number in 0..MAX_REPORTS + 3 {
        b.store().report(&report("a", &format!("{number:05}"), 1)).await.unwrap();
    }
    assert_eq!(listed(b).await.len(), MAX_REPORTS);
}
