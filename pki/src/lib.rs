//! CA, certificates, pins, bundles and the two TLS verifiers.
//!
//! Bytes in, bytes out: this crate opens no socket, no file, and reads no clock. Time is an argument, and for TLS a
//! closure ([`Time`]) from whoever owns the clock.

mod authorities;
mod authority;
pub mod bundle;
pub mod certificate;
pub mod csr;
mod fingerprint;
pub mod head;
mod identity;
mod key;
pub mod lifetime;
mod locked;
pub mod pem;
mod pin;
mod refusal;
mod signing;
mod tls;
mod vouch;

pub use authorities::{Authorities, AuthoritiesError};
pub use authority::{Authority, AuthorityError, IssuedCertificate, Root};
pub use bundle::{Bundle, BundleError, Carried, Holder, Keyless, NodeSecret};
pub use certificate::{Certificate, CertificateError, Issuer, Purpose};
pub use csr::{Csr, CsrError};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use head::{Head, HeadError, SignedHead};
pub use identity::{Identity, IdentityError, OperatorName, Role, TrustDomain};
pub use key::{Key, KeyError, PublicKey};
pub use locked::{LockedKeyError, Passphrase, PassphraseError};
pub use pin::{PinKind, Pins, Standing};
pub use refusal::{Distrust, Refusal};
pub use signing::{AuthorityKey, SignError};
pub use tls::{Presented, Time, TlsError, client::client_config, server::server_config};
pub use vouch::{VouchError, accept};
