//! Keeps test processes that run at the same time apart.

/// Returns a number below 200 that no other test process of this run has at the same time, to derive ports and addresses
/// from.
///
/// The runner numbers the slots of its running tests. Beside it, and with more than eight slots, the process id keeps most
/// of them apart.
pub fn lane() -> u32 {
    let process = std::process::id();
    let slot = std::env::var("NEXTEST_TEST_GLOBAL_SLOT").ok().and_then(|text| text.parse::<u32>().ok());
    match slot {
        Some(slot) => process % 25 * 8 + slot % 8,
        None => process % 200,
    }
}
