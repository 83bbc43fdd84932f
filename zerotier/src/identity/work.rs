//! The computation by which a node id follows from public keys: slow, and in need of memory, so that nobody makes an
//! identity for an id of his choice.

use salsa20::{
    Salsa20,
    cipher::{KeyIvInit as _, StreamCipher as _},
};
use sha2::{Digest as _, Sha512};

use crate::ids::NodeId;

/// The bytes that one computation fills and then reads at random.
const BYTES: usize = 2 << 20;
/// Of a digest, and of a block of the cipher.
const BLOCK: usize = 64;
/// Of what is swapped.
const WORD: usize = 8;
/// Keys whose digest begins with this or more make no id: one in fifteen does.
const LEAST: u8 = 17;

/// The memory of a computation, used again for the next one.
pub(super) struct Memory(Vec<u8>);

impl Memory {
    pub(super) fn new() -> Self {
        Self(vec![0; BYTES])
    }

    /// Returns the id that these public keys make, if they make one.
    pub(super) fn id_of(&mut self, keys: &[u8; BLOCK]) -> Option<NodeId> {
        let digest = self.digest(keys);
        let [.., a, b, c, d, e] = digest;
        let number = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        (digest[0] < LEAST).then(|| NodeId::new(number).ok()).flatten()
    }

    fn digest(&mut self, keys: &[u8; BLOCK]) -> [u8; BLOCK] {
        let mut digest = [0; BLOCK];
        digest.copy_from_slice(&Sha512::digest(keys));
        let (mut key, mut nonce) = ([0; 32], [0; 8]);
        key.copy_from_slice(&digest[..32]);
        nonce.copy_from_slice(&digest[32..40]);
        let mut cipher = Salsa20::new(&key.into(), &nonce.into());
        let memory = self.0.as_mut_slice();

        // Each block depends on the one before, so that none can be had without the others.
        memory[..BLOCK].fill(0);
        cipher.apply_keystream(&mut memory[..BLOCK]);
        for at in (BLOCK..BYTES).step_by(BLOCK) {
            memory.copy_within(at - BLOCK..at, at);
            cipher.apply_keystream(&mut memory[at..at + BLOCK]);
        }

        for at in (0..BYTES).step_by(2 * WORD) {
            let one = index(&memory[at..], BLOCK);
            let other = index(&memory[at + WORD..], BYTES);
            digest[one..one + WORD].swap_with_slice(&mut memory[other..other + WORD]);
            cipher.apply_keystream(&mut digest);
        }
        digest
    }
}

/// Where the word lies, in `bytes` of them, that the first word of `from` points at.
fn index(from: &[u8], bytes: usize) -> usize {
    let mut word = [0; WORD];
    word.copy_from_slice(&from[..WORD]);
    let words = u64::try_from(bytes / WORD).unwrap_or(u64::MAX);
    usize::try_from(u64::from_be_bytes(word) % words).unwrap_or_default() * WORD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::PublicIdentity;

    #[test]
    fn the_digest_of_a_recorded_identity_is_the_one_computed_elsewhere() {
        let recorded: PublicIdentity = crate::identity::tests::RECORDED.parse().unwrap();
        let digest = Memory::new().digest(&recorded.keys);
        let text: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text,
            "02040a56b57774d042810691db81e6a7cdd9df6aba35a0dc763ebb1f0cbf95ee\
             f6137de6040475eae1ddd9221e8a55553f7f3272c85898f7ac786a1298e69128"
        );
    }

    #[test]
    fn memory_that_was_used_before_gives_what_fresh_memory_gives() {
        let recorded: PublicIdentity = crate::identity::tests::RECORDED.parse().unwrap();
        let mut memory = Memory::new();
        memory.digest(&[7; BLOCK]);
        assert_eq!(memory.id_of(&recorded.keys), Some(recorded.node()));
    }
}
