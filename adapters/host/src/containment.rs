//! Containment: what keeps and ends all that a lease starts on a host.
//!
//! On a Linux host whose user may make control groups, each slot has one. [`crate::fence::set`] makes it, [`crate::fence::guarded`]
//! puts each command into it, and the clean-up ends all that is in it, whatever environment, session or user it has now. Its
//! limits bound what one lease takes from its neighbours. Elsewhere the marks of [`crate::reaper`] have to do.
//!
//! The groups lie where the user may make some: below a group of its own, or below one that the user's service manager delegates
//! to it. The groups are made by `sh/cgroup.sh`; docs/adr/0035-containment.md has the reasons.

use crate::refusal::failure;
use std::fmt;
use std::time::Duration;
use wharfinger_adapter::{Access, Command, Failure, Shell, access};

/// The name of the label that shows what a host offers.
pub const LABEL: &str = "containment";

/// The label of a host whose user has control groups from its service manager.
pub(crate) const SCOPE: &str = "scope";

/// Whether each slot has a control group, in a word.
pub fn word(contained: bool) -> &'static str {
    if contained { "cgroup" } else { "marks" }
}

/// Containment that a pool asks of its hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Containment {
    /// Whether a host without control groups is refused.
    pub required: bool,
    /// The limits of each slot.
    pub limits: Limits,
}

/// The limits of a slot. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all its processes together, in bytes. Swap is none of it.
    pub memory: Option<u64>,
    /// Processor time, in thousandths of one processor.
    pub cpus: Option<u32>,
    /// Number of processes and threads.
    pub pids: Option<u32>,
}

impl Limits {
    /// The arguments of `set_fence.sh`: memory, cpu, pids, each empty for none.
    pub(crate) fn arguments(&self) -> [String; 3] {
        let text = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        [text(self.memory), text(self.cpus.map(u64::from)), text(self.pids.map(u64::from))]
    }

    /// The limits for people and for a holder's access: `memory=512MiB,cpus=1.5,pids=200`; empty without any.
    pub fn text(&self) -> String {
        let memory = self.memory.map(|bytes| format!("memory={}", size(bytes).replace(' ', "")));
        let cpus = self.cpus.map(|cpus| {
            let text = format!("{}.{:03}", cpus / 1000, cpus % 1000);
            format!("cpus={}", text.trim_end_matches('0').trim_end_matches('.'))
        });
        let pids = self.pids.map(|pids| format!("pids={pids}"));
        memory.into_iter().chain(cpus).chain(pids).collect::<Vec<_>>().join(",")
    }

    /// Reads what [`Limits::text`] wrote. What it does not write is left out.
    pub fn from_text(text: &str) -> Self {
        let mut limits = Self::default();
        for (kind, value) in text.split(',').filter_map(|part| part.split_once('=')) {
            match kind {
                "memory" => {
                    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
                    let (number, unit) = value.split_at(digits);
                    let shift = UNITS.iter().find(|(_, name)| *name == unit).map_or(0, |(shift, _)| *shift);
                    limits.memory = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
                }
                "cpus" => {
                    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
                    limits.cpus = format!("{whole}{part:0<3}").parse().ok();
                }
                "pids" => limits.pids = value.parse().ok(),
                _ => {}
            }
        }
        limits
    }

    /// The controllers that these limits need, with blanks between.
    pub(crate) fn controllers(&self) -> String {
        let needed = [("memory", self.memory.is_some()), ("cpu", self.cpus.is_some()), ("pids", self.pids.is_some())];
        let names: Vec<&str> = needed.iter().filter(|(_, needed)| *needed).map(|(name, _)| *name).collect();
        names.join(" ")
    }
}

/// A limit of a lease that the kernel acted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hit {
    /// It ended this many processes, since all together had more than this many bytes.
    Memory {
        /// The limit.
        bytes: u64,
        /// How many processes.
        ended: u64,
    },
    /// It refused this many new processes, since there were this many already.
    Pids {
        /// The limit.
        most: u64,
        /// How many it refused.
        refused: u64,
    },
}

