//! Faults of the network, at the addresses of a test's own alone: a table of nftables that is gone with the value.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use wharfinger_testkit::{Need, need};

pub(crate) struct Loss {
    table: String,
}

/// Whether the test is to be skipped for want of sshd or nft.
pub(crate) fn skip(test: &str) -> bool {
    if crate::sshd::skip(test) {
        return true;
    }
    let works = Command::new("nft").args(["list", "tables"]).output().is_ok_and(|output| output.status.success());
    need(Need::Nft, works.then_some(())).is_none()
}

impl Loss {
    /// Every packet to and from these addresses is lost, without an error.
    pub(crate) fn of_all(addresses: &[Ipv4Addr]) -> Self {
        Self::new(addresses, "counter drop")
    }

    /// Number of packets of which one is lost.
    pub(crate) fn of_one_in(n: u32, addresses: &[Ipv4Addr]) -> Self {
        Self::new(addresses, &format!("numgen random mod {n} 0 counter drop"))
    }

    fn new(addresses: &[Ipv4Addr], what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        assert!(addresses.iter().all(|address| address.octets()[..2] == [127, 77]), "addresses of tests only");
        let table = format!("ip wharfinger_e2e_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let set: Vec<String> = addresses.iter().map(Ipv4Addr::to_string).collect();
        let set = set.join(", ");
        // Where they come in: where they go out, the sender would be told.
        let rules = format!(
            "table {table} {{\n chain lost {{\n type filter hook input priority 0; policy accept;\n\
             ip daddr {{ {set} }} {what}\n ip saddr {{ {set} }} {what}\n }}\n}}\n"
        );
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refuses:\n{rules}");
        Self { table }
    }
}

impl Loss {
    /// How many packets were lost up to now.
    pub(crate) fn lost(&self) -> u64 {
        let output = Command::new("nft").args(["-j", "list", "table"]).args(self.table.split(' ')).output().unwrap();
        let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let rules = said["nftables"].as_array().unwrap().iter().filter_map(|entry| entry["rule"]["expr"].as_array());
        rules.flatten().filter_map(|expression| expression["counter"]["packets"].as_u64()).sum()
    }
}

impl Drop for Loss {
    fn drop(&mut self) {
        let _ = Command::new("nft").args(["delete", "table"]).args(self.table.split(' ')).status();
    }
}
