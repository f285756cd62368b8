//! The payments of the demo: their table, and what happens to each of them. The same seed makes the same payments.

use std::time::Duration;

use jiff::{SignedDuration, civil};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Map, Value, json};

const TENANTS: [&str; 4] = ["north", "south", "east", "west"];

/// A row or some columns, as JSON by column name.
pub(crate) type Columns = Map<String, Value>;

/// One thing that happens to a payment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// It comes in; refused if it is there.
    Create(Columns),
    /// It comes in, or is written again as a whole.
    Put(Columns),
    /// Some columns change.
    Update(Columns),
    /// It is taken away.
    Delete,
}

/// A payment's life: what happens when, counted from the start of the surge.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Life {
    /// The primary key.
    pub(crate) id: String,
    /// What happens, in order.
    pub(crate) steps: Vec<(Duration, Step)>,
}

impl Life {
    /// The row after the first `done` steps; `None`: there is none.
    pub(crate) fn row_after(&self, done: usize) -> Option<Columns> {
        self.steps[..done].iter().fold(None, |row, (_, step)| match step {
            Step::Create(columns) | Step::Put(columns) => Some(columns.clone()),
            Step::Update(changes) => row.map(|mut row: Columns| {
                row.extend(changes.clone());
                row
            }),
            Step::Delete => None,
        })
    }
}

/// Payments that come in at `per_second`: every second one is confirmed or fails soon afterwards, some go through an
/// intermediate state, one in twenty is deleted again. Their ids begin with `run`.
pub(crate) fn lives(run: &str, seed: u64, payments: u32, per_second: u32) -> Vec<Life> {
    let mut rng = StdRng::seed_from_u64(seed);
    let gap = Duration::from_secs(1) / per_second.max(1);
    (0..payments).map(|nth| life(&mut rng, run, nth, gap * nth)).collect()
}

fn life(rng: &mut StdRng, run: &str, nth: u32, at: Duration) -> Life {
    let id = format!("{run}{nth:06}");
    let row = row(rng, &id, nth);
    let mut steps = vec![(at, if nth.is_multiple_of(2) { Step::Create(row) } else { Step::Put(row) })];
    let mut later = at;
    let mut soon = |rng: &mut StdRng| {
        later += Duration::from_millis(rng.random_range(20..400));
        later
    };
    if rng.random_bool(0.2) {
        steps.push((soon(rng), Step::Update(changes(nth, &[("status", json!("PENDING"))]))));
    }
    if rng.random_bool(0.5) {
        let changed = if rng.random_bool(0.9) {
            changes(
                nth,
                &[
                    ("status", json!("SUCCESS")),
                    ("resp_meta", json!({"rrn": rng.random_range(10_u64.pow(11)..10_u64.pow(12))})),
                ],
            )
        } else {
            changes(
                nth,
                &[
                    ("status", json!("FAILED")),
                    ("error_code", json!("U30")),
                    ("error_message", json!("Débit has been failed — लौटाया गया")),
                ],
            )
        };
        steps.push((soon(rng), Step::Update(changed)));
    }
    if rng.random_bool(0.05) {
        steps.push((soon(rng), Step::Delete));
    }
    Life { id, steps }
}

fn row(rng: &mut StdRng, id: &str, nth: u32) -> Columns {
    let amount = rng.random_range(100_u64..5_000_000);
    let customer = rng.random_range(1..400);
    let at = instant(nth, 0);
    let row = json!({
        "id": id,
        "amount": format!("{}.{:02}", amount / 100, amount % 100),
        "currency": "INR",
        "payer_upi": format!("customer{customer}@upi"),
        "payee_upi": format!("shop{}@upi", rng.random_range(1..50)),
        "tenant": TENANTS[rng.random_range(0..TENANTS.len())],
        "customer": format!("c-{customer}"),
        "leg": "DEBIT",
        "action": "PAY",
        "status": "INITIATED",
        "error_code": null,
        "error_message": null,
        "payer": {"name": "Łukasz 👋", "account": rng.random_range(10_u64.pow(15)..10_u64.pow(16))},
        "payees": [{"share": 100}],
        "meta": {"device": "android", "attempt": 1},
        "resp_meta": null,
        "convenience_fee": "0.00",
        "created_at": at,
        "updated_at": at,
    });
    match row {
        Value::Object(columns) => columns,
        _ => Columns::new(),
    }
}

fn changes(nth: u32, columns: &[(&str, Value)]) -> Columns {
    let mut changed: Columns = columns.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    changed.insert("updated_at".to_owned(), json!(instant(nth, 500_000)));
    changed
}

/// A civil time that depends on the payment only, so that a run can be repeated; printed as the server prints it.
fn instant(nth: u32, micros: i64) -> String {
    let start = civil::date(2026, 1, 1).at(0, 0, 0, 0);
    start
        .saturating_add(SignedDuration::from_secs(i64::from(nth)) + SignedDuration::from_micros(micros + 1))
        .to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_payments() {
        assert_eq!(lives("p-", 7, 50, 200), lives("p-", 7, 50, 200));
        assert_ne!(lives("p-", 7, 50, 200), lives("p-", 8, 50, 200));
    }

    #[test]
    fn every_kind_of_step_occurs_and_each_comes_after_the_one_before() {
        let lives = lives("p-", 1, 500, 200);
        let steps = || lives.iter().flat_map(|life| &life.steps);
        assert!(steps().any(|(_, s)| matches!(s, Step::Create(_))) && steps().any(|(_, s)| matches!(s, Step::Put(_))));
        assert!(steps().any(|(_, s)| matches!(s, Step::Update(_))) && steps().any(|(_, s)| *s == Step::Delete));
        assert!(lives.iter().all(|life| life.steps.is_sorted_by_key(|(at, _)| *at)));
    }

    #[test]
    fn a_row_follows_its_steps() {
        let life = lives("p-", 1, 500, 200)
            .into_iter()
            .find(|l| l.steps.last().unwrap().1 == Step::Delete && l.steps.len() > 2)
            .unwrap();
        assert_eq!(life.row_after(0), None);
        assert_eq!(life.row_after(1).unwrap()["status"], "INITIATED");
        assert_ne!(life.row_after(2).unwrap()["status"], "INITIATED");
        assert_eq!(life.row_after(life.steps.len()), None);
    }
}
