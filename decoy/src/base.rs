//! The process that holds a decky's network namespace open: PID 1 of the base container, doing nothing, for ever.
//!
//! The kernel ignores a signal to PID 1 that has no handler, so waiting for one is what lets it end. Nothing is
//! started here, so nothing is there to be reaped.

use tokio_util::sync::CancellationToken;

/// Returns when told to stop.
pub async fn hold(stop: &CancellationToken) {
    stop.cancelled().await;
}
