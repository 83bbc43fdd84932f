//! The Engine's errors in our words, told apart by whether asking again may help. Pure.

use std::{error::Error as _, io, path::Path, time::Duration};

use bollard::errors::Error as BollardError;

use super::engine::EngineError;

/// The client's own deadline, over all of ours.
pub(super) const BOLLARD_DEADLINE: Duration = Duration::from_secs(900);

/// The Engine's answer in our words: what is no use to ask again, and what is.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "which errors bollard has depends on its features"
)]
pub(super) fn translate(socket: &Path, tried: &str, error: BollardError) -> EngineError {
    let tried = tried.to_owned();
    let (status, message) = match error {
        BollardError::DockerResponseServerError { status_code, message } => (status_code, message),
        // A pull that failed after it began; the registry's words.
        BollardError::DockerStreamError { error } => (400, error),
        BollardError::RequestTimeoutError => {
            return EngineError::TimedOut {
                tried,
                after: BOLLARD_DEADLINE,
            };
        }
        BollardError::SocketNotFoundError(_) => {
            return EngineError::Unreachable {
                socket: socket.to_owned(),
                cause: io::ErrorKind::NotFound.into(),
            };
        }
        other => return transport(socket, tried, &other),
    };
    match status {
        404 if message.to_ascii_lowercase().contains("no such image") => EngineError::NoImage {
            image: String::new(),
            message,
        },
        404 | 409 => EngineError::Changed { tried, message },
        400..=499 => EngineError::Refused { tried, message },
        _ => EngineError::Broken { tried, message },
    }
}

/// Errors below HTTP: nobody there, not for us, or gone in the middle.
#[allow(
    clippy::wildcard_enum_match_arm,
    reason = "which errors bollard has depends on its features"
)]
fn transport(socket: &Path, tried: String, error: &BollardError) -> EngineError {
    let mut cause = error.source();
    let mut kind = match error {
        BollardError::IOError { err } => Some(err.kind()),
        _ => None,
    };
    let through_http = matches!(
        error,
        BollardError::HyperResponseError { .. } | BollardError::HyperLegacyError { .. }
    );
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            kind = Some(io.kind());
        }
        cause = error.source();
    }
    match kind {
        Some(io::ErrorKind::PermissionDenied) => EngineError::Denied {
            socket: socket.to_owned(),
        },
        Some(kind) => EngineError::Unreachable {
            socket: socket.to_owned(),
            cause: kind.into(),
        },
        // The connection ended in the middle of an answer: the engine is stopping.
        None if through_http => EngineError::Unreachable {
            socket: socket.to_owned(),
            cause: io::ErrorKind::ConnectionReset.into(),
        },
        None => EngineError::Broken {
            tried,
            message: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_whether_asking_again_may_help() {
        let answer = |status_code, message: &str| {
            let error = BollardError::DockerResponseServerError {
                status_code,
                message: message.to_owned(),
            };
            translate(Path::new("/s"), "start x", error).may_pass()
        };
        assert!(!answer(400, "executable file not found in $PATH"));
        assert!(!answer(403, "Address already in use"));
        assert!(!answer(404, "No such image: x:latest"));
        assert!(answer(404, "No such container: x"));
        assert!(answer(409, "cannot join network of a non running container: x"));
        assert!(answer(500, "driver failed"));
    }
}
