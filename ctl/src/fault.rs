//! Why a command did not do what was asked: one sentence that says what to do next, and an exit code. The one place
//! that reads a gRPC status, a refused handshake or a bundle's defect and puts it in an operator's words.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use picket_durable::FileError;
use picket_link::{Failure, LinkError};
use picket_pki::{AuthoritiesError, BundleError, Refusal, TlsError};
use tonic::{Code, Status};

use crate::Exit;

/// How an operator gets a bundle that works.
const NEW_BUNDLE: &str = "get a new one from `picket-master admin-bundle` on the master's machine";

/// How an operator whose certificate is over gets another.
const ADDED_AGAIN: &str = "an admin adds this device again (`picketctl operator add NAME --device DEVICE --out FILE`), or `picket-master admin-bundle` on the master's machine makes a new one";

/// What was being asked of the master, for the sentence when it fails.
#[derive(Debug, Clone)]
pub(crate) struct About {
    /// Completes "could not ...".
    pub(crate) doing: String,
    /// The command that shows what came of it.
    pub(crate) see: String,
    /// The command that shows what there is, where that is another.
    pub(crate) list: Option<&'static str>,
    /// Whether it would have changed something.
    pub(crate) effect: Effect,
}

/// Whether a call changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Changes,
}

impl About {
    pub(crate) fn reading(doing: impl Into<String>, see: impl Into<String>) -> Self {
        Self {
            doing: on_one_line(&doing.into()),
            see: on_one_line(&see.into()),
            list: None,
            effect: Effect::Reads,
        }
    }

    pub(crate) fn changing(doing: impl Into<String>, see: impl Into<String>) -> Self {
        Self {
            doing: on_one_line(&doing.into()),
            see: on_one_line(&see.into()),
            list: None,
            effect: Effect::Changes,
        }
    }

    /// Of a thing that may not be there: `list` shows what is.
    pub(crate) fn of_one_in(mut self, list: &'static str) -> Self {
        self.list = Some(list);
        self
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It was asked for in a way that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// There is no bundle to be an operator with.
    #[error("{}", no_bundle(.0.as_deref()))]
    NoBundle(Option<PathBuf>),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The bundle is of no use.
    #[error("{}", bundle(path, cause))]
    Bundle { path: PathBuf, cause: BundleError },
    /// It is a host's.
    #[error("{} is the bundle of the host {host}, and picketctl needs an operator's; name one with `--bundle FILE`, or {NEW_BUNDLE}", path.display())]
    NotAnOperator { path: PathBuf, host: String },
    /// The CA certificates or the key in the bundle are of no use for TLS.
    #[error("the bundle cannot be used for TLS; {NEW_BUNDLE}")]
    Tls(#[source] TlsError),
    /// As above.
    #[error("the CA certificates in the bundle cannot be used; {NEW_BUNDLE}")]
    Authorities(#[source] AuthoritiesError),
    /// There is no connection.
    #[error("{}", link(.0))]
    Link(LinkError),
    /// The master said no, and how to go on.
    #[error("could not {doing}:{}", listed(message))]
    Refused {
        doing: String,
        message: String,
        code: Code,
    },
    /// The call got no answer in time.
    #[error("could not {}: the master did not answer within {after:?}; {}", about.doing, unsure(about, "try again, with a longer `--timeout` if the network is slow"))]
    Silent { about: About, after: Duration },
    /// The connection broke under the call.
    #[error("could not {}: the connection to the master broke; {}", about.doing, unsure(about, "try again"))]
    Lost { about: About },
    /// What was asked for was recorded and has not come true.
    #[error("{0}")]
    NotYet(String),
    /// The master ended a stream.
    #[error("{0}")]
    Ended(String),
    /// It was tried and did not work.
    #[error("{0}")]
    Failed(String),
    /// The operator said no.
    #[error("nothing was changed")]
    Declined,
    /// The reader of our output went away, `| head` for example.
    #[error("the output was closed")]
    Closed,
    /// The result cannot be written.
    #[error("cannot write the result: {0}; what was asked for may have been done")]
    Output(#[source] io::Error),
    /// The system gives no runtime.
    #[error("cannot start: {0}")]
    Runtime(#[source] io::Error),
}

impl Fault {
    /// What a script learns.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Closed => Exit::Done,
            Self::Usage(_) => Exit::Usage,
            Self::Refused {
                code: Code::InvalidArgument,
                ..
            } => Exit::Usage,
            Self::Refused {
                code: Code::Unavailable,
                ..
            } => Exit::Unreachable,
            // What does not speak as a master does is none.
            Self::Link(LinkError::Refused {
                cause: Refusal::Protocol,
                ..
            }) => Exit::Unreachable,
            Self::Link(LinkError::Refused { .. }) => Exit::Failed,
            Self::Link(
                LinkError::Unreachable(_)
                | LinkError::NotTheMaster { .. }
                | LinkError::TimedOut { .. }
                | LinkError::NoAddress,
            )
            | Self::Silent { .. }
            | Self::Lost { .. }
            | Self::Ended(_) => Exit::Unreachable,
            Self::NoBundle(_)
            | Self::File(_)
            | Self::Bundle { .. }
            | Self::NotAnOperator { .. }
            | Self::Tls(_)
            | Self::Authorities(_)
            | Self::Refused { .. }
            | Self::NotYet(_)
            | Self::Failed(_)
            | Self::Declined
            | Self::Output(_)
            | Self::Runtime(_) => Exit::Failed,
        }
    }

    /// Whether the master has nothing of that name.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: Code::NotFound,
                ..
            }
        )
    }

