//! The CAs that a master names while those it named before are still being kept.

use picket_proto::session::Trust;

/// What is being kept, and what is to follow it. One after the other, and of those that wait the newest alone: the last
/// that was named are the ones that hold.
#[derive(Debug, Default)]
pub(super) enum Turn {
    /// Nothing is being kept.
    #[default]
    Free,
    /// Something is, and this follows.
    Keeping(Option<Trust>),
}

impl Turn {
    /// Takes what was named. Returns it when it is to be kept at once.
    pub(super) fn named(&mut self, trust: Trust) -> Option<Trust> {
        match self {
            Self::Free => {
                *self = Self::Keeping(None);
                Some(trust)
            }
            Self::Keeping(next) => {
                *next = Some(trust);
                None
            }
        }
    }

    /// What was being kept is, or cannot be. Returns what is to be kept next.
    pub(super) fn over(&mut self) -> Option<Trust> {
        let next = match self {
            Self::Free => None,
            Self::Keeping(next) => next.take(),
        };
        if next.is_none() {
            *self = Self::Free;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming(ca: u8) -> Trust {
        Trust {
            authorities: vec![vec![ca].into()],
            cross_signed: Vec::new(),
        }
    }

    #[test]
    fn cas_that_are_named_while_others_are_kept_wait_and_the_last_that_were_named_hold() {
        let mut turn = Turn::default();
        assert_eq!(turn.named(naming(1)), Some(naming(1)));
        for later in 2..=4 {
            assert_eq!(
                turn.named(naming(later)),
                None,
                "two at once could end in either order"
            );
        }
        assert_eq!(turn.over(), Some(naming(4)));
        assert_eq!(turn.named(naming(5)), None, "the one that waited is being kept");
        assert_eq!(turn.over(), Some(naming(5)));
        assert_eq!(turn.over(), None);
        assert_eq!(turn.named(naming(6)), Some(naming(6)));
    }
}
