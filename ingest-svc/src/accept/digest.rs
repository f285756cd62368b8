//! What a client asked for, hashed: a retry asks for the same.

use model::{Key, RequestDigest, Row};

use super::{Change, Require, WriteRequest};

/// The digest of operation, table, key, columns and precondition. Not of the acknowledgement: who asks again for a
/// higher level asks for the same write.
pub(super) fn digest_of(request: &WriteRequest) -> RequestDigest {
    let mut payload = Payload::default();
    payload.add(request.table.database.as_str().as_bytes());
    payload.add(request.table.table.as_str().as_bytes());
    match &request.change {
        Change::Create { row } => {
            payload.add(b"create");
            payload.add_row(row);
        }
        Change::Put { row, precondition } => {
            payload.add(b"put");
            payload.add_row(row);
            payload.add_precondition(*precondition);
        }
        Change::Update { key, changes, precondition } => {
            payload.add(b"update");
            payload.add_row(key);
            payload.add_row(changes);
            payload.add_precondition(*precondition);
        }
        Change::Delete { key, precondition } => {
            payload.add(b"delete");
            payload.add_row(key);
            payload.add_precondition(*precondition);
        }
    }
    RequestDigest::of(&payload.0)
}

/// Fields with their lengths, so that no two lists of fields have the same bytes.
#[derive(Default)]
struct Payload(Vec<u8>);

impl Payload {
    fn add(&mut self, field: &[u8]) {
        self.0.extend_from_slice(&(field.len() as u64).to_be_bytes());
        self.0.extend_from_slice(field);
    }

    fn add_row(&mut self, row: &Row) {
        self.add(&(row.len() as u64).to_be_bytes());
        for (name, value) in row.iter() {
            self.add(name.as_str().as_bytes());
            self.add(Key(vec![value.clone()]).to_bytes().as_bytes());
        }
    }

    fn add_precondition(&mut self, precondition: Option<Require>) {
        match precondition {
            None => self.add(b"none"),
            Some(Require::Exists(exists)) => self.add(if exists { b"exists" } else { b"absent" }),
            Some(Require::Etag(etag)) => {
                self.add(b"etag");
                self.add(&etag.version.get().to_be_bytes());
                self.add(&etag.epoch.0.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeSet;

    use model::{ColumnName, DatabaseName, Epoch, TableName, TableRef, Value, Version};

    use super::*;
    use crate::Etag;

    fn row(columns: &[(&str, i64)]) -> Row {
        columns.iter().map(|(name, value)| (ColumnName::new(*name).unwrap(), Value::Int64(*value))).collect()
    }

    fn request(table: &str, change: Change) -> WriteRequest {
        let table = TableRef { database: DatabaseName::new("main").unwrap(), table: TableName::new(table).unwrap() };
        WriteRequest { table, change, request_id: None }
    }

    #[test]
    fn whatever_is_asked_for_counts() {
        let etag =
            |version, epoch| Require::Etag(Etag { version: Version::new(version).unwrap(), epoch: Epoch(epoch) });
        let update =
            |key: &[_], changes: &[_]| Change::Update { key: row(key), changes: row(changes), precondition: None };
        let put = |precondition| Change::Put { row: row(&[("a", 1)]), precondition };
        let requests = [
            request("t", Change::Create { row: row(&[("a", 1)]) }),
            request("t", Change::Create { row: row(&[("a", 2)]) }),
            request("t", Change::Create { row: row(&[("b", 1)]) }),
            request("u", Change::Create { row: row(&[("a", 1)]) }),
            request("t", put(None)),
            request("t", put(Some(Require::Exists(true)))),
            request("t", put(Some(Require::Exists(false)))),
            request("t", put(Some(etag(1, 2)))),
            request("t", put(Some(etag(1, 3)))),
            request("t", put(Some(etag(2, 2)))),
            request("t", Change::Delete { key: row(&[("a", 1)]), precondition: None }),
            request("t", update(&[("a", 1)], &[("b", 1)])),
            request("t", update(&[("a", 1), ("b", 1)], &[])),
            request("t", update(&[], &[("a", 1), ("b", 1)])),
        ];
        let digests: BTreeSet<RequestDigest> = requests.iter().map(digest_of).collect();
        assert_eq!(digests.len(), requests.len());
        assert_eq!(digest_of(&requests[0]), digest_of(&requests[0].clone()));
    }
}
