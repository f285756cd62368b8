//! How a transaction ends.

use super::session::Session;
use crate::DatabaseError;

/// Commits if the work in the transaction went well, else undoes it.
pub(crate) async fn finish<S: Session, T>(
    session: &mut S,
    table: &str,
    outcome: Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    let error = match outcome {
        Ok(value) => match session.commit().await {
            Ok(()) => return Ok(value),
            Err(failure) => failure.at_commit(table),
        },
        Err(error) => error,
    };
    session.rollback().await;
    Err(error)
}
