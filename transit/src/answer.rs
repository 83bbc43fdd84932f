//! What the engine answers, read: bytes in, values out.
//!
//! The shapes are those of the public API documentation of both products: `data` around what was asked for, `auth`
//! around a token, `errors` with a list of texts from status 400 on.

use std::{collections::BTreeMap, time::Duration};

use data_encoding::BASE64;
use http::StatusCode;
use serde::Deserialize;

use crate::{Place, TransitError, exchange::Ask, token::Standing};

/// The longest text of theirs that is passed on.
const MOST_TEXT: usize = 200;
/// The one kind of key that is used.
const KIND: &str = "ecdsa-p256";

/// The versions of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Versions {
    /// The newest.
    pub newest: u32,
    /// The public key of each, as PEM.
    pub public: BTreeMap<u32, String>,
    /// Whether the engine would hand the key out, or delete it: `exportable`, `allow_plaintext_backup`,
    /// `deletion_allowed`, those that are set.
    pub loose: Vec<&'static str>,
}

#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

#[derive(Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<String>,
}

#[derive(Deserialize)]
struct Signed {
    signature: String,
}

#[derive(Deserialize)]
struct KeyData {
    #[serde(rename = "type")]
    kind: String,
    keys: BTreeMap<u32, serde_json::Value>,
    #[serde(default)]
    exportable: bool,
    #[serde(default)]
    allow_plaintext_backup: bool,
    #[serde(default)]
    deletion_allowed: bool,
}

