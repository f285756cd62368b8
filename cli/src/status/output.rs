//! How it goes, as text and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};
use shock_absorber_client::{
    BreakerState, DatabaseStatus, Hold, HoldKind, PartitionRange, ReplicaStatus, Status, TableLimit, TableState,
    TableStatus,
};

/// Characters of a progress bar.
const BAR: usize = 40;

/// For people.
pub(super) fn text(status: &Status) -> String {
    let mut text = String::new();
    let rows: Vec<[String; 7]> = status.tables.iter().map(row).collect();
    let titles = ["TABLE", "STATE", "WAITING", "OLDEST", "ROWS/S OF LIMIT", "EMPTY IN", "PARKED"].map(str::to_owned);
    let widths: [usize; 7] = std::array::from_fn(|at| {
        rows.iter().map(|row| row[at].chars().count()).chain([titles[at].len()]).max().unwrap_or(0)
    });
    let mut line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    };
    line(&titles);
    rows.iter().for_each(&mut line);
    for table in &status.tables {
        let name = name(&table.table);
        for hold in table.holds.iter().filter(|hold| hold.table.is_some()) {
            let _ = writeln!(text, "{name}: {}", held(hold));
        }
        if !table.why.is_empty() && table.holds.is_empty() {
            let _ = writeln!(text, "{name}: {}", table.why);
        }
        if table.attempts > 0 {
            let _ =
                writeln!(text, "{name}: {} attempts failed, the last one since {}", table.attempts, table.last_cause);
        }
    }
    for hold in &status.holds {
        let _ = writeln!(text, "everything: {}", held(hold));
    }
    for database in status.databases.iter().filter(|database| tells_more(database)) {
        let _ = writeln!(text, "database {}: {}", database.database, database_line(database));
    }
    let _ = writeln!(text, "\n{} drain replicas", status.replicas.len());
    for replica in &status.replicas {
        let _ = writeln!(text, "  {}", replica_line(replica));
    }
    if status.shards_open < status.shards {
        let _ = writeln!(text, "{} of {} shards could be looked at", status.shards_open, status.shards);
    }
    for unknown in &status.unknown {
        let _ = writeln!(text, "not known: {unknown}");
    }
    text
}

fn row(table: &TableStatus) -> [String; 7] {
    let unknown = || "?".to_owned();
    let backlog = table.backlog.as_ref();
    let age = backlog.and_then(|backlog| seconds(backlog.oldest_age.as_ref()));
    let rate = table.rows_per_second.map_or_else(unknown, |rate| format!("{rate:.1}"));
    let limit = match &table.limit {
        Some(TableLimit::LimitRowsPerSecond(limit)) => limit.to_string(),
        Some(TableLimit::Unlimited(_)) => "unlimited".to_owned(),
        None => unknown(),
    };
    [
        name(&table.table),
        state(table).to_owned(),
        backlog.map_or_else(unknown, |backlog| backlog.records.to_string()),
        age.map_or_else(unknown, spoken),
        format!("{rate} of {limit}"),
        match (seconds(table.empty_in.as_ref()), backlog) {
            (Some(0.0), _) => "empty".to_owned(),
            (Some(seconds), _) => spoken(seconds),
            (None, Some(_)) => "never, as it is".to_owned(),
            (None, None) => unknown(),
        },
        backlog.map_or_else(unknown, |backlog| backlog.parked.to_string()),
    ]
}

fn state(table: &TableStatus) -> &'static str {
    let drained_down = table.holds.iter().any(|hold| hold.kind() == HoldKind::DrainDown);
    match table.state() {
        TableState::Paused => "paused",
        TableState::SchemaDrift => "schema drift",
        TableState::BreakerOpen => "breaker open",
        _ if drained_down => "draining down",
        _ if !table.enabled => "disabled",
        TableState::Running => "running",
        TableState::Unspecified => "?",
    }
}

fn name(table: &Option<impl Named>) -> String {
    table.as_ref().map(Named::name).unwrap_or_default()
}

/// A table's name in a message of the API.
trait Named {
    fn name(&self) -> String;
}

impl Named for shock_absorber_client::ProtoTableRef {
    fn name(&self) -> String {
        format!("{}.{}", self.database, self.table)
    }
}

pub(crate) fn held(hold: &Hold) -> String {
    let what = match hold.kind() {
        HoldKind::Pause => "paused",
        HoldKind::DrainDown => "takes no writes",
        HoldKind::Unspecified => "held",
    };
    let by = if hold.by.is_empty() { String::new() } else { format!(" by {}", hold.by) };
    let reason = if hold.reason.is_empty() { String::new() } else { format!(": {}", hold.reason) };
    format!("{what}{by} since {}{reason}", since(hold))
}

fn since(hold: &Hold) -> String {
    let since = hold.since.as_ref().and_then(|since| jiff::Timestamp::new(since.seconds, since.nanos).ok());
    since.map(|since| since.strftime("%FT%TZ").to_string()).unwrap_or_default()
}

fn tells_more(database: &DatabaseStatus) -> bool {
    matches!(database.breaker(), BreakerState::Open | BreakerState::HalfOpen)
        || database.adaptive_rows_per_second.is_some()
}

