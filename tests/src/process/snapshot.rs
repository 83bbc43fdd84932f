//! What a program said, with everything taken out that differs from run to run.

use std::{net::SocketAddr, path::Path};

use jiff::Timestamp;
use uuid::Uuid;

use super::program::Said;

/// Words that differ from run to run, and what stands for them.
#[derive(Debug, Default, Clone)]
pub struct Plain(Vec<(String, String)>);

impl Plain {
    /// Has `shown` stand for `seen`.
    #[must_use]
    pub fn with(mut self, seen: impl ToString, shown: &str) -> Self {
        self.0.push((seen.to_string(), shown.to_owned()));
        // The longest first, since one may be the beginning of another.
        self.0.sort_by_key(|(seen, _)| std::cmp::Reverse(seen.len()));
        self
    }

    /// Has `shown` stand for a path.
    #[must_use]
    pub fn with_path(self, seen: &Path, shown: &str) -> Self {
        self.with(seen.display(), shown)
    }

    /// Has `shown` stand for an address.
    #[must_use]
    pub fn with_address(self, seen: SocketAddr, shown: &str) -> Self {
        self.with(seen, shown)
    }

    /// The text, plain. Times, ids and fingerprints are found by their looks.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (seen, shown) in &self.0 {
            text = text.replace(seen, shown);
        }
        let mut plain = String::with_capacity(text.len());
        let mut word = String::new();
        for letter in text.chars().chain(['\n']) {
            if letter.is_ascii_alphanumeric() || matches!(letter, '-' | ':' | '.') {
                word.push(letter);
                continue;
            }
            let bare = word.trim_end_matches(['.', ':']);
            plain.push_str(shown(bare).unwrap_or(bare));
            plain.push_str(&word[bare.len()..]);
            word.clear();
            plain.push(letter);
        }
        plain.pop();
        plain
    }

    /// What a program answered to `typed`, as an operator sees it.
    #[must_use]
    pub fn answer(&self, typed: &str, said: &Said) -> String {
        let code = said
            .code
            .map_or_else(|| "by a signal".to_owned(), |code| code.to_string());
        let said = self.text(&format!("{}{}", said.stdout, said.stderr));
        format!("$ {typed}\n{}\nexit code {code}", said.trim_end())
    }
}

fn shown(word: &str) -> Option<&'static str> {
    if word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some("[fingerprint]");
    }
    if word.len() == 32 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some("[lineage]");
    }
    if word.len() == 36 && word.parse::<Uuid>().is_ok() {
        return Some("[id]");
    }
    if word.len() >= 20 && word.parse::<Timestamp>().is_ok() {
        return Some("[time]");
    }
    None
}
