//! `shock-absorber table`: which tables are written through Shock Absorber.

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use database::{AnyDatabase, Database as _, DatabaseOptions};
use model::{DatabaseName, TableName};
use runtime::ConfigArgs;
use shock_absorber_client::{Client, Rate, Table, TableRef};

/// What can be done with tables. A table is named `table`, or `database.table` if several databases are configured.
#[derive(Debug, Subcommand)]
pub(crate) enum TableCommand {
    /// List the tables of the configured databases
    List,
    /// Show a table's columns
    Show {
        /// The table
        table: String,
    },
    /// Let writes to a table in
    Enable {
        /// The table
        table: String,
        /// The columns by which records are found (FindRecords), with commas between them; as they are unless given
        #[arg(long, value_delimiter = ',')]
        indexed_fields: Option<Vec<String>>,
    },
    /// Let no more writes in; what was accepted is still drained
    Disable {
        /// The table
        table: String,
    },
    /// Set how fast a table is written to the database, over all replicas, in place of what is configured; followed
    /// within two seconds
    SetRate {
        /// The table
        table: String,
        /// Rows per second, as 50/s (or 0.2/s, 30/min, 1000/h); unlimited; or default, for what is configured
        rate: Rate,
    },
    /// Add the column _sa_version to a table, so that versions need no ledger (goes straight to the database that --config names)
    Prepare {
        /// The table
        table: String,
    },
}

pub(crate) async fn run(command: TableCommand, config: &ConfigArgs, endpoint: &str) -> Result<()> {
    let client = async || Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it");
    match command {
        TableCommand::List => client().await?.list_tables().await?.iter().for_each(print_line),
        TableCommand::Show { table } => print(&client().await?.get_table(&TableRef::from(table.as_str())).await?),
        TableCommand::Enable { table, indexed_fields } => {
            let (client, table) = (client().await?, TableRef::from(table.as_str()));
            print_line(&match indexed_fields {
                Some(fields) => {
                    let fields: Vec<&str> =
                        fields.iter().map(String::as_str).filter(|field| !field.is_empty()).collect();
                    client.enable_table_with(&table, &fields).await?
                }
                None => client.enable_table(&table).await?,
            })
        }
        TableCommand::Disable { table } => {
            print_line(&client().await?.disable_table(&TableRef::from(table.as_str())).await?)
        }
        TableCommand::SetRate { table, rate } => {
            let table = client().await?.set_table_rate(&TableRef::from(table.as_str()), rate).await?.table;
            match rate {
                Rate::RowsPerSecond(rate) => println!("{table} is written with at most {rate} rows per second"),
                Rate::Unlimited => println!("{table} is written without a limit of its own"),
                Rate::Configured => println!("{table} is written as the configuration says"),
            }
        }
        TableCommand::Prepare { table } => prepare(&table, config).await?,
    }
    Ok(())
}

fn print_line(table: &Table) {
    let state = match (table.enabled, table.unsupported_reason.as_str()) {
        (true, _) => format!("enabled   {}", table.topic),
        (false, "") => "disabled".to_owned(),
        (false, reason) => format!("refused   {reason}"),
    };
    println!("{:<40} {:<12} {state}", table.table.to_string(), rate(table));
}

/// How fast operators have it written.
fn rate(table: &Table) -> String {
    match &table.unreadable_rate {
        Some(_) => "unreadable".to_owned(),
        None => table.rate.to_string(),
    }
}

fn print(table: &Table) {
    print_line(table);
    match (&table.unreadable_rate, table.rate) {
        (Some(why), _) => println!("  its limit can't be read, and nothing is drained until it is set again: {why}"),
        (None, Rate::RowsPerSecond(rate)) => println!("  written with at most {rate} rows per second, as it was set"),
        (None, Rate::Unlimited) => println!("  written without a limit of its own, as it was set"),
        (None, Rate::Configured) => println!("  written as fast as the configuration says"),
    }
    for column in &table.columns {
        let key = if table.primary_key.contains(&column.name) { "key " } else { "" };
        let null = if column.nullable { "null" } else { "not null" };
        let default = if column.has_default { " default" } else { "" };
        let kind = column.kind.as_str_name().trim_start_matches("COLUMN_KIND_").to_lowercase();
        println!("  {:<38} {kind:<10} {key}{null}{default}", column.name);
    }
}

async fn prepare(table: &str, config: &ConfigArgs) -> Result<()> {
    let settings = config.load()?;
    let (database, table) = match table.split_once('.') {
        Some((database, table)) => (settings.databases.iter().find(|d| d.name == database), table),
        None if settings.databases.len() > 1 => bail!("several databases are configured: say database.table"),
        None => (settings.databases.first(), table),
    };
    let database = database.context("the configuration names no such database: give it with --config")?;
    let options = DatabaseOptions::new(DatabaseName::new(&database.name)?, database.url.expose());
    AnyDatabase::connect(options).await?.add_version_column(&TableName::new(table)?).await?;
    println!("{}.{table} carries its versions in _sa_version; replicas notice within `table_refresh`", database.name);
    Ok(())
}