impl fmt::Display for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hit::Memory { bytes, ended } => write!(
                f,
                "the lease's own limit of memory, {}, was reached: the kernel ended {ended} of its processes",
                size(*bytes)
            ),
            Hit::Pids { most, refused } => write!(
                f,
                "the lease's own limit of processes, {most}, was reached: the kernel refused {refused} new ones"
            ),
        }
    }
}

const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];

/// Containment that a working copy on a host asks for: "yes" or "no" (there must be a control group), memory, cpu and pids, with colons
/// between. `access`: the host's.
pub fn words(access: &Access) -> String {
    let contained = access.get(access::CONTAINMENT).is_some_and(|text| text == word(true));
    let limits = access.get(access::LIMITS).map(|text| Limits::from_text(text)).unwrap_or_default();
    format!("{}:{}", if contained { "yes" } else { "no" }, limits.arguments().join(":"))
}

/// Bytes in the largest unit that is whole.
fn size(bytes: u64) -> String {
    let whole = UNITS.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    whole.map_or_else(|| format!("{bytes} bytes"), |(shift, unit)| format!("{} {unit}", bytes >> shift))
}

/// Reads what `limits.sh` printed. Lines that it does not print are left out.
pub(crate) fn read_hits(text: &str) -> Vec<Hit> {
    text.lines()
        .filter_map(|line| {
            let (kind, rest) = line.split_once('=')?;
            let (limit, hits) = rest.split_once(' ')?;
            let (limit, hits) = (limit.parse().ok()?, hits.trim().parse().ok().filter(|hits| *hits > 0)?);
            match kind {
                "memory" => Some(Hit::Memory { bytes: limit, ended: hits }),
                "pids" => Some(Hit::Pids { most: limit, refused: hits }),
                _ => None,
            }
        })
        .collect()
}

/// The limits of the present lease of a slot that the kernel acted for. `fence`: the slot's.
///
/// # Errors
/// What kept us from asking.
pub async fn hits(shell: &dyn Shell, fence: &str) -> Result<Vec<Hit>, Failure> {
    const LIMITS: &str = concat!(include_str!("sh/cgroup.sh"), include_str!("sh/limits.sh"));
    let command = Command::new(["/bin/sh", "-c", LIMITS, "wharfinger-limits", fence]).timeout(Duration::from_secs(10));
    let output = shell.run(command).await.map_err(failure)?;
    Ok(read_hits(&output.text()))
}

#[cfg(test)]
mod tests {
    use super::{Hit, Limits, read_hits, words};
    use wharfinger_adapter::{Access, access};

    #[test]
    fn the_kernels_ends_of_processes_are_read_and_reported() {
        let hits = read_hits("3\nmemory=67108864 2\ncpu=1500 0\npids=40 0\npids=40 17\nnonsense\nmemory=x 1\n");
        assert_eq!(hits, [Hit::Memory { bytes: 64 << 20, ended: 2 }, Hit::Pids { most: 40, refused: 17 }]);
        let said = hits.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        assert!(said.contains("memory, 64 MiB, was reached: the kernel ended 2"), "{said}");
        assert!(said.contains("processes, 40, was reached: the kernel refused 17"), "{said}");
    }

    #[test]
    fn a_limit_names_its_controller() {
        let limits = Limits { memory: Some(1 << 30), cpus: None, pids: Some(5) };
        assert_eq!(
            (limits.controllers(), limits.arguments()),
            ("memory pids".into(), ["1073741824", "", "5"].map(String::from))
        );
        assert_eq!((Limits::default().controllers(), Limits::default().text()), (String::new(), String::new()));
        let limits = Limits { memory: Some(512 << 20), cpus: Some(1500), pids: Some(200) };
        assert_eq!(limits.text(), "memory=512MiB,cpus=1.5,pids=200");
        for limits in [limits, Limits::default(), Limits { memory: Some(1 << 40), cpus: Some(20), pids: None }] {
            assert_eq!(Limits::from_text(&limits.text()), limits);
        }
        let access = [(access::CONTAINMENT, "cgroup"), (access::LIMITS, "memory=512MiB,pids=200")];
        assert_eq!(words(&access.map(|(key, value)| (key.into(), value.into())).into()), "yes:536870912::200");
        assert_eq!(words(&Access::new()), "no:::");
        assert_eq!(Limits { cpus: Some(20_000), ..Limits::default() }.text(), "cpus=20");
    }
}
