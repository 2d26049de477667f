//! The script that prepares a machine for logins by certificate, as `wharfinger host-setup` prints it.

use crate::authority::{Authority, Permit};
use crate::config::Config;
use crate::key;
use crate::logins::{ENTER, LIB, SLOT};
use std::fmt::Write;
use wharfinger_adapter::quote;

const FUNCTIONS: &str = include_str!("sh/host_setup.sh");

/// Ends the documents in the script.
const END: &str = "WHARFINGER_END";

/// The settings of a machine of one pool.
pub struct HostSetup<'a> {
    pool: &'a str,
    config: &'a Config,
    authority: &'a Authority,
    slots: u32,
}

impl<'a> HostSetup<'a> {
    /// The set-up for a pool whose machines have at most this number of slots. `None`: the pool has no authority.
    pub fn of(pool: &'a str, config: &'a Config, slots: u32) -> Option<Self> {
        Some(Self { pool, config, authority: config.ca.as_ref()?, slots })
    }

    /// The users that holders log in as, each with its home (`-`: it keeps its own).
    fn users(&self) -> Vec<(String, String)> {
        let authority = self.authority;
        if !authority.has_slot_users() {
            return vec![(authority.user.clone(), "-".into())];
        }
        let homes = authority.homes.trim_end_matches('/');
        let slots = (0..self.slots).map(|slot| authority.user_of(slot));
        let mut users: Vec<_> = slots.map(|user| (user.clone(), format!("{homes}/{user}"))).collect();
        users.push((authority.canary(), "-".into()));
        users
    }

    /// The users that the broker logs in as.
    fn brokers(&self) -> Vec<&str> {
        let hosts = self.config.hosts.iter().filter_map(|host| host.user.as_deref());
        let mut users: Vec<&str> = hosts.chain(self.config.user.as_deref()).collect();
        users.sort_unstable();
        users.dedup();
        users
    }

    /// Whether the broker logs in as the holders' user, by a key of `authorized_keys` that has to stay.
    fn shares_user(&self) -> bool {
        self.brokers().contains(&&*self.authority.user)
    }

    fn conf(&self) -> String {
        format!("/etc/ssh/sshd_config.d/10-wharfinger-{}.conf", self.pool)
    }

    fn ca_file(&self) -> String {
        format!("/etc/ssh/wharfinger_{}_ca.pub", self.pool)
    }

    fn sudoers(&self) -> String {
        format!("/etc/sudoers.d/wharfinger-{}", self.pool)
    }

