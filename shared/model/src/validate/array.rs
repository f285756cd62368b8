//! Arrays of PostgreSQL. They travel as JSON: `[1, null, 2]`. What JSON has no kind for is a text in it, in the form in
//! which it is a text elsewhere in the API; bytes are one in hexadecimal digits, `"\\x00ff"`.

use bytes::Bytes;

use super::{Refusal, range};
use crate::{ColumnType, Value, ValueKind, civil, jsonb};

/// Elements may be filled up (CHAR(n)), and a small text with many must not become a huge one.
const MAX_BYTES: usize = 1 << 26;

/// Each element in its own type, as the database would give it back.
pub(super) fn canonical(text: &str, element: &ColumnType) -> Result<String, Refusal> {
    let items = jsonb::items(text)
        .map_err(|problem| range(format!("is no JSON array of one dimension, such as [1, null]: {problem}")))?;
    let mut out = String::from("[");
    for (at, item) in items.iter().enumerate() {
        out.push_str(if at > 0 { ", " } else { "" });
        let accepted = match item.as_str() {
            "null" => Ok("null".to_owned()),
            item => match given(item, element.kind()) {
                Some(value) => element.accept(value).map(|value| item_of(&value)),
                None => Err(Refusal::Type),
            },
        };
        if out.len() > MAX_BYTES {
            return Err(range("is larger than any record may be"));
        }
        out.push_str(&accepted.map_err(|refusal| {
            let which = at + 1;
            match refusal {
                Refusal::Type => range(format!("its element {which}, {item:.40}, is no {}", element.kind())),
                Refusal::Range(problem) => range(format!("its element {which} {problem}")),
            }
        })?);
    }
    out.push(']');
    Ok(out)
}

/// The elements of an array that a column has accepted, each as the database reads it; `None` is NULL.
pub fn array_elements(array: &str) -> Option<Vec<Option<String>>> {
    let element = |item: String| match item.as_str() {
        "null" => Some(None),
        item if item.starts_with('"') => text(item).map(Some),
        _ => Some(Some(item)),
    };
    jsonb::items(array).ok()?.into_iter().map(element).collect()
}

fn text(item: &str) -> Option<String> {
    serde_json::from_str(item).ok()
}

/// What an item of JSON is in a column of that kind.
fn given(item: &str, kind: ValueKind) -> Option<Value> {
    let is_text = item.starts_with('"');
    let text = || text(item);
    Some(match kind {
        ValueKind::Bool => Value::Bool(item.parse().ok()?),
        ValueKind::Int64 => Value::Int64(item.parse().ok()?),
        ValueKind::Double if !is_text => Value::Double(item.parse().ok()?),
        ValueKind::Decimal if !is_text => Value::Decimal(item.to_owned()),
        ValueKind::Decimal => Value::Decimal(text()?),
        ValueKind::Text => Value::Text(text()?),
        ValueKind::Bytes => Value::Bytes(bytes(&text()?)?),
        ValueKind::Timestamp => Value::Timestamp(civil::timestamp(&text()?)?),
        ValueKind::DateTime => Value::DateTime(civil::datetime(&text()?)?),
        ValueKind::Date => Value::Date(civil::date(&text()?)?),
        ValueKind::Time => Value::Time(text()?.parse().ok()?),
        ValueKind::Double | ValueKind::Null | ValueKind::Uint64 | ValueKind::Json => return None,
    })
}

fn item_of(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int64(number) => number.to_string(),
        Value::Uint64(number) => number.to_string(),
        Value::Double(number) => format!("{number:?}"),
        Value::Decimal(text) | Value::Text(text) | Value::Json(text) => jsonb::quoted(text),
        Value::Bytes(bytes) => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            jsonb::quoted(&format!("\\x{digits}"))
        }
        Value::Timestamp(at) => jsonb::quoted(&at.to_string()),
        Value::DateTime(at) => jsonb::quoted(&at.to_string()),
        Value::Date(at) => jsonb::quoted(&at.to_string()),
        Value::Time(at) => jsonb::quoted(&at.to_string()),
    }
}

fn bytes(text: &str) -> Option<Bytes> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.strip_prefix("\\x")?.as_bytes().chunks(2);
    pairs.map(|pair| if let [high, low] = pair { Some(digit(high)? << 4 | digit(low)?) } else { None }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(element: ColumnType, text: &str) -> Option<String> {
        canonical(text, &element).ok()
    }

    #[test]
    fn an_array_has_one_form() {
        let int = || ColumnType::Int { bits: 16 };
        let decimal = || ColumnType::Decimal { precision: 5, scale: 2 };
        for (element, given, expected) in [
            (int(), " [1,null ,-2]", Some("[1, null, -2]")),
            (int(), "[]", Some("[]")),
            (int(), "[32768]", None),
            (int(), "[1.5]", None),
            (int(), "[\"1\"]", None),
            (int(), "[[1]]", None),
            (int(), "[{}]", None),
            (int(), "1", None),
            (int(), "null", None),
            (int(), "[1] 2", None),
            (decimal(), "[1, \"1.5\", 2.50, -0]", Some(r#"["1.00", "1.50", "2.50", "0.00"]"#)),
            (decimal(), "[0.001]", None),
            (ColumnType::Bool, "[true,false]", Some("[true, false]")),
            (ColumnType::Bool, "[1]", None),
            (ColumnType::Double, "[1, 0.1, -0.0, 1e300]", Some("[1.0, 0.1, -0.0, 1e300]")),
            (ColumnType::Double, "[1e400]", None),
            (
                ColumnType::Characters { max_chars: Some(2) },
                r#"["a\u00e9", "", "\"\\"]"#,
                Some(r#"["aé", "", "\"\\"]"#),
            ),
            (ColumnType::Characters { max_chars: Some(2) }, r#"["abc"]"#, None),
            (ColumnType::Bytes { max_bytes: None }, r#"["\\x00Ff", "\\x"]"#, Some(r#"["\\x00ff", "\\x"]"#)),
            (ColumnType::Bytes { max_bytes: None }, r#"["00"]"#, None),
            (
                ColumnType::Timestamp { fraction: 6 },
                r#"["2024-01-01T01:00:00+01:00"]"#,
                Some(r#"["2024-01-01T00:00:00Z"]"#),
            ),
            (ColumnType::Date, r#"["2024-02-29"]"#, Some(r#"["2024-02-29"]"#)),
            (ColumnType::Date, r#"["2023-02-29"]"#, None),
            (ColumnType::Date, r#"["2024-W01-1"]"#, None),
            (ColumnType::DateTime { fraction: 6 }, r#"["2024-01-01T01:00:00+05:30"]"#, None),
            (ColumnType::DateTime { fraction: 6 }, r#"["2024-01-01T01:00:60"]"#, None),
        ] {
            assert_eq!(accepted(element.clone(), given).as_deref(), expected, "{element:?} {given}");
        }
    }

    #[test]
    fn its_elements_are_as_the_database_reads_them() {
        let elements = array_elements(r#"["a\"b", null, 1.5, true]"#);
        let told = |text: &str| Some(text.to_owned());
        assert_eq!(elements, Some(vec![told("a\"b"), None, told("1.5"), told("true")]));
        assert_eq!(array_elements("1"), None);
    }
}
