//! Refusals as gRPC statuses: the one place where they are made.

use picket_pki::AuthorityError;
use tonic::{Code, Status};

use crate::{
    access::Access, activation::ActivationError, refused::Refused, request::RequestError, store::CommitError,
};

impl From<Refused> for Status {
    fn from(refused: Refused) -> Self {
        let code = match &refused {
            Refused::Unknown { .. } => Code::NotFound,
            Refused::Exists(_) => Code::AlreadyExists,
            Refused::Invalid(_) | Refused::Site(_) | Refused::Csr(_) => Code::InvalidArgument,
            Refused::NotNow(_) => Code::FailedPrecondition,
            Refused::Denied(_) => Code::PermissionDenied,
            Refused::Request(error) => request(error),
            Refused::Activation(error) => activation(error),
            Refused::Commit(CommitError::Conflict { .. }) => Code::Aborted,
            Refused::Commit(CommitError::TooLarge(_)) => Code::InvalidArgument,
            Refused::Commit(CommitError::Frozen { .. }) => Code::FailedPrecondition,
            Refused::Commit(CommitError::Failed { .. } | CommitError::Closed) => Code::Unavailable,
            Refused::Authority(AuthorityError::Unsigned(_)) => {
                tracing::error!(error = %chain(&refused), "a certificate could not be signed");
                Code::Unavailable
            }
            Refused::Time(_)
            | Refused::Authority(_)
            | Refused::Bundle(_)
            | Refused::Read(_)
            | Refused::Record(_)
            | Refused::Journal(_)
            | Refused::Signer(_) => {
                tracing::error!(error = %chain(&refused), "refused a call");
                Code::Internal
            }
        };
        Self::new(code, chain(&refused))
    }
}

fn request(error: &RequestError) -> Code {
    match error {
        RequestError::AskedAlready { .. } => Code::AlreadyExists,
        RequestError::NothingWaits { .. } | RequestError::AskerGone { .. } => Code::FailedPrecondition,
        RequestError::NoApprover { .. }
        | RequestError::OwnRequest { .. }
        | RequestError::OwnNode { .. }
        | RequestError::NotYours { .. } => Code::PermissionDenied,
    }
}

fn activation(error: &ActivationError) -> Code {
    match error {
        ActivationError::Span { .. } | ActivationError::Beyond { .. } => Code::InvalidArgument,
        ActivationError::NotGranted { .. }
        | ActivationError::Stands { .. }
        | ActivationError::NotOn { .. }
        | ActivationError::Shorter { .. } => Code::FailedPrecondition,
    }
}

/// The caller's certificate does not speak for it any more.
pub(crate) fn unauthenticated(why: &str) -> Status {
    Status::new(Code::Unauthenticated, why)
}

/// The connection's certificate has ended.
pub(crate) fn certificate_ended() -> Status {
    unauthenticated("the certificate of this connection has ended; connect again with a newer one")
}

/// The caller may not make this call.
pub(crate) fn denied(who: &str, line: &Access) -> Status {
    let call = line.path.rsplit('/').next().unwrap_or(line.path);
    Status::new(
        Code::PermissionDenied,
        format!("{who} may not call {call}, which is for: {}", line.callers),
    )
}

/// The caller had this call open, and may not have it any more.
pub(crate) fn not_any_more() -> Status {
    Status::new(
        Code::PermissionDenied,
        "this operator's role does not allow this call any more; `picketctl operator show` says what it is",
    )
}

/// There is no such RPC, or none that the table of access names.
pub(crate) fn no_such_call() -> Status {
    Status::new(Code::Unimplemented, "this master has no such call")
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
