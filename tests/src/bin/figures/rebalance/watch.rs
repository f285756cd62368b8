//! Looks into the database again and again: what of the acknowledged writes it shows.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, anyhow};
use database::{AnyDatabase, Database as _, DatabaseRow};
use history::{Image, Seen, Span};
use model::{ColumnName, Key, Row, TableSchema, Value};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    load::{KEYS, Load},
    stand::Stand,
};

/// Between two looks: what is measured is at most so much too long.
const INTERVAL: Duration = Duration::from_millis(100);

pub(super) struct Watch {
    database: Arc<AnyDatabase>,
    schema: TableSchema,
    load: Arc<Load>,
}

impl Watch {
    pub(super) fn new(stand: &Stand, load: Arc<Load>) -> Self {
        Self { database: stand.database.clone(), schema: stand.schema.clone(), load }
    }

    /// Until it is told to stop.
    pub(super) async fn run(self, stop: watch::Receiver<bool>) -> Result<()> {
        while !*stop.borrow() {
            self.look(false).await?;
            sleep(INTERVAL).await;
        }
        Ok(())
    }

    /// Until the database shows everything; how many keys' writes are not there when the time is over.
    pub(super) async fn until_all_is_there(self, within: Duration) -> Result<usize> {
        let begun = Instant::now();
        loop {
            self.look(false).await?;
            let left = self.load.waiting();
            if left == 0 || begun.elapsed() > within {
                self.look(true).await?;
                return Ok(left);
            }
            sleep(INTERVAL).await;
        }
    }

    async fn look(&self, drained: bool) -> Result<()> {
        let keys: Vec<Key> = (0..KEYS).map(|id| self.key(id)).collect::<Result<_>>()?;
        let from = self.load.now();
        let rows = self.database.read(&self.schema, &keys).await?;
        let span = Span::new(from, self.load.now());
        for (id, row) in (0..).zip(rows) {
            let seen = match row {
                DatabaseRow::Present { version, row } => {
                    Some(Seen { version: version.get(), epoch: None, image: image(&row)? })
                }
                DatabaseRow::Deleted { .. } | DatabaseRow::Absent => None,
            };
            self.load.seen(id, span, seen, drained);
        }
        Ok(())
    }

    fn key(&self, id: i64) -> Result<Key> {
        let row = Row::from_iter([(ColumnName::new("id")?, Value::Int64(self.load.id(id)))]);
        self.schema.accept_key(&row).map_err(|problems| anyhow!("{id} is no key: {problems:?}"))
    }
}

fn image(row: &Row) -> Result<Image> {
    let number = |name| match row.get(name) {
        Some(Value::Int64(number)) => Ok(number.cast_unsigned()),
        _ => Err(anyhow!("no number in {name}")),
    };
    Ok(Image { value: number("value")?, left: number("lft")?, right: number("rgt")? })
}
