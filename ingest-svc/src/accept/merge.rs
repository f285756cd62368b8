//! The after-image of an update: the stored row with the changes laid over it, complete under the current schema.

use model::{Fingerprint, Moment, Row, TableSchema, Violation};

/// Merges `changes`, which the table has accepted, into a stored row.
///
/// Of a row that was stored under another schema (which [`crate::read::form`] has brought up to date) columns that are gone
/// are left out, new ones that nobody knows a value of get their default, and what is left must still be what the table
/// accepts.
///
/// # Errors
/// What the table would refuse of a row that was stored under another schema.
pub(super) fn after_image(
    schema: &TableSchema,
    current: Fingerprint,
    stored: Row,
    stored_under: Fingerprint,
    changes: Row,
    moment: Moment<'_>,
) -> Result<Row, Vec<Violation>> {
    if stored_under == current {
        return Ok(stored.merged_with(changes));
    }
    let kept = stored.into_iter().filter(|(name, _)| schema.column(name.as_str()).is_some()).collect::<Row>();
    schema.accept_row(kept.merged_with(changes), moment)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use model::{
        Column, ColumnDefault, ColumnName, ColumnType, DatabaseName, TableName, TableRef, Value, VersionGuard,
    };

    fn column(name: &str, ty: ColumnType, default: ColumnDefault) -> Column {
        Column { name: ColumnName::new(name).unwrap(), ty, nullable: false, default, on_update_now: false }
    }

    fn schema(columns: Vec<Column>) -> TableSchema {
        TableSchema {
            table: TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new("t").unwrap() },
            columns,
            key_columns: vec![0],
            group: vec![0],
            has_secondary_unique: false,
            guard: VersionGuard::Ledger,
        }
    }

    fn merged(old: &TableSchema, new: &TableSchema, stored: Row, changes: Row) -> Result<Row, Vec<Violation>> {
        let moment = Moment { now: jiff::Timestamp::UNIX_EPOCH, chance: &model::Chance::seeded(1) };
        after_image(new, new.fingerprint(), stored, old.fingerprint(), changes, moment)
    }

    fn row(columns: &[(&str, Value)]) -> Row {
        columns.iter().map(|(n, v)| (ColumnName::new(n).unwrap(), v.clone())).collect()
    }

    const INT: ColumnType = ColumnType::Int { bits: 64 };
    const TEXT: ColumnType = ColumnType::Text { max_chars: Some(3), max_bytes: None };

    #[test]
    fn an_altered_table_gets_its_new_columns_and_loses_its_old_ones() {
        let old = schema(vec![column("id", INT, ColumnDefault::None), column("gone", INT, ColumnDefault::None)]);
        let new = schema(vec![
            column("id", INT, ColumnDefault::None),
            column("added", INT, ColumnDefault::Constant(Value::Int64(7))),
            column("name", TEXT, ColumnDefault::Constant(Value::Text("x".into()))),
        ]);
        let stored = row(&[("id", Value::Int64(1)), ("gone", Value::Int64(2))]);
        let changes = row(&[("name", Value::Text("abc".into()))]);
        let merged = merged(&old, &new, stored, changes).unwrap();
        let expected = row(&[("id", Value::Int64(1)), ("added", Value::Int64(7)), ("name", Value::Text("abc".into()))]);
        assert_eq!(merged, expected);
    }

    #[test]
    fn what_no_longer_fits_the_altered_table_is_refused() {
        let wide = ColumnType::Text { max_chars: Some(9), max_bytes: None };
        let old = schema(vec![column("id", INT, ColumnDefault::None), column("name", wide, ColumnDefault::None)]);
        let new = schema(vec![column("id", INT, ColumnDefault::None), column("name", TEXT, ColumnDefault::None)]);
        let stored = row(&[("id", Value::Int64(1)), ("name", Value::Text("too long".into()))]);
        let refused = merged(&old, &new, stored, Row::default());
        assert_eq!(refused.unwrap_err()[0].column, "name");
    }
}