    /// Whether the master has something of that name already.
    pub(crate) fn is_already_exists(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                code: Code::AlreadyExists,
                ..
            }
        )
    }

    /// Puts a call's status in words.
    pub(crate) fn of(status: &Status, about: &About, timeout: Duration) -> Self {
        let said = if status.message().is_empty() {
            "the master gave no reason"
        } else {
            status.message()
        };
        // The master often names the same command, or a better one.
        let hint = |see: &str| {
            if said.contains(see) || said.contains("; see `") {
                String::new()
            } else {
                format!("; see `{see}`")
            }
        };
        let message = match status.code() {
            // What is not there cannot be shown.
            Code::NotFound => format!("{said}{}", hint(about.list.unwrap_or(&about.see))),
            Code::AlreadyExists => format!("{said}{}", hint(&about.see)),
            // The master says who may. How to become somebody who may is no answer to who may not.
            Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::PermissionDenied => {
                said.to_owned()
            }
            Code::Unauthenticated => {
                format!(
                    "{said}; ask an admin, or get an admin's bundle from `picket-master admin-bundle` on the master's machine"
                )
            }
            Code::ResourceExhausted | Code::Aborted => format!("{said}; try again in a moment"),
            Code::Unimplemented => {
                "the master does not know this call; its version differs from `picketctl --version`"
                    .to_owned()
            }
            Code::DataLoss => format!("{said}; start again"),
            Code::Ok | Code::Unknown | Code::Internal if broke(status) => {
                return Self::Lost { about: about.clone() };
            }
            Code::Ok | Code::Unknown | Code::Internal if status.message().is_empty() => {
                format!("{said}; its log may have one")
            }
            Code::Ok | Code::Unknown | Code::Internal => said.to_owned(),
            Code::Cancelled | Code::DeadlineExceeded => {
                return Self::Silent {
                    about: about.clone(),
                    after: timeout,
                };
            }
            Code::Unavailable if broke(status) => return Self::Lost { about: about.clone() },
            Code::Unavailable => format!("{said}; try again in a moment"),
        };
        Self::Refused {
            doing: about.doing.clone(),
            message,
            code: status.code(),
        }
    }
}

impl From<io::Error> for Fault {
    /// Errors of the output streams; files have [`FileError`].
    fn from(cause: io::Error) -> Self {
        if cause.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Output(cause)
        }
    }
}

/// What was typed, with what breaks a line or moves a cursor shown as it is written in code.
fn on_one_line(typed: &str) -> String {
    let shown = |letter: char| match letter.is_control() {
        true => letter.escape_default().collect::<String>(),
        false => letter.to_string(),
    };
    typed.chars().map(shown).collect()
}

