//! Budgets.

use std::time::Duration;

use hot_store::{Budget, Grant};
use tokio::time::Instant;

use super::Backend;

async fn take(b: &impl Backend, name: &str, rows: u32, rate: f64) -> Grant {
    b.store().take(name, rows, rate).await.unwrap()
}

async fn take_patiently(b: &impl Backend, name: &str, rows: u32, rate: f64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Grant::After(wait) = take(b, name, rows, rate).await {
        assert!(Instant::now() < deadline, "never granted");
        tokio::time::sleep(wait).await;
    }
}

pub async fn no_second_sees_more_than_the_rate_and_one_batch(b: &impl Backend) {
    let (rate, batch) = (100.0, 5);
    let start = Instant::now();
    // Three replicas that ask again as soon as they may.
    let replica = async || {
        let mut granted = Vec::new();
        while start.elapsed() < Duration::from_millis(2200) {
            take_patiently(b, "table", batch, rate).await;
            granted.push(start.elapsed());
        }
        granted
    };
    let (one, two, three) = tokio::join!(replica(), replica(), replica());
    let mut granted = [one, two, three].concat();
    granted.sort();
    for (i, from) in granted.iter().enumerate() {
        let within = granted[i..].iter().take_while(|at| **at < *from + Duration::from_secs(1)).count();
        assert!(within as f64 * f64::from(batch) <= rate + f64::from(batch), "{within} batches within a second");
    }
    // And it is a limit, not a stop: on a busy machine some of it may go unused.
    assert!(granted.len() >= 20, "{} batches in 2.2 seconds", granted.len());
}

pub async fn less_than_one_row_per_second_works(b: &impl Backend) {
    let Grant::After(wait) = take(b, "slow", 1, 0.1).await else { panic!("granted") };
    assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
    take_patiently(b, "slow", 1, 5.0).await;
    let Grant::After(wait) = take(b, "slow", 1, 0.1).await else { panic!("granted") };
    assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
}

pub async fn budgets_do_not_touch_each_other(b: &impl Backend) {
    take_patiently(b, "a", 1, 1000.0).await;
    take_patiently(b, "b", 1, 1000.0).await;
    take_patiently(b, "a", 1, 1000.0).await;
    assert!(matches!(take(b, "a", 1, 0.01).await, Grant::After(_)));
    take_patiently(b, "b", 1, 1000.0).await;
}

pub async fn a_raised_limit_holds_at_once(b: &impl Backend) {
    take_patiently(b, "table", 10, 1000.0).await;
    let Grant::After(wait) = take(b, "table", 10, 0.1).await else { panic!("granted") };
    assert!(wait > Duration::from_secs(99), "{wait:?}");
    let Grant::After(wait) = take(b, "table", 10, 20.0).await else { panic!("granted") };
    assert!(wait <= Duration::from_millis(500), "{wait:?}");
}

pub async fn no_rate_grants_nothing_and_no_rows_cost_nothing(b: &impl Backend) {
    for rate in [0.0, -1.0, f64::NAN] {
        for _ in 0..2 {
            assert!(matches!(take(b, "none", 1, rate).await, Grant::After(_)), "{rate}");
        }
    }
    for _ in 0..3 {
        assert_eq!(take(b, "free", 0, 1.0).await, Grant::Now);
        assert_eq!(take(b, "free", 1000, f64::INFINITY).await, Grant::Now);
    }
}
