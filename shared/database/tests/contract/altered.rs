//! Records that were accepted before their table got a column, written when it has it.

use database::{Applied, Change, Database as _, DatabaseRow, memory::MemoryTable};
use model::{Column, ColumnDefault, ColumnType, Image, Operation, Row, TableSchema, Value, VersionGuard};

use crate::{harness::*, tested::Tested};

on_every_database!(a_whole_record_that_is_older_than_a_column_gives_it_its_default_and_a_part_leaves_it_as_it_is);

/// Somebody else adds a column with a default, and one that may be NULL.
async fn add_columns(h: &Harness, schema: &TableSchema) -> TableSchema {
    let table = &schema.table.table;
    match &*h.database {
        Tested::Sql(_) => {
            h.sql(&format!("ALTER TABLE {table} ADD COLUMN fee BIGINT NOT NULL DEFAULT 7")).await;
            h.sql(&format!("ALTER TABLE {table} ADD COLUMN remark BIGINT NULL")).await;
        }
        Tested::Memory(database) => {
            let number = |name| MemoryTable::column(name, ColumnType::Int { bits: 64 }).unwrap();
            let default = ColumnDefault::Constant(Value::Int64(7));
            let fee = Column { nullable: false, default, ..number("fee") };
            let columns = schema.columns.iter().cloned().chain([fee, number("remark")]).collect();
            let key = schema.key_columns.clone();
            let definition = MemoryTable { columns, key, guard: schema.guard, ..MemoryTable::new(Vec::new()) };
            database.define_table(table.clone(), definition);
        }
    }
    h.introspect(table.as_str()).await.unwrap()
}

fn with(row: Row, fee: i64, remark: Value) -> Row {
    row.merged_with(self::row([("fee", Value::Int64(fee)), ("remark", remark)]))
}

/// What another write of the record made of it, which named some of its columns.
pub fn as_update(change: Change) -> Change {
    Change { image: Image { operation: Operation::Update, ..change.image }, ..change }
}

async fn a_whole_record_that_is_older_than_a_column_gives_it_its_default_and_a_part_leaves_it_as_it_is(h: Harness) {
    for guard in [VersionGuard::Ledger, VersionGuard::Column] {
        let earlier = h.items(guard).await;
        h.apply(&earlier, &[put(&earlier, "whole", 10), put(&earlier, "part", 10)]).await.unwrap();
        let altered = add_columns(&h, &earlier).await;
        // By somebody who knows the columns.
        let known = |id| put_row(&altered, with(item(id, 20), 9, Value::Int64(5)), 20);
        assert_eq!(h.apply(&altered, &[known("whole"), known("part")]).await.unwrap(), vec![Applied::Written; 2]);
        // By somebody who doesn't, or who didn't know them yet.
        let late = [put(&earlier, "whole", 30), as_update(put(&earlier, "part", 30)), put(&earlier, "new", 30)];
        assert_eq!(h.apply(&altered, &late).await.unwrap(), vec![Applied::Written; 3]);
        let keys = [id("whole"), id("part"), id("new")];
        let expected: [DatabaseRow; 3] = [
            present(30, with(item("whole", 30), 7, Value::Null)),
            present(30, with(item("part", 30), 9, Value::Int64(5))),
            present(30, with(item("new", 30), 7, Value::Null)),
        ];
        assert_eq!(h.database.read(&altered, &keys).await.unwrap(), expected);
    }
}
