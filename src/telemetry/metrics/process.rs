//! The process, by the names that Prometheus' client libraries use. Read from `/proc/self`; what cannot be read is left out.

use super::book::Book;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Clock ticks of a second in `/proc`, the same on each Linux that Rust supports: see proc_pid_stat(5) and time(7).
const USER_HZ: f64 = 100.0;

pub(super) fn register(book: &mut Book) {
    if let Some(found) = std::fs::read_to_string("/proc/self/stat").ok().and_then(|text| read_stat(&text)) {
        let cpu = found.ticks as f64 / USER_HZ;
        book.add_plain("process_cpu_seconds", "Processor time of the process", ConstCounter::new(cpu));
        book.add_plain("process_threads", "Threads of the process", ConstGauge::new(found.threads as f64));
    }
    if let Some(resident) = std::fs::read_to_string("/proc/self/status").ok().and_then(|text| read_resident(&text)) {
        let bytes = ConstGauge::new(resident as f64);
        book.add_plain("process_resident_memory_bytes", "Resident memory of the process", bytes);
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        book.add_plain("process_open_fds", "Open file descriptors", ConstGauge::new(open.count() as f64));
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(limit) = limit {
        book.add_plain("process_max_fds", "Limit of open file descriptors", ConstGauge::new(limit as f64));
    }
}

/// Fields of `/proc/self/stat`; see proc_pid_stat(5).
struct Stat {
    ticks: u64,
    threads: u64,
}

fn read_stat(text: &str) -> Option<Stat> {
    // The name is in parentheses, and may have blanks and parentheses itself.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat { ticks: number(11)? + number(12)?, threads: number(17)? })
}

/// The resident memory in bytes, from `/proc/self/status`.
fn read_resident(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{read_resident, read_stat};

    #[test]
    fn a_name_with_parentheses_hides_no_field() {
        let text =
            "7 (a) b (c)) S 1 7 7 0 -1 4194560 100 0 0 0 25 17 0 0 20 0 9 0 100 1000000 512 18446744073709551615";
        let found = read_stat(text).unwrap();
        assert_eq!((found.ticks, found.threads), (42, 9));
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(read_resident("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\nThreads:\t1\n"), Some(2_097_152));
        assert_eq!(read_resident("VmPeak:\t 9 kB\n"), None);
    }
}
