//! `listen_unix` and `unix_mode` of `[server]`, and `[[auth.unix]]`: callers on the broker's own machine, known by their users.

use super::auth::check_tenant;
use super::problem::{Problems, Span};
use super::reader::{Reader, wrong_type};
use super::role;
use crate::auth::{OVERFLOW, RoleTable, UnixGrant, UnixName};
use crate::socket::{SocketAccess, UnixSocket};
use nix::unistd::{Group, User};
use std::path::Path;
use toml::Spanned;
use toml::de::DeValue;
use wharfinger_adapter::settings::closest;

/// The socket as read.
#[derive(Debug, Default)]
pub(crate) struct SocketSection {
    path: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
}

impl SocketSection {
    /// Whether the file has a socket.
    pub(crate) fn is_there(&self) -> bool {
        self.path.is_some()
    }

    /// The place of its path in the file.
    pub(crate) fn place(&self) -> Option<Span> {
        self.path.as_ref().map(Spanned::span)
    }
}

pub(crate) fn read_socket(server: &mut Reader<'_>, problems: &mut Problems) -> SocketSection {
    SocketSection { path: server.text("listen_unix", problems), mode: server.text("unix_mode", problems) }
}

/// Checks the socket. `asks`: callers are configured.
pub(crate) fn check_socket(
    section: &SocketSection,
    asks: bool,
    folder: &Path,
    problems: &mut Problems,
) -> Option<UnixSocket> {
    let access = section.mode.as_ref().and_then(|mode| {
        let named = SocketAccess::NAMES.into_iter().find(|(name, _)| name == mode.get_ref());
        if named.is_none() {
            let message = format!("`unix_mode` is {:?}", mode.get_ref());
            problems.add(mode.span(), message, "write \"0600\", \"0660\" or \"0666\"").label("not known");
        }
        named.map(|(_, access)| access)
    });
    let Some(path) = &section.path else {
        if let Some(mode) = &section.mode {
            let remedy = "add listen_unix = \"/run/wharfinger/wharfinger.sock\", or take it out";
            problems.add(mode.span(), "`unix_mode` is for a socket, and there is none", remedy);
        }
        return None;
    };
    if let (Some(mode), Some(SocketAccess::Everyone), false) = (&section.mode, access, asks) {
        let remedy = "add [auth] with the callers, or use \"0660\" and put its users into the server's group";
        let message = "`unix_mode` lets every user of this machine in, and each would be an administrator";
        problems.add(mode.span(), message, remedy);
    }
    if path.get_ref().is_empty() {
        problems.add(path.span(), "`listen_unix` is empty", "write a path, or take it out");
        return None;
    }
    let socket = UnixSocket { path: folder.join(path.get_ref()), access: access.unwrap_or_default() };
    if let Err(fault) = socket.check() {
        problems.add(path.span(), format!("`listen_unix` {fault}"), fault.remedy());
    }
    Some(socket)
}

/// One `[[auth.unix]]` as read.
#[derive(Debug)]
pub(crate) struct UnixSection {
    span: Span,
    /// Neither `uid` nor `gid` is there. A value of a wrong type is there.
    missing: bool,
    uid: Option<Spanned<Account>>,
    gid: Option<Spanned<Account>>,
    tenant: Option<Spanned<String>>,
    roles: Vec<Spanned<String>>,
}

/// A user or a group as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Account {
    Number(u32),
    Name(String),
}

pub(crate) fn read_grant(mut reader: Reader<'_>, problems: &mut Problems) -> UnixSection {
    let section = UnixSection {
        span: reader.span().unwrap_or(0..0),
        missing: reader.value("uid").is_none() && reader.value("gid").is_none(),
        uid: account(&mut reader, "uid", problems),
        gid: account(&mut reader, "gid", problems),
        tenant: reader.text("tenant", problems),
        roles: reader.strings("roles", problems).unwrap_or_default(),
    };
    reader.finish(problems);
    section
}

