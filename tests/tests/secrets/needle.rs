//! Secrets, and the forms in which one may turn up.

use std::{collections::BTreeSet, fs, path::Path};

use picket_pki::{Bundle, Key};

/// Something that nobody else may know.
pub(crate) enum Secret {
    /// A private key.
    Key(Key),
    /// A token.
    Text(String),
    /// A key that is no more than bytes.
    Bytes(Vec<u8>),
}

/// All of them, by what they are.
#[derive(Default)]
pub(crate) struct Secrets(Vec<(String, Vec<Vec<u8>>)>);

impl Secrets {
    pub(crate) fn add(&mut self, name: &str, secret: Secret) {
        let forms = match secret {
            Secret::Key(key) => {
                let mut forms = forms(scalar(key.as_pkcs8()));
                // The scalar stands in a PEM block behind what every key has, so that its base64 is one of ours.
                forms.push(key.as_pkcs8().to_vec());
                forms
            }
            Secret::Text(text) => forms(text.as_bytes()),
            Secret::Bytes(bytes) => forms(&bytes),
        };
        self.0.push((name.to_owned(), forms));
    }

    pub(crate) fn add_bundle(&mut self, name: &str, bundle: &[u8]) {
        self.add(name, Secret::Key(Bundle::parse(bundle).unwrap().key));
    }

    /// Every private key in the files of a directory: as PEM, or as an agent keeps it.
    pub(crate) fn add_keys_in(&mut self, dir: &Path) {
        let before = self.0.len();
        for path in super::files(dir) {
            let bytes = fs::read(&path).unwrap();
            let kept = serde_json::from_slice::<serde_json::Value>(&bytes).ok();
            if let Some(digits) = kept.as_ref().and_then(|kept| kept["key"].as_str()) {
                let der = data_encoding::BASE64.decode(digits.as_bytes()).unwrap();
                let key = Key::from_pkcs8(&der).unwrap();
                self.add(&path.display().to_string(), Secret::Key(key));
            }
            let text = String::from_utf8_lossy(&bytes);
            for block in text.split("-----BEGIN PRIVATE KEY-----").skip(1) {
                let end = "-----END PRIVATE KEY-----";
                let inner = block.split(end).next().unwrap();
                let pem = format!("-----BEGIN PRIVATE KEY-----{inner}{end}\n");
                let key = Key::from_pem(pem.as_bytes()).unwrap();
                self.add(&path.display().to_string(), Secret::Key(key));
            }
        }
        assert!(self.0.len() > before, "{} has no keys", dir.display());
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The secrets that are in there.
    pub(crate) fn found_in(&self, hay: &[u8]) -> BTreeSet<&str> {
        let places = self.places();
        // A PEM block is broken into lines, and JSON writes their ends in two letters.
        let joined = String::from_utf8_lossy(hay).replace("\\n", "").replace('\n', "");
        let mut found = search(&places, hay);
        found.extend(search(&places, joined.as_bytes()));
        found
    }

    pub(crate) fn must_not_be_in(&self, everything: &[(String, Vec<u8>)]) {
        for (place, hay) in everything {
            let found = self.found_in(hay);
            assert!(found.is_empty(), "{place} has {found:?}");
        }
    }

    /// Every form by its first two bytes: there is much to look through.
    fn places(&self) -> Vec<Vec<(&str, &[u8])>> {
        let mut places = vec![Vec::new(); 1 << 16];
        for (name, forms) in &self.0 {
            for form in forms {
                places[usize::from(u16::from_be_bytes([form[0], form[1]]))]
                    .push((name.as_str(), form.as_slice()));
            }
        }
        places
    }
}

fn search<'a>(places: &[Vec<(&'a str, &[u8])>], hay: &[u8]) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for (at, pair) in hay.windows(2).enumerate() {
        for (name, form) in &places[usize::from(u16::from_be_bytes([pair[0], pair[1]]))] {
            if hay[at..].starts_with(form) {
                found.insert(*name);
            }
        }
    }
    found
}

/// The number that is all of a P-256 key: 32 bytes in its PKCS#8.
pub(crate) fn scalar(pkcs8: &[u8]) -> &[u8] {
    let front = [2, 1, 1, 4, 32];
    let at = pkcs8.windows(front.len()).position(|seen| seen == front).unwrap() + front.len();
    &pkcs8[at..at + 32]
}

fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        secret.to_vec(),
        data_encoding::HEXLOWER.encode(secret).into_bytes(),
        data_encoding::HEXUPPER.encode(secret).into_bytes(),
    ];
    let numbers: Vec<String> = secret.iter().map(u8::to_string).collect();
    forms.push(numbers.join(", ").into_bytes());
    // In base64 it looks different at each of three places; the letters at either end depend on its neighbours.
    for skipped in 0..3 {
        let padded = [&vec![0; skipped][..], secret].concat();
        for encoding in [data_encoding::BASE64_NOPAD, data_encoding::BASE64URL_NOPAD] {
            let text = encoding.encode(&padded);
            let inner = text
                .get(if skipped == 0 { 0 } else { 4 }..text.len() - 2)
                .unwrap();
            forms.push(inner.as_bytes().to_vec());
        }
    }
    forms
}
