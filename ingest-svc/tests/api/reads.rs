//! Many reads at once, reads of the database itself, and what is to be forgotten.

use proto::v1;
use shock_absorber_client::{Code, Consistency, Eviction, Get, Reason, Row, Value, Write};
use tonic_types::StatusExt as _;

use crate::world::{World, id, payment};

fn amounts(results: &[Result<shock_absorber_client::Found, shock_absorber_client::ClientError>]) -> Vec<Option<i64>> {
    let amount = |row: &Row| match row.get("amount") {
        Some(Value::Int64(amount)) => Some(*amount),
        other => panic!("{other:?} is no amount"),
    };
    results
        .iter()
        .map(|result| match result {
            Ok(found) => amount(&found.row),
            Err(error) if error.is(Reason::NotFound) => None,
            Err(error) => panic!("{error}"),
        })
        .collect()
}

#[tokio::test]
async fn many_records_of_several_tables_are_read_in_one_message() {
    let world = World::new().await;
    let client = world.client();
    client.enable_table("orders").await.unwrap();
    world
        .sql("INSERT INTO payments (id, amount) VALUES ('cold', 7); INSERT INTO orders (id, item) VALUES (1, 'tea');")
        .await;
    let written = client.put("payments", payment("hot", 5)).await.unwrap();
    let gets = [
        Get::new("payments", id("cold")),
        Get::new("orders", Row::new().set("id", 1)).columns(["item"]),
        Get::new("main.payments", id("hot")).columns(["amount", "id"]),
        Get::new("payments", id("none")),
        Get::new("payments", id("hot")).columns(["amount", "nope"]),
        Get::new("payments", id("hot").set("amount", 1)),
        Get::new("nothing", id("hot")),
        Get::new("elsewhere.payments", id("hot")),
    ];
    let results = client.batch_get(&gets).await;
    assert_eq!(results[0].as_ref().unwrap().row.get("amount"), Some(&Value::Int64(7)));
    assert_eq!(results[1].as_ref().unwrap().row, Row::new().set("item", "tea"));
    let hot = results[2].as_ref().unwrap();
    assert_eq!((&hot.row, &hot.etag), (&payment("hot", 5), &written.etag));
    let reasons: Vec<_> = results[3..].iter().map(|r| r.as_ref().unwrap_err().reason().unwrap().to_owned()).collect();
    let expected = ["NOT_FOUND", "UNKNOWN_COLUMN", "UNKNOWN_COLUMN", "TABLE_NOT_ENABLED", "UNKNOWN_DATABASE"];
    assert_eq!(reasons, expected);
    let fields = |at: usize| results[at].as_ref().unwrap_err().server().unwrap().fields[0].field.clone();
    assert_eq!(
        [fields(4), fields(5), fields(7)],
        ["items[4].columns", "items[5].key.columns[\"amount\"]", "items[7].table.database"]
    );
    assert!(client.batch_get(&[]).await.is_empty());
}

#[tokio::test]
async fn unknown_columns_of_a_get_are_named() {
    let world = World::new().await;
    let client = world.client();
    client.put("payments", payment("p", 5)).await.unwrap();
    let error = client.get_columns("payments", id("p"), &["amount", "colour"]).await.unwrap_err();
    assert!(error.is(Reason::UnknownColumn), "{error}");
    let problem = &error.server().unwrap().fields[0];
    assert!(problem.field == "columns" && problem.description.contains("colour"), "{problem:?}");
    let found = client.get_columns("payments", id("p"), &["currency"]).await.unwrap();
    assert_eq!(found.row, Row::new().set("currency", "INR"));
}

#[tokio::test]
async fn a_batch_of_too_many_items_is_refused_before_anything_is_read() {
    let world = World::with(&["ingest.max_batch_items=3"]).await;
    let client = world.client();
    let gets: Vec<Get> = (0..4).map(|n| Get::new("payments", id(&n.to_string()))).collect();
    assert!(client.batch_get(&gets).await.iter().all(|r| r.as_ref().is_err_and(|e| e.is(Reason::BatchTooLarge))));
    assert!(client.batch_get(&gets[..3]).await.iter().all(|r| r.as_ref().is_err_and(|e| e.is(Reason::NotFound))));
    let keys: Vec<Row> = (0..4).map(|n| id(&n.to_string())).collect();
    assert!(client.evict("payments", &keys).await.unwrap_err().is(Reason::BatchTooLarge));
}