fn breaker(breaker: BreakerState) -> &'static str {
    match breaker {
        BreakerState::Unspecified => "unknown",
        BreakerState::Closed => "closed",
        BreakerState::Open => "open",
        BreakerState::HalfOpen => "half open",
    }
}

fn database_line(database: &DatabaseStatus) -> String {
    let mut line = format!("breaker {}", breaker(database.breaker()));
    if let Some(seconds) = seconds(database.retry_in.as_ref()) {
        let _ = write!(line, ", next attempt in {}", spoken(seconds));
    }
    if let Some(rate) = database.adaptive_rows_per_second {
        let _ = write!(line, ", its health allows {rate:.1} rows/s");
    }
    line
}

fn replica_line(replica: &ReplicaStatus) -> String {
    let owning = replica.tables.iter().filter(|table| !table.partitions.is_empty());
    let tables = owning.map(|table| {
        let (partitions, rate) = (ranges(&table.partitions), table.rows_per_second);
        format!("{} {partitions} ({rate:.1} rows/s, {} gathered)", name(&table.table), table.gathered)
    });
    let tables: Vec<String> = tables.collect();
    let tables = if tables.is_empty() { "owns nothing".to_owned() } else { tables.join("; ") };
    format!("{}: {tables}", replica.replica)
}

fn ranges(ranges: &[PartitionRange]) -> String {
    let range = |PartitionRange { first, last }: &PartitionRange| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(range).collect::<Vec<_>>().join(",")
}

fn seconds(duration: Option<&shock_absorber_client::ProtoDuration>) -> Option<f64> {
    duration.map(|duration| duration.seconds as f64 + f64::from(duration.nanos) / 1e9)
}

/// A time in two units.
fn spoken(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 10.0 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        3600..86_400 => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// How far what waited has come, from the most that was seen.
#[derive(Debug, Default)]
pub(super) struct Progress {
    most: u64,
}

impl Progress {
    /// A bar, as long as anything waits.
    pub(super) fn bar(&mut self, status: &Status) -> Option<String> {
        let waiting: u64 = status.tables.iter().filter_map(|table| table.backlog.as_ref()).map(|b| b.records).sum();
        if waiting == 0 {
            self.most = 0;
            return None;
        }
        self.most = self.most.max(waiting);
        let done = (self.most - waiting) as f64 / self.most as f64;
        let filled = (done * BAR as f64) as usize;
        let bar = "#".repeat(filled) + &".".repeat(BAR - filled);
        Some(format!("[{bar}] {:.0} %, {waiting} of {} wait", done * 100.0, self.most))
    }
}

/// For programs.
pub(super) fn json(status: &Status) -> Value {
    json!({
        "tables": status.tables.iter().map(table_json).collect::<Vec<_>>(),
        "databases": status.databases.iter().map(|database| json!({
            "database": database.database,
            "breaker": breaker(database.breaker()),
            "retry_in_seconds": seconds(database.retry_in.as_ref()),
            "adaptive_rows_per_second": database.adaptive_rows_per_second,
        })).collect::<Vec<_>>(),
        "replicas": status.replicas.iter().map(replica_json).collect::<Vec<_>>(),
        "holds": status.holds.iter().map(hold_json).collect::<Vec<_>>(),
        "shards": status.shards,
        "shards_open": status.shards_open,
        "unknown": status.unknown,
    })
}

fn table_json(table: &TableStatus) -> Value {
    let limit = match &table.limit {
        Some(TableLimit::LimitRowsPerSecond(limit)) => json!(limit),
        Some(TableLimit::Unlimited(_)) => json!("unlimited"),
        None => Value::Null,
    };
    json!({
        "table": name(&table.table),
        "enabled": table.enabled,
        "state": state(table),
        "why": table.why,
        "backlog": table.backlog.as_ref().map(|backlog| json!({
            "records": backlog.records,
            "bytes": backlog.bytes,
            "oldest_age_seconds": seconds(backlog.oldest_age.as_ref()),
            "parked": backlog.parked,
        })),
        "rows_per_second": table.rows_per_second,
        "limit": limit,
        "empty_in_seconds": seconds(table.empty_in.as_ref()),
        "attempts": table.attempts,
        "last_cause": table.last_cause,
        "holds": table.holds.iter().map(hold_json).collect::<Vec<_>>(),
    })
}

fn replica_json(replica: &ReplicaStatus) -> Value {
    json!({
        "replica": replica.replica,
        "incarnation": replica.incarnation,
        "told_seconds_ago": seconds(replica.told_ago.as_ref()),
        "tables": replica.tables.iter().map(|table| json!({
            "table": name(&table.table),
            "partitions": ranges(&table.partitions),
            "rows_written": table.rows_written,
            "rows_per_second": table.rows_per_second,
            "gathered": table.gathered,
            "batch_rows": table.batch_rows,
        })).collect::<Vec<_>>(),
    })
}

fn hold_json(hold: &Hold) -> Value {
    let kind = match hold.kind() {
        HoldKind::Pause => "pause",
        HoldKind::DrainDown => "drain-down",
        HoldKind::Unspecified => "unknown",
    };
    json!({
        "kind": kind,
        "table": hold.table.as_ref().map(Named::name),
        "reason": hold.reason,
        "by": hold.by,
        "since": since(hold),
    })
}

#[cfg(test)]
mod tests;
