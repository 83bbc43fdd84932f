//! Pages of long lists.

/// The most of anything on one page.
const MOST_ON_A_PAGE: u32 = 1000;

/// How many are on a page when so many were asked for; none is as many as there can be.
pub(super) fn size(asked: u32) -> usize {
    let size = match asked {
        0 => MOST_ON_A_PAGE,
        size => size.min(MOST_ON_A_PAGE),
    };
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_page_has_as_many_as_are_asked_for_and_never_more_than_a_thousand() {
        assert_eq!(
            [0, 1, 1000, 1001, u32::MAX].map(super::size),
            [1000, 1, 1000, 1000, 1000]
        );
    }
}
