//! Budgets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use hot_store::{AgreedLimit, Budget, Ended, Grant, Limit, Limits, PERMIT_LEASE, Permit, PermitId, Unit};
use tokio::time::{Instant, sleep};

use super::Backend;

/// Rows per second, for a table of the database `main`.
pub fn rows(name: &str, per_second: f64) -> Limit {
    Limit { name: name.to_owned(), unit: Unit::Rows, per_second, unfinished: None }
}

pub fn limits(limits: impl IntoIterator<Item = Limit>) -> Limits {
    Limits { database: "main".to_owned(), limits: limits.into_iter().collect() }
}

pub fn permit(rows: u32) -> Permit {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Permit { id: PermitId(NEXT.fetch_add(1, Ordering::Relaxed)), rows }
}

fn just_now(permit: Permit) -> Ended {
    Ended { permit, ago: Duration::ZERO }
}

/// Takes, and ends at once.
async fn take(b: &impl Backend, name: &str, count: u32, rate: f64) -> Grant {
    let (limits, permit) = (limits([rows(name, rate)]), permit(count));
    let granted = b.store().take(&limits, permit, &[]).await.unwrap();
    if matches!(granted, Grant::Now(_)) {
        b.store().tell(&limits, &[], &[just_now(permit)]).await.unwrap();
    }
    granted
}

async fn take_patiently(b: &impl Backend, name: &str, count: u32, rate: f64) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while let Grant::After(wait) = take(b, name, count, rate).await {
        assert!(Instant::now() < deadline, "never granted");
        sleep(wait).await;
    }
}

/// Waits until it is granted; says after how long.
async fn granted(b: &impl Backend, limits: &Limits, permit: Permit, ended: &[Ended]) -> Duration {
    let (begun, mut ended) = (Instant::now(), ended);
    loop {
        match b.store().take(limits, permit, std::mem::take(&mut ended)).await.unwrap() {
            Grant::Now(_) => return begun.elapsed(),
            Grant::After(wait) => sleep(wait).await,
            Grant::Busy => sleep(Duration::from_millis(5)).await,
        }
        assert!(begun.elapsed() < Duration::from_secs(90), "never granted");
    }
}

fn after(grant: Grant) -> Duration {
    match grant {
        Grant::After(wait) => wait,
        other => panic!("{other:?}"),
    }
}

pub async fn no_second_sees_more_than_the_rate_and_one_batch_however_long_batches_take(b: &impl Backend) {
    let (rate, batch) = (100.0, 5);
    let limits = limits([Limit { unfinished: Some(2), ..rows("table", rate) }]);
    let start = Instant::now();
    // Three replicas that ask again as soon as they may. What they have got is committed at some time or other before
    // its end; now and then it is held up.
    let replica = async |number: u32| {
        let (mut commits, mut ended) = (Vec::new(), Vec::new());
        for turn in 0.. {
            let permit = permit(batch);
            granted(b, &limits, permit, &ended).await;
            let held_up = if (turn + number) % 9 == 8 { 300 } else { 0 };
            let took = Duration::from_millis(u64::from((turn * 7 + number * 11) % 23 + held_up));
            let before = if (turn + number).is_multiple_of(2) { took } else { Duration::ZERO };
            sleep(before).await;
            commits.push(start.elapsed());
            sleep(took - before).await;
            ended = vec![just_now(permit)];
            if start.elapsed() > Duration::from_millis(4200) {
                b.store().tell(&limits, &[], &ended).await.unwrap();
                break;
            }
        }
        commits
    };
    let (one, two, three) = tokio::join!(replica(0), replica(1), replica(2));
    let mut commits = [one, two, three].concat();
    commits.sort();
    for (i, from) in commits.iter().enumerate() {
        let within = commits[i..].iter().take_while(|at| **at < *from + Duration::from_secs(1)).count();
        assert!(within as f64 * f64::from(batch) <= rate + f64::from(batch), "{within} batches within a second");
    }
    // And it is a limit, not a stop: on a busy machine some of it may go unused.
    assert!(commits.len() >= 30, "{} batches in 4.2 seconds, the first of which is a pause", commits.len());
}