    /// The lines for sshd.
    fn sshd(&self, keys: &[String]) -> String {
        let permits = |permit| if self.authority.permit.contains(&permit) { "yes" } else { "no" };
        let users: Vec<String> = self.users().into_iter().map(|(user, _)| user).collect();
        let mut kinds: Vec<&str> = keys.iter().filter_map(|line| line.split(' ').next()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        let mut text = format!(
            "# Made by wharfinger host-setup for the pool {}.\nMatch User {}\n    TrustedUserCAKeys {}\n    CASignatureAlgorithms {}\n    \
             # The leases that may log in now. Root's, made anew at each change.\n    \
             AuthorizedPrincipalsFile /run/wharfinger-logins/principals/%u\n    PermitUserRC no\n",
            self.pool,
            users.join(","),
            self.ca_file(),
            kinds.join(","),
        );
        if self.shares_user() {
            return text;
        }
        text.push_str(
            "    # No file that a holder can write lets anyone in.\n    AuthorizedKeysFile none\n    AuthorizedKeysCommand none\n    \
             AuthorizedPrincipalsCommand none\n    AuthenticationMethods publickey\n    X11Forwarding no\n    PermitTunnel no\n    \
             GatewayPorts no\n    MaxSessions 16\n",
        );
        let (pty, ports) = (permits(Permit::Pty), permits(Permit::PortForwarding));
        let agent = permits(Permit::AgentForwarding);
        let _ = writeln!(text, "    PermitTTY {pty}\n    AllowTcpForwarding {ports}\n    AllowAgentForwarding {agent}");
        let _ = writeln!(text, "    AllowStreamLocalForwarding {ports}");
        text
    }

    /// The rules of sudo, and whether the broker needs them.
    fn rules(&self) -> (String, bool) {
        let mut rules = String::new();
        let brokers: Vec<&str> = self.brokers().into_iter().filter(|user| *user != "root").collect();
        for user in &brokers {
            let _ = writeln!(rules, "{user} ALL=(root) NOPASSWD: {LIB}/slot");
        }
        if self.authority.has_slot_users() {
            for (user, _) in self.users().iter().filter(|(_, home)| home != "-") {
                let _ = writeln!(rules, "{user} ALL=(root) NOPASSWD: {LIB}/slot join *");
            }
        }
        (rules, !brokers.is_empty())
    }

    /// The script. It may run again at any time.
    ///
    /// # Errors
    /// In words, if the authority's public key cannot be read.
    pub fn script(&self) -> Result<String, String> {
        let keys = self.authority.trusted_keys()?;
        let users = self.users();
        let mut script = format!(
            "#!/bin/sh\n# Prepares a machine of the pool {pool} for logins by certificates of leases. Run it as root; it may run again at any\n\
             # time, and changes what differs. To undo it: wharfinger host-setup --pool {pool} --undo.\n#\n# It makes\n\
             #   the users {users}\n#   {LIB}/enter, slot, users\n#   {conf}\n#   {ca}\n#   {sudoers}, where sudo is there\n\
             # and reloads sshd, unless WHARFINGER_NO_RELOAD is set.\nset -eu\numask 022\nlib={LIB}\nconf={conf}\nsudoers={sudoers}\n{FUNCTIONS}\n",
            pool = self.pool,
            users = users.iter().map(|(user, _)| user.as_str()).collect::<Vec<_>>().join(", "),
            conf = self.conf(),
            ca = self.ca_file(),
            sudoers = self.sudoers(),
        );
        if self.authority.has_slot_users() {
            for (user, home) in &users {
                let home = if home == "-" { "/nonexistent" } else { home };
                let _ = writeln!(script, "make_user {user} {}", quote(home));
            }
            let homes = quote(self.authority.homes.trim_end_matches('/'));
            let _ = writeln!(script, "mkdir -p {homes}\nchown root {homes}\nchmod 0755 {homes}");
            let names: Vec<&str> = users.iter().map(|(user, _)| user.as_str()).collect();
            let _ = writeln!(script, "no_jobs {}", names.join(" "));
        }
        document(&mut script, &format!("put 0755 {LIB}/enter"), ENTER);
        document(&mut script, &format!("put 0755 {LIB}/slot"), SLOT);
        let lines: String = users.iter().map(|(user, home)| format!("{user} {home}\n")).collect();
        let names: Vec<&str> = users.iter().map(|(user, _)| user.as_str()).collect();
        document(&mut script, &format!("know_users {}", quote(&names.join(" "))), &lines);
        document(&mut script, &format!("put 0644 {}", self.ca_file()), &(keys.join("\n") + "\n"));
        let (rules, wanted) = self.rules();
        if !rules.is_empty() {
            document(&mut script, if wanted { "allow wanted" } else { "allow" }, &rules);
        }
        script.push_str("mkdir -p /etc/ssh/sshd_config.d\n");
        document(&mut script, "put 0644 \"$conf\"", &self.sshd(&keys));
        script.push_str("serve\necho 'host-setup: done; wharfinger check-config --connect proves it'\n");
        Ok(script)
    }

    /// The script that takes away what [`HostSetup::script`] made. The users of slots go with all that runs as them.
    pub fn undo(&self) -> String {
        let users = self.users();
        let names: Vec<&str> = users.iter().map(|(user, _)| user.as_str()).collect();
        let mut script = format!(
            "#!/bin/sh\n# Takes away what wharfinger host-setup made for the pool {pool}. Run it as root, when no lease is on the machine.\n\
             # It reloads sshd, unless WHARFINGER_NO_RELOAD is set.\n\
             set -u\n[ \"$(id -u)\" = 0 ] || exit 1\nlib={LIB}\nconf={conf}\nrm -f \"$conf\" {ca} {sudoers}\n\
             sed -i \"\\\\|^Include $conf\\$|d\" /etc/ssh/sshd_config\n",
            pool = self.pool,
            conf = self.conf(),
            ca = self.ca_file(),
            sudoers = self.sudoers(),
        );
        for (user, home) in &users {
            let _ = writeln!(script, "rm -f /run/wharfinger-logins/principals/{user}");
            if !self.authority.has_slot_users() {
                continue;
            }
            if home != "-" {
                let _ = writeln!(script, "[ ! -x $lib/slot ] || $lib/slot sweep {user}\nrm -rf {}", quote(home));
            }
            let _ = writeln!(script, "userdel {user}");
            for tool in ["cron", "at"] {
                let _ = writeln!(script, "[ ! -f /etc/{tool}.deny ] || sed -i '/^{user}$/d' /etc/{tool}.deny");
            }
        }
        let _ = write!(
            script,
            "if [ -f $lib/users ]; then\n  awk -v mine={} '!index(mine, \" \" $1 \" \")' $lib/users >$lib/users.new && mv -f $lib/users.new $lib/users\n  \
             # Another pool may use the scripts.\n  [ -s $lib/users ] || rm -rf $lib /run/wharfinger-logins\nfi\n\
             [ -z \"${{WHARFINGER_NO_RELOAD-}}\" ] || exit 0\n\
             systemctl reload ssh.service 2>/dev/null || systemctl reload sshd.service 2>/dev/null || kill -s HUP \"$(cat /run/sshd.pid)\"\n",
            quote(&format!(" {} ", names.join(" "))),
        );
        script
    }
}

/// Appends a command with a document as its standard input.
fn document(script: &mut String, command: &str, text: &str) {
    let _ = write!(script, "\n{command} <<'{END}'\n{text}{END}\n");
}

/// The fault of a name of a user on the hosts, and its remedy.
pub(crate) fn user_fault(user: &str) -> Option<&'static str> {
    let prefix = user.strip_suffix(crate::authority::SLOT).unwrap_or(user);
    let first = prefix.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let rest = prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    let fits = prefix.len() <= 24 && !(user != prefix && prefix.ends_with(|c: char| c.is_ascii_digit()));
    (!(first && rest && fits))
        .then_some("use a to z, 0 to 9, _ and -, at most 24 of them, and {slot} at the end for a user of each slot")
}

/// The keys of an authority must be no keys for anything else.
pub(crate) fn is_same_key(line: &str, other: &str) -> bool {
    match (key::parse_host_key(line), key::parse_host_key(other)) {
        (Ok(one), Ok(two)) => one.key_data() == two.key_data(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
