//! Records of tables that are altered while the hot store holds them.

use database::DatabaseRow;
use hot_store::Slot;
use ingest_svc::{
    accept::{Acknowledge, WriteError},
    find::Query,
};
use model::{Column, ColumnDefault, ColumnType, Content, Row, Value};

use crate::{
    db::{column, payment_columns},
    find::{self, by_amount},
    world::*,
};

const INT: ColumnType = ColumnType::Int { bits: 64 };

/// Without `note`; with a column of a constant default, one that may be NULL, and one whose value only the database knows.
fn altered_columns() -> Vec<Column> {
    let kept = payment_columns().into_iter().filter(|column| column.name.as_str() != "note");
    let came = [
        column("fee", INT, false, ColumnDefault::Constant(Value::Int64(7))),
        column("remark", INT, true, ColumnDefault::None),
        column("made", ColumnType::DateTime { fraction: 0 }, false, ColumnDefault::CurrentTimestamp),
    ];
    kept.chain(came).collect()
}

fn made() -> Value {
    Value::DateTime("2020-02-02T02:02:02".parse().unwrap())
}

async fn alter(world: &World, columns: Vec<Column>) {
    world.db.make_table("payments", Some(columns));
    assert!(world.core.directory.refresh(true).await.unwrap());
}

/// As the database shows a row of the old form after the ALTER.
fn altered_row(id: &str, amount: i64) -> Row {
    let came = [("fee", Value::Int64(7)), ("remark", Value::Null), ("made", made())];
    payment(id, amount).merged_with(row(&[("status", Value::Text("new".into()))])).merged_with(row(&came))
}

/// The database alters its rows with the table.
fn alter_row(world: &World, id: &str) -> Row {
    let DatabaseRow::Present { version, row } = world.db.row("payments", &key(id)) else { panic!("{id} is not there") };
    let Some(Value::Int64(amount)) = row.get("amount") else { panic!("{row:?}") };
    let altered = altered_row(id, *amount);
    world.db.set_row("payments", &key(id), DatabaseRow::Present { version, row: altered.clone() });
    altered
}

async fn stored(world: &World, id: &str) -> Row {
    let Slot::Image { image, .. } = world.slot(id).await else { panic!("{id} is not hot") };
    let Content::Row(row) = image.content else { panic!("{id} is deleted") };
    row
}

#[tokio::test]
async fn a_record_is_read_and_updated_in_the_form_of_the_altered_table() {
    let world = World::new().await;
    for id in ["clean", "dirty"] {
        world.write(put(id, 1)).await.unwrap();
    }
    world.drain().await;
    world.write(put("dirty", 2)).await.unwrap();
    alter(&world, altered_columns()).await;
    let clean = alter_row(&world, "clean");
    alter_row(&world, "dirty");
    assert_eq!(world.get("clean").await.unwrap().row, clean);
    assert_eq!(world.get("dirty").await.unwrap().row, altered_row("dirty", 2), "newer than the database");

    for id in ["clean", "dirty"] {
        world.write(update(id, &[("amount", Value::Int64(3))])).await.unwrap();
        assert_eq!(stored(&world, id).await, altered_row(id, 3), "what the database gave it stays");
    }
}

#[tokio::test]
async fn what_the_database_does_not_have_yet_gets_what_it_will_give() {
    let world = World::new().await;
    world.write(create("a", 1)).await.unwrap();
    let mut columns = altered_columns();
    columns.retain(|column| column.name.as_str() != "made");
    columns.push(column("must", INT, false, ColumnDefault::None));
    alter(&world, columns).await;
    let read = world.get("a").await.unwrap().row;
    assert_eq!((read.get("fee"), read.get("remark")), (Some(&Value::Int64(7)), Some(&Value::Null)));
    assert_eq!((read.get("note"), read.get("must")), (None, None));
    let refused = world.write(update("a", &[("amount", Value::Int64(2))])).await.unwrap_err();
    let WriteError::Invalid { violations, .. } = &refused else { panic!("{refused}") };
    assert_eq!(violations[0].column, "must");
    world.write(update("a", &[("amount", Value::Int64(2)), ("must", Value::Int64(5))])).await.unwrap();
    assert_eq!(stored(&world, "a").await.get("must"), Some(&Value::Int64(5)));
}

#[tokio::test]
async fn while_the_database_is_away_reads_go_by_the_default_and_an_update_that_would_write_it_waits() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let mut columns = altered_columns();
    columns.retain(|column| column.name.as_str() != "made");
    alter(&world, columns).await;
    world.db.set_away(true);
    assert_eq!(world.get("a").await.unwrap().row.get("fee"), Some(&Value::Int64(7)));
    let before = world.slot("a").await;
    let refused = world.write(update("a", &[("amount", Value::Int64(2))])).await;
    assert!(matches!(refused, Err(WriteError::Store(_))), "{refused:?}");
    assert_eq!(world.slot("a").await, before);
    world.db.set_away(false);
    world.write(update("a", &[("amount", Value::Int64(2))])).await.unwrap();
}

