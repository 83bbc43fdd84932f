//! Refusals as gRPC statuses: the one place where they are made.

use tonic::{Code, Status};

use crate::{refused::Refused, store::CommitError};

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::Unknown { .. } => Code::NotFound,
            Refused::Exists(_) => Code::AlreadyExists,
            Refused::Invalid(_) | Refused::Site(_) | Refused::Csr(_) => Code::InvalidArgument,
            Refused::NotNow(_) => Code::FailedPrecondition,
            Refused::Denied(_) => Code::PermissionDenied,
            Refused::Commit(CommitError::Conflict { .. }) => Code::Aborted,
            Refused::Commit(CommitError::TooLarge(_)) => Code::InvalidArgument,
            Refused::Commit(CommitError::Frozen { .. }) => Code::FailedPrecondition,
            Refused::Commit(CommitError::Failed { .. } | CommitError::Closed) => Code::Unavailable,
            Refused::Authority(_)
            | Refused::Signer(_)
            | Refused::Bundle(_)
            | Refused::Read(_)
            | Refused::Record(_) => {
                tracing::error!(error = %chain(&refused), "refused a call");
                Code::Internal
            }
        };
        Self::new(code, chain(&refused))
    }
}

/// The caller's certificate does not speak for it any more.
pub(crate) fn unauthenticated(why: &str) -> Status {
    Status::new(Code::Unauthenticated, why)
}

/// A watcher fell behind.
pub(crate) fn behind(last: u64) -> Status {
    Status::new(
        Code::DataLoss,
        format!("you fell behind; start again after event {last}"),
    )
}

/// The error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
