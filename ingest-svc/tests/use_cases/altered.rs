//! Records of tables that are altered while the hot store holds them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use database::DatabaseRow;
use hot_store::Slot;
use ingest_svc::{
    accept::{Acknowledge, Change, WriteError, Writer},
    find::Query,
    read::{ReadError, Reader},
    tables,
};
use model::{Column, ColumnDefault, ColumnName, ColumnType, Content, Row, Value};
use tokio_util::sync::CancellationToken;

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
async fn a_hot_record_whose_new_column_only_the_database_knows_is_not_read_from_it_each_time() {
    let world = World::new().await;
    for id in ["a", "b"] {
        world.write(put(id, 1)).await.unwrap();
    }
    world.drain().await;
    alter(&world, altered_columns()).await;
    let altered = alter_row(&world, "a");
    let before = world.reads();
    for _ in 0..10 {
        assert_eq!(world.get("a").await.unwrap().row, altered);
    }
    assert_eq!(world.reads() - before, 2, "for the first one, and to have it hot in the new form");
    world.db.set_away(true);
    assert_eq!(world.get("a").await.unwrap().row, altered);
    assert!(world.get("b").await.is_err());
    assert!(matches!(world.slot("b").await, Slot::Image { .. }), "what there is of it stays");
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

fn update_of_note(id: &str, note: &str) -> Change {
    let row = payment(id, 1).merged_with(row(&[("note", Value::Text(note.into()))]));
    Change::Put { row, precondition: None }
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
    let writer = Writer::new(seeing);
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

/// A replica that has seen the ALTER, beside the world's own, which has not.
async fn seeing_replica(world: &World, columns: Vec<Column>) -> Arc<TestCore> {
    world.db.make_table("payments", Some(columns));
    let seeing = replica(world, 4);
    seeing.directory.refresh(true).await.unwrap();
    seeing
}

fn with_fee() -> Vec<Column> {
    let fee = column("fee", INT, false, ColumnDefault::Constant(Value::Int64(7)));
    payment_columns().into_iter().chain([fee]).collect()
}

#[tokio::test]
async fn a_whole_record_by_a_replica_that_has_not_seen_a_new_column_gives_it_its_default_before_the_drain_as_after_it()
{
    let world = World::new().await;
    for id in ["clean", "dirty"] {
        world.write(put(id, 1)).await.unwrap();
    }
    world.drain().await;
    let seeing = seeing_replica(&world, with_fee()).await;
    let (reader, writer) = (Reader::new(seeing.clone()), Writer::new(seeing.clone()));
    let set_fee = |id| request(update(id, &[("fee", Value::Int64(9))]));
    let fee_of = async |id| reader.get(&table("payments"), &key_row(id), &[]).await.unwrap().row.get("fee").cloned();
    for id in ["clean", "dirty"] {
        // Its row was there before the column, so that the database is asked for what that has given it.
        let DatabaseRow::Present { version, row } = world.db.row("payments", &key(id)) else { panic!("{id}") };
        let row = row.merged_with(self::row(&[("fee", Value::Int64(7))]));
        world.db.set_row("payments", &key(id), DatabaseRow::Present { version, row });
        writer.write(set_fee(id), Acknowledge::default()).await.unwrap();
    }
    drain_as(&world, &seeing, "clean").await;
    for id in ["clean", "dirty"] {
        assert_eq!(fee_of(id).await, Some(Value::Int64(9)));
        world.write(put(id, 2)).await.unwrap();
        assert_eq!(fee_of(id).await, Some(Value::Int64(7)), "{id}: a whole record, and nothing is said of the column");
    }
    // One that knows it goes on from what is going to be written, not from what the database still has.
    writer.write(request(update("clean", &[("amount", Value::Int64(3))])), Acknowledge::default()).await.unwrap();
    assert_eq!(stored(&world, "clean").await.get("fee"), Some(&Value::Int64(7)));
    for id in ["clean", "dirty"] {
        drain_as(&world, &seeing, id).await;
        assert_eq!(fee_of(id).await, Some(Value::Int64(7)), "{id}");
        let DatabaseRow::Present { row, .. } = world.db.row("payments", &key(id)) else { panic!("{id}") };
        assert_eq!(row.get("fee"), Some(&Value::Int64(7)), "{id}: as it was read before the drain");
    }
}

/// Drains the newest version of a record as somebody does who knows the table as it is.
async fn drain_as(world: &World, seeing: &TestCore, id: &str) {
    let schema = &seeing.directory.table(&table("payments")).unwrap().schema;
    let (_, _, newest) = world.logged(id).pop().unwrap();
    world.apply(schema, world.shard(id), newest).await;
}

#[tokio::test]
async fn a_column_that_is_not_known_yet_is_looked_for_before_a_write_is_refused() {
    let world = World::new().await;
    world.write(put("a", 1)).await.unwrap();
    let fee = |id: &str| {
        let row = payment(id, 1).merged_with(row(&[("fee", Value::Int64(9))]));
        Change::Put { row, precondition: None }
    };
    let refused = world.write(fee("a")).await.unwrap_err();
    assert!(matches!(&refused, WriteError::Invalid { violations, .. } if violations[0].column == "fee"), "{refused}");
    tokio::time::pause();
    tokio::time::advance(world.core.options.table_refresh).await;
    world.db.make_table("payments", Some(with_fee()));
    world.write(update("a", &[("fee", Value::Int64(8))])).await.unwrap();
    assert_eq!(stored(&world, "a").await.get("fee"), Some(&Value::Int64(8)));
    world.write(fee("b")).await.unwrap();
    assert_eq!(stored(&world, "b").await.get("fee"), Some(&Value::Int64(9)));

    // However many ask for what is not there, the table is looked at once in a while; and not for long if that fails.
    let before = world.db.introspections.load(Ordering::SeqCst);
    for _ in 0..100 {
        world.write(update("a", &[("nowhere", Value::Int64(1))])).await.unwrap_err();
    }
    assert!(world.db.introspections.load(Ordering::SeqCst) - before <= 1);
    tokio::time::advance(world.core.options.table_refresh).await;
    world.db.set_away(true);
    let refused = world.write(update("a", &[("nowhere", Value::Int64(1))])).await.unwrap_err();
    assert!(matches!(refused, WriteError::Invalid { .. }), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_altered_table_is_seen_within_ten_times_the_time_that_is_set() {
    let world = World::new().await;
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(tables::run(world.core.clone(), shutdown.clone()));
    let wide = |chars| {
        let mut columns = payment_columns();
        for column in columns.iter_mut().filter(|column| column.name.as_str() == "note") {
            column.ty = ColumnType::Text { max_chars: Some(chars), max_bytes: None };
        }
        columns
    };
    let table_refresh = world.core.options.table_refresh;
    for (round, chars) in (4000..4012).enumerate() {
        // At whatever moment between two looks.
        tokio::time::sleep(table_refresh.mul_f64(0.9 * round as f64) + Duration::from_millis(1)).await;
        let note = "x".repeat(chars);
        let refused = world.write(update_of_note("a", &note)).await.unwrap_err();
        assert!(matches!(refused, WriteError::Invalid { .. }), "{refused}");
        world.db.make_table("payments", Some(wide(chars as u64)));
        tokio::time::sleep(table_refresh * 10).await;
        world.write(update_of_note("a", &note)).await.unwrap();
    }
    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_record_whose_column_was_renamed_is_not_read_as_if_it_had_no_value() {
    let world = World::new().await;
    for id in ["clean", "unread"] {
        world.write(update_of_note(id, "kept")).await.unwrap();
    }
    world.drain().await;
    world.write(update_of_note("waits", "kept")).await.unwrap();
    let mut columns = payment_columns();
    for column in columns.iter_mut().filter(|column| column.name.as_str() == "note") {
        column.name = ColumnName::new("remark").unwrap();
    }
    alter(&world, columns).await;
    // The database has taken the values with it.
    let renamed =
        full_payment("clean", 1).select(&["id", "amount", "status"].map(|name| ColumnName::new(name).unwrap()));
    let renamed = renamed.merged_with(row(&[("remark", Value::Text("kept".into()))]));
    let DatabaseRow::Present { version, .. } = world.db.row("payments", &key("clean")) else { panic!("not there") };
    world.db.set_row("payments", &key("clean"), DatabaseRow::Present { version, row: renamed.clone() });
    assert_eq!(world.get("clean").await.unwrap().row, renamed);
    // What waits names the former column, and leaves nothing in this one.
    assert_eq!(world.get("waits").await.unwrap().row.get("remark"), Some(&Value::Null));
    world.db.set_away(true);
    assert_eq!(world.get("clean").await.unwrap().row, renamed);
    assert!(matches!(world.get("unread").await, Err(ReadError::Store(_))), "rather than a value that it has not");
    let some = world.reader.get(&table("payments"), &key_row("unread"), &["amount".to_owned()]).await.unwrap();
    assert_eq!(some.row, row(&[("amount", Value::Int64(1))]), "for that nobody has to be asked");
}

#[tokio::test]
async fn a_column_whose_value_only_the_drain_will_tell_is_left_out_until_then() {
    let world = World::new().await;
    world.write(put("waits", 1)).await.unwrap();
    alter(&world, altered_columns()).await;
    let read = world.get("waits").await.unwrap().row;
    assert_eq!((read.get("made"), read.get("fee")), (None, Some(&Value::Int64(7))));
    assert_eq!(world.get("waits").await.unwrap().row, read, "not another one each time");
    // Who has no use for the column is not held up by it.
    world.db.set_away(true);
    let columns = ["amount".to_owned(), "fee".to_owned()];
    let some = world.reader.get(&table("payments"), &key_row("waits"), &columns).await.unwrap().row;
    assert_eq!(some, row(&[("amount", Value::Int64(1)), ("fee", Value::Int64(7))]));
}
