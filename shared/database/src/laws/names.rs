//! That a name stays a name in every statement.

use model::{
    Column, ColumnDefault, ColumnName, ColumnType, DatabaseName, TableName, TableRef, TableSchema, VersionGuard,
};

use super::lexer::{Server, Token, tokens};
use crate::{
    mysql, postgres,
    relational::{self, dialect::Dialect},
    sqlite,
};

/// In quotes a name is one token of its database, which is that name; and a statement with it is the same as with a name
/// that nobody minds, whatever modes the server is in.
///
/// Lines: the names of a table, its key, another column, and a schema.
pub fn identifier(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let lines: Vec<&str> = text.split('\n').take(4).collect();
    let [table, key, column, schema] = lines[..] else { return };
    let names = [table, key, column, schema];
    let are_different = (0..4).all(|at| !names[..at].contains(&names[at]));
    // A schema's name is not checked, but it came out of PostgreSQL, which can't hold the character.
    if !are_different || names.contains(&crate::relational::dialect::VERSION_COLUMN) || schema.contains('\0') {
        return;
    }
    // Other names are refused before they get so far.
    let Some(hostile) = table_of(table, key, column) else { return };
    let Some(tame) = table_of("t", "k", "c") else { return };
    for (ansi_quotes, no_backslash_escapes) in [(false, false), (false, true), (true, false), (true, true)] {
        let server = Server::Mysql { ansi_quotes, no_backslash_escapes };
        stays(server, names, (&mysql::laws::dialect(), &hostile), (&mysql::laws::dialect(), &tame));
    }
    let of_schema = postgres::laws::dialect;
    stays(Server::Postgres, names, (&of_schema(schema), &hostile), (&of_schema("s"), &tame));
    stays(Server::Sqlite, names, (&sqlite::laws::dialect(), &hostile), (&sqlite::laws::dialect(), &tame));
}

fn stays<D: Dialect>(server: Server, names: [&str; 4], hostile: (&D, &TableSchema), tame: (&D, &TableSchema)) {
    for name in names {
        assert_eq!(tokens(server, &hostile.0.quote(name)), [Token::Name(name.to_owned())]);
    }
    for guard in [VersionGuard::Column, VersionGuard::Ledger] {
        for has_secondary_unique in [false, true] {
            let of = |(dialect, schema): (&D, &TableSchema)| {
                let schema = TableSchema { guard, has_secondary_unique, ..schema.clone() };
                relational::laws::statements(dialect, &schema)
            };
            let (hostile, tame) = (of(hostile), of(tame));
            assert_eq!(hostile.len(), tame.len());
            for ((hostile, marks), (tame, _)) in hostile.iter().zip(&tame) {
                let renamed = tokens(server, hostile).into_iter().map(|token| match token {
                    Token::Name(name) => Token::Name(match names.iter().position(|known| **known == name) {
                        Some(at) => ["t", "k", "c", "s"][at].to_owned(),
                        None => name,
                    }),
                    token => token,
                });
                let renamed: Vec<Token> = renamed.collect();
                assert_eq!(renamed, tokens(server, tame), "{hostile}");
                assert_eq!(renamed.iter().filter(|token| **token == Token::Mark).count(), *marks, "{hostile}");
                assert!(!renamed.contains(&Token::Comment) && !renamed.contains(&Token::Endless), "{hostile}");
            }
        }
    }
}

fn table_of(table: &str, key: &str, other: &str) -> Option<TableSchema> {
    let column = |name: &str| {
        Some(Column {
            name: ColumnName::new(name).ok()?,
            ty: ColumnType::Int { bits: 64 },
            nullable: false,
            default: ColumnDefault::None,
            on_update_now: false,
        })
    };
    Some(TableSchema {
        table: TableRef { database: DatabaseName::new("main").ok()?, table: TableName::new(table).ok()? },
        columns: vec![column(key)?, column(other)?],
        key_columns: vec![0],
        group: vec![0],
        has_secondary_unique: false,
        guard: VersionGuard::Column,
    })
}
