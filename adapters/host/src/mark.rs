//! The marks of a lease's processes. [`crate::reaper`] finds processes by them.

/// The variable that marks the processes of a lease.
pub const LEASE_VARIABLE: &str = "WHARFINGER_LEASE";

/// The number by which a lease's processes are found when their environment cannot be read: 61 bits of the lease's id (FNV-1a),
/// at 2^61 or above, where no administrator sets a limit.
pub fn number(lease: &str) -> u64 {
    let hash = lease
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash >> 3) | 1 << 61
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_number_is_in_its_range_and_differs_between_leases() {
        let first = number("lse_01KAV9FT00QVQG00000000001A");
        let second = number("lse_01KAV9FT00QVQG00000000001B");
        assert_ne!(first, second);
        for number in [first, second, number("")] {
            assert!((1 << 61..1 << 62).contains(&number), "{number}");
        }
    }
}
