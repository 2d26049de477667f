//! `[server.per_address]`: the limits of each address, before it is known who calls.

use super::problem::Problems;
use super::reader::Reader;
use crate::auth::{AddressLimits, Network};
use toml::Spanned;

/// Maximum number of exempt networks.
const MAX_EXEMPT: usize = 256;

/// `[server.per_address]` as read.
#[derive(Debug, Default)]
pub(crate) struct PerAddressSection {
    connections: Option<Spanned<u32>>,
    connections_per_second: Option<Spanned<u32>>,
    failures_per_minute: Option<Spanned<u32>>,
    exempt: Option<Vec<Spanned<String>>>,
}

pub(super) fn read(server: &mut Reader<'_>, problems: &mut Problems) -> PerAddressSection {
    let mut table = server.table("per_address", "[server.per_address]", problems);
    let section = PerAddressSection {
        connections: table.number("connections", 0..=1_000_000, problems),
        connections_per_second: table.number("connections_per_second", 0..=100_000, problems),
        failures_per_minute: table.number("failures_per_minute", 0..=100_000, problems),
        exempt: table.strings("exempt", problems),
    };
    table.finish(problems);
    section
}

pub(super) fn check(section: &PerAddressSection, problems: &mut Problems) -> AddressLimits {
    let defaults = AddressLimits::default();
    let or = |value: &Option<Spanned<u32>>, default| value.as_ref().map_or(default, |value| *value.get_ref());
    let exempt = section.exempt.as_ref().map(|listed| {
        if let Some(first) = listed.get(MAX_EXEMPT) {
            problems.add(first.span(), format!("`exempt` has more than {MAX_EXEMPT} entries"), "name larger networks");
        }
        let mut read = |text: &Spanned<String>| {
            let network = Network::parse(text.get_ref());
            if network.is_none() {
                let remedy =
                    "write an address, or a network by its first address, as in \"10.0.0.0/8\" or \"fd00::/8\"";
                problems.add(text.span(), format!("`exempt` has {:?}", text.get_ref()), remedy).label("no network");
            }
            network
        };
        listed.iter().filter_map(&mut read).collect()
    });
    AddressLimits {
        connections: or(&section.connections, defaults.connections),
        connections_per_second: or(&section.connections_per_second, defaults.connections_per_second),
        failures_per_minute: or(&section.failures_per_minute, defaults.failures_per_minute),
        exempt: exempt.unwrap_or(defaults.exempt),
    }
}
