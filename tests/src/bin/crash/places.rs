//! The tables, and their rows as the history knows them.

use std::fmt;

use anyhow::{Context as _, Result};
use history::{Image, Part};
use model::ColumnName;
use shock_absorber_client::{Row, Value};

/// One table whose rows carry their version, and one whose versions are in the ledger, with a second unique key.
pub(crate) const TABLES: &str = "
CREATE TABLE accounts (id VARCHAR(40) NOT NULL PRIMARY KEY, value BIGINT NOT NULL, lft BIGINT NOT NULL,
                       rgt BIGINT NOT NULL);
CREATE TABLE entries (tenant VARCHAR(20) NOT NULL, n BIGINT NOT NULL, value BIGINT NOT NULL, lft BIGINT NOT NULL,
                      rgt BIGINT NOT NULL, PRIMARY KEY (tenant, n), UNIQUE KEY by_value (value));
";
const TENANT: &str = "north";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    Accounts,
    Entries,
}

impl Table {
    pub(crate) const ALL: [Self; 2] = [Self::Accounts, Self::Entries];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Entries => "entries",
        }
    }
}

/// A record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) table: Table,
    pub(crate) n: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.table.name(), self.n)
    }
}

impl Place {
    pub(crate) fn key(self) -> Row {
        match self.table {
            Table::Accounts => Row::new().set("id", self.n.to_string()),
            Table::Entries => Row::new().set("tenant", TENANT).set("n", self.n as i64),
        }
    }

    /// The same as the database crate takes it.
    pub(crate) fn model_key(self) -> Result<model::Row> {
        let columns = match self.table {
            Table::Accounts => vec![("id", model::Value::Text(self.n.to_string()))],
            Table::Entries => {
                vec![("tenant", model::Value::Text(TENANT.into())), ("n", model::Value::Int64(self.n as i64))]
            }
        };
        columns.into_iter().map(|(name, value)| Ok((ColumnName::new(name)?, value))).collect()
    }

    /// What a create or a put writes.
    pub(crate) fn row(self, value: u64) -> Row {
        let value = value as i64;
        self.key().set("value", value).set("lft", value).set("rgt", value)
    }

    /// A row that was there before us.
    pub(crate) fn insert(self, value: u64) -> String {
        let (columns, key) = match self.table {
            Table::Accounts => ("id", format!("'{}'", self.n)),
            Table::Entries => ("tenant, n", format!("'{TENANT}', {}", self.n)),
        };
        let table = self.table.name();
        format!("INSERT INTO {table} ({columns}, value, lft, rgt) VALUES ({key}, {value}, {value}, {value});")
    }
}

/// What an update changes.
pub(crate) fn changes(value: u64, part: Part) -> Row {
    let value = value as i64;
    Row::new().set("value", value).set(if part == Part::Left { "lft" } else { "rgt" }, value)
}

/// A row that a client read.
pub(crate) fn image_of_client(row: &Row) -> Result<Image> {
    image(|name| row.get(name).and_then(Value::as_i64))
}

/// A row that was read from the database.
pub(crate) fn image_of_database(row: &model::Row) -> Result<Image> {
    image(|name| match row.get(name) {
        Some(model::Value::Int64(number)) => Some(*number),
        _ => None,
    })
}

fn image(column: impl Fn(&str) -> Option<i64>) -> Result<Image> {
    let number = |name| column(name).map(i64::cast_unsigned).with_context(|| format!("a row has no number in {name}"));
    Ok(Image { value: number("value")?, left: number("lft")?, right: number("rgt")? })
}