pub async fn a_limit_that_is_not_known_begins_with_a_pause(b: &impl Backend) {
    for rate in [2.0, 100.0, 1e6] {
        let limits = limits([rows(&format!("at {rate}"), rate)]);
        let wait = after(b.store().take(&limits, permit(1), &[]).await.unwrap());
        assert!(wait > Duration::from_millis(900) && wait <= Duration::from_millis(1010), "{rate}: {wait:?}");
        // However often it is asked.
        let again = after(b.store().take(&limits, permit(1), &[]).await.unwrap());
        assert!(again <= wait, "{rate}: {again:?} after {wait:?}");
        sleep(again).await;
        let granted = b.store().take(&limits, permit(1), &[]).await.unwrap();
        assert!(matches!(granted, Grant::Now(_)), "{rate}: {granted:?}");
    }
}

pub async fn less_than_one_row_per_second_works(b: &impl Backend) {
    let wait = after(take(b, "slow", 1, 0.1).await);
    assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
    take_patiently(b, "slow", 1, 0.8).await;
    // Evenly, and never two at once.
    let begun = Instant::now();
    take_patiently(b, "slow", 1, 0.8).await;
    assert!(begun.elapsed() > Duration::from_millis(1190), "{:?}", begun.elapsed());
}

pub async fn limits_do_not_touch_each_other(b: &impl Backend) {
    for name in ["a", "b"] {
        take_patiently(b, name, 1, 1000.0).await;
    }
    take_patiently(b, "a", 400, 1000.0).await;
    match take(b, "b", 1, 1000.0).await {
        Grant::After(wait) => assert!(wait < Duration::from_millis(100), "{wait:?}"),
        granted => assert!(matches!(granted, Grant::Now(_)), "{granted:?}"),
    }
    let other = Limits { database: "other".to_owned(), ..limits([rows("a", 1000.0)]) };
    let wait = after(b.store().take(&other, permit(1), &[]).await.unwrap());
    assert!(wait > Duration::from_millis(900), "another database's table of that name is not known yet: {wait:?}");
}

pub async fn a_raised_limit_holds_at_once_and_a_lowered_one_from_the_next_grant_on(b: &impl Backend) {
    take_patiently(b, "table", 10, 20.0).await;
    let wait = after(take(b, "table", 10, 20.0).await);
    assert!(wait > Duration::from_millis(300) && wait <= Duration::from_millis(510), "{wait:?}");
    let wait = after(take(b, "table", 10, 0.1).await);
    assert!(wait > Duration::from_millis(700) && wait <= Duration::from_millis(1010), "a second without it: {wait:?}");
    sleep(wait).await;
    assert!(matches!(take(b, "table", 1, 0.1).await, Grant::Now(_)));
    let wait = after(take(b, "table", 1, 0.1).await);
    assert!(wait > Duration::from_secs(9) && wait <= Duration::from_secs(10), "{wait:?}");
    take_patiently(b, "table", 1, 1000.0).await;
}

pub async fn a_limit_can_count_transactions(b: &impl Backend) {
    let limits = limits([Limit { unit: Unit::Transactions, ..rows("transactions", 4.0) }]);
    let first = permit(500);
    granted(b, &limits, first, &[]).await;
    let wait = after(b.store().take(&limits, permit(500), &[just_now(first)]).await.unwrap());
    assert!(wait > Duration::from_millis(100) && wait <= Duration::from_millis(250), "{wait:?}");
}

pub async fn a_batch_passes_all_limits_or_none(b: &impl Backend) {
    let (table, database) = (rows("rows:payments", 1000.0), rows("rows", 20.0));
    let both = limits([table.clone(), database.clone()]);
    let first = permit(10);
    granted(b, &both, first, &[]).await;
    b.store().tell(&both, &[], &[just_now(first)]).await.unwrap();
    // The database's limit is used up for half a second, and so nothing is taken of the table's.
    for _ in 0..200 {
        let wait = after(b.store().take(&both, permit(10), &[]).await.unwrap());
        assert!(wait <= Duration::from_millis(510), "{wait:?}");
    }
    let table_alone = limits([table]);
    assert!(granted(b, &table_alone, permit(10), &[]).await < Duration::from_millis(400));
    // And the other way round.
    let other = limits([rows("rows:orders", 1e6), database]);
    let waited = granted(b, &other, permit(1), &[]).await;
    assert!(waited > Duration::from_millis(200), "another table of the database has to wait as well: {waited:?}");
}

