//! The admin listener: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever supervises the process.

use std::{io, net::SocketAddr};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{Shutdown, readiness::Readiness, telemetry::Metrics};

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("the admin listener can't listen on {address}: {problem}; set another admin_listen")]
pub struct AdminError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    #[source]
    pub problem: io::Error,
}

#[derive(Clone)]
struct Shown {
    metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
}

/// Listens, and answers until all work has ended: so a supervisor sees a process that stops, not one that is gone.
/// Returns the address, which says the port where 0 was asked for.
///
/// # Errors
/// [`AdminError`] if the address can't be listened on.
pub async fn serve(
    address: SocketAddr,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: &Shutdown,
) -> Result<SocketAddr, AdminError> {
    let failed = |problem| AdminError { address, problem };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readyz))
        .with_state(Shown { metrics, readiness, shutdown: shutdown.clone() });
    let ending = shutdown.ending().clone();
    shutdown.spawn_background("admin listener", async move {
        // A client that keeps its connection must not keep the process: so this ends rather than waits for clients.
        tokio::select! {
            outcome = axum::serve(listener, router) => outcome,
            () = ending.cancelled() => Ok(()),
        }
    });
    Ok(bound)
}

async fn metrics_text(State(shown): State<Shown>) -> Response {
    match shown.metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(shown): State<Shown>) -> Response {
    if shown.shutdown.stopping().is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    let status = if shown.readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, shown.readiness.to_string()).into_response()
}
