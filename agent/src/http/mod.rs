//! `/metrics`, `/livez` and `/healthz` over HTTP, on a thread of its own. It shows numbers and one state; it takes no
//! commands and reads no request bodies.

mod health;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use axum::{
    Router,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::sync::{Semaphore, watch};

pub use self::health::{Condition, Health};
use crate::{
    config::Webserver,
    metrics::{self, Metrics},
};

/// Connections at once; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A connection that has not sent its request's head by then is closed, idle ones too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// However slow its reader, a connection ends then.
const CONNECTION_LIFETIME: Duration = Duration::from_mins(2);
/// No request here has a head larger than that.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be bound.
    #[error(
        "cannot listen on {address}: {source}; choose another with --listen or webserver.listen_port, or set webserver.enabled: false"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No runtime or thread.
    #[error("cannot start the HTTP thread: {0}")]
    Thread(io::Error),
}

/// The running server. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds and serves. The address is bound when this returns.
    pub fn start(
        address: SocketAddr,
        config: &Webserver,
        metrics: Arc<Metrics>,
        health: Arc<Health>,
    ) -> Result<Self, HttpError> {
        let bind = |source| HttpError::Bind { address, source };
        let listener = TcpListener::bind(address).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(HttpError::Thread)?;
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener).map_err(bind)?
        };
        let router = router(config, metrics, health);
        let (stop, stopped) = watch::channel(false);
        let thread = thread::Builder::new()
            .name("http".to_owned())
            .spawn(move || runtime.block_on(serve(listener, router, stopped)))
            .map_err(HttpError::Thread)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// The address that is bound (with port 0 in the configuration, the one the kernel chose).
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nothing to add to it.
            let _ = thread.join();
        }
    }
}

fn router(config: &Webserver, metrics: Arc<Metrics>, health: Arc<Health>) -> Router {
    let mut router = Router::new().route("/livez", get(|| async { "ok\n" })).route(
        &config.k8s_healthz_endpoint,
        get(move || async move {
            match health.unmet() {
                missing if missing.is_empty() => (StatusCode::OK, "ok\n".to_owned()),
                missing => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", missing.join(", "))),
            }
        }),
    );
    if config.prometheus_metrics_enabled {
        router = router.route("/metrics", get(move || async move { exposition(&metrics) }));
    }
    router
}

fn exposition(metrics: &Metrics) -> Response {
    match metrics.encode() {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn serve(listener: tokio::net::TcpListener, router: Router, mut stopped: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // A place first, then a connection: those without a place wait in the kernel's queue.
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            next = next => next,
            _ = stopped.changed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a peer that left: without a pause the first would spin.
                tracing::debug!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(CONNECTION_LIFETIME, connection).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "HTTP connection"),
                Err(elapsed) => tracing::debug!(%elapsed, "HTTP connection"),
            }
            drop(slot);
        });
    }
}