#[tokio::test]
async fn what_does_not_fit_into_an_answer_is_told_and_comes_with_the_next_one() {
    let world = World::with(&["ingest.max_message_bytes=65536"]).await;
    let client = world.client();
    let note = "x".repeat(9_000);
    for n in 0..12 {
        let name = format!("p{n}");
        if n % 2 == 0 {
            client.put("payments", payment(&name, n).set("note", note.as_str())).await.unwrap();
        } else {
            world.sql(&format!("INSERT INTO payments (id, amount, note) VALUES ('{name}', {n}, '{note}')")).await;
        }
    }
    world.sql(&format!("INSERT INTO payments (id, amount, note) VALUES ('huge', 1, '{}')", "x".repeat(70_000))).await;
    let item = |name: &str| v1::GetRecordRequest {
        table: Some(v1::TableRef { database: String::new(), table: "payments".into() }),
        key: Some(v1::Row {
            columns: [("id".to_owned(), v1::Value { kind: Some(v1::value::Kind::StringValue(name.to_owned())) })]
                .into(),
        }),
        ..v1::GetRecordRequest::default()
    };
    let items = (0..12).map(|n| item(&format!("p{n}"))).collect();
    let answer = world.raw().await.batch_get_records(v1::BatchGetRecordsRequest { items }).await.unwrap().into_inner();
    let full = |result: &&v1::GetItemResult| match result.outcome.as_ref().unwrap() {
        v1::get_item_result::Outcome::Record(_) => false,
        v1::get_item_result::Outcome::Status(status) => {
            use tonic_types::RpcStatusExt as _;
            let info = status.get_error_details().error_info().unwrap().clone();
            assert_eq!((status.code, info.reason.as_str()), (Code::ResourceExhausted as i32, "ANSWER_FULL"));
            true
        }
    };
    let refused = answer.results.iter().filter(full).count();
    assert!((1..12).contains(&refused), "{refused}");
    // The client asks again by itself.
    let gets: Vec<Get> = (0..12).map(|n| Get::new("payments", id(&format!("p{n}")))).collect();
    assert_eq!(amounts(&client.batch_get(&gets).await), (0..12).map(Some).collect::<Vec<_>>());
    let huge = client.batch_get(&[Get::new("payments", id("huge")), Get::new("payments", id("p1"))]).await;
    assert!(huge[0].as_ref().is_err_and(|error| error.is(Reason::AnswerTooLarge)), "{huge:?}");
    assert!(huge[1].is_ok());
    let chosen = client.batch_get(&[Get::new("payments", id("huge")).columns(["amount"])]).await;
    assert_eq!(amounts(&chosen), [Some(1)]);
}

#[tokio::test]
async fn what_is_committed_in_the_database_can_be_asked_for() {
    let world = World::new().await;
    let client = world.client();
    client.put("payments", payment("p", 5)).await.unwrap();
    let committed = Get::new("payments", id("p")).consistency(Consistency::Database);
    assert!(client.read(&committed).await.unwrap_err().is(Reason::NotFound), "nothing drains here");
    world.sql("INSERT INTO payments (id, amount) VALUES ('p', 7)").await;
    let found = client.read(&committed).await.unwrap();
    assert_eq!((found.row.get("amount"), found.etag.as_str()), (Some(&Value::Int64(7)), ""));
    assert_eq!(client.get("payments", id("p")).await.unwrap().row.get("amount"), Some(&Value::Int64(5)));
    let both = client.batch_get(&[committed, Get::new("payments", id("p"))]).await;
    assert_eq!(amounts(&both), [Some(7), Some(5)]);

    // An empty etag is none: nobody can take it for a condition that holds.
    let write = Write::put("payments", payment("p", 9)).only_if(shock_absorber_client::Precondition::Etag(found.etag));
    assert!(client.write(&write).await.unwrap_err().is(Reason::InvalidArgument));
    let unknown = v1::GetRecordRequest { consistency: 9, ..v1::GetRecordRequest::default() };
    let unknown = v1::GetRecordRequest {
        table: Some(v1::TableRef { database: String::new(), table: "payments".into() }),
        key: Some(v1::Row::default()),
        ..unknown
    };
    let status = world.raw().await.get_record(unknown).await.unwrap_err();
    assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "consistency");
}

#[tokio::test]
async fn records_that_others_changed_are_forgotten() {
    let world = World::new().await;
    let client = world.client();
    world.sql("INSERT INTO payments (id, amount) VALUES ('p', 1)").await;
    let amount = async |name: &str| amounts(&client.batch_get(&[Get::new("payments", id(name))]).await)[0];
    assert_eq!((amount("p").await, amount("later").await), (Some(1), None));
    client.put("payments", payment("ours", 5)).await.unwrap();
    world
        .sql("UPDATE payments SET amount = 2; INSERT INTO payments (id, amount) VALUES ('later', 3), ('ours', 4);")
        .await;
    assert_eq!((amount("p").await, amount("ours").await), (Some(1), Some(5)));
    let keys = [id("p"), id("later"), id("ours"), id("unheard of"), id("p").set("amount", 1)];
    let results = client.evict("payments", &keys).await.unwrap();
    let evictions: Vec<Option<Eviction>> = results.iter().map(|r| r.as_ref().ok().copied()).collect();
    use Eviction::{Evicted, NotHeld, Undrained};
    assert_eq!(evictions, [Some(Evicted), Some(Evicted), Some(Undrained), Some(NotHeld), None]);
    let refused = results[4].as_ref().unwrap_err();
    assert!(refused.is(Reason::UnknownColumn));
    assert_eq!(refused.server().unwrap().fields[0].field, "keys[4].columns[\"amount\"]");
    assert_eq!((amount("p").await, amount("later").await, amount("ours").await), (Some(2), Some(3), Some(5)));
    assert!(client.evict("orders", &[id("p")]).await.unwrap_err().is(Reason::TableNotEnabled));
}
