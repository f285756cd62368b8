//! What the contract suite can't see from outside: that transactions wait, and for how long.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use model::{ColumnName, ColumnType, Content, DatabaseName, Image, Operation, ShardCount, TableName, Value, Version};
use tokio::time::Instant;

use super::{MemoryDatabase, MemoryDatabaseOptions, MemoryTable};
use crate::{Applied, Batch, Change, Database, DatabaseError, Owner, ShardClaim};

const STATEMENT: Duration = Duration::from_millis(10);

struct World {
    database: MemoryDatabase,
    schema: model::TableSchema,
    shards: ShardCount,
}

impl World {
    async fn new() -> Self {
        let options = MemoryDatabaseOptions { lock_timeout: Duration::from_millis(35), statement_time: STATEMENT };
        let database = MemoryDatabase::new(options);
        let column = |name| MemoryTable::column(name, ColumnType::Int { bits: 64 }).unwrap();
        let table = TableName::new("t").unwrap();
        database.define_table(table.clone(), MemoryTable::new(vec![column("id"), column("n")]));
        let schema = database.introspect(&DatabaseName::new("main").unwrap(), &table).await.unwrap();
        let world = Self { database, schema, shards: ShardCount::new(1).unwrap() };
        world.own("me").await;
        world
    }

    async fn own(&self, owner: &str) {
        let shards = self.shards.all();
        let claims: Vec<_> = shards.map(|shard| ShardClaim { table: self.schema.table.table.clone(), shard }).collect();
        self.database.take_ownership(&claims, &Owner(owner.to_owned())).await.unwrap();
    }

    async fn put(&self, id: i64, number: u64) -> Result<Vec<Applied>, DatabaseError> {
        let name = |name| ColumnName::new(name).unwrap();
        let row = [(name("id"), Value::Int64(id)), (name("n"), Value::Int64(1))].into_iter().collect();
        let key = self.schema.key_of(&row).unwrap();
        let shard = self.schema.shard_of(&key, self.shards);
        let image = Image {
            content: Content::Row(row),
            operation: Operation::Put,
            fingerprint: self.schema.fingerprint(),
            request: None,
            since: None,
        };
        let changes = [Change { shard, key, version: Version::new(number).unwrap(), image }];
        let owners = vec![(shard, Owner("me".to_owned()))];
        self.database.apply(Batch { schema: &self.schema, owners, changes: &changes }).await
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_of_a_shard_follow_each_other() {
    let world = World::new().await;
    let start = Instant::now();
    let (first, second) = tokio::join!(world.put(1, 10), world.put(2, 11));
    assert_eq!((first, second), (Ok(vec![Applied::Written]), Ok(vec![Applied::Written])));
    // Both begin in the first; the second one writes after the first one has written.
    assert_eq!(start.elapsed(), STATEMENT * 3);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_for_a_lock_is_refused() {
    let world = World::new().await;
    let (_, _, _, _, refused) =
        tokio::join!(world.put(1, 10), world.put(2, 11), world.put(3, 12), world.put(4, 13), world.put(5, 14));
    assert!(matches!(&refused, Err(DatabaseError::Statement { code, .. }) if code == "lock-timeout"), "{refused:?}");
    assert_eq!(world.put(5, 14).await, Ok(vec![Applied::Written]));
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_waits_for_the_former_ones_transaction_and_then_nothing_of_it_arrives() {
    let world = World::new().await;
    let taken = async {
        tokio::time::sleep(STATEMENT / 2).await;
        world.own("other").await;
    };
    // The first has the lock when the new owner comes; the second comes after it.
    let late = async {
        tokio::time::sleep(STATEMENT).await;
        world.put(2, 11).await
    };
    let (first, (), late) = tokio::join!(world.put(1, 10), taken, late);
    assert_eq!(first, Ok(vec![Applied::Written]));
    assert_eq!(late, Err(DatabaseError::NotOwner(world.schema.table.table.clone())));
    assert_eq!(world.database.records(&world.schema.table.table).unwrap().len(), 1);
}
