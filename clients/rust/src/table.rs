//! Tables as the server describes them.

use std::{fmt, str::FromStr};

use proto::v1;

use crate::ClientError;

/// A table, named by the configured database that holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableRef {
    /// The database; empty means the only one that is configured.
    pub database: String,
    /// The table.
    pub table: String,
}

impl TableRef {
    /// A table of a database. Needed instead of the conversion from text when the table's name holds a dot and no
    /// database is named.
    pub fn new(database: impl Into<String>, table: impl Into<String>) -> Self {
        Self { database: database.into(), table: table.into() }
    }

    pub(crate) fn to_proto(&self) -> v1::TableRef {
        v1::TableRef { database: self.database.clone(), table: self.table.clone() }
    }
}

/// `database.table`, or `table` alone.
impl From<&str> for TableRef {
    fn from(name: &str) -> Self {
        let (database, table) = name.split_once('.').unwrap_or(("", name));
        Self::new(database, table)
    }
}

impl From<&TableRef> for TableRef {
    fn from(table: &TableRef) -> Self {
        table.clone()
    }
}

impl fmt::Display for TableRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.database.is_empty() { f.write_str(&self.table) } else { write!(f, "{}.{}", self.database, self.table) }
    }
}

/// What kind of values a column holds; as in the API.
pub type ColumnKind = v1::ColumnKind;

/// One column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub kind: ColumnKind,
    /// Whether it may be NULL.
    pub nullable: bool,
    /// Whether a write may leave it out although it may not be NULL.
    pub has_default: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Its name.
    pub table: TableRef,
    /// Whether it is written through Shock Absorber.
    pub enabled: bool,
    /// Its columns, in the table's order.
    pub columns: Vec<Column>,
    /// The columns of its primary key, in the key's order.
    pub primary_key: Vec<String>,
    /// Its topic, if it is enabled.
    pub topic: String,
    /// Why it can't be enabled; empty if it can.
    pub unsupported_reason: String,
    /// How fast operators have its rows written; [`Rate::Configured`]: nobody has set that.
    pub rate: Rate,
    /// What operators have set can't be read: why. The table is not drained until its limit is set again.
    pub unreadable_rate: Option<String>,
    /// The columns by which records are found ([`crate::Client::find`]).
    pub indexed_fields: Vec<String>,
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    pub(crate) fn from_proto(table: v1::Table) -> Self {
        use v1::table::SetRate;
        let name = table.table.unwrap_or_default();
        let (rate, unreadable_rate) = match table.set_rate {
            Some(SetRate::RowsPerSecond(rate)) => (Rate::RowsPerSecond(rate), None),
            Some(SetRate::Unlimited(_)) => (Rate::Unlimited, None),
            Some(SetRate::UnreadableRate(why)) => (Rate::Configured, Some(why)),
            None => (Rate::Configured, None),
        };
        Self {
            table: TableRef { database: name.database, table: name.table },
            enabled: table.enabled,
            columns: table
                .columns
                .into_iter()
                .map(|column| Column {
                    kind: column.kind(),
                    name: column.name,
                    nullable: column.nullable,
                    has_default: column.has_default,
                })
                .collect(),
            primary_key: table.primary_key,
            topic: table.topic,
            unsupported_reason: table.unsupported_reason,
            rate,
            unreadable_rate,
            indexed_fields: table.indexed_fields,
        }
    }

    pub(crate) fn from_answer(table: Option<v1::Table>) -> Result<Self, ClientError> {
        table.map(Self::from_proto).ok_or_else(|| ClientError::BadAnswer("there is no table in it".into()))
    }
}

/// How fast a table's rows may be written to the database.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// So many rows per second.
    RowsPerSecond(f64),
    /// As fast as it goes.
    Unlimited,
    /// As the configuration says.
    Configured,
}

impl Rate {
    pub(crate) fn to_proto(self) -> Option<v1::set_table_rate_request::Rate> {
        use v1::set_table_rate_request::Rate;
        match self {
            Self::RowsPerSecond(rate) => Some(Rate::RowsPerSecond(rate)),
            Self::Unlimited => Some(Rate::Unlimited(true)),
            Self::Configured => None,
        }
    }
}

/// As it is read: `50/s`, `unlimited`, `default`.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RowsPerSecond(rate) => write!(f, "{rate}/s"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Configured => f.write_str("default"),
        }
    }
}

/// What can't be read as a rate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateError(String);

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no rate: say 50/s, 0.2/s, 30/min, 1000/h, unlimited, or default (what is configured)",
            self.0
        )
    }
}

impl std::error::Error for RateError {}

/// `50/s`, `30/min`, `1000/h`, `unlimited` or `default`.
impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let no_rate = || RateError(text.chars().take(40).collect());
        match text.trim() {
            "unlimited" => return Ok(Self::Unlimited),
            "default" => return Ok(Self::Configured),
            _ => {}
        }
        let (number, unit) = text.trim().split_once('/').ok_or_else(no_rate)?;
        let number: f64 = number.trim().parse().map_err(|_| no_rate())?;
        let seconds = match unit.trim() {
            "s" => 1.0,
            "min" => 60.0,
            "h" => 3600.0,
            _ => return Err(no_rate()),
        };
        let per_second = number / seconds;
        // 0/s could be meant for no rows at all.
        if per_second.is_finite() && per_second > 0.0 { Ok(Self::RowsPerSecond(per_second)) } else { Err(no_rate()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_says_what_it_is_per() {
        for (text, rate) in [
            ("50/s", Rate::RowsPerSecond(50.0)),
            ("0.2/s", Rate::RowsPerSecond(0.2)),
            (" 30 / min ", Rate::RowsPerSecond(0.5)),
            ("7200/h", Rate::RowsPerSecond(2.0)),
            ("unlimited", Rate::Unlimited),
            ("default", Rate::Configured),
        ] {
            assert_eq!(text.parse(), Ok(rate), "{text}");
            assert_eq!(rate.to_string().parse(), Ok(rate), "{text}");
        }
        for text in ["", "50", "/s", "50/", "50/d", "0/s", "-1/s", "inf/s", "NaN/s", "1e-330/s", "50/s/s", "Default"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_name_is_split_at_its_first_dot_since_databases_have_none() {
        assert_eq!(TableRef::from("payments"), TableRef::new("", "payments"));
        assert_eq!(TableRef::from("main.payments"), TableRef::new("main", "payments"));
        assert_eq!(TableRef::from("main.a.b"), TableRef::new("main", "a.b"));
        assert_eq!(TableRef::from("main.a.b").to_string(), "main.a.b");
    }
}
