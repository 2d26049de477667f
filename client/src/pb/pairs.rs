//! An access as pairs of strings: the form that adapters report and that the command line shows.

use super::{Access, LocalAccess, SshAccess, access::Via};
use std::collections::BTreeMap;

/// Port of an SSH server that names none.
const SSH_PORT: i32 = 22;

impl Access {
    /// Reads the pairs that an adapter reports. Keys without a field of their own stay in `more`.
    pub fn from_pairs(pairs: BTreeMap<String, String>) -> Self {
        let mut more = pairs;
        let mut take = |key: &str| more.remove(key).unwrap_or_default();
        let via = match take("transport").as_str() {
            "local" => Some(Via::Local(LocalAccess { address: take("address"), user: take("user") })),
            "ssh" => Some(Via::Ssh(SshAccess {
                address: take("address"),
                port: take("port").parse().unwrap_or(SSH_PORT),
                user: take("user"),
                host_key: take("host_key"),
                proxy_command: take("proxy_command"),
            })),
            "" => None,
            other => {
                let other = other.to_owned();
                more.insert("transport".into(), other);
                None
            }
        };
        let mut take = |key: &str| more.remove(key).unwrap_or_default();
        let (path, fence, boot_id) = (take("path"), take("fence"), take("boot_id"));
        let (commit, base, repository, root) = (take("commit"), take("base"), take("repository"), take("root"));
        Self { via, path, fence, boot_id, commit, base, repository, root, more: more.into_iter().collect() }
    }

    /// Returns all that is set, as pairs.
    pub fn pairs(&self) -> BTreeMap<String, String> {
        let Self { via, path, fence, boot_id, commit, base, repository, root, more } = self;
        let mut pairs: BTreeMap<String, String> =
            more.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut put = |key: &str, value: &str| {
            if !value.is_empty() {
                pairs.insert(key.into(), value.into());
            }
        };
        match via {
            Some(Via::Local(LocalAccess { address, user })) => {
                put("transport", "local");
                put("address", address);
                put("user", user);
            }
            Some(Via::Ssh(SshAccess { address, port, user, host_key, proxy_command })) => {
                put("transport", "ssh");
                put("address", address);
                put("port", &if *port == 0 { SSH_PORT } else { *port }.to_string());
                put("user", user);
                put("host_key", host_key);
                put("proxy_command", proxy_command);
            }
            None => {}
        }
        put("path", path);
        put("fence", fence);
        put("boot_id", boot_id);
        put("commit", commit);
        put("base", base);
        put("repository", repository);
        put("root", root);
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn pairs_become_fields_and_fields_become_the_same_pairs() {
        let ssh = pairs(&[
            ("transport", "ssh"),
            ("address", "10.0.0.1"),
            ("port", "2222"),
            ("user", "build"),
            ("host_key", "ssh-ed25519 AAAA"),
            ("proxy_command", "nc %h %p"),
            ("path", "/srv/c"),
            ("fence", "/srv/.wharfinger/fence.0"),
            ("boot_id", "b"),
            ("commit", "c0ffee"),
            ("base", "ba5e"),
            ("repository", "https://x/y"),
            ("root", "/srv"),
            ("commit.lib", "abc"),
            ("warmth", "near"),
        ]);
        let access = Access::from_pairs(ssh.clone());
        assert!(matches!(&access.via, Some(Via::Ssh(ssh)) if ssh.port == 2222 && ssh.address == "10.0.0.1"));
        assert_eq!((access.path.as_str(), access.commit.as_str()), ("/srv/c", "c0ffee"));
        assert_eq!(access.more.len(), 2, "{:?}", access.more);
        assert_eq!(access.pairs(), ssh);
        for other in [
            pairs(&[("transport", "local"), ("address", "wharf"), ("user", "root"), ("path", "/tmp")]),
            pairs(&[("transport", "winrm"), ("address", "h"), ("user", "u")]),
            pairs(&[("path", "/srv/c")]),
            pairs(&[]),
        ] {
            assert_eq!(Access::from_pairs(other.clone()).pairs(), other);
        }
    }

    #[test]
    fn an_ssh_host_without_a_port_has_the_usual_one() {
        let access = Access::from_pairs(pairs(&[("transport", "ssh"), ("address", "h")]));
        assert_eq!(access.pairs()["port"], "22");
    }
}
