//! Answers of the use cases as messages of the API.

use database::SetRate;
use hot_store::Eviction;
use model::{ColumnDefault, TableRef, ValueKind};
use proto::v1::{self, evict_item_result::Outcome};

use super::{failure::Failure, value::row_to_proto};
use crate::{
    accept::{Accepted, AckLevel},
    find::FoundPage,
    read::Found,
    tables::{TableInfo, TableRate},
};

pub(super) fn write_result(accepted: Accepted) -> v1::WriteResult {
    let reached = match accepted.reached {
        AckLevel::Logged => v1::AckLevel::Logged,
        AckLevel::Queued => v1::AckLevel::Queued,
        AckLevel::Applied => v1::AckLevel::Applied,
    };
    v1::WriteResult { reached: reached.into(), etag: accepted.etag.to_string(), token: accepted.token.to_string() }
}

pub(super) fn found(found: Found) -> v1::GetRecordResponse {
    v1::GetRecordResponse {
        row: Some(row_to_proto(found.row)),
        version: found.etag.map_or(0, |etag| etag.version.get()),
        etag: found.etag.map_or_else(String::new, |etag| etag.to_string()),
    }
}

pub(super) fn evicted(result: Result<Eviction, Failure>) -> v1::EvictItemResult {
    let outcome = match result {
        Ok(eviction) => Outcome::Eviction(
            match eviction {
                Eviction::Evicted => v1::Eviction::Evicted,
                Eviction::NotHeld => v1::Eviction::NotHeld,
                Eviction::Undrained => v1::Eviction::Undrained,
                Eviction::Parked => v1::Eviction::Parked,
            }
            .into(),
        ),
        Err(failure) => Outcome::Status(failure.into_item_status()),
    };
    v1::EvictItemResult { outcome: Some(outcome) }
}

pub(super) fn found_page(page: FoundPage) -> v1::FindRecordsResponse {
    let record = |found: Found| v1::FoundRecord {
        row: Some(row_to_proto(found.row)),
        version: found.etag.map_or(0, |etag| etag.version.get()),
        etag: found.etag.map_or_else(String::new, |etag| etag.to_string()),
    };
    v1::FindRecordsResponse {
        records: page.records.into_iter().map(record).collect(),
        next_page_token: page.next_page_token,
    }
}

pub(super) fn table(info: TableInfo) -> v1::Table {
    let enabled = info.is_enabled();
    let (columns, primary_key, unsupported_reason) = match &info.schema {
        Ok(schema) => {
            let key = schema.key().map(|column| column.name.as_str().to_owned()).collect();
            (schema.columns.iter().map(column).collect(), key, String::new())
        }
        Err(reason) => (Vec::new(), Vec::new(), reason.clone()),
    };
    v1::Table {
        table: Some(table_ref(&info.table)),
        enabled,
        columns,
        primary_key,
        topic: info.topic.map_or_else(String::new, |topic| topic.as_str().to_owned()),
        unsupported_reason,
        set_rate: set_rate(info.rate),
        indexed_fields: info.indexed_fields.iter().map(ToString::to_string).collect(),
    }
}

fn set_rate(rate: TableRate) -> Option<v1::table::SetRate> {
    match rate {
        TableRate::Configured => None,
        TableRate::Set(SetRate::RowsPerSecond(rate)) => Some(v1::table::SetRate::RowsPerSecond(rate)),
        TableRate::Set(SetRate::Unlimited) => Some(v1::table::SetRate::Unlimited(true)),
        TableRate::Unreadable(why) => Some(v1::table::SetRate::UnreadableRate(why)),
    }
}

fn table_ref(table: &TableRef) -> v1::TableRef {
    v1::TableRef { database: table.database.as_str().to_owned(), table: table.table.as_str().to_owned() }
}

fn column(column: &model::Column) -> v1::Column {
    v1::Column {
        name: column.name.as_str().to_owned(),
        kind: column_kind(column.ty.kind()).into(),
        nullable: column.nullable,
        has_default: matches!(
            column.default,
            ColumnDefault::Constant(_) | ColumnDefault::CurrentTimestamp | ColumnDefault::Uuid
        ),
    }
}

fn column_kind(kind: ValueKind) -> v1::ColumnKind {
    match kind {
        ValueKind::Null => v1::ColumnKind::Unspecified,
        ValueKind::Bool => v1::ColumnKind::Bool,
        ValueKind::Int64 => v1::ColumnKind::Int64,
        ValueKind::Uint64 => v1::ColumnKind::Uint64,
        ValueKind::Double => v1::ColumnKind::Double,
        ValueKind::Decimal => v1::ColumnKind::Decimal,
        ValueKind::Text => v1::ColumnKind::String,
        ValueKind::Bytes => v1::ColumnKind::Bytes,
        ValueKind::Timestamp => v1::ColumnKind::Timestamp,
        ValueKind::DateTime => v1::ColumnKind::Datetime,
        ValueKind::Date => v1::ColumnKind::Date,
        ValueKind::Time => v1::ColumnKind::Time,
        ValueKind::Json => v1::ColumnKind::Json,
    }
}
