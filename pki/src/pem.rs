//! Text around DER: the blocks that keys and certificates are kept in.

use data_encoding::BASE64;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use zeroize::Zeroizing;

const REQUEST: &str = "CERTIFICATE REQUEST";

/// Writes one PEM block. The text is wiped when dropped, since it may be a key.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let digits = Zeroizing::new(BASE64.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(digits.len() + digits.len() / 64 + 80));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    for at in (0..digits.len()).step_by(64) {
        text.push_str(&digits[at..digits.len().min(at + 64)]);
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// The first PEM block of this name, or `None` when there is none or it is damaged. It is wiped when dropped.
pub(crate) fn block(label: &str, text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let text = std::str::from_utf8(text).ok()?;
    let (begin, end) = (
        format!("-----BEGIN {label}-----"),
        format!("-----END {label}-----"),
    );
    let (_, after) = text.split_once(&begin)?;
    let (body, _) = after.split_once(&end)?;
    let digits: Zeroizing<String> = Zeroizing::new(body.split_ascii_whitespace().collect());
    BASE64.decode(digits.as_bytes()).ok().map(Zeroizing::new)
}

/// Writes a certificate as PEM.
#[must_use]
pub fn certificate_to_pem(der: &[u8]) -> String {
    encode("CERTIFICATE", der).to_string()
}

/// Writes a certificate request as PEM.
#[must_use]
pub fn request_to_pem(der: &[u8]) -> String {
    encode(REQUEST, der).to_string()
}

/// Reads the first certificate request of a PEM text, or `None` when there is none.
#[must_use]
pub fn request_from_pem(text: &[u8]) -> Option<Vec<u8>> {
    CertificateSigningRequestDer::from_pem_slice(text)
        .ok()
        .map(|der| der.to_vec())
}

/// Whether a text begins as a certificate request does.
#[must_use]
pub fn is_request(text: &[u8]) -> bool {
    text.starts_with(format!("-----BEGIN {REQUEST}-----").as_bytes())
}

/// Reads all certificates of a PEM text, in their order, or `None` when a block is damaged.
#[must_use]
pub fn certificates_from_pem(text: &[u8]) -> Option<Vec<Vec<u8>>> {
    CertificateDer::pem_slice_iter(text)
        .map(|block| block.ok().map(|der| der.to_vec()))
        .collect()
}
