//! What must hold of whatever SQLite's catalog says and of its cells; see [`crate::laws`].

use model::{ColumnDefault, ColumnType};

use super::{
    dialect::SqliteDialect,
    types::{Described, quoted},
    values::{Stored, value},
};

pub(crate) fn dialect() -> SqliteDialect {
    SqliteDialect
}

/// Texts: the declaration, the default.
pub(crate) fn described(texts: &[&str]) {
    for text in texts {
        assert_eq!(quoted(&format!("'{}'", text.replace('\'', "''"))).as_deref(), Some(*text));
    }
    let described = Described {
        name: "c".to_owned(),
        declared: texts.first().copied().unwrap_or_default().to_owned(),
        not_null: false,
        default: texts.get(1).map(|text| (*text).to_owned()),
        generated: false,
    };
    let Ok(column) = described.column() else { return };
    if let ColumnDefault::Constant(value) = &column.default {
        assert_eq!(column.accept(value.clone()).as_ref(), Ok(value), "{described:?}");
    }
}

pub(crate) fn cell(which: u8, cell: &[u8]) {
    let types = [
        ColumnType::Bool,
        ColumnType::Int { bits: 64 },
        ColumnType::Uint { bits: 32 },
        ColumnType::SignlessZero(Box::new(ColumnType::Double)),
        ColumnType::Decimal { precision: 12, scale: 2 },
        ColumnType::Decimal { precision: 12, scale: 12 },
        ColumnType::Text { max_chars: None, max_bytes: None },
        ColumnType::Bytes { max_bytes: None },
        ColumnType::Timestamp { fraction: 6 },
        ColumnType::DateTime { fraction: 3 },
        ColumnType::Date,
        ColumnType::Time { fraction: 6 },
        ColumnType::Json,
    ];
    let ty = &types[usize::from(which) % types.len()];
    let mut forms = vec![Stored::Blob(cell.to_vec())];
    forms.extend(std::str::from_utf8(cell).map(|text| Stored::Text(text.to_owned())));
    if let Ok(bytes) = cell.try_into() {
        forms.extend([Stored::Integer(i64::from_be_bytes(bytes)), Stored::Real(f64::from_be_bytes(bytes))]);
    }
    for stored in forms {
        if let Ok(value) = value(stored, ty) {
            assert_eq!(value.kind(), ty.kind(), "{}", cell.escape_ascii());
        }
    }
}
