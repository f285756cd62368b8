//! Every call does what it says.

use std::time::Duration;

use shock_absorber_client::{AckLevel, Acknowledge, ColumnKind, Find, Precondition, Rate, Reason, Value, Write};

use crate::world::{World, id, payment};

#[tokio::test]
async fn a_record_is_created_read_changed_and_deleted() {
    let world = World::new().await;
    let client = world.client();
    let created = client.create("payments", payment("p", 5)).await.unwrap();
    assert_eq!(created.reached, Some(AckLevel::Queued));
    let found = client.get("main.payments", id("p")).await.unwrap();
    assert_eq!(found.row, payment("p", 5).set("currency", "INR").set("note", None::<&str>));
    assert_eq!(found.etag, created.etag);

    let updated = client.update("payments", id("p"), id("p").set("note", "paid")).await.unwrap();
    assert_ne!(updated.etag, created.etag);
    let found = client.get_columns("payments", id("p"), &["note", "amount"]).await.unwrap();
    assert_eq!(found.row, shock_absorber_client::Row::new().set("note", "paid").set("amount", 5));

    client.put("payments", payment("p", 6)).await.unwrap();
    assert_eq!(client.get("payments", id("p")).await.unwrap().row.get("note"), Some(&Value::Null));
    client.delete("payments", id("p")).await.unwrap();
    assert!(client.get("payments", id("p")).await.unwrap_err().is(Reason::NotFound));
    client.delete("payments", id("p")).await.unwrap();
}

#[tokio::test]
async fn a_row_that_only_the_database_has_is_found() {
    let world = World::new().await;
    world.sql("INSERT INTO payments (id, amount) VALUES ('cold', 7)").await;
    let found = world.client().get("payments", id("cold")).await.unwrap();
    assert_eq!(found.row.get("amount"), Some(&Value::Int64(7)));
}

#[tokio::test]
async fn the_items_of_a_batch_succeed_and_fail_each_for_itself() {
    let world = World::new().await;
    let client = world.client();
    let writes = [
        Write::create("payments", payment("a", 1)),
        Write::create("payments", payment("a", 2)),
        Write::put("payments", payment("b", 3).set("nope", 1)),
        Write::update("payments", id("a"), id("a").set("amount", 4)),
        Write::put("payments", payment("c", 5)),
        Write::delete("payments", id("c")).only_if(Precondition::Exists(true)),
    ];
    let results = client.batch_write(&writes).await;
    let reasons: Vec<_> = results.iter().map(|r| r.as_ref().err().and_then(|e| e.reason())).collect();
    assert_eq!(reasons, [None, Some("ALREADY_EXISTS"), Some("UNKNOWN_COLUMN"), None, None, None]);
    let fields = &results[2].as_ref().unwrap_err().server().unwrap().fields;
    assert_eq!(fields[0].field, "items[2].put.row.columns[\"nope\"]");
    assert_eq!(client.get("payments", id("a")).await.unwrap().row.get("amount"), Some(&Value::Int64(4)));
    assert!(client.get("payments", id("c")).await.is_err());
}

#[tokio::test]
async fn tables_are_listed_described_enabled_and_disabled() {
    let world = World::new().await;
    let client = world.client();
    let tables = client.list_tables().await.unwrap();
    let names: Vec<_> = tables.iter().map(|t| (t.table.to_string(), t.enabled)).collect();
    let expected = [("main.orders", false), ("main.payments", true), ("main.without_key", false)];
    assert_eq!(names, expected.map(|(name, enabled)| (name.to_owned(), enabled)));
    assert!(!tables[2].unsupported_reason.is_empty() && tables[2].columns.is_empty());

    let payments = client.get_table("payments").await.unwrap();
    assert_eq!(payments.primary_key, ["id"]);
    assert_eq!(payments.topic, "shock-absorber.payments");
    let kinds: Vec<_> = payments.columns.iter().map(|c| (c.name.as_str(), c.kind, c.nullable, c.has_default)).collect();
    let expected = [
        ("id", ColumnKind::String, false, false),
        ("amount", ColumnKind::Int64, false, false),
        ("currency", ColumnKind::String, false, true),
        ("note", ColumnKind::String, true, false),
    ];
    assert_eq!(kinds, expected);

    assert!(client.enable_table("payments").await.unwrap().enabled);
    assert!(client.enable_table("orders").await.unwrap().enabled);
    assert!(!client.disable_table("orders").await.unwrap().enabled);
    for rate in [Rate::RowsPerSecond(0.5), Rate::Unlimited, Rate::Configured] {
        let set = client.set_table_rate("payments", rate).await.unwrap();
        assert!(set.enabled && set.rate == rate, "{set:?}");
        let shown = client.get_table("payments").await.unwrap();
        assert_eq!((shown.rate, shown.unreadable_rate), (rate, None));
        let listed = client.list_tables().await.unwrap();
        let rates: Vec<_> = listed.iter().filter(|table| table.enabled).map(|table| table.rate).collect();
        assert_eq!(rates, [rate]);
    }
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let refused = client.set_table_rate("payments", Rate::RowsPerSecond(rate)).await.unwrap_err();
        assert!(refused.is(Reason::InvalidArgument), "{refused:?}");
    }
    assert!(client.set_table_rate("nope", Rate::Unlimited).await.is_err());
    client.put("payments", payment("p", 1)).await.unwrap();
    assert!(!client.disable_table("payments").await.unwrap().enabled, "what was accepted is still drained");
}

