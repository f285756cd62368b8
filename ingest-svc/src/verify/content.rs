//! Whether a row is what an image says.

use database::DatabaseRow;
use model::{Content, Image, Row, TableSchema, Value};
use serde_json::{Map, Value as Json};

/// How an image and a row compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sameness {
    Same,
    Different,
    /// They are not the same, but the image is of an earlier schema of the table: an altered column may be read otherwise.
    EarlierSchema,
}

/// The table as it is now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema<'a>(pub(super) &'a TableSchema);

impl Schema<'_> {
    /// Compares what a write said with what the database has, absent as a tombstone.
    pub(super) fn compare(&self, image: &Image, row: &DatabaseRow) -> Sameness {
        let (said, held) = match (&image.content, row) {
            (Content::Row(said), DatabaseRow::Present { row, .. }) => (said, row),
            (Content::Tombstone, DatabaseRow::Deleted { .. } | DatabaseRow::Absent) => return Sameness::Same,
            (Content::Row(_), DatabaseRow::Deleted { .. } | DatabaseRow::Absent)
            | (Content::Tombstone, DatabaseRow::Present { .. }) => return Sameness::Different,
        };
        let is_of_now = image.fingerprint == self.0.fingerprint();
        match (different(said, held, is_of_now).next().is_none(), is_of_now) {
            (true, _) => Sameness::Same,
            (false, true) => Sameness::Different,
            (false, false) => Sameness::EarlierSchema,
        }
    }
}

/// The columns that differ. A column that only one of two schemas has differs in neither.
pub(super) fn different<'a>(said: &'a Row, held: &'a Row, is_one_schema: bool) -> impl Iterator<Item = &'a str> {
    let only_held = held.iter().filter(move |(name, _)| is_one_schema && said.get(name.as_str()).is_none());
    let others = said.iter().filter(move |(name, value)| match held.get(name.as_str()) {
        Some(held) => !is_same(value, held),
        None => is_one_schema,
    });
    others.chain(only_held).map(|(name, _)| name.as_str())
}

/// A database may keep a document in another form than it was given.
fn is_same(said: &Value, held: &Value) -> bool {
    match (said, held) {
        (Value::Json(said), Value::Json(held)) if said != held => {
            match (serde_json::from_str(said), serde_json::from_str(held)) {
                (Ok(said), Ok(held)) => is_same_json(&said, &held),
                _ => false,
            }
        }
        _ => said == held,
    }
}

fn is_same_json(said: &Json, held: &Json) -> bool {
    let is_same_member = |held: &Map<String, Json>, name: &String, said: &Json| {
        held.get(name).is_some_and(|held| is_same_json(said, held))
    };
    match (said, held) {
        // MySQL keeps a number that is no 64-bit integer as a double.
        (Json::Number(said), Json::Number(held)) => said == held || said.as_f64() == held.as_f64(),
        (Json::Array(said), Json::Array(held)) => {
            said.len() == held.len() && said.iter().zip(held).all(|(said, held)| is_same_json(said, held))
        }
        (Json::Object(said), Json::Object(held)) => {
            said.len() == held.len() && said.iter().all(|(name, said)| is_same_member(held, name, said))
        }
        _ => said == held,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use model::ColumnName;

    use super::*;

    fn row(columns: &[(&str, Value)]) -> Row {
        columns.iter().map(|(name, value)| (ColumnName::new(name).unwrap(), value.clone())).collect()
    }

    #[test]
    fn a_document_is_the_same_in_another_form_and_not_with_another_value() {
        let json = |text: &str| Value::Json(text.to_owned());
        let said = json(r#"{"b":[1, 2.50],"a":null}"#);
        assert!(is_same(&said, &json(r#"{"a": null, "b": [1, 2.5]}"#)));
        for other in [r#"{"a": null, "b": [1, 2.6]}"#, r#"{"b": [1, 2.5]}"#, r#"{"a": null, "b": [2.5, 1]}"#] {
            assert!(!is_same(&said, &json(other)), "{other}");
        }
    }

    #[test]
    fn columns_that_differ_are_named_and_those_of_another_schema_are_not() {
        let said = row(&[("a", Value::Int64(1)), ("b", Value::Null), ("gone", Value::Int64(1))]);
        let held = row(&[("a", Value::Int64(2)), ("b", Value::Null), ("new", Value::Int64(3))]);
        assert_eq!(different(&said, &held, false).collect::<Vec<_>>(), ["a"]);
        assert_eq!(different(&said, &held, true).collect::<Vec<_>>(), ["a", "gone", "new"]);
    }
}
