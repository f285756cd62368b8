//! A verification on the screen, and as JSON: one object a line.

use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde_json::value::RawValue;
use shock_absorber_client::{VerifyDifference, VerifyDifferenceKind, VerifyImageStage, VerifyProgress};

const CELLS: u64 = 24;

/// How far it is.
pub(super) fn bar(progress: &VerifyProgress, elapsed: Duration) -> String {
    let VerifyProgress { records, read, differ, .. } = *progress;
    let share = |of: u64| (read.min(records) * of).checked_div(records).unwrap_or(of);
    let full = usize::try_from(share(CELLS)).unwrap_or_default();
    let cells = format!("{}{}", "#".repeat(full), ".".repeat(CELLS as usize - full));
    let left = match (read, records.saturating_sub(read)) {
        (0, _) | (_, 0) => String::new(),
        (read, left) => format!(", {} s left", (elapsed.as_secs_f64() * left as f64 / read as f64).ceil()),
    };
    format!("[{cells}] {:>3}%  {read} of {records} records, {differ} differ{left}", share(100))
}

/// What a difference is called, as in the API.
fn name(kind: VerifyDifferenceKind) -> String {
    kind.as_str_name().trim_start_matches("VERIFY_DIFFERENCE_KIND_").to_lowercase()
}

/// What it means, and what can be done.
fn meaning(kind: VerifyDifferenceKind) -> &'static str {
    use VerifyDifferenceKind as Kind;
    match kind {
        Kind::Lost => "the database does not have this write and nothing will bring it there; write the record again",
        Kind::NotInHotStore => "the hot store lost it; reads answer something older until the drain has got to it",
        Kind::Stale => "the database went back behind what it had; write the record again",
        Kind::RowMissing => "the row was taken away beside us; write the record again, or delete it",
        Kind::Phantom => "the row was deleted, and somebody put it there again beside us",
        Kind::TombstoneMissing => "the delete's entry in _sa_ledger was taken away; delete the record again",
        Kind::ContentDiffers => "somebody, or a trigger, changed the row beside us",
        Kind::HotStoreDiffers => "reads answer what the database does not have, until the image expires",
        Kind::HotStoreStale => "reads answer what was overwritten",
        Kind::ParkedLost => "the database refused it, and it can be read no more; `dlq list` has its dead letter",
        Kind::NeverGiven => "the row has a version that was never given: somebody wrote to _sa_version",
        Kind::RowUnreadable => "the row holds a value that is not of its column's type",
        Kind::HotStoreUnreadable => "what the hot store holds can't be read",
        Kind::Unspecified => "this program is too old to say how",
    }
}

fn stage(stage: VerifyImageStage) -> &'static str {
    match stage {
        VerifyImageStage::Dirty => "dirty",
        VerifyImageStage::Parked => "parked",
        VerifyImageStage::Clean => "clean",
        VerifyImageStage::Unspecified => "unknown",
    }
}

#[derive(Serialize)]
struct DifferenceJson<'a> {
    kind: String,
    key: Box<RawValue>,
    shard: u32,
    offset: i64,
    logged_version: u64,
    database_version: Option<u64>,
    has_row: bool,
    hot_version: Option<u64>,
    hot_stage: Option<&'static str>,
    columns: &'a [String],
    meaning: &'static str,
}

/// A record that differs.
pub(super) fn difference(difference: &VerifyDifference, json: bool) -> Result<String> {
    let VerifyDifference { kind, shard, offset, logged_version, database_version, has_row, hot, columns, .. } =
        difference;
    let key = difference.key.to_json()?;
    if json {
        let json = DifferenceJson {
            kind: name(*kind),
            key: RawValue::from_string(key)?,
            shard: *shard,
            offset: *offset,
            logged_version: *logged_version,
            database_version: *database_version,
            has_row: *has_row,
            hot_version: hot.map(|(version, _)| version),
            hot_stage: hot.map(|(_, of)| stage(of)),
            columns,
            meaning: meaning(*kind),
        };
        return Ok(serde_json::to_string(&json)?);
    }
    let held = match (database_version, has_row) {
        (None, _) => "nothing".to_owned(),
        (Some(version), true) => format!("a row at {version}"),
        (Some(version), false) => format!("a delete at {version}"),
    };
    let hot = hot.map_or_else(|| "nothing".to_owned(), |(version, of)| format!("{version}, {}", stage(of)));
    let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
    Ok(format!(
        "{:<18} {key}{columns}\n  log {logged_version} at {shard}/{offset}, database {held}, hot store {hot}\n  {}",
        name(*kind),
        meaning(*kind)
    ))
}