#[derive(Deserialize)]
struct TokenData {
    ttl: u64,
    #[serde(default)]
    creation_ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct Renewed {
    auth: Auth,
}

#[derive(Deserialize)]
struct Auth {
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

/// Takes the body of a success; everything else is an error.
pub(crate) fn success(place: &Place, ask: &Ask, status: StatusCode, body: &[u8]) -> Result<(), TransitError> {
    if status == StatusCode::OK || status == StatusCode::NO_CONTENT {
        return Ok(());
    }
    let (name, at) = (ask.name(), place.address.to_string());
    let why = said(body);
    // The version of the key is refused with a 400 or a 500, depending on the release.
    if let (Some(version), true) = (ask.version, why.contains("requested version for signing")) {
        return Err(TransitError::VersionRefused {
            place: at,
            key: place.key.to_string(),
            version,
            why,
        });
    }
    let unknown = |path: String| TransitError::NotFound {
        place: at.clone(),
        path,
        mount: place.mount.to_string(),
        key: place.key.to_string(),
    };
    Err(match status.as_u16() {
        403 | 401 => TransitError::Denied {
            ask: name,
            place: at,
            why,
            token: place.token.path().to_owned(),
        },
        404 => unknown(ask.path.clone()),
        400 if why.contains("signing key not found") => unknown(ask.path.clone()),
        429 => TransitError::TooMany { place: at },
        // The codes by which a health check tells a standby; a load balancer may pass them on.
        472 | 473 => TransitError::Standby { place: at },
        300..=399 => TransitError::Redirected { place: at },
        503 => TransitError::Sealed { place: at },
        500 if why.contains("active cluster node not found") => TransitError::Standby { place: at },
        // 412 is of a cluster that has not heard of the token yet.
        412 | 500..=599 => TransitError::Failed {
            ask: name,
            place: at,
            status: status.as_u16(),
            why,
        },
        other => TransitError::Refused {
            ask: name,
            place: at,
            status: other,
            why,
        },
    })
}

/// The signature in an answer, when it is of `version`.
pub(crate) fn signature(version: u32, body: &[u8]) -> Result<Vec<u8>, String> {
    let Signed { signature } = data(body)?;
    let parts: Vec<_> = signature.split(':').collect();
    let [product, by, digits] = parts[..] else {
        return Err("a signature is wanted as vault:v1:BASE64".to_owned());
    };
    let by_version = by.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
    match by_version {
        Some(number) if product == "vault" && number == version => {}
        Some(number) if product == "vault" => {
            return Err(format!(
                "it was signed with version {number}, and {version} was asked for"
            ));
        }
        Some(_) | None => return Err("a signature is wanted as vault:v1:BASE64".to_owned()),
    }
    BASE64
        .decode(digits.as_bytes())
        .map_err(|_| "the signature is not base64".to_owned())
}

/// The versions of a key; the kind of key when it is none of ours.
pub(crate) fn versions(body: &[u8]) -> Result<Result<Versions, String>, String> {
    let key: KeyData = data(body)?;
    if key.kind != KIND {
        return Ok(Err(key.kind));
    }
    let mut public = BTreeMap::new();
    for (number, version) in key.keys {
        let text = version.get("public_key").and_then(serde_json::Value::as_str);
        let text = text.ok_or_else(|| format!("version {number} has no public key"))?;
        public.insert(number, text.to_owned());
    }
    let newest = public
        .keys()
        .next_back()
        .copied()
        .ok_or("the key has no version")?;
    let loose = [
        ("exportable", key.exportable),
        ("allow_plaintext_backup", key.allow_plaintext_backup),
        ("deletion_allowed", key.deletion_allowed),
    ];
    let loose = loose
        .into_iter()
        .filter(|(_, set)| *set)
        .map(|(name, _)| name)
        .collect();
    Ok(Ok(Versions {
        newest,
        public,
        loose,
    }))
}

/// What lookup-self says.
pub(crate) fn standing(body: &[u8]) -> Result<Standing, String> {
    let token: TokenData = data(body)?;
    Ok(Standing {
        ttl: Duration::from_secs(token.ttl),
        lease: Duration::from_secs(token.creation_ttl),
        renewable: token.renewable,
    })
}

/// What renew-self says: the token has all of its new lease before it.
pub(crate) fn renewed(body: &[u8]) -> Result<Standing, String> {
    let Renewed { auth } = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let lease = Duration::from_secs(auth.lease_duration);
    Ok(Standing {
        ttl: lease,
        lease,
        renewable: auth.renewable,
    })
}

fn data<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice::<Data<T>>(body)
        .map(|Data { data }| data)
        .map_err(|error| error.to_string())
}

/// What a refusal says, in one short line.
fn said(body: &[u8]) -> String {
    let texts = serde_json::from_slice::<Errors>(body)
        .map(|Errors { errors }| errors)
        .unwrap_or_default();
    let words: Vec<_> = texts
        .iter()
        .flat_map(|text| text.split(|c: char| c.is_whitespace() || c.is_control()))
        .filter(|word| !word.is_empty() && *word != "*")
        .collect();
    if words.is_empty() {
        return "it says nothing".to_owned();
    }
    words.join(" ").chars().take(MOST_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_taken_from_the_version_that_was_asked_and_from_no_other() {
        let body = br#"{"data":{"key_version":2,"signature":"vault:v2:AQID"}}"#;
        assert_eq!(signature(2, body).unwrap(), [1, 2, 3]);
        assert!(signature(1, body).unwrap_err().contains("version 2"));
        for wrong in [
            &b"{}"[..],
            br#"{"data":{"signature":"vault:v2"}}"#,
            br#"{"data":{"signature":"vault:x2:AQID"}}"#,
            br#"{"data":{"signature":"other:v2:AQID"}}"#,
            br#"{"data":{"signature":"vault:v2:A!"}}"#,
        ] {
            assert!(signature(2, wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn a_key_of_another_kind_is_named_and_a_loose_one_is_noticed() {
        let body = br#"{"data":{"type":"aes256-gcm96","keys":{"1":1442851412},"latest_version":1}}"#;
        assert_eq!(versions(body).unwrap().unwrap_err(), "aes256-gcm96");
        let body = br#"{"data":{"type":"ecdsa-p256","exportable":true,"keys":
            {"1":{"public_key":"one"},"10":{"public_key":"ten"},"2":{"public_key":"two"}}}}"#;
        let key = versions(body).unwrap().unwrap();
        assert_eq!((key.newest, key.loose), (10, vec!["exportable"]));
    }

    #[test]
    fn what_a_refusal_says_is_one_short_line() {
        assert_eq!(
            said(
                b"{\"errors\":[\"2 errors occurred:\\n\\t* permission denied\\n\\t* invalid token\\n\\n\"]}"
            ),
            "2 errors occurred: permission denied invalid token"
        );
        assert_eq!(said(b"<html>"), "it says nothing");
        let long = format!("{{\"errors\":[\"{}\"]}}", "x".repeat(5000));
        assert_eq!(said(long.as_bytes()).len(), MOST_TEXT);
    }
}
