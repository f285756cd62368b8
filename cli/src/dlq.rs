//! `shock-absorber dlq`: records that the database refused for good.

mod output;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use shock_absorber_client::{
    Client, DeadLetter, DeadLetterCause, DeadLetterFilter, DeadLetterName, DeadLetterOutcome, DeadLetterState, TableRef,
};

use output::Format;

/// Letters of one call.
const LETTERS_AT_ONCE: usize = 100;

/// What can be done with dead letters. A record that the database refused for good stays readable until a newer write takes
/// its place, or it is replayed or purged; its dead letter is kept for ever.
#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List dead letters, without anything of their rows
    List {
        /// Only those of this table
        table: Option<String>,
        #[command(flatten)]
        filter: Filter,
        /// Also those that are settled: superseded, replayed, purged
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        format: Format,
    },
    /// Show one dead letter with the row that it holds
    Show {
        /// The table
        table: String,
        /// The letter's id, as `dlq list` shows it
        id: String,
        #[command(flatten)]
        format: Format,
    },
    /// Write records again, each if it is still the newest of its key: it gets a new version
    Replay {
        #[command(flatten)]
        letters: Letters,
        #[command(flatten)]
        format: Format,
    },
    /// Give records up: reads answer again what the database has
    Purge {
        #[command(flatten)]
        letters: Letters,
        /// Needed to purge more than one
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        format: Format,
    },
}

/// Which dead letters are meant.
#[derive(Debug, Args)]
pub(crate) struct Filter {
    /// Only those with this cause; may be repeated
    #[arg(long, value_enum)]
    cause: Vec<Cause>,
    /// Only those from this time on: a duration before now, as 2h, or an instant, as 2026-11-21T05:06:07Z
    #[arg(long, value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only those before this time
    #[arg(long, value_parser = parse_time)]
    until: Option<Timestamp>,
}

/// Which dead letters something is done with.
#[derive(Debug, Args)]
pub(crate) struct Letters {
    /// The table
    #[arg(required_unless_present = "all_tables")]
    table: Option<String>,
    /// The letters' ids, as `dlq list` shows them; none: all unresolved ones that the filters leave
    #[arg(conflicts_with_all = ["cause", "since", "until"])]
    id: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Those of all tables
    #[arg(long, conflicts_with = "table")]
    all_tables: bool,
}

/// A cause of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Cause {
    /// The bytes of the event can't be read
    Undecodable,
    /// The event lay in another partition than that of its shard
    Misplaced,
    /// The row can never be written
    Permanent,
    /// Another row stood in its way for too long
    Dependent,
    /// A create that was checked in the hot store only, of a row that the database has
    Since,
}

impl From<Cause> for DeadLetterCause {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Undecodable => Self::Undecodable,
            Cause::Misplaced => Self::Misplaced,
            Cause::Permanent => Self::Permanent,
            Cause::Dependent => Self::Dependent,
            Cause::Since => Self::Since,
        }
    }
}

pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    let ago: Duration = runtime::config::parse_duration(text)
        .map_err(|_| "is neither a duration, as 2h, nor an instant, as 2026-11-21T05:06:07Z".to_owned())?;
    Timestamp::now().checked_sub(ago).map_err(|_| "is too long ago".to_owned())
}

impl Filter {
    fn of(&self, table: Option<&str>, all_states: bool) -> DeadLetterFilter {
        DeadLetterFilter {
            table: table.map(TableRef::from),
            causes: self.cause.iter().map(|cause| (*cause).into()).collect(),
            since: self.since,
            until: self.until,
            all_states,
        }
    }
}

pub(crate) async fn run(command: DlqCommand, endpoint: &str) -> Result<()> {
    let client = Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it")?;
    match command {
        DlqCommand::List { table, filter, all, format } => {
            list(&client, &filter.of(table.as_deref(), all), format).await
        }
        DlqCommand::Show { table, id, format } => {
            let name = DeadLetterName { table: TableRef::from(table.as_str()), id };
            println!("{}", output::shown(&client.get_dead_letter(&name).await?, format)?);
            Ok(())
        }
        DlqCommand::Replay { letters, format } => {
            let names = letters.names(&client, Wanted::Readable).await?;
            finish(&client, names, Deed::Replay, format).await
        }
        DlqCommand::Purge { letters, yes, format } => {
            let names = letters.names(&client, Wanted::All).await?;
            if names.len() > 1 && !yes {
                bail!(
                    "this would purge {} records, whose writes were accepted and would be given up for good; say --yes to do it",
                    names.len()
                );
            }
            finish(&client, names, Deed::Purge, format).await
        }
    }
}

