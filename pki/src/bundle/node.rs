//! The ZeroTier identity that a bundle may carry, when an operator wants the node's id before the machine is there.

use std::fmt;

use zeroize::Zeroizing;

use super::BundleError;

/// The longest that is taken: the text of an `identity.secret` has 280 characters.
const LONGEST: usize = 512;

const NODE_ID: usize = 10;

/// A node's identity as its service keeps it in `identity.secret`: `NODE:0:PUBLIC:PRIVATE`.
///
/// Unlike the key of a bundle it is not used up: whoever has it is that node for as long as the node is let on anywhere.
/// Whether its halves belong together is for whoever writes it down to check.
#[derive(Clone)]
pub struct NodeSecret(Zeroizing<String>);

impl NodeSecret {
    /// Takes the text of an `identity.secret`.
    ///
    /// # Errors
    ///
    /// [`BundleError::Node`] for anything that has not the shape of one.
    pub fn new(text: &str) -> Result<Self, BundleError> {
        let mut parts = text.split(':');
        let (node, kind) = (parts.next(), parts.next());
        let halves: Vec<&str> = parts.collect();
        let is_hex = |text: &str| {
            !text.is_empty()
                && text
                    .bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let fits = text.len() <= LONGEST
            && node.is_some_and(|node| node.len() == NODE_ID && is_hex(node))
            && kind == Some("0")
            && halves.len() == 2
            && halves.into_iter().all(is_hex);
        if fits {
            Ok(Self(Zeroizing::new(text.to_owned())))
        } else {
            Err(BundleError::Node)
        }
    }

    /// The node's id, ten digits.
    #[must_use]
    pub fn node(&self) -> &str {
        self.0.get(..NODE_ID).unwrap_or_default()
    }

    /// The text of its `identity.secret`.
    #[must_use]
    pub fn as_secret_text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NodeSecret").field(&self.node()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Bundle, Carried,
        bundle::{seal, tests::bundle},
    };

    const SECRET: &str = "39966434ba:0:00aa:00bb";

    #[test]
    fn a_bundle_with_a_node_reads_back_as_it_was_written_and_is_of_a_version_that_older_programs_name() {
        let node = NodeSecret::new(SECRET).unwrap();
        let text = bundle().encode_with(&node).unwrap();
        let Carried::WithNode(back, carried) = Carried::parse(text.as_bytes()).unwrap() else {
            panic!("it carries a node")
        };
        assert_eq!(carried.as_secret_text(), SECRET);
        assert_eq!(back.encode_with(&carried).unwrap(), text);
        assert!(text.starts_with("# picket bundle, version 2\n"), "{}", *text);
        assert!(
            bundle()
                .encode()
                .unwrap()
                .starts_with("# picket bundle, version 1\n")
        );
        assert!(
            Bundle::parse(text.as_bytes()).is_ok(),
            "the node is no reason not to read the rest"
        );
    }

    #[test]
    fn its_first_lines_say_which_node_it_carries_and_that_this_lasts() {
        let text = bundle().encode_with(&NodeSecret::new(SECRET).unwrap()).unwrap();
        let head: String = text.lines().take_while(|line| line.starts_with('#')).collect();
        assert!(
            head.contains("39966434ba") && head.contains("destroy every copy"),
            "{head}"
        );
        assert!(!head.contains("00bb"), "{head}");
    }

    #[test]
    fn a_version_that_does_not_fit_what_is_carried_is_an_edit() {
        let node = NodeSecret::new(SECRET).unwrap();
        for (text, from, to) in [
            (bundle().encode_with(&node).unwrap(), "version 2", "version 1"),
            (bundle().encode().unwrap(), "version 1", "version 2"),
        ] {
            let mut forged = text[..text.rfind("sha256 ").unwrap()].replace(from, to);
            seal::close(&mut forged);
            assert!(matches!(
                Carried::parse(forged.as_bytes()).unwrap_err(),
                BundleError::Edited
            ));
        }
    }

    #[test]
    fn what_is_no_identity_is_not_taken_and_a_node_shows_no_secret() {
        for text in [
            "",
            "39966434ba",
            "39966434ba:0:00aa",
            "39966434ba:0:00aa:",
            "39966434ba:0:00aa:00bb:00cc",
            "39966434ba:0:00aa:00bb\n# for host: another",
            "39966434BA:0:00aa:00bb",
            "39966434b:0:00aa:00bb",
            "39966434ba:1:00aa:00bb",
        ] {
            let error = NodeSecret::new(text).unwrap_err();
            assert!(matches!(error, BundleError::Node), "{text}");
        }
        assert!(NodeSecret::new(&format!("39966434ba:0:00aa:{}", "0".repeat(600))).is_err());
        let shown = format!("{:?}", NodeSecret::new(SECRET).unwrap());
        assert_eq!(shown, "NodeSecret(\"39966434ba\")");
    }
}
