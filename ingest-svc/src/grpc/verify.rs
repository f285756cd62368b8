//! Verifications in the words of the API.

use hot_store::Stage;
use model::Version;
use proto::v1;

use super::{
    failure::{Failure, FieldProblem},
    request::Databases,
    value::{row_to_proto, timestamp_from_proto},
};
use crate::verify::{
    DEFAULT_LISTED, DEFAULT_RATE, Difference, DifferenceKind, MAX_LISTED, MAX_RATE, Progress, Told, VerifyRequest,
};

pub(super) fn request(databases: &Databases, request: v1::VerifyTableRequest) -> Result<VerifyRequest, Failure> {
    let invalid = |field: &str, problem: String| Failure::of_fields(vec![FieldProblem::invalid(field, problem)]);
    let table = databases.table(request.table)?;
    let since = request.since.map(timestamp_from_proto).transpose().map_err(|problem| invalid("since", problem))?;
    let bounded = |field: &str, given: u32, default: u32, most: u32| match given {
        0 => Ok(default),
        given if given > most => Err(invalid(field, format!("is {given}, the most is {most}"))),
        given => Ok(given),
    };
    let listed = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let records_per_second = bounded("records_per_second", request.records_per_second, DEFAULT_RATE, MAX_RATE)?;
    let max_listed = bounded("max_listed", request.max_listed, listed(DEFAULT_LISTED), listed(MAX_LISTED))?;
    Ok(VerifyRequest { table, since, records_per_second, max_listed: max_listed as usize })
}

pub(super) fn told(told: Told) -> v1::VerifyTableResponse {
    v1::VerifyTableResponse {
        progress: Some(progress(&told.progress)),
        differences: told.differences.into_iter().map(difference).collect(),
        complete: told.is_complete,
    }
}

fn progress(progress: &Progress) -> v1::VerifyProgress {
    v1::VerifyProgress {
        records: progress.records,
        read: progress.read,
        deleted: progress.deleted,
        void: progress.void,
        strange: progress.strange,
        agree: progress.agree,
        pending: progress.pending,
        parked: progress.parked,
        given_up: progress.given_up,
        moving: progress.moving,
        of_earlier_schema: progress.of_earlier_schema,
        may_be_void: progress.may_be_void,
        may_be_purged: progress.may_be_purged,
        differ: progress.differ,
    }
}

fn difference(difference: Difference) -> v1::VerifyDifference {
    let stage = match difference.hot {
        None => v1::VerifyImageStage::Unspecified,
        Some((_, Stage::Dirty)) => v1::VerifyImageStage::Dirty,
        Some((_, Stage::Parked)) => v1::VerifyImageStage::Parked,
        Some((_, Stage::Clean)) => v1::VerifyImageStage::Clean,
    };
    v1::VerifyDifference {
        kind: kind(difference.kind).into(),
        key: Some(row_to_proto(difference.key)),
        shard: difference.shard.0.into(),
        offset: difference.offset,
        logged_version: difference.logged.get(),
        database_version: difference.database.map(Version::get),
        has_row: difference.has_row,
        hot_version: difference.hot.map_or(0, |(version, _)| version.get()),
        hot_stage: stage.into(),
        columns: difference.columns,
    }
}

fn kind(kind: DifferenceKind) -> v1::VerifyDifferenceKind {
    match kind {
        DifferenceKind::Lost => v1::VerifyDifferenceKind::Lost,
        DifferenceKind::NotInHotStore => v1::VerifyDifferenceKind::NotInHotStore,
        DifferenceKind::Stale => v1::VerifyDifferenceKind::Stale,
        DifferenceKind::RowMissing => v1::VerifyDifferenceKind::RowMissing,
        DifferenceKind::Phantom => v1::VerifyDifferenceKind::Phantom,
        DifferenceKind::TombstoneMissing => v1::VerifyDifferenceKind::TombstoneMissing,
        DifferenceKind::ContentDiffers => v1::VerifyDifferenceKind::ContentDiffers,
        DifferenceKind::HotStoreDiffers => v1::VerifyDifferenceKind::HotStoreDiffers,
        DifferenceKind::HotStoreStale => v1::VerifyDifferenceKind::HotStoreStale,
        DifferenceKind::ParkedLost => v1::VerifyDifferenceKind::ParkedLost,
        DifferenceKind::NeverGiven => v1::VerifyDifferenceKind::NeverGiven,
        DifferenceKind::RowUnreadable => v1::VerifyDifferenceKind::RowUnreadable,
        DifferenceKind::HotStoreUnreadable => v1::VerifyDifferenceKind::HotStoreUnreadable,
    }
}
