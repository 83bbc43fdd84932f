//! The keys of the simulated engine.

use std::collections::BTreeMap;

use data_encoding::BASE64;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey as _};
use serde_json::{Value, json};

/// When every version was made; nobody looks at it.
const MADE: &str = "2026-01-01T00:00:00Z";

#[derive(Default)]
pub(super) struct Keys(BTreeMap<String, Key>);

struct Key {
    kind: String,
    versions: Vec<KeyPair>,
    least: usize,
    loose: bool,
}

fn pair() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("the system gives randomness")
}

impl Keys {
    pub(super) fn make(&mut self, name: &str, kind: &str) {
        let key = Key {
            kind: kind.to_owned(),
            versions: vec![pair()],
            least: 0,
            loose: false,
        };
        self.0.insert(name.to_owned(), key);
    }

    pub(super) fn rotate(&mut self, name: &str) {
        if let Some(key) = self.0.get_mut(name) {
            key.versions.push(pair());
        }
    }

    pub(super) fn retire(&mut self, name: &str, below: u32) {
        if let Some(key) = self.0.get_mut(name) {
            key.least = usize::try_from(below).unwrap_or(usize::MAX);
        }
    }

    pub(super) fn loosen(&mut self, name: &str) {
        if let Some(key) = self.0.get_mut(name) {
            key.loose = true;
        }
    }

    /// `GET /transit/keys/:name`.
    pub(super) fn read(&self, name: &str) -> Option<Value> {
        let key = self.0.get(name)?;
        let signs = key.kind.starts_with("ecdsa") || key.kind == "ed25519";
        let version = |(at, pair): (usize, &KeyPair)| {
            let about = if signs {
                json!({ "creation_time": MADE, "name": "P-256", "public_key": pair.public_key_pem() })
            } else {
                json!(1_767_225_600)
            };
            ((at + 1).to_string(), about)
        };
        let versions: serde_json::Map<_, _> = key.versions.iter().enumerate().map(version).collect();
        Some(json!({
            "allow_plaintext_backup": key.loose,
            "auto_rotate_period": 0,
            "deletion_allowed": key.loose,
            "derived": false,
            "exportable": key.loose,
            "imported_key": false,
            "keys": versions,
            "latest_version": key.versions.len(),
            "min_available_version": 0,
            "min_decryption_version": 1,
            "min_encryption_version": key.least,
            "name": name,
            "supports_decryption": !signs,
            "supports_derivation": !signs,
            "supports_encryption": !signs,
            "supports_signing": signs,
            "type": key.kind,
        }))
    }

    /// `POST /transit/sign/:name/sha2-256`; a refusal is a status and its text.
    pub(super) fn sign(
        &self,
        name: &str,
        body: &Value,
        other_key: bool,
        other_version: bool,
    ) -> Result<Value, (u16, String)> {
        let key = self
            .0
            .get(name)
            .ok_or((400, "signing key not found".to_owned()))?;
        if !key.kind.starts_with("ecdsa") {
            return Err((400, format!("key type {} does not support signing", key.kind)));
        }
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        match text("marshaling_algorithm") {
            None | Some("asn1") => {}
            Some(other) => return Err((400, format!("this simulation marshals asn1 alone, not {other:?}"))),
        }
        if body.get("prehashed").and_then(Value::as_bool) == Some(true) {
            return Err((400, "this simulation hashes what it is given".to_owned()));
        }
        let input = BASE64
            .decode(text("input").unwrap_or_default().as_bytes())
            .map_err(|error| (400, format!("unable to decode input as base64: {error}")))?;
        let newest = key.versions.len();
        let asked = body.get("key_version").and_then(Value::as_u64).unwrap_or(0);
        let version = match usize::try_from(asked).unwrap_or(usize::MAX) {
            0 => newest,
            version => version,
        };
        let refused = |why: &str| {
            (
                500,
                format!("1 error occurred:\n\t* requested version for signing is {why}\n\n"),
            )
        };
        if version > newest {
            return Err(refused("higher than the latest key version"));
        }
        if version < key.least {
            return Err(refused("less than the minimum encryption key version"));
        }
        let version = if other_version { newest } else { version };
        let stranger = pair();
        let pair = if other_key {
            &stranger
        } else {
            &key.versions[version - 1]
        };
        let signature = pair.sign(&input).expect("a key signs");
        Ok(json!({
            "key_version": version,
            "signature": format!("vault:v{version}:{}", BASE64.encode(&signature)),
        }))
    }
}
