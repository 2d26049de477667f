//! How it went with each type in each zone: what was launched, taken away, not to be had; and what is left alone for now.

use crate::cloud::Place;
use crate::error::CloudError;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// What is known of one type in one zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MarketCounts {
    /// Instances launched.
    pub launches: u64,
    /// Of those, how many spot took away.
    pub interruptions: u64,
    /// Times that there was none to be had.
    pub capacity_errors: u64,
    /// Interrupted ones of which it is known how long they lived.
    pub lives: u64,
    /// From launch to interruption, summed over those, in milliseconds.
    pub lived_ms: u64,
}

impl MarketCounts {
    /// From launch to interruption, of those that were interrupted.
    pub fn mean_life(&self) -> Option<Duration> {
        self.lived_ms.checked_div(self.lives).map(Duration::from_millis)
    }
}

/// One line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarketReport {
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// Bought as spot.
    pub spot: bool,
    /// The counts.
    pub counts: MarketCounts,
    /// Left alone for so long from now.
    pub cool: Option<Duration>,
}

/// Time for which a place is left alone after EC2 reported that the zone does not offer the type.
const NOT_OFFERED_FOR: Duration = Duration::from_secs(1800);

type Key = (String, String, bool);

#[derive(Debug, Default)]
struct Cell {
    counts: MarketCounts,
    cool_until: Option<Instant>,
    /// The zone did not offer the type when it was last asked for.
    not_offered: Option<CloudError>,
}

/// MarketCounts since the broker's start, and of what EC2 still lists then (about an hour of what has ended). Nothing is decided by
/// them but order and rest, so they are not stored.
#[derive(Debug, Default)]
pub(crate) struct MarketStats {
    cells: BTreeMap<Key, Cell>,
    /// Nothing of the kind is bought before this.
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

    /// `lived_ms`: if that is known; `cool`: what is left of the rest.
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

    /// The error of a place, if none of the places is offered in any of these markets. They are asked for again at the next
    /// attempt: a rest gains nothing, and the operator may have acted.
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

    /// How long nothing of the kind is to be bought, for want of quota.
    pub(crate) fn quota_pause(&self, spot: bool) -> Option<Duration> {
        let until = self.quota[usize::from(spot)]?;
        until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Those of the places that may be asked now, the calmest first; or how long until there is one.
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
        // As the configuration has them where the weather is the same.
        fair.sort();
        Ok(fair.into_iter().map(|(_, _, place)| place).collect())
    }

    /// Interruptions in a thousand launches; one that was never tried is fair.
    fn storminess(&self, place: &Place, spot: bool) -> u64 {
        let Some(cell) = self.cells.get(&key(place, spot)) else { return 0 };
        let MarketCounts { launches, interruptions, .. } = cell.counts;
        // Few launches prove little: nine more that went well are thought to be there.
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
    async fn where_there_is_none_is_left_alone_for_a_while_and_the_calm_come_first() {
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
        assert_eq!(stats.fair(&places, true).unwrap(), [place("a", "z2"), place("a", "z1")], "stormy last");
        let report = stats.report();
        let told = report.iter().find(|line| line.instance_type == "a" && line.zone == "z1").unwrap();
        let counts = MarketCounts { launches: 3, interruptions: 1, capacity_errors: 0, lives: 1, lived_ms: 60_000 };
        assert_eq!(told.counts, counts);
        assert!(told.cool.is_none() && report.iter().any(|line| line.cool.is_some()));
    }
}