async fn list(client: &Client, filter: &DeadLetterFilter, format: Format) -> Result<()> {
    let mut pages = client.list_dead_letters(filter).await?;
    let mut count = 0_u64;
    while let Some(page) = pages.next().await? {
        for letter in page {
            if count == 0 && !format.json {
                println!("{}", output::HEAD);
            }
            count += 1;
            println!("{}", output::line(&letter, format)?);
        }
    }
    if count == 0 && !format.json {
        eprintln!("there are no {}dead letters", if filter.all_states { "" } else { "unresolved " });
    }
    Ok(())
}

/// Which letters are taken where none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    All,
    Readable,
}

impl Letters {
    async fn names(&self, client: &Client, wanted: Wanted) -> Result<Vec<DeadLetterName>> {
        if let Some(table) = self.table.as_deref().filter(|_| !self.id.is_empty()) {
            return Ok(self
                .id
                .iter()
                .map(|id| DeadLetterName { table: TableRef::from(table), id: id.clone() })
                .collect());
        }
        let mut pages = client.list_dead_letters(&self.filter.of(self.table.as_deref(), false)).await?;
        let (mut names, mut unreadable, mut retrying) = (Vec::new(), 0_u64, 0_u64);
        while let Some(page) = pages.next().await? {
            for letter in page {
                let DeadLetter { name, version, state, .. } = letter;
                if state == DeadLetterState::Retrying {
                    retrying += 1;
                } else if version.is_none() && wanted == Wanted::Readable {
                    unreadable += 1;
                } else {
                    names.push(name);
                }
            }
        }
        if unreadable > 0 {
            eprintln!("left out: {unreadable} whose bytes can't be read; they can be shown and purged only");
        }
        if retrying > 0 {
            eprintln!("left out: {retrying} that the drain is trying once more");
        }
        Ok(names)
    }
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Replay,
    Purge,
}

async fn finish(client: &Client, names: Vec<DeadLetterName>, deed: Deed, format: Format) -> Result<()> {
    let (mut done, mut settled, mut failed) = (0_u64, 0_u64, 0_u64);
    for some in names.chunks(LETTERS_AT_ONCE) {
        let outcomes = match deed {
            Deed::Replay => client.replay_dead_letters(some).await,
            Deed::Purge => client.purge_dead_letters(some).await,
        };
        let outcomes = outcomes.with_context(|| {
            format!(
                "stopped after {done} done, {settled} that needed nothing, {failed} failed; doing it again does no harm"
            )
        })?;
        for (name, outcome) in some.iter().zip(outcomes) {
            *match outcome {
                DeadLetterOutcome::Replayed(_) | DeadLetterOutcome::Purged => &mut done,
                DeadLetterOutcome::Settled(_) => &mut settled,
                DeadLetterOutcome::Failed(_) => &mut failed,
            } += 1;
            println!("{}", output::outcome(name, &outcome, format)?);
        }
    }
    let did = match deed {
        Deed::Replay => "replayed",
        Deed::Purge => "purged",
    };
    if failed > 0 {
        bail!("{done} {did}, {settled} needed nothing, {failed} failed");
    }
    if !format.json {
        eprintln!("{done} {did}, {settled} needed nothing");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(subcommand)]
        command: DlqCommand,
    }

    fn parse(line: &str) -> Result<DlqCommand, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.command)
    }

    #[test]
    fn a_time_is_an_instant_or_a_duration_before_now() {
        assert_eq!(parse_time("2026-11-21T05:06:07Z").unwrap().as_second(), 1_795_237_567);
        let ago = Timestamp::now().as_second() - parse_time("2h").unwrap().as_second();
        assert!((7200..7260).contains(&ago), "{ago}");
        assert!(parse_time("yesterday").unwrap_err().contains("2h"));
    }

    #[test]
    fn what_is_meant_is_named_or_filtered_and_never_everything_by_mistake() {
        for good in [
            "dlq list",
            "dlq list payments --cause permanent --cause since --since 2h --all --json",
            "dlq show payments 17-5",
            "dlq replay payments 17-5 3-0",
            "dlq replay payments --cause dependent",
            "dlq purge --all-tables --until 2h --yes",
        ] {
            assert!(parse(good).is_ok(), "{good}: {:?}", parse(good));
        }
        for wrong in [
            "dlq replay",
            "dlq purge --yes",
            "dlq purge payments 17-5 --cause permanent",
            "dlq replay payments --all-tables",
            "dlq list --cause strange",
            "dlq show payments",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
