#![allow(clippy::unwrap_used)]

use model::TableName;
use tokio::time::advance;

use super::*;

fn table(name: &str) -> TableRef {
    TableRef { database: database(), table: TableName::new(name).unwrap() }
}

fn database() -> DatabaseName {
    DatabaseName::new("main").unwrap()
}

fn report(board: &Board) -> ReplicaReport {
    board.report("a", "1", Instant::now())
}

#[test]
fn neighbours_are_told_as_ranges() {
    let ranges_of = |shards: &[u16]| ranges(&shards.iter().copied().map(Shard).collect::<Vec<_>>());
    assert_eq!(ranges_of(&[]), []);
    assert_eq!(ranges_of(&[7]), [(7, 7)]);
    assert_eq!(ranges_of(&[3, 1, 2, 9, 10, 5]), [(1, 3), (5, 5), (9, 10)]);
    assert_eq!(ranges_of(&[u16::MAX - 1, u16::MAX]), [(u16::MAX - 1, u16::MAX)]);
}

#[tokio::test(start_paused = true)]
async fn the_present_rate_is_that_of_the_last_ten_seconds() {
    let (board, payments) = (Board::default(), table("payments"));
    let rate = |board: &Board| report(board).tables[0].rows_per_second;
    board.wrote(&payments, 1000);
    assert_eq!(rate(&board), 0.0, "nobody knows how long that took");
    for _ in 0..5 {
        advance(Duration::from_secs(1)).await;
        board.wrote(&payments, 20);
        assert_eq!(rate(&board), 20.0);
    }
    // A rate below one per second shows as well.
    for _ in 0..15 {
        advance(Duration::from_secs(1)).await;
        rate(&board);
    }
    board.wrote(&payments, 1);
    assert_eq!(rate(&board), 0.1);
    assert_eq!(report(&board).tables[0].rows_written, 1101);
    for _ in 0..1000 {
        rate(&board);
    }
    advance(RATE_WINDOW).await;
    rate(&board);
    assert!(board.state().tables[&payments].samples.len() <= 2, "what is older than the window is forgotten");
}

#[tokio::test(start_paused = true)]
async fn who_owns_no_more_partitions_of_a_table_shows_none() {
    let board = Board::default();
    let owned = |tables: &[(&str, &[u16])]| {
        let shards = |shards: &[u16]| shards.iter().copied().map(Shard).collect();
        board.owns(tables.iter().map(|(name, of)| (table(name), shards(of))).collect());
        report(&board).tables.into_iter().map(|table| (table.table, table.partitions)).collect::<Vec<_>>()
    };
    assert_eq!(owned(&[("a", &[0, 1]), ("b", &[4])]), [("a".into(), vec![(0, 1)]), ("b".into(), vec![(4, 4)])]);
    assert_eq!(owned(&[("b", &[5])]), [("a".into(), vec![]), ("b".into(), vec![(5, 5)])]);
}

#[tokio::test(start_paused = true)]
async fn what_stops_a_table_is_told_and_an_operator_before_all_else() {
    let (board, payments) = (Board::default(), table("payments"));
    let state = || {
        let table = report(&board).tables.remove(0);
        (table.state, table.why)
    };
    board.limited(&payments, Some(50.0), 2);
    assert_eq!(state(), (TableState::Running, String::new()));
    board.drifted(&payments, Some("no column amount"));
    assert_eq!(state(), (TableState::SchemaDrift, "no column amount".to_owned()));
    board.paused(&payments, Some("ann: upgrade"));
    assert_eq!(state(), (TableState::Paused, "ann: upgrade".to_owned()));
    board.paused(&payments, None);
    assert_eq!(state().0, TableState::SchemaDrift);
    board.drifted(&payments, None);
    assert_eq!(state(), (TableState::Running, String::new()));
}

#[tokio::test(start_paused = true)]
async fn failures_count_until_something_is_written() {
    let (board, payments) = (Board::default(), table("payments"));
    board.failed(&payments, "deadlock");
    board.failed(&payments, &"x".repeat(10_000));
    let told = report(&board).tables.remove(0);
    assert_eq!((told.attempts, told.last_cause.len()), (2, MAX_CAUSE));
    board.wrote(&payments, 0);
    assert_eq!(report(&board).tables[0].attempts, 0);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_tells_how_long_it_stays_open() {
    let board = Board::default();
    board.breaker(&database(), Breaker::Open { until: Instant::now() + Duration::from_secs(4) });
    board.adaptive_rate(&database(), Some(70.0));
    advance(Duration::from_secs(1)).await;
    let told = report(&board).databases.remove(0);
    assert_eq!((told.breaker, told.retry_in_ms, told.adaptive_rate), (BreakerState::Open, 3000, Some(70.0)));
    board.breaker(&database(), Breaker::HalfOpen);
    assert_eq!(report(&board).databases[0].breaker, BreakerState::HalfOpen);
}

#[tokio::test(start_paused = true)]
async fn a_report_is_bounded_and_says_what_it_left_out() {
    let board = Board::default();
    for number in 0..MAX_TABLES + 3 {
        board.wrote(&table(&format!("t{number}")), 1);
    }
    let told = report(&board);
    assert_eq!((told.tables.len(), told.tables_left_out), (MAX_TABLES, 3));
}