#[tokio::test]
async fn the_answer_names_the_level_that_was_reached() {
    let world = World::new().await;
    let wish = Acknowledge::required(AckLevel::Logged);
    let accepted = world.client().acknowledging(wish).put("payments", payment("p", 1)).await.unwrap();
    assert_eq!(accepted.reached, Some(AckLevel::Logged));
    let wish = Acknowledge::default().preferring(AckLevel::Applied, Duration::from_millis(20));
    let accepted = world.client().acknowledging(wish).put("payments", payment("p", 1)).await.unwrap();
    assert_eq!(accepted.reached, Some(AckLevel::Queued), "nothing drains here");
}

#[tokio::test]
async fn a_write_that_is_sent_again_with_its_id_takes_effect_once() {
    let world = World::new().await;
    let client = world.client();
    let write = |amount| Write::create("payments", payment("p", amount)).request_id("r-1");
    let first = client.write(&write(1)).await.unwrap();
    assert_eq!(client.write(&write(1)).await.unwrap().etag, first.etag);
    let reused = client.write(&write(2)).await.unwrap_err();
    assert!(reused.is(Reason::RequestIdReused) && reused.is_refusal(), "{reused}");
    let again = client.batch_write(&[write(1), Write::put("payments", payment("q", 1))]).await;
    assert_eq!(again[0].as_ref().unwrap().etag, first.etag);
}

#[tokio::test]
async fn a_token_can_be_waited_for() {
    let world = World::new().await;
    let accepted = world.client().put("payments", payment("p", 1)).await.unwrap();
    let wait = async |tokens: &[&str], wait| {
        let tokens: Vec<String> = tokens.iter().map(|token| (*token).to_owned()).collect();
        world.client().wait_applied(&tokens, wait).await
    };
    assert!(wait(&[], Duration::ZERO).await.unwrap());
    assert!(!wait(&[&accepted.token], Duration::from_millis(20)).await.unwrap(), "nothing drains here");
    let refused = wait(&[&accepted.token, "x"], Duration::ZERO).await.unwrap_err();
    assert!(refused.is(Reason::InvalidArgument), "{refused}");
    assert_eq!(refused.server().unwrap().fields[0].field, "tokens[1]");
    let refused = wait(&[&accepted.token], Duration::from_secs(31)).await.unwrap_err();
    assert_eq!(refused.server().unwrap().fields[0].field, "wait");
}

#[tokio::test]
async fn records_are_found_by_a_declared_field() {
    let world = World::new().await;
    let client = world.client();
    world.sql("CREATE INDEX by_amount ON payments (amount)").await;
    let find = Find::new("payments", "amount", 7);
    assert!(client.find(&find).await.unwrap_err().is(Reason::FieldNotIndexed));
    let refused = client.enable_table_with("payments", &["note"]).await.unwrap_err();
    assert!(refused.is(Reason::TableUnsupported) && refused.to_string().contains("no index"), "{refused}");
    let table = client.enable_table_with("payments", &["amount"]).await.unwrap();
    assert_eq!(table.indexed_fields, ["amount"]);
    world.sql("INSERT INTO payments (id, amount) VALUES ('cold', 7), ('other', 8)").await;
    client.put("payments", payment("hot", 7)).await.unwrap();
    let page = client.find(&find.clone().limit(1).columns(&["id"])).await.unwrap();
    assert_eq!(page.records.iter().map(|found| found.row.clone()).collect::<Vec<_>>(), [id("hot")]);
    let rest = client.find(&find.clone().from(page.next.unwrap()).columns(&["id"])).await.unwrap();
    assert_eq!((rest.records.len(), &rest.records[0].row, rest.next), (1, &id("cold"), None));
    let all = client.find_all(find.clone().limit(1)).await.unwrap();
    assert_eq!(all.len(), 2);
    let change = Write::update("payments", id("cold"), id("cold").set("amount", 9));
    let changed = client.write(&change.only_if(Precondition::Etag(all[1].etag.clone()))).await;
    assert!(changed.is_ok(), "the etag of what is found names it: {changed:?}");
    assert_eq!(client.find_all(find.clone()).await.unwrap().len(), 1);
    let wrong = client.find(&find.from("00")).await.unwrap_err();
    assert_eq!(wrong.server().unwrap().fields[0].field, "page_token");
}
