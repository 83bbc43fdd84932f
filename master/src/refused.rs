//! Why the master does not do what it was asked. Turned into a gRPC status in `status.rs` and nowhere else.

use picket_pki::{AuthorityError, BundleError, CsrError};
use picket_proto::{WireError, site::SiteError};

use crate::{
    activation::ActivationError,
    record::RecordError,
    request::RequestError,
    signer::SignerError,
    store::{CommitError, ReadError, Unreadable},
};

/// A refusal, with what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("there is no {what} `{name}`; see `{list}`")]
    Unknown {
        /// host, network, deployment, ...
        what: &'static str,
        /// As it was given.
        name: String,
        /// The command that lists what there is.
        list: &'static str,
    },
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// What was asked makes no sense by itself.
    #[error(transparent)]
    Invalid(#[from] WireError),
    /// The site that was given makes no sense by itself.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// It makes sense, but not as things stand.
    #[error("{0}")]
    NotNow(String),
    /// The caller may not.
    #[error("{0}")]
    Denied(String),
    /// A request is not made or decided.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// An activation is not started or moved.
    #[error(transparent)]
    Activation(#[from] ActivationError),
    /// The signing request is no good.
    #[error("the signing request is refused")]
    Csr(#[from] CsrError),
    /// The CA cannot sign.
    #[error("the CA cannot sign")]
    Authority(#[from] AuthorityError),
    /// Its files cannot be used.
    #[error("the CA cannot be used")]
    Signer(#[from] SignerError),
    /// The bundle cannot be written.
    #[error("the bundle cannot be made")]
    Bundle(#[from] BundleError),
    /// What the time is cannot be kept.
    #[error(
        "it holds for as long as the master runs, and could not be kept for its next start; look at the disk"
    )]
    Time(#[source] picket_durable::FileError),
    /// The store did not take it.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The store did not give it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] Unreadable),
    /// The store gave nonsense.
    #[error(transparent)]
    Record(#[from] RecordError),
}

impl Refused {
    /// No host of this name.
    pub fn no_host(name: impl ToString) -> Self {
        Self::Unknown {
            what: "host",
            name: name.to_string(),
            list: "picketctl host list",
        }
    }

    /// No operator of this name.
    pub fn no_operator(name: impl ToString) -> Self {
        Self::Unknown {
            what: "operator",
            name: name.to_string(),
            list: "picketctl operator list",
        }
    }

    /// No network of this id.
    pub fn no_network(id: impl ToString) -> Self {
        Self::Unknown {
            what: "network",
            name: id.to_string(),
            list: "picketctl network list",
        }
    }

    /// No device of this name, or none that the caller may see.
    pub fn no_device(name: impl ToString) -> Self {
        Self::Unknown {
            what: "device",
            name: name.to_string(),
            list: "picketctl device list",
        }
    }

    /// No deployment of this name.
    pub fn no_deployment(name: impl ToString) -> Self {
        Self::Unknown {
            what: "deployment",
            name: name.to_string(),
            list: "picketctl deploy list",
        }
    }

    /// A field that does not do.
    pub fn invalid(field: &str, problem: impl std::fmt::Display) -> Self {
        Self::Invalid(WireError::new(field, problem))
    }
}