#[tokio::test]
async fn a_value_that_a_narrowed_column_does_not_hold_is_read_as_it_was_accepted_and_not_written_again() {
    let world = World::new().await;
    world.write(update_of_note("a", "much too long")).await.unwrap();
    let mut columns = payment_columns();
    for column in columns.iter_mut().filter(|column| column.name.as_str() == "note") {
        column.ty = ColumnType::Text { max_chars: Some(4), max_bytes: None };
    }
    alter(&world, columns).await;
    assert_eq!(world.get("a").await.unwrap().row.get("note"), Some(&Value::Text("much too long".into())));
    let refused = world.write(update("a", &[("amount", Value::Int64(2))])).await.unwrap_err();
    let WriteError::Invalid { violations, .. } = &refused else { panic!("{refused}") };
    assert_eq!(violations[0].column, "note");
    world.write(update("a", &[("note", Value::Text("fits".into()))])).await.unwrap();
}

fn update_of_note(id: &str, note: &str) -> ingest_svc::accept::Change {
    let row = payment(id, 1).merged_with(row(&[("note", Value::Text(note.into()))]));
    ingest_svc::accept::Change::Put { row, precondition: None }
}

#[tokio::test]
async fn an_update_by_a_replica_that_has_not_seen_a_new_column_keeps_its_value() {
    let world = World::new().await;
    for id in ["a", "gone"] {
        world.write(put(id, 1)).await.unwrap();
    }
    // This one has seen the ALTER, the other has not.
    world.db.make_table("payments", Some(altered_columns()));
    let seeing = replica(&world, 4);
    seeing.directory.refresh(true).await.unwrap();
    let writer = ingest_svc::accept::Writer::new(seeing);
    let set_fee = request(update("a", &[("fee", Value::Int64(9))]));
    writer.write(set_fee, Acknowledge::default()).await.unwrap();

    world.write(update("a", &[("amount", Value::Int64(2))])).await.unwrap();
    let row = stored(&world, "a").await;
    assert_eq!((row.get("fee"), row.get("amount")), (Some(&Value::Int64(9)), Some(&Value::Int64(2))));
    // And what was dropped is gone, without a look at the tables for each update.
    assert_eq!(row.get("note"), None);
    world.write(update("gone", &[("amount", Value::Int64(2))])).await.unwrap();
    assert_eq!(stored(&world, "gone").await.get("note"), None);
}

impl World {
    /// What a find brings, on pages of all sizes the same.
    async fn rows_with(&self, field: &str, value: Value) -> Vec<Row> {
        let mut rows = Vec::new();
        for limit in [1, 2, 100] {
            let mut query = Query { field: field.to_owned(), value: value.clone(), limit, ..by_amount(0) };
            let mut met = Vec::new();
            loop {
                let page = self.find(&query).await.unwrap();
                met.extend(page.records.into_iter().map(|found| found.row));
                query.page_token = page.next_page_token;
                if query.page_token.is_empty() {
                    break;
                }
            }
            met.sort_by(|a, b| id_of(a).cmp(id_of(b)));
            assert!(rows.is_empty() || rows == met, "by {limit}: {met:?}");
            rows = met;
        }
        rows
    }

    async fn declare(&self, fields: &[&str]) {
        let fields = fields.iter().map(|field| find::column(field)).collect();
        self.tables.enable_with(&table("payments"), Some(fields)).await.unwrap();
    }
}

#[tokio::test]
async fn records_are_found_by_columns_that_came_after_them() {
    let world = World::new().await;
    for id in ["clean", "newer"] {
        world.write(put(id, 1)).await.unwrap();
    }
    world.drain().await;
    world.write(put("newer", 2)).await.unwrap();
    world.write(put("not there yet", 2)).await.unwrap();
    alter(&world, altered_columns()).await;
    alter_row(&world, "clean");
    alter_row(&world, "newer");
    world.declare(&["amount", "fee", "made"]).await;
    let (clean, newer) = (altered_row("clean", 1), altered_row("newer", 2));
    // By its default.
    let by_fee = world.rows_with("fee", Value::Int64(7)).await;
    assert_eq!(by_fee[..2], [clean.clone(), newer.clone()]);
    assert_eq!(ids(&by_fee), ["clean", "newer", "not there yet"]);
    // By what was stored: it is shown as it is read.
    let of_two = world.rows_with("amount", Value::Int64(2)).await;
    assert_eq!(of_two[0], newer);
    assert_eq!(ids(&of_two), ["newer", "not there yet"]);
    // By what only the database knows, once it has the record.
    assert_eq!(world.rows_with("made", made()).await, [clean, newer]);
}

fn ids(rows: &[Row]) -> Vec<&str> {
    rows.iter().map(id_of).collect()
}

fn id_of(row: &Row) -> &str {
    match row.get("id") {
        Some(Value::Text(id)) => id,
        other => panic!("{other:?} is no id"),
    }
}

#[tokio::test]
async fn a_value_is_found_in_the_form_that_its_column_has_now() {
    let world = World::new().await;
    world.declare(&["amount"]).await;
    world.write(put("a", 5)).await.unwrap();
    let mut columns = payment_columns();
    columns[1].ty = ColumnType::Uint { bits: 64 };
    alter(&world, columns).await;
    world.write(put("b", 5)).await.unwrap();
    let found = world.rows_with("amount", Value::Int64(5)).await;
    assert_eq!(found.iter().map(|row| row.get("amount")).collect::<Vec<_>>(), [Some(&Value::Uint64(5)); 2]);
}
