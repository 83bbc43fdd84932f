//! The brake: a network that somebody turned upside down is not turned back before an operator has looked.

/// So many members are changed back without asking, however small the network is.
const FEW: usize = 5;
/// And this part of them, as one in so many.
const PART: usize = 5;

/// Whether drift of so many members, on a network of so many, waits for an operator.
pub(crate) fn holds(changed: usize, members: usize) -> bool {
    changed > FEW.max(members / PART)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_members_or_a_fifth_of_them_are_changed_back_and_one_more_is_not() {
        for (members, most) in [(0, 5), (25, 5), (29, 5), (30, 6), (10_000, 2000)] {
            assert!(!holds(most, members), "{members}");
            assert!(holds(most + 1, members), "{members}");
        }
    }
}
