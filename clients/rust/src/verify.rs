//! Whether log, hot store and database agree about a table, for operators.

use jiff::Timestamp;
use proto::v1;
use tonic::Streaming;

use crate::{Client, ClientError, Row, TableRef};

/// How a record differs; as in the API.
pub type VerifyDifferenceKind = v1::VerifyDifferenceKind;
/// How an image in the hot store stands to the database; as in the API.
pub type VerifyImageStage = v1::VerifyImageStage;
/// What a verification came to so far; as in the API.
pub type VerifyProgress = v1::VerifyProgress;

/// What of a table is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerifyOptions {
    /// Only records whose newest write is of this time or later; `None`: all that the log has.
    pub since: Option<Timestamp>,
    /// Records of the log that are compared per second; `None`: as many as the server thinks right.
    pub records_per_second: Option<u32>,
    /// How many of the records that differ are told; `None`: as many as the server thinks right. All are counted.
    pub max_listed: Option<u32>,
}

/// A record that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyDifference {
    /// How.
    pub kind: VerifyDifferenceKind,
    /// The columns of its primary key.
    pub key: Row,
    /// Its shard, which is the partition of its events.
    pub shard: u32,
    /// The offset of its newest event there.
    pub offset: i64,
    /// That event's version.
    pub logged_version: u64,
    /// The version of the row, 0 if somebody else wrote it, or of the tombstone; `None` if there is neither.
    pub database_version: Option<u64>,
    /// Whether the database has a row.
    pub has_row: bool,
    /// The version of the image in the hot store, and how it stands to the database; `None` if there is none.
    pub hot: Option<(u64, VerifyImageStage)>,
    /// The columns that differ, where it is the content.
    pub columns: Vec<String>,
}

/// How far a verification is.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What it came to so far.
    pub progress: VerifyProgress,
    /// Records that differ and were not told before.
    pub differences: Vec<VerifyDifference>,
    /// Everything was compared: this is the last of it.
    pub is_complete: bool,
}

/// A verification under way; dropping it ends it.
#[derive(Debug)]
pub struct Verification(Streaming<v1::VerifyTableResponse>);

impl Verification {
    /// What is told next; `None` behind the last of it.
    ///
    /// # Errors
    /// [`ClientError`]: it ends here, and not everything was compared.
    pub async fn next(&mut self) -> Result<Option<Verified>, ClientError> {
        let told = self.0.message().await.map_err(ClientError::from)?;
        told.map(Verified::from_proto).transpose()
    }
}

impl Client {
    /// Compares what the event log, the hot store and the database hold of a table's records. Nothing is tried again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn verify(
        &self,
        table: impl Into<TableRef>,
        options: &VerifyOptions,
    ) -> Result<Verification, ClientError> {
        let request = v1::VerifyTableRequest {
            table: Some(table.into().to_proto()),
            since: options.since.map(crate::dead_letter::to_proto),
            records_per_second: options.records_per_second.unwrap_or_default(),
            max_listed: options.max_listed.unwrap_or_default(),
        };
        let answer = self.connection().operators.verify_table(request).await;
        Ok(Verification(answer.map_err(ClientError::from)?.into_inner()))
    }
}

impl Verified {
    fn from_proto(told: v1::VerifyTableResponse) -> Result<Self, ClientError> {
        let differences = told.differences.into_iter().map(VerifyDifference::from_proto).collect::<Result<_, _>>()?;
        Ok(Self { progress: told.progress.unwrap_or_default(), differences, is_complete: told.complete })
    }
}

impl VerifyDifference {
    fn from_proto(difference: v1::VerifyDifference) -> Result<Self, ClientError> {
        let (kind, stage) = (difference.kind(), difference.hot_stage());
        Ok(Self {
            kind,
            key: Row::from_proto(difference.key.unwrap_or_default())?,
            shard: difference.shard,
            offset: difference.offset,
            logged_version: difference.logged_version,
            database_version: difference.database_version,
            has_row: difference.has_row,
            hot: (stage != VerifyImageStage::Unspecified).then_some((difference.hot_version, stage)),
            columns: difference.columns,
        })
    }
}
