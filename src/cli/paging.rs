//! Lists of the API, page by page.

use super::connect::Context;

/// Maximum number of rows of one page of a list.
const PAGE: i32 = 500;

/// Size of the next page of a list that has `have` rows and gets at most `limit`.
pub(crate) fn page_size(limit: usize, have: usize) -> i32 {
    i32::try_from(limit.saturating_sub(have)).unwrap_or(PAGE).clamp(1, PAGE)
}

/// Warns if a list has more rows than its limit.
pub(crate) fn warn_of_more(context: &Context, more: bool, limit: usize) {
    if more {
        context.ui.warn(&format!("there are more than {limit}; raise --limit to see them"));
    }
}
