//! Health, readiness and Prometheus metrics over HTTP.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::seat::{Seat, Standing};

/// Serves `/healthz`, `/readyz` and `/metrics` until dropped.
pub async fn serve(listener: TcpListener, seat: Seat) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(seat);
    axum::serve(listener, router).await
}

async fn ready(State(seat): State<Seat>) -> (StatusCode, String) {
    match seat.leading() {
        Ok(_) => (StatusCode::OK, "leading\n".to_owned()),
        Err(not_leading) => (StatusCode::SERVICE_UNAVAILABLE, format!("{not_leading}\n")),
    }
}

async fn metrics(State(seat): State<Seat>) -> String {
    let mut text = String::new();
    gauge(&mut text, "lsa_leading", "whether this coordinator leads", u64::from(seat.leading().is_ok()));
    let Standing::Leading(handle) = seat.standing() else { return text };
    let (jobs, workers) = (handle.jobs().await, handle.workers().await);
    let running = jobs.iter().filter(|job| !job.written);
    let units =
        |count: fn(&crate::scheduler::view::JobView) -> u64| jobs.iter().map(|job| count(&job.view)).sum();
    let connected = workers.iter().filter(|worker| worker.connected).count() as u64;
    for (name, help, value) in [
        ("lsa_epoch", "the epoch that this coordinator leads", handle.identity().epoch.0),
        ("lsa_jobs_running", "jobs that have not ended", running.count() as u64),
        ("lsa_workers_connected", "workers whose stream is up", connected),
        ("lsa_units", "units of all jobs since the epoch began", units(|view| view.units_total)),
        ("lsa_units_done", "units of them that are done", units(|view| view.units_done)),
        ("lsa_leases", "live leases", units(|view| view.leases.len() as u64)),
    ] {
        gauge(&mut text, name, help, value);
    }
    text
}

fn gauge(text: &mut String, name: &str, help: &str, value: u64) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}").expect("a string grows");
}