pub async fn so_many_are_unfinished_at_most(b: &impl Backend) {
    let two = limits([Limit { unfinished: Some(2), ..rows("table", 1e4) }]);
    let (first, second, third) = (permit(1), permit(1), permit(1));
    granted(b, &two, first, &[]).await;
    granted(b, &two, second, &[]).await;
    for _ in 0..3 {
        assert_eq!(b.store().take(&two, third, &[]).await.unwrap(), Grant::Busy);
        sleep(Duration::from_millis(20)).await;
    }
    b.store().tell(&two, &[], &[just_now(first)]).await.unwrap();
    granted(b, &two, third, &[]).await;
    assert_eq!(b.store().take(&two, permit(1), &[]).await.unwrap(), Grant::Busy);
    // What has ended can be told in the very call that asks.
    granted(b, &two, permit(1), &[just_now(second)]).await;
    // Without a rate they still count.
    let no_rate = limits([Limit { unfinished: Some(2), ..rows("table", f64::INFINITY) }]);
    assert_eq!(b.store().take(&no_rate, permit(1), &[]).await.unwrap(), Grant::Busy);
}

pub async fn who_waits_for_longer_goes_first_while_it_asks(b: &impl Backend) {
    let one = limits([Limit { unfinished: Some(1), ..rows("table", 1e4) }]);
    let take = async |permit: Permit, ended: &[Ended]| {
        // One after the other, by any clock.
        sleep(Duration::from_millis(2)).await;
        b.store().take(&one, permit, ended).await.unwrap()
    };
    let (holder, next, waiting) = (permit(1), permit(1), permit(1));
    granted(b, &one, holder, &[]).await;
    assert_eq!(take(waiting, &[]).await, Grant::Busy);
    // Neither in the call that ends the one before, nor by asking more often.
    assert_eq!(take(next, &[just_now(holder)]).await, Grant::Busy);
    assert_eq!(take(next, &[]).await, Grant::Busy);
    assert!(matches!(take(waiting, &[]).await, Grant::Now(_)));
    // And then the other way round, whoever comes meanwhile.
    assert_eq!(take(permit(1), &[just_now(waiting)]).await, Grant::Busy);
    assert!(granted(b, &one, next, &[]).await < Duration::from_millis(50), "nobody is ahead");
    // Who no longer asks is not waited for.
    sleep(Duration::from_millis(100)).await;
    assert!(granted(b, &one, permit(1), &[just_now(next)]).await < Duration::from_millis(50));
}

pub async fn what_was_held_up_counts_when_it_ends(b: &impl Backend) {
    // Both fill a second; a database that stands still for longer than that commits both when it goes on.
    let limits = limits([Limit { unfinished: Some(2), ..rows("table", 100.0) }]);
    let (first, second) = (permit(50), permit(50));
    granted(b, &limits, first, &[]).await;
    granted(b, &limits, second, &[]).await;
    sleep(Duration::from_millis(1500)).await;
    let both = [just_now(first), just_now(second)];
    // They fill the second, and no more than that: one more batch may come now, and the next when they are over.
    let third = permit(5);
    let waited = granted(b, &limits, third, &both).await;
    assert!(waited < Duration::from_millis(300), "{waited:?}");
    let wait = after(b.store().take(&limits, permit(5), &[just_now(third)]).await.unwrap());
    assert!(wait > Duration::from_millis(600), "{wait:?}");
}

pub async fn what_a_larger_batch_adds_must_find_room(b: &impl Backend) {
    let limits = limits([rows("table", 100.0)]);
    let first = permit(50);
    granted(b, &limits, first, &[]).await;
    b.store().tell(&limits, &[], &[just_now(first)]).await.unwrap();
    // What is ended and what is asked for may be the limit and a twentieth of it: 55 more, but not 56.
    sleep(Duration::from_millis(600)).await;
    let wait = after(b.store().take(&limits, permit(56), &[]).await.unwrap());
    assert!(wait > Duration::from_millis(100) && wait < Duration::from_millis(500), "{wait:?}");
    assert!(matches!(b.store().take(&limits, permit(55), &[]).await.unwrap(), Grant::Now(_)));
}

