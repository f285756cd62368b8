//! What must hold of whatever PostgreSQL's catalog says and of its cells; see [`crate::laws`].

use model::{ColumnDefault, ColumnType};

use super::{
    dialect::PostgresDialect,
    types::{Described, literal},
    values,
};

pub(crate) fn dialect(schema: &str) -> PostgresDialect {
    PostgresDialect { schema: schema.to_owned() }
}

/// Texts: name of the type, default, labels.
pub(crate) fn described(which: u8, texts: &[&str]) {
    for text in texts {
        for behind in ["", "::text", "::character varying"] {
            let written = format!("'{}'{behind}", text.replace('\'', "''"));
            assert_eq!(literal(&written).as_deref(), Some(*text), "{written}");
        }
    }
    let text = |at: usize| texts.get(at).copied().unwrap_or_default().to_owned();
    let described = Described {
        number: 1,
        name: "c".to_owned(),
        type_name: text(0),
        is_builtin: which & 1 == 0,
        is_enum: which & 2 != 0,
        is_array: which & 16 != 0,
        spelled: text(0),
        declared: text(0),
        modifier: if which & 4 == 0 { -1 } else { (6 << 16 | 2) + 4 },
        not_null: which & 8 != 0,
        is_identity: false,
        is_generated: false,
        default: texts.get(1).map(|text| (*text).to_owned()),
        is_collated_loosely: which & 32 != 0,
        labels: texts.iter().skip(2).map(|text| (*text).to_owned()).collect(),
    };
    let Ok(column) = described.column() else { return };
    if let ColumnDefault::Constant(value) = &column.default {
        assert_eq!(column.accept(value.clone()).as_ref(), Ok(value), "{described:?}");
    }
}

pub(crate) fn cell(which: u8, cell: &[u8]) {
    let types = [
        ColumnType::Bool,
        ColumnType::Int { bits: 32 },
        ColumnType::Double,
        ColumnType::Decimal { precision: 12, scale: 2 },
        ColumnType::Numeric,
        ColumnType::Characters { max_chars: None },
        ColumnType::Bytes { max_bytes: None },
        ColumnType::Timestamp { fraction: 6 },
        ColumnType::DateTime { fraction: 6 },
        ColumnType::Date,
        ColumnType::TimeOfDay { fraction: 6 },
        ColumnType::Jsonb,
        ColumnType::Inet,
        ColumnType::Array { element: Box::new(ColumnType::Numeric), name: "numeric".to_owned() },
    ];
    let ty = &types[usize::from(which) % types.len()];
    if let Ok(value) = values::value(cell, ty) {
        assert_eq!(value.kind(), ty.kind(), "{}", cell.escape_ascii());
    }
}
