//! Waiting for what must come to be.

use std::{future::Future, time::Duration};

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Between two looks. It only sets how promptly something is seen, never whether.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks again and again until there is something to see, and returns it. `what` completes "after 10s there was still no".
///
/// # Errors
/// If there is nothing within the time, or a look fails.
pub async fn eventually<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    loop {
        // A look that hangs (a frozen server's, say) must not outlast the time either.
        match tokio::time::timeout_at(deadline, look()).await {
            Ok(Ok(Some(found))) => return Ok(found),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => bail!("after {within:?} there was still no {what}"),
        }
        if Instant::now() + PAUSE > deadline {
            bail!("after {within:?} there was still no {what}");
        }
        sleep(PAUSE).await;
    }
}
