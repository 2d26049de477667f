//! Faults of the network between us and our own sshd: rules of nftables in a table of our own, gone with the value.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use wharfinger_testkit::{Need, need};

/// A fault, as long as this value is there.
pub struct Fault {
    table: String,
}

/// Whether the test is to be skipped for want of nft.
pub fn skip(_test: &str) -> bool {
    let works = Command::new("nft").args(["list", "tables"]).output().is_ok_and(|output| output.status.success());
    need(Need::Nft, works.then_some(())).is_none()
}

impl Fault {
    /// All packets to and from this address are lost.
    pub fn black_hole(address: Ipv4Addr) -> Self {
        Self::new(address, "drop")
    }

    /// One packet in `n`, to or from this address, is lost.
    pub fn lose_one_in(n: u32, address: Ipv4Addr) -> Self {
        Self::new(address, &format!("numgen random mod {n} 0 drop"))
    }

    fn new(address: Ipv4Addr, what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        assert_eq!(address.octets()[..2], [127, 77], "only addresses of our own tests");
        let table = format!("inet wf_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Where packets come in: one that is dropped where it leaves is an error that its sender sees.
        let rules = format!(
            "table {table} {{\n chain lost {{\n type filter hook input priority -300;\n \
             ip daddr {address} {what}\n ip saddr {address} {what}\n }}\n}}\n"
        );
        let fault = Self { table };
        nft(&rules);
        fault
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let _ = Command::new("nft").arg(format!("delete table {}", self.table)).status();
    }
}

fn nft(rules: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft refuses:\n{rules}");
}
