//! Plans launch requests: the places that do not rest, in the first market that has one.

use crate::backoff::jitter;
use crate::boot::Ended;
use crate::clock::now_ms;
use crate::cloud::{Launch, Template};
use crate::config::Market;
use crate::pool::Pool;
use crate::record::{KeyStage, Record, token};
use crate::{tags, user_data};
use std::time::Duration;
use wharfinger_adapter::{Failure, ResourceJob};

/// Plans the next request: the market, the places, and the number of the attempt. An error: no place can be asked now.
pub(crate) fn plan(
    pool: &Pool,
    resource: &ResourceJob,
    attempt: u32,
    ended: Option<&Ended>,
) -> Result<Record, Failure> {
    let config = &pool.config;
    let places = config.places();
    let markets: &[bool] = match config.market {
        Market::SpotOnly => &[true],
        Market::SpotFirst => &[true, false],
        Market::OnDemand => &[false],
    };
    if let Some(error) = pool.account.with_stats(|stats| stats.offered_nowhere(&places, markets)) {
        return Err(error.failure("no place of the pool can have an instance"));
    }
    let mut wait: Option<(Duration, &'static str)> = None;
    let chosen = markets.iter().find_map(|spot| {
        let choice = pool.account.with_stats(|stats| match stats.quota_pause(*spot) {
            Some(pause) => Err((pause, "QUOTA_REACHED")),
            None => stats.fair(&places, *spot).map_err(|pause| (pause, "NO_CAPACITY")),
        });
        match choice {
            Ok(places) => Some((*spot, places)),
            Err(pause) => {
                wait = Some(wait.map_or(pause, |before| before.min(pause)));
                None
            }
        }
    });
    let Some((spot, places)) = chosen else {
        let (pause, reason) = wait.unwrap_or((Duration::ZERO, "NO_CAPACITY"));
        let what = match config.market {
            Market::SpotOnly => "spot",
            Market::SpotFirst => "spot or on-demand",
            Market::OnDemand => "on-demand",
        };
        let why = if reason == "QUOTA_REACHED" { "the account's quota is reached" } else { "EC2 has none" };
        let mut text = format!(
            "no {what} capacity in any of {} types and {} zones: {why}; the next request is in {} s",
            config.types.len(),
            config.subnets.len(),
            pause.as_secs()
        );
        if let Some(ended) = ended {
            text = format!("{text}; the latest {ended}");
        }
        let mut failure = Failure::provider(reason, text);
        // The random part spreads the requests after the pause.
        failure.retry_after = Some(pause + jitter(Duration::from_secs(5)));
        return Err(failure);
    };
    let token = token(&resource.resource, attempt);
    let login = config.login_key()?;
    let key = wharfinger_ssh::host_key_from(login, &token, config.host_key_type)?;
    let authorized = wharfinger_ssh::public_of(login)?;
    let mut own_tags = config.tags.clone();
    for (name, value) in [
        ("Name", format!("wharfinger {}", pool.name)),
        (tags::DEPLOYMENT, config.deployment.clone()),
        (tags::POOL, pool.name.clone()),
        (tags::RESOURCE, resource.resource.clone()),
        (tags::ATTEMPT, attempt.to_string()),
    ] {
        own_tags.entry(name.to_string()).or_insert(value);
    }
    let launch = Launch {
        token,
        spot,
        image: config.image.clone(),
        template: config.template().or_else(|| {
            (places.len() > 1).then(|| Template { name: pool.template.name.clone(), version: "$Default".to_string() })
        }),
        places,
        security_groups: config.security_groups.clone(),
        instance_profile: config.instance_profile.clone(),
        root_volume: config.root_volume_gb.map(|size| (config.root_device.clone(), size)),
        user_data: user_data::stored(config, &key, &authorized)?,
        tags: own_tags,
    };
    let (launch, host_key) = (Box::new(launch), key.public);
    // The user data has the script that makes the instance's own key.
    let key_stage = KeyStage::Bootstrap;
    Ok(Record::Launching { attempt, since_ms: now_ms(), asked_ms: None, launch, host_key, key_stage, refused_ms: None })
}