#[derive(Serialize)]
struct SummaryJson<'a> {
    table: &'a str,
    complete: bool,
    records: u64,
    read: u64,
    deleted: u64,
    void: u64,
    strange: u64,
    agree: u64,
    pending: u64,
    parked: u64,
    given_up: u64,
    moving: u64,
    of_earlier_schema: u64,
    may_be_void: u64,
    may_be_purged: u64,
    differ: u64,
}

/// What it came to.
pub(super) fn summary(table: &str, progress: &VerifyProgress, complete: bool, json: bool) -> Result<String> {
    let VerifyProgress { records, read, deleted, void, strange, agree, pending, parked, given_up, moving, .. } =
        *progress;
    let VerifyProgress { of_earlier_schema, may_be_void, may_be_purged, differ, .. } = *progress;
    if json {
        return Ok(serde_json::to_string(&SummaryJson {
            table,
            complete,
            records,
            read,
            deleted,
            void,
            strange,
            agree,
            pending,
            parked,
            given_up,
            moving,
            of_earlier_schema,
            may_be_void,
            may_be_purged,
            differ,
        })?);
    }
    let whole = if complete { "" } else { ", not all of them" };
    let mut lines =
        vec![format!("{table}: {differ} records differ; {agree} agree ({read} records of the log were read{whole})")];
    let mut say = |count: u64, what: &str| {
        if count > 0 {
            lines.push(format!("  {count} {what}"));
        }
    };
    say(pending, "wait for the database");
    say(parked, "were refused by the database, see `dlq list`");
    say(given_up, "were refused by the database and given up");
    say(moving, "were written all the while, and not compared");
    say(of_earlier_schema, "were written under an earlier schema and read otherwise now: not judged");
    say(may_be_void, "may never have been accepted, what would tell is gone from the log: not judged");
    say(may_be_purged, "may have been deleted, what would tell is gone from the log: not judged");
    say(void, "writes in the log were never accepted");
    say(strange, "records of the log are no writes of this table or can't be read");
    say(deleted, "earlier records are gone from the log: what they wrote was not compared");
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use shock_absorber_client::Row;

    use super::*;

    #[test]
    fn the_bar_tells_how_far_it_is() {
        let progress = VerifyProgress { records: 200, read: 50, differ: 3, ..VerifyProgress::default() };
        let bar_now = bar(&progress, Duration::from_secs(10));
        assert_eq!(bar_now, "[######..................]  25%  50 of 200 records, 3 differ, 30 s left");
        let full = bar(&VerifyProgress::default(), Duration::ZERO);
        assert_eq!(full, format!("[{}] 100%  0 of 0 records, 0 differ", "#".repeat(24)));
    }

    #[test]
    fn a_difference_says_what_who_holds_and_what_to_do() {
        let lost = VerifyDifference {
            kind: VerifyDifferenceKind::ContentDiffers,
            key: Row::new().set("id", "p1"),
            shard: 3,
            offset: 7,
            logged_version: 12,
            database_version: Some(12),
            has_row: true,
            hot: Some((12, VerifyImageStage::Clean)),
            columns: vec!["amount".into()],
        };
        let plain = difference(&lost, false).unwrap();
        assert_eq!(
            plain,
            "content_differs    {\"id\":\"p1\"} (amount)\n  log 12 at 3/7, database a row at 12, hot store 12, clean\n  \
             somebody, or a trigger, changed the row beside us"
        );
        let json: serde_json::Value = serde_json::from_str(&difference(&lost, true).unwrap()).unwrap();
        assert_eq!((&json["kind"], &json["key"]["id"]), (&"content_differs".into(), &"p1".into()));
        assert_eq!((&json["hot_stage"], &json["columns"][0]), (&"clean".into(), &"amount".into()));
    }

    #[test]
    fn the_summary_says_what_there_is_and_nothing_of_what_is_not() {
        let progress = VerifyProgress { read: 9, agree: 7, pending: 2, ..VerifyProgress::default() };
        let plain = summary("payments", &progress, true, false).unwrap();
        assert_eq!(
            plain,
            "payments: 0 records differ; 7 agree (9 records of the log were read)\n  2 wait for the database"
        );
        let json: serde_json::Value =
            serde_json::from_str(&summary("payments", &progress, false, true).unwrap()).unwrap();
        assert_eq!((&json["differ"], &json["complete"]), (&0.into(), &false.into()));
    }
}
