//! What must hold of whatever MySQL's catalog says; see [`crate::laws`].

use model::ColumnDefault;

use super::{
    defaults::literals,
    dialect::MysqlDialect,
    types::{Described, Flavour},
};

pub(crate) fn dialect() -> MysqlDialect {
    MysqlDialect { statement_bytes: 1 << 20 }
}

/// Texts: data type, column type, default, extra, charset, collation.
pub(crate) fn described(which: u8, texts: &[&str]) {
    // Each as the servers write it: the quote twice, and a backslash, too.
    let written: Vec<String> =
        texts.iter().map(|text| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))).collect();
    let read = literals(&written.join(",")).unwrap_or_default();
    assert_eq!(read, texts);

    let text = |at: usize| texts.get(at).copied().unwrap_or_default().to_owned();
    let given = |at: usize| texts.get(at).map(|text| (*text).to_owned());
    let described = Described {
        name: "c".to_owned(),
        data_type: text(0),
        column_type: text(1),
        nullable: which & 1 != 0,
        default: given(2),
        extra: text(3),
        max_chars: (which & 2 != 0).then_some(5),
        max_bytes: (which & 2 != 0).then_some(20),
        precision: (which & 4 != 0).then_some(6),
        scale: (which & 8 != 0).then_some(2),
        fraction: (which & 4 != 0).then_some(3),
        charset: given(4),
        collation: given(5),
        checked_json: which & 16 != 0,
    };
    let flavour = Flavour { is_mariadb: which & 32 != 0, last_second: i64::from(i32::MAX) };
    let Ok(column) = described.column(flavour) else { return };
    if let ColumnDefault::Constant(value) = &column.default {
        assert_eq!(column.accept(value.clone()).as_ref(), Ok(value), "{described:?}");
    }
}
