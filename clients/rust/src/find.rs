//! Finding records by a declared field.

use std::time::Duration;

use proto::v1;

use crate::{Client, ClientError, Found, Row, TableRef, Value, retry::Repeat};

/// What is looked for, and how much of it at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Find {
    table: TableRef,
    field: String,
    value: Value,
    limit: u32,
    page_token: String,
    columns: Vec<String>,
}

impl Find {
    /// The records of a table that have this value in one of its declared fields.
    pub fn new(table: impl Into<TableRef>, field: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            table: table.into(),
            field: field.into(),
            value: value.into(),
            limit: 0,
            page_token: String::new(),
            columns: Vec::new(),
        }
    }

    /// At most so many on a page; 100 unless that is said.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Only these columns of each.
    #[must_use]
    pub fn columns(mut self, columns: &[&str]) -> Self {
        self.columns = columns.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// The page that begins where an earlier one ended ([`FoundPage::next`]).
    #[must_use]
    pub fn from(mut self, page_token: impl Into<String>) -> Self {
        self.page_token = page_token.into();
        self
    }
}

/// A page of what was found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundPage {
    /// The records; perhaps fewer than were asked for, or none, though there are more.
    pub records: Vec<Found>,
    /// Where the next page begins; `None`: there are no more.
    pub next: Option<String>,
}

impl Client {
    /// One page of the records whose newest acknowledged version has a value in a declared field.
    ///
    /// # Errors
    /// [`ClientError`]; `FIELD_NOT_INDEXED` if the field is not declared, or the database has no index for it any more; `INDEX_NOT_READY` for a moment after a restart
    /// of the hot store.
    pub async fn find(&self, find: &Find) -> Result<FoundPage, ClientError> {
        let build = || v1::FindRecordsRequest {
            table: Some(find.table.to_proto()),
            field: find.field.clone(),
            value: Some(find.value.to_proto()),
            limit: find.limit,
            page_token: find.page_token.clone(),
            columns: find.columns.clone(),
        };
        let answer = self
            .call(Repeat::Harmless, Duration::ZERO, build, |mut connection, request| async move {
                connection.records.find_records(request).await
            })
            .await?;
        let found = |record: v1::FoundRecord| {
            let row = record.row.ok_or_else(|| ClientError::BadAnswer("a record has no row".into()))?;
            Ok(Found { row: Row::from_proto(row)?, etag: record.etag, version: record.version })
        };
        let records = answer.records.into_iter().map(found).collect::<Result<_, ClientError>>()?;
        Ok(FoundPage { records, next: Some(answer.next_page_token).filter(|token| !token.is_empty()) })
    }

    /// All of them, page after page. A record that is written meanwhile may come twice.
    ///
    /// # Errors
    /// As [`Client::find`].
    pub async fn find_all(&self, find: Find) -> Result<Vec<Found>, ClientError> {
        let (mut found, mut find) = (Vec::new(), find);
        loop {
            let page = self.find(&find).await?;
            found.extend(page.records);
            match page.next {
                Some(next) => find = find.from(next),
                None => return Ok(found),
            }
        }
    }
}
