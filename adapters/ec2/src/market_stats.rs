//! Statistics of each place and market: launches, interruptions and lack of capacity. Places rest after a failure.

use crate::cloud::Place;
use crate::error::CloudError;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Counts of one type in one zone and market.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarketCounts {
    /// Launched instances.
    pub launches: u64,
    /// Launched instances that spot took away.
    pub interruptions: u64,
    /// Requests without capacity.
    pub capacity_errors: u64,
    /// Interrupted instances with a known life.
    pub lives: u64,
    /// Sum of these lives in milliseconds.
    pub lived_ms: u64,
}

impl MarketCounts {
    /// Mean time from launch to interruption.
    pub fn mean_life(&self) -> Option<Duration> {
        self.lived_ms.checked_div(self.lives).map(Duration::from_millis)
    }
}

/// Statistics of one type in one zone and market.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketReport {
    /// Instance type.
    pub instance_type: String,
    /// Availability zone.
    pub zone: String,
    /// Whether the market is spot.
    pub spot: bool,
    /// The counts.
    pub counts: MarketCounts,
    /// Remaining time for which the place rests.
    pub cool: Option<Duration>,
}

/// Time for which a place rests after EC2 reported that the zone does not offer the type.
const NOT_OFFERED_FOR: Duration = Duration::from_secs(1800);

type Key = (String, String, bool);

#[derive(Debug, Default)]
struct Cell {
    counts: MarketCounts,
    cool_until: Option<Instant>,
    /// Error of the latest request, if the zone did not offer the type.
    not_offered: Option<CloudError>,
}

/// Statistics since the start of the broker, with the instances that EC2 listed then (including those that ended in about the last
/// hour). They decide only the order and the rest of places, so they are not stored.
#[derive(Debug, Default)]
pub(crate) struct MarketStats {
    cells: BTreeMap<Key, Cell>,
    /// Times until which the markets rest after a quota was reached: on demand, spot.
    quota: [Option<Instant>; 2],
}

fn key(place: &Place, spot: bool) -> Key {
    (place.instance_type.clone(), place.zone.clone(), spot)
}

impl MarketStats {
    fn cell(&mut self, instance_type: &str, zone: &str, spot: bool) -> &mut Cell {
        self.cells.entry((instance_type.to_string(), zone.to_string(), spot)).or_default()
    }

    pub(crate) fn launched(&mut self, instance_type: &str, zone: &str, spot: bool) {
        let cell = self.cell(instance_type, zone, spot);
        cell.counts.launches += 1;
        cell.not_offered = None;
    }

    /// Counts an interruption. `lived_ms`: life of the instance, if known; `cool`: remaining rest of the place.
    pub(crate) fn interrupted(&mut self, instance_type: &str, zone: &str, lived_ms: Option<u64>, cool: Duration) {
        let cell = self.cell(instance_type, zone, true);
        cell.counts.interruptions += 1;
        cell.counts.lives += u64::from(lived_ms.is_some());
        cell.counts.lived_ms += lived_ms.unwrap_or(0);
        let until = Instant::now() + cool;
        cell.cool_until = Some(cell.cool_until.map_or(until, |before| before.max(until)));
    }

    pub(crate) fn no_capacity(&mut self, place: &Place, spot: bool, cool: Duration) {
        let cell = self.cell(&place.instance_type, &place.zone, spot);
        cell.counts.capacity_errors += 1;
        cell.cool_until = Some(Instant::now() + cool);
        cell.not_offered = None;
    }

    /// EC2 reports that the zone of this place does not offer its type.
    pub(crate) fn not_offered(&mut self, place: &Place, spot: bool, error: CloudError) {
        let cell = self.cell(&place.instance_type, &place.zone, spot);
        cell.cool_until = Some(Instant::now() + NOT_OFFERED_FOR);
        cell.not_offered = Some(error);
    }

