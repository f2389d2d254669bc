//! Health, readiness and Prometheus metrics over HTTP.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::driver::handle::Handle;

/// Serves `/healthz`, `/readyz` and `/metrics` until dropped.
pub async fn serve(listener: TcpListener, handle: Handle) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(handle);
    axum::serve(listener, router).await
}

async fn ready(State(handle): State<Handle>) -> (StatusCode, &'static str) {
    if handle.identity().leads() {
        (StatusCode::OK, "leading\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not leading\n")
    }
}

async fn metrics(State(handle): State<Handle>) -> String {
    let (jobs, workers) = (handle.jobs().await, handle.workers().await);
    let running = jobs.iter().filter(|job| !job.written);
    let units =
        |count: fn(&crate::scheduler::view::JobView) -> u64| jobs.iter().map(|job| count(&job.view)).sum();
    let gauges: [(&str, &str, u64); 6] = [
        ("lsa_epoch", "the epoch that this coordinator leads", handle.identity().epoch.0),
        ("lsa_jobs_running", "jobs that have not ended", running.count() as u64),
        (
            "lsa_workers_connected",
            "workers whose stream is up",
            workers.iter().filter(|worker| worker.connected).count() as u64,
        ),
        ("lsa_units_total", "units of all jobs since the start", units(|view| view.units_total)),
        ("lsa_units_done", "units of them that are done", units(|view| view.units_done)),
        ("lsa_leases", "live leases", units(|view| view.leases.len() as u64)),
    ];
    let mut text = String::new();
    for (name, help, value) in gauges {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}").expect("a string grows");
    }
    text
}
