//! Each error: its code, its one reason, the fields it blames, the circumstances.

use std::time::Duration;

use shock_absorber_client::{AckLevel, Acknowledge, ClientError, Code, Precondition, Reason, Row, Value, Write};

use crate::world::{World, id, payment};

/// Fields that are blamed, each with its reason.
fn fields(error: &ClientError) -> Vec<(&str, &str)> {
    let fields = &error.server().unwrap().fields;
    fields.iter().map(|field| (field.field.as_str(), field.reason.as_str())).collect()
}

async fn refused(world: &World, write: Write) -> ClientError {
    world.client().write(&write).await.unwrap_err()
}

#[tokio::test]
async fn what_a_table_refuses_is_blamed_on_its_field() {
    let world = World::new().await;
    let put = |row: Row| Write::put("payments", row);
    let cases = [
        (put(payment("p", 1).set("x", 1)), Reason::UnknownColumn, "row.columns[\"x\"]"),
        (put(id("p").set("amount", "much")), Reason::WrongType, "row.columns[\"amount\"]"),
        (put(id("p").set("amount", None::<i64>)), Reason::NotNullable, "row.columns[\"amount\"]"),
        (put(id("p")), Reason::MissingColumn, "row.columns[\"amount\"]"),
        (put(Row::new().set("amount", 1)), Reason::MissingKey, "row.columns[\"id\"]"),
        (put(payment("p", 1).set("currency", "RUPEE")), Reason::OutOfRange, "row.columns[\"currency\"]"),
        (Write::update("payments", id("p"), id("q")), Reason::KeyChanged, "changes.columns[\"id\"]"),
        (Write::delete("payments", Row::new()), Reason::MissingKey, "key.columns[\"id\"]"),
        (put(id("p").set("amount", Value::date("today"))), Reason::InvalidArgument, "row.columns[\"amount\"]"),
        (put(payment("p", 1)).request_id("no good"), Reason::InvalidArgument, "request_id"),
        (
            put(payment("p", 1)).only_if(Precondition::Etag("what?".into())),
            Reason::InvalidArgument,
            "precondition.etag",
        ),
    ];
    for (write, reason, field) in cases {
        let error = refused(&world, write.clone()).await;
        assert_eq!((error.code(), error.reason()), (Code::InvalidArgument, Some(reason.as_str())), "{write:?}");
        assert_eq!(fields(&error), [(field, reason.as_str())], "{write:?}");
        assert!(error.is_refusal() && error.retry_after().is_none());
    }
    let unknown = world.client().get_columns("payments", id("p"), &["id", "x"]).await.unwrap_err();
    assert_eq!(fields(&unknown), [("columns", "UNKNOWN_COLUMN")]);
    let by_other = world.client().get("payments", Row::new().set("amount", 1)).await.unwrap_err();
    assert_eq!(
        fields(&by_other),
        [("key.columns[\"amount\"]", "UNKNOWN_COLUMN"), ("key.columns[\"id\"]", "MISSING_KEY")]
    );
}

#[tokio::test]
async fn conditions_that_do_not_hold_have_a_code_each() {
    let world = World::new().await;
    let client = world.client();
    let old = client.put("payments", payment("p", 1)).await.unwrap().etag;
    client.put("payments", payment("p", 2)).await.unwrap();
    let changed = Precondition::Etag(old);
    let there = Precondition::Exists(true);
    let cases = [
        (Write::create("payments", payment("p", 3)), Reason::AlreadyExists, Code::AlreadyExists),
        (Write::put("payments", payment("p", 3)).only_if(changed.clone()), Reason::EtagMismatch, Code::Aborted),
        (Write::delete("payments", id("p")).only_if(changed), Reason::EtagMismatch, Code::Aborted),
        (Write::update("payments", id("none"), id("none").set("note", "x")), Reason::NotFound, Code::NotFound),
        (Write::put("payments", payment("none", 1)).only_if(there.clone()), Reason::NotFound, Code::NotFound),
        (Write::delete("payments", id("none")).only_if(there), Reason::NotFound, Code::NotFound),
    ];
    for (write, reason, code) in cases {
        let error = refused(&world, write.clone()).await;
        assert_eq!((error.code(), error.reason()), (code, Some(reason.as_str())), "{write:?}");
        let table = error.server().unwrap().metadata.get("table").cloned();
        assert_eq!(table.as_deref(), Some("main.payments"), "{write:?}");
    }
    assert_eq!(client.get("payments", id("p")).await.unwrap().row.get("amount"), Some(&Value::Int64(2)));
}

#[tokio::test]
async fn tables_that_are_not_there_or_not_fit_are_told_apart() {
    let world = World::new().await;
    let client = world.client();
    let cases = [
        (refused(&world, Write::put("orders", Row::new().set("id", 1))).await, Reason::TableNotEnabled),
        (client.get("orders", Row::new().set("id", 1)).await.unwrap_err(), Reason::TableNotEnabled),
        (refused(&world, Write::put("other.payments", payment("p", 1))).await, Reason::UnknownDatabase),
        (refused(&world, Write::put("", payment("p", 1))).await, Reason::InvalidArgument),
        (client.enable_table("nothing").await.unwrap_err(), Reason::UnknownTable),
        (client.get_table("nothing").await.unwrap_err(), Reason::UnknownTable),
        (client.enable_table("without_key").await.unwrap_err(), Reason::TableUnsupported),
    ];
    for (error, reason) in cases {
        assert_eq!((error.reason(), error.code()), (Some(reason.as_str()), reason.code()), "{error}");
    }
    let error = refused(&world, Write::put("other.payments", payment("p", 1))).await;
    assert_eq!(fields(&error), [("table.database", "UNKNOWN_DATABASE")]);
    assert!(error.to_string().contains("main"), "{error}");
}

#[tokio::test]
async fn a_level_that_was_not_reached_is_no_refusal() {
    let world = World::new().await;
    let wish = Acknowledge { required: Some(AckLevel::Applied), preferred: None, wait: Duration::from_millis(20) };
    let error = world.client().acknowledging(wish).put("payments", payment("p", 1)).await.unwrap_err();
    assert_eq!((error.reason(), error.code()), (Some("LEVEL_NOT_REACHED"), Code::DeadlineExceeded));
    assert_eq!(error.server().unwrap().metadata.get("reached").map(String::as_str), Some("QUEUED"));
    assert!(world.client().get("payments", id("p")).await.is_ok(), "it took effect");
}
