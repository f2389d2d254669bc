//! Health, readiness and Prometheus metrics over HTTP.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::condition::Condition;

/// Serves `/healthz`, `/readyz` and `/metrics` until dropped.
pub async fn serve(listener: TcpListener, condition: Arc<Condition>) -> std::io::Result<()> {
    let begun = Instant::now();
    let metrics = async move |State(condition): State<Arc<Condition>>| condition.metrics(begun.elapsed());
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(condition);
    axum::serve(listener, router).await
}

async fn ready(State(condition): State<Arc<Condition>>) -> (StatusCode, &'static str) {
    if condition.is_connected() {
        (StatusCode::OK, "connected\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "no coordinator is connected\n")
    }
}