/// Whether the status was made on this side, because the connection broke.
fn broke(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn unsure(about: &About, again: &str) -> String {
    match about.effect {
        Effect::Reads => again.to_owned(),
        Effect::Changes => format!(
            "whether it was done is not known: look with `{}` before trying again",
            about.see
        ),
    }
}

/// One problem behind the colon, several below it.
fn listed(message: &str) -> String {
    if message.contains('\n') {
        message.lines().map(|line| format!("\n  {line}")).collect()
    } else {
        format!(" {message}")
    }
}

fn no_bundle(looked: Option<&Path>) -> String {
    let looked = match looked {
        Some(path) => format!("there is no admin bundle at {}", path.display()),
        None => "no admin bundle is named and there is no home directory to look in".to_owned(),
    };
    format!(
        "{looked}; name one with `--bundle FILE` or PICKET_BUNDLE (`picket-master init` and `picket-master admin-bundle` write one)"
    )
}

fn bundle(path: &Path, cause: &BundleError) -> String {
    let path = path.display();
    match cause {
        BundleError::NotABundle => format!("{path} is no picket bundle; {NEW_BUNDLE}"),
        BundleError::NoKey => {
            format!(
                "{path} is the bundle of a host that has its key, and picketctl needs an operator's; name one with `--bundle FILE`, or {NEW_BUNDLE}"
            )
        }
        BundleError::Expired(at) => {
            format!(
                "the bundle {path} has expired at {at}; {ADDED_AGAIN}. Or set this machine's clock if that is wrong"
            )
        }
        BundleError::Truncated
        | BundleError::Edited
        | BundleError::NewerVersion(_)
        | BundleError::NotYetValid { .. } => format!("{path}: {cause}"),
        BundleError::KeyDoesNotMatch => {
            format!("{path}: the key is not the one its certificate is for; {NEW_BUNDLE}")
        }
        BundleError::WrongAuthority => format!("{path}: its certificate is not of its CA; {NEW_BUNDLE}"),
        BundleError::OtherIdentity { .. } => {
            format!("{path}: its certificate is for somebody else than it says; {NEW_BUNDLE}")
        }
        BundleError::Certificate(_)
        | BundleError::Authorities(_)
        | BundleError::Key(_)
        | BundleError::Node
        | BundleError::Value { .. } => format!("{path}: what it contains is of no use; {NEW_BUNDLE}"),
    }
}

fn link(error: &LinkError) -> String {
    match error {
        LinkError::Unreachable(failures) => {
            let tried: Vec<String> = failures.iter().map(tried).collect();
            format!(
                "no master answers at {}; check that it runs (`systemctl status picket-master` there) and that this machine reaches it, or name another address with `--master HOST:PORT`",
                tried.join(", ")
            )
        }
        LinkError::NotTheMaster { address, cause } => format!("at {address}: {cause}"),
        LinkError::Refused {
            address,
            cause: Refusal::Protocol,
        } => format!(
            "what answers at {address} does not speak as a master does (TLS 1.3 with HTTP/2): it is no Picket master, or something stands between; check the address and its port (7444), or name another with `--master HOST:PORT`"
        ),
        LinkError::Refused { address, cause } => {
            format!("the master at {address} refuses this bundle: {}", refusal(*cause))
        }
        LinkError::TimedOut { address, after } => format!(
            "{address} took the connection and then was silent for {after:?}; the master may be overloaded, or something that is no master answers there: try again, or name another address with `--master HOST:PORT`"
        ),
        LinkError::NoAddress => "the bundle names no master; name one with `--master HOST:PORT`".to_owned(),
    }
}

fn tried(failure: &Failure) -> String {
    let kind = failure.cause.kind();
    let why = if kind == io::ErrorKind::ConnectionRefused {
        "nothing listens there".to_owned()
    } else if kind == io::ErrorKind::TimedOut {
        "no answer".to_owned()
    } else if [io::ErrorKind::ConnectionReset, io::ErrorKind::UnexpectedEof].contains(&kind) {
        "closed at once".to_owned()
    } else {
        failure.cause.to_string()
    };
    format!("{} ({why})", failure.address)
}

/// The reasons as they concern an operator; those of a host read otherwise.
fn refusal(cause: Refusal) -> String {
    match cause {
        Refusal::NoCertificate => format!("it was shown no certificate; {NEW_BUNDLE}"),
        Refusal::OtherAuthority => {
            format!("its certificate is of another CA than this master's; check the address, or {NEW_BUNDLE}")
        }
        Refusal::WrongRole => {
            "operators dial the admin port (7444), agents the other (7443); check the address".to_owned()
        }
        Refusal::WrongTrustDomain => {
            format!("its certificate is damaged or of another trust domain; check the address, or {NEW_BUNDLE}")
        }
        Refusal::Spent => format!(
            "it has been replaced by a newer one; use that. If nobody here renewed it, a copy is in other hands: an admin revokes this device first. Then {ADDED_AGAIN}"
        ),
        Refusal::Revoked => format!("this operator, or this device of it, has been revoked; an admin can say why. To come back: {ADDED_AGAIN}"),
        Refusal::Unknown => {
            format!("its CA signed this certificate and the master does not know it (was it restored from an older snapshot?); {NEW_BUNDLE}")
        }
        Refusal::Expired | Refusal::NotYetValid => {
            format!("by the master's clock it has expired or is not valid yet; compare both clocks. If they agree: {ADDED_AGAIN}")
        }
        Refusal::Protocol => {
            "the two sides do not speak the same TLS; something that is no Picket answers there, or stands between".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_with_a_line_break_is_told_on_one_line() {
        let about = About::reading("show edge\n07", "picketctl host show edge\n07");
        let fault = Fault::of(
            &Status::not_found("there is no such host"),
            &about,
            Duration::ZERO,
        );
        let said = fault.to_string();
        assert!(!said.contains('\n'), "{said}");
        assert!(said.contains("edge\\n07"), "{said}");
    }
}
