//! `shock-absorber pause`, `resume` and `drain-down`: what operators stop and let go on.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use shock_absorber_client::{Client, DrainDown, Hold, HoldKind, Resumed, TableRef};
use tokio::time::{Instant, sleep};

use crate::status::held;

/// How often a drain-down is looked at.
const INTERVAL: Duration = Duration::from_millis(500);

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// One table; without it everything
    table: Option<String>,
    #[command(flatten)]
    why: Why,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// One table; without it everything that is not paused by itself
    table: Option<String>,
}

/// Arguments of `drain-down`.
#[derive(Debug, Args)]
pub(crate) struct DrainDownArgs {
    /// One table; without it everything
    table: Option<String>,
    #[command(flatten)]
    why: Why,
    /// Wait until no write can come in any more and all that did is in the database
    #[arg(long, conflicts_with = "end")]
    wait: bool,
    /// With --wait: give up after so many seconds; the drain-down goes on
    #[arg(long, value_name = "SECONDS", requires = "wait")]
    timeout: Option<u64>,
    /// Let writes in again
    #[arg(long, conflicts_with = "reason")]
    end: bool,
}

#[derive(Debug, Args)]
struct Why {
    /// Why, for others who ask
    #[arg(long, default_value = "")]
    reason: String,
    /// Who, for others who ask
    #[arg(long, env = "USER", default_value = "")]
    by: String,
}

async fn client(endpoint: &str) -> Result<Client> {
    Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it")
}

fn named(table: Option<&TableRef>) -> String {
    table.map_or_else(|| "everything".to_owned(), ToString::to_string)
}

pub(crate) async fn pause(PauseArgs { table, why }: PauseArgs, endpoint: &str) -> Result<()> {
    let table = table.as_deref().map(TableRef::from);
    let hold = client(endpoint).await?.pause(table.as_ref(), &why.reason, &why.by).await?;
    println!("{} {}", named(table.as_ref()), held(&hold));
    println!("the drains follow within two seconds; writes are accepted and wait");
    Ok(())
}

pub(crate) async fn resume(ResumeArgs { table }: ResumeArgs, endpoint: &str) -> Result<()> {
    let table = table.as_deref().map(TableRef::from);
    let resumed = client(endpoint).await?.resume(table.as_ref()).await?;
    let done = if resumed.was_held { "goes on" } else { "was not paused" };
    println!("{} {done}", named(table.as_ref()));
    print_rest(&resumed, HoldKind::Pause);
    Ok(())
}

/// What stops it all the same.
fn print_rest(Resumed { still, .. }: &Resumed, kind: HoldKind) {
    for hold in still.iter().filter(|hold| hold.kind() == kind) {
        let table = hold.table.as_ref().map(|table| TableRef::new(&table.database, &table.table));
        println!("still: {} {}", named(table.as_ref()), held(hold));
    }
}

pub(crate) async fn drain_down(arguments: DrainDownArgs, endpoint: &str) -> Result<()> {
    let DrainDownArgs { table, why, wait, timeout, end } = arguments;
    let table = table.as_deref().map(TableRef::from);
    let (table, client) = (table.as_ref(), client(endpoint).await?);
    if end {
        let resumed = client.end_drain_down(table).await?;
        let done = if resumed.was_held { "takes writes again" } else { "was not drained down" };
        println!("{} {done}", named(table));
        print_rest(&resumed, HoldKind::DrainDown);
        return Ok(());
    }
    // Whoever comes back to wait takes nothing from what is known of it. Another one's, of everything, may end before.
    let known: Option<Hold> = client.drain_down(table).await?.hold.filter(|hold| is_of(hold, table));
    let hold = match known {
        Some(hold) => hold,
        None => client.start_drain_down(table, &why.reason, &why.by).await?,
    };
    println!("{} {}", named(table), held(&hold));
    if !wait {
        println!("{}", line(&client.drain_down(table).await?));
        return Ok(());
    }
    let deadline = timeout.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut shown = String::new();
    loop {
        let down = client.drain_down(table).await?;
        let line = line(&down);
        if line != shown {
            println!("{line}");
            shown = line;
        }
        if down.ready {
            return Ok(());
        }
        if down.hold.is_none() {
            bail!("somebody has ended the drain-down");
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            bail!("not ready in time; no writes are taken until `shock-absorber drain-down --end`");
        }
        sleep(INTERVAL).await;
    }
}

/// Whether it is a hold of what was asked for. The only database needs no name.
fn is_of(hold: &Hold, asked: Option<&TableRef>) -> bool {
    match (&hold.table, asked) {
        (None, None) => true,
        (Some(held), Some(asked)) => {
            held.table == asked.table && (asked.database.is_empty() || held.database == asked.database)
        }
        _ => false,
    }
}

/// How far it is.
fn line(down: &DrainDown) -> String {
    if down.ready {
        let parked = match down.parked {
            0 => String::new(),
            parked => format!("; {parked} records are among the dead letters, which the database refused for good"),
        };
        return format!("ready: no write comes in, and all that did is in the database{parked}");
    }
    let mut waits = Vec::new();
    if down.refusing < down.shards {
        waits.push(format!("{} of {} shards refuse writes", down.refusing, down.shards));
    }
    if down.unknown > 0 {
        waits.push(format!("{} shards can't be looked at", down.unknown));
    }
    if down.records > 0 {
        waits.push(format!("{} records wait for the database", down.records));
    }
    if down.gathered > 0 {
        waits.push(format!("the drains hold {} records", down.gathered));
    }
    for table in &down.paused {
        waits.push(format!(
            "{}.{} is paused, and is not drained until `shock-absorber resume`",
            table.database, table.table
        ));
    }
    if !down.problem.is_empty() {
        waits.push(down.problem.clone());
    }
    format!("not ready: {}", if waits.is_empty() { "it has not begun".to_owned() } else { waits.join("; ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_of_everything_is_none_of_one_table() {
        let (mut own, all) = (Hold::default(), Hold::default());
        let held = own.table.get_or_insert_default();
        (held.database, held.table) = ("main".into(), "orders".into());
        let of = |asked: &str| Some(TableRef::from(asked));
        assert!(is_of(&all, None) && is_of(&own, of("orders").as_ref()) && is_of(&own, of("main.orders").as_ref()));
        for asked in [None, of("entries"), of("other.orders")] {
            assert!(!is_of(&own, asked.as_ref()), "{asked:?}");
        }
        assert!(!is_of(&all, of("orders").as_ref()));
    }

    #[test]
    fn a_drain_down_says_what_it_waits_for() {
        let down = DrainDown { shards: 8, refusing: 8, ..DrainDown::default() };
        assert_eq!(line(&down), "not ready: it has not begun");
        let busy =
            DrainDown { refusing: 7, unknown: 1, records: 5, gathered: 2, problem: "gone".into(), ..down.clone() };
        let expected = "not ready: 7 of 8 shards refuse writes; 1 shards can't be looked at; 5 records wait for the \
                        database; the drains hold 2 records; gone";
        assert_eq!(line(&busy), expected);
        let ready = DrainDown { ready: true, parked: 3, ..down };
        assert!(line(&ready).starts_with("ready: ") && line(&ready).contains("3 records are among the dead letters"));
    }
}