    /// Returns the error of a place, if no place is offered in any of these markets. The rest of all places then ends, so that the next
    /// attempt asks for them again: the operator may have acted.
    pub(crate) fn offered_nowhere(&mut self, places: &[Place], markets: &[bool]) -> Option<CloudError> {
        let now = Instant::now();
        let keys: Vec<Key> = places.iter().flat_map(|place| markets.iter().map(|spot| key(place, *spot))).collect();
        let mut error = None;
        for key in &keys {
            let cell = self.cells.get(key).filter(|cell| cell.cool_until.is_some_and(|until| until > now))?;
            error = Some(cell.not_offered.clone()?);
        }
        for key in &keys {
            if let Some(cell) = self.cells.get_mut(key) {
                (cell.cool_until, cell.not_offered) = (None, None);
            }
        }
        error
    }

    pub(crate) fn quota_reached(&mut self, spot: bool, pause: Duration) {
        self.quota[usize::from(spot)] = Some(Instant::now() + pause);
    }

    /// Returns the remaining rest of a market after its quota was reached.
    pub(crate) fn quota_pause(&self, spot: bool) -> Option<Duration> {
        let until = self.quota[usize::from(spot)]?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Returns the places that do not rest, the least interrupted first; or the time until one is available.
    pub(crate) fn fair(&self, places: &[Place], spot: bool) -> Result<Vec<Place>, Duration> {
        let now = Instant::now();
        let cool = |place: &Place| {
            let until = self.cells.get(&key(place, spot))?.cool_until?;
            until.checked_duration_since(now).filter(|left| !left.is_zero())
        };
        let mut fair: Vec<(u64, usize, Place)> = places
            .iter()
            .enumerate()
            .filter(|(_, place)| cool(place).is_none())
            .map(|(at, place)| (self.storminess(place, spot), at, place.clone()))
            .collect();
        if fair.is_empty() {
            return Err(places.iter().filter_map(cool).min().unwrap_or_default());
        }
        // Equal places keep the order of the configuration.
        fair.sort();
        Ok(fair.into_iter().map(|(_, _, place)| place).collect())
    }

    /// Interruptions per thousand launches. An unused place has none.
    fn storminess(&self, place: &Place, spot: bool) -> u64 {
        let Some(cell) = self.cells.get(&key(place, spot)) else { return 0 };
        let MarketCounts { launches, interruptions, .. } = cell.counts;
        // Nine successful launches are added, since few launches prove little.
        interruptions * 1000 / (launches + 9)
    }

    pub(crate) fn report(&self) -> Vec<MarketReport> {
        let now = Instant::now();
        self.cells
            .iter()
            .map(|((instance_type, zone, spot), cell)| MarketReport {
                instance_type: instance_type.clone(),
                zone: zone.clone(),
                spot: *spot,
                counts: cell.counts,
                cool: cell
                    .cool_until
                    .and_then(|until| until.checked_duration_since(now))
                    .filter(|left| !left.is_zero()),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(instance_type: &str, zone: &str) -> Place {
        Place { instance_type: instance_type.into(), zone: zone.into(), subnet: format!("subnet-{zone}") }
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_without_capacity_rests_and_the_least_interrupted_come_first() {
        let places = [place("a", "z1"), place("a", "z2"), place("b", "z1")];
        let cool = Duration::from_secs(180);
        let mut stats = MarketStats::default();
        assert_eq!(stats.fair(&places, true).unwrap(), places);
        for _ in 0..3 {
            stats.launched("a", "z1", true);
        }
        stats.interrupted("a", "z1", Some(60_000), cool);
        stats.no_capacity(&places[1], true, cool);
        assert_eq!(stats.fair(&places, true).unwrap(), [place("b", "z1")]);
        assert_eq!(stats.fair(&places, false).unwrap(), places, "on demand is another market");
        stats.no_capacity(&places[2], true, cool * 2);
        assert_eq!(stats.fair(&places, true), Err(cool));
        tokio::time::advance(cool + Duration::from_secs(1)).await;
        assert_eq!(
            stats.fair(&places, true).unwrap(),
            [place("a", "z2"), place("a", "z1")],
            "the interrupted one last"
        );
        let report = stats.report();
        let line = report.iter().find(|line| line.instance_type == "a" && line.zone == "z1").unwrap();
        let counts = MarketCounts { launches: 3, interruptions: 1, capacity_errors: 0, lives: 1, lived_ms: 60_000 };
        assert_eq!(line.counts, counts);
        assert!(line.cool.is_none() && report.iter().any(|line| line.cool.is_some()));
    }
}
