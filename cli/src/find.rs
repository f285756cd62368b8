//! `shock-absorber find`: records by the value of a declared field.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};
use clap::Args;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use shock_absorber_client::{Client, ColumnKind, Find, Found, Row, Table, TableRef, Value};

/// Records that are asked for at once.
const PAGE: usize = 100;

/// What is looked for.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// `table`, or `database.table` if several databases are configured
    table: String,
    /// One of the table's indexed fields
    field: String,
    /// The value that it has, as plain text: SUCCESS, 12.50, 2026-11-21
    #[arg(allow_negative_numbers = true)]
    value: String,
    /// How many records at most
    #[arg(long, default_value_t = PAGE)]
    limit: usize,
    /// Only these columns; may be repeated
    #[arg(long)]
    column: Vec<String>,
    /// As JSON: one object a line for each record, with its etag and version beside its row
    #[arg(long)]
    json: bool,
}

/// Prints them as they come, page after page.
pub(crate) async fn run(arguments: FindArgs, endpoint: &str) -> Result<()> {
    let FindArgs { table, field, value, limit, column, json } = arguments;
    let client = Client::connect(endpoint).await.context("is it running? `shock-absorber dev` starts it")?;
    let table = client.get_table(&TableRef::from(table.as_str())).await?;
    let value = value_of(&field, &value, &table)?;
    let columns: Vec<&str> = column.iter().map(String::as_str).collect();
    let mut find = Find::new(&table.table, field, value).columns(&columns);
    let mut left = limit;
    while left > 0 {
        let page = client.find(&find.clone().limit(u32::try_from(left.min(PAGE))?)).await?;
        left = left.saturating_sub(page.records.len());
        let mut out = io::stdout().lock();
        for found in &page.records {
            writeln!(out, "{}", if json { json_line(found)? } else { found.row.to_json()? })?;
        }
        out.flush()?;
        match page.next {
            Some(next) => find = find.from(next),
            None => return Ok(()),
        }
    }
    eprintln!("there may be more: --limit says how many are shown");
    Ok(())
}

/// The value of a column from what somebody types, who puts no quotes around a text.
fn value_of(field: &str, typed: &str, table: &Table) -> Result<Value> {
    let is_bare = table.column(field).is_some_and(|c| matches!(c.kind, ColumnKind::Bool | ColumnKind::Double));
    let json = if is_bare {
        RawValue::from_string(typed.to_owned()).with_context(|| format!("{typed} is no value of {field}"))?
    } else {
        to_raw_value(typed)?
    };
    let row = Row::from_json(&serde_json::to_string(&BTreeMap::from([(field, json)]))?, table)?;
    row.get(field).cloned().with_context(|| format!("{field} has no value"))
}

#[derive(Serialize)]
struct FoundJson<'a> {
    row: Box<RawValue>,
    etag: &'a str,
    version: u64,
}

fn json_line(found: &Found) -> Result<String> {
    let row = RawValue::from_string(found.row.to_json()?)?;
    Ok(serde_json::to_string(&FoundJson { row, etag: &found.etag, version: found.version })?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use shock_absorber_client::{Column, Rate};

    use super::*;

    fn table() -> Table {
        let column = |(name, kind): (&str, ColumnKind)| Column {
            name: name.to_owned(),
            kind,
            nullable: true,
            has_default: false,
        };
        let kinds = [
            ("n", ColumnKind::Int64),
            ("amount", ColumnKind::Decimal),
            ("status", ColumnKind::String),
            ("paid", ColumnKind::Bool),
        ];
        Table {
            table: TableRef::from("main.payments"),
            enabled: true,
            columns: kinds.map(column).into(),
            primary_key: vec!["n".into()],
            topic: String::new(),
            unsupported_reason: String::new(),
            rate: Rate::Configured,
            unreadable_rate: None,
            indexed_fields: Vec::new(),
        }
    }

    #[test]
    fn a_value_is_typed_without_quotes_and_taken_by_its_column() {
        let table = table();
        let typed = |field: &str, typed: &str| value_of(field, typed, &table);
        assert_eq!(typed("n", "-12").unwrap(), Value::Int64(-12));
        assert_eq!(typed("amount", "12.50").unwrap(), Value::Decimal("12.50".into()));
        assert_eq!(typed("status", "12").unwrap(), Value::Text("12".into()));
        assert_eq!(typed("status", r#"a "quoted" one"#).unwrap(), Value::Text(r#"a "quoted" one"#.into()));
        assert_eq!(typed("paid", "true").unwrap(), Value::Bool(true));
    }

    #[test]
    fn what_is_no_value_of_the_column_is_refused_with_its_name() {
        let table = table();
        for (field, typed) in [("n", "many"), ("paid", "true, \"n\": 1"), ("paid", "yes"), ("colour", "red")] {
            let error = value_of(field, typed, &table).unwrap_err();
            assert!(format!("{error:#}").contains(field), "{error:#}");
        }
    }
}