pub async fn an_end_may_be_told_twice_and_of_what_is_not_known(b: &impl Backend) {
    let two = limits([Limit { unfinished: Some(2), ..rows("table", 1000.0) }]);
    let (first, second, third) = (permit(1), permit(1), permit(1));
    for permit in [first, second] {
        granted(b, &two, permit, &[]).await;
    }
    let told = Ended { permit: first, ago: Duration::from_millis(1500) };
    b.store().tell(&two, &[], &[told, told]).await.unwrap();
    granted(b, &two, third, &[]).await;
    b.store().tell(&two, &[], &[told]).await.unwrap();
    assert_eq!(b.store().take(&two, permit(1), &[]).await.unwrap(), Grant::Busy, "it frees nobody else's place");
    // One whose place was taken for free meanwhile did write, and now: that counts.
    b.store().tell(&two, &[], &[just_now(second), just_now(third), just_now(permit(1005))]).await.unwrap();
    let wait = after(b.store().take(&two, permit(1), &[]).await.unwrap());
    assert!(wait > Duration::from_millis(800), "{wait:?}");
}

pub async fn a_permit_falls_free_unless_it_is_renewed(b: &impl Backend) {
    let one = limits([Limit { unfinished: Some(1), ..rows("table", 1000.0) }]);
    let (killed, alive) = (permit(1), permit(1));
    granted(b, &one, killed, &[]).await;
    let begun = Instant::now();
    granted(b, &one, alive, &[]).await;
    let waited = begun.elapsed() + Duration::from_millis(50);
    assert!(waited > PERMIT_LEASE && waited < PERMIT_LEASE + Duration::from_secs(2), "{waited:?}");
    let begun = Instant::now();
    while begun.elapsed() < PERMIT_LEASE + Duration::from_secs(1) {
        sleep(PERMIT_LEASE / 4).await;
        b.store().tell(&one, &[alive], &[]).await.unwrap();
        assert_eq!(b.store().take(&one, permit(1), &[]).await.unwrap(), Grant::Busy);
    }
    // A renewal puts back what the store has forgotten.
    b.store().tell(&one, &[], &[just_now(alive)]).await.unwrap();
    b.store().tell(&one, &[killed], &[]).await.unwrap();
    assert_eq!(b.store().take(&one, permit(1), &[]).await.unwrap(), Grant::Busy);
}

pub async fn no_rate_grants_nothing_and_no_rows_cost_nothing(b: &impl Backend) {
    for rate in [0.0, -1.0, f64::NAN] {
        for _ in 0..2 {
            assert!(matches!(take(b, "none", 1, rate).await, Grant::After(_)), "{rate}");
        }
    }
    for _ in 0..3 {
        assert!(matches!(take(b, "free", 0, 1.0).await, Grant::Now(_)));
        assert!(matches!(take(b, "free", 1000, f64::INFINITY).await, Grant::Now(_)));
    }
}

pub async fn replicas_agree_on_a_limit_and_none_overwrites_what_it_has_not_seen(b: &impl Backend) {
    let limit =
        |per_second, moment| AgreedLimit { per_second, raised: moment, lowered: moment + 1, troubled: moment + 2 };
    let (first, second) = (limit(100.0 / 3.0, 1 << 52), limit(f64::MIN_POSITIVE, 0));
    let before = b.store().agreed("main").await.unwrap();
    assert_eq!(before.limit, None);
    assert!(b.store().agree("main", None, first).await.unwrap());
    assert!(!b.store().agree("main", None, second).await.unwrap(), "another one was agreed on meanwhile");
    assert!(!b.store().agree("main", Some(second), second).await.unwrap());
    assert_eq!(b.store().agreed("main").await.unwrap().limit, Some(first));
    assert_eq!(b.store().agreed("other").await.unwrap().limit, None);

    // Of all that have read the same one, one changes it.
    let change = |to| b.store().agree("main", Some(first), limit(to, 7));
    let (one, two, three) = tokio::join!(change(1.0), change(2.0), change(3.0));
    let outcomes = [one, two, three].map(Result::unwrap);
    assert_eq!(outcomes.iter().filter(|changed| **changed).count(), 1, "{outcomes:?}");
    sleep(Duration::from_millis(50)).await;
    let after = b.store().agreed("main").await.unwrap();
    assert!(after.limit.is_some_and(|limit| limit.raised == 7));
    let passed = after.now - before.now;
    assert!((50_000..20_000_000).contains(&passed), "{passed}");
    // It is no limit that batches pass.
    granted(b, &limits([rows("agreed-on", 1000.0)]), permit(1), &[]).await;
    assert_eq!(b.store().agreed("main").await.unwrap().limit, after.limit);
}