fn account(reader: &mut Reader<'_>, key: &'static str, problems: &mut Problems) -> Option<Spanned<Account>> {
    let value = reader.value(key)?;
    let account = match value.get_ref() {
        DeValue::String(name) => Some(Account::Name(name.to_string())),
        // The greatest number stands for "no user".
        DeValue::Integer(number) => {
            let number = u32::from_str_radix(number.as_str(), number.radix()).ok().filter(|number| *number < u32::MAX);
            if number.is_none() {
                problems.add(value.span(), format!("`{key}` is out of range"), "use 0 to 4294967294");
                return None;
            }
            number.map(Account::Number)
        }
        _ => None,
    };
    if account.is_none() {
        wrong_type(problems, &format!("`{key}`"), value, "a number, or a name in quotes");
    }
    account.map(|account| Spanned::new(value.span(), account))
}

/// Checks one `[[auth.unix]]`. `listens`: the server has a Unix socket.
pub(crate) fn check_grant(
    section: &UnixSection,
    listens: bool,
    table: &RoleTable,
    problems: &mut Problems,
) -> Option<UnixGrant> {
    if !listens {
        let remedy = "add listen_unix = \"/run/wharfinger/wharfinger.sock\" to [server]";
        problems.add(section.span.clone(), "no caller comes by a Unix socket, since the server has none", remedy);
    }
    let name = match (&section.uid, &section.gid) {
        (Some(uid), None) => number(uid, "uid", problems).map(UnixName::User),
        (None, Some(gid)) => number(gid, "gid", problems).map(UnixName::Group),
        (Some(_), Some(gid)) => {
            let remedy = "write one [[auth.unix]] for the user and another for the group";
            problems.add(gid.span(), "this caller has a `uid` and a `gid`", remedy);
            None
        }
        (None, None) if !section.missing => None,
        (None, None) => {
            let remedy = "add uid = \"NAME\" or a number, or gid for all users with this primary group";
            problems.add(section.span.clone(), "this caller has neither `uid` nor `gid`", remedy);
            None
        }
    };
    let roles = role::check_grant(&section.roles, table, problems);
    if section.roles.is_empty() {
        let remedy = format!("add one or several of {}", role::names(table));
        problems.add(section.span.clone(), "this caller has no `roles`", remedy);
    }
    let Some(tenant) = &section.tenant else {
        let remedy = "add tenant = \"default\", or the name of a team";
        problems.add(section.span.clone(), "this caller has no `tenant`", remedy);
        return None;
    };
    check_tenant(tenant, problems);
    Some(UnixGrant { name: name?, tenant: tenant.get_ref().as_str().into(), roles })
}

/// The number of a user or a group of this machine.
fn number(account: &Spanned<Account>, key: &str, problems: &mut Problems) -> Option<u32> {
    let kind = if key == "uid" { "user" } else { "group" };
    let found = match account.get_ref() {
        Account::Number(number) => *number,
        Account::Name(name) => match lookup(name, key) {
            Ok(Some(number)) => number,
            Ok(None) => {
                let known = ["root"];
                let remedy = match closest(name, &known) {
                    Some(near) => format!("did you mean {near:?}? `getent {}` lists them", database(key)),
                    None => format!("`getent {}` lists them; a number is taken, too", database(key)),
                };
                problems.add(account.span(), format!("no {kind} of this machine has the name {name:?}"), remedy);
                return None;
            }
            Err(error) => {
                let message = format!("the {kind} {name:?} cannot be looked up: {error}");
                problems.add(account.span(), message, "write its number");
                return None;
            }
        },
    };
    if found == OVERFLOW {
        let message = format!("`{key}` is {OVERFLOW}, which stands for every {kind} of other user namespaces");
        problems.add(account.span(), message, format!("name a {kind} of this machine other than nobody"));
        return None;
    }
    Some(found)
}

fn database(key: &str) -> &'static str {
    if key == "uid" { "passwd" } else { "group" }
}

fn lookup(name: &str, key: &str) -> nix::Result<Option<u32>> {
    if key == "uid" {
        return Ok(User::from_name(name)?.map(|user| user.uid.as_raw()));
    }
    Ok(Group::from_name(name)?.map(|group| group.gid.as_raw()))
}
