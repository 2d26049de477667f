//! From a wanted host to a proved one: the request is written down, then made, and repeated as it stands until its outcome
//! is known; the instance is waited for, reached with its pinned host key, and asked who it is.

use crate::account::now_ms;
use crate::adapter::Parts;
use crate::backoff::{Backoff, jitter};
use crate::cloud::{Instance, LISTED_AFTER_MS, Launch, Launched, Place, State, Template, Which};
use crate::config::{Address, Config, Market};
use crate::error::{Class, CloudError};
use crate::rate_limit::Kind;
use crate::record::{Host, Record, token};
use crate::state_reason::{EndedBy, StateReason};
use crate::{tags, terminate, user_data};
use std::fmt;
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;
use wharfinger_adapter::{Blame, Command, Exit, Failure, Journal, ProvisionJob, Provisioned, ResourceJob};
use wharfinger_ssh::HostKeyType;

/// Launches in one call; then the broker asks again, with a pause.
const LAUNCHES_MAX: u32 = 4;

/// Repetitions of a request whose outcome is not known, in one call.
const REPEATS_MAX: u32 = 6;

/// The pause before a request without an answer is repeated.
const REPEAT_PAUSE: Backoff = Backoff { first: Duration::from_secs(1), most: Duration::from_secs(16) };

/// The pause after an instance that no other one would better: each costs money until the operator acts.
const FUTILE_PAUSE: Backoff = Backoff { first: Duration::from_secs(10), most: Duration::from_secs(900) };

/// An instance that shows another host key for this long was not given its own by the first boot.
const MISMATCH_FOR_MS: i64 = 30_000;

/// Nothing of a kind is bought for so long after its quota was reached.
const QUOTA_PAUSE: Duration = Duration::from_secs(300);

/// Makes the host of this job, or goes on where the last call was cut off.
pub(crate) async fn provision(
    parts: &Parts,
    job: &ProvisionJob,
    journal: &dyn Journal,
) -> Result<Provisioned, Failure> {
    let resource = &job.resource;
    let mut note = Record::read(resource.handle.as_deref())?;
    // What an earlier call has begun may have been done, whatever this one hears.
    let mut doubtful = note.is_some();
    let mut launches = 0;
    // The latest instance that ended before it was a host.
    let mut ended: Option<Ended> = None;
    loop {
        let next = match note.take() {
            // A request is stored when it is made, not when it is planned: until then it can be planned anew.
            None => {
                note = Some(plan(parts, resource, 1, ended.as_ref())?);
                continue;
            }
            Some(Record::Over { attempt }) => {
                if launches >= LAUNCHES_MAX {
                    return Err(gave_up(launches, ended.as_ref()));
                }
                doubtful = false;
                note = Some(plan(parts, resource, attempt + 1, ended.as_ref())?);
                continue;
            }
            Some(Record::Launching { attempt, since_ms, asked_ms, launch, host_key, refused_ms }) => {
                launches += 1;
                let mut request = Request { attempt, since_ms, asked_ms, launch, host_key, journal };
                // Until its owner is known.
                let _under_way = parts.account.launching();
                let outcome = match refused_ms {
                    None => match whole(parts, &request.launch, &request.host_key)? {
                        Some(whole) => launched(parts, resource, &mut request, &whole, doubtful).await?,
                        // The request cannot be repeated, and may have been made.
                        None => match find(parts, resource, &request.launch).await? {
                            Some(found) => Outcome::Launched(found),
                            None => Outcome::Doubt(in_doubt(LISTED_AFTER_MS)),
                        },
                    },
                    Some(refused_ms) => looked_for(parts, resource, &request.launch, refused_ms).await?,
                };
                match outcome {
                    Outcome::Launched(instance) => {
                        let host = host_of(&request.launch, &instance, request.host_key);
                        parts.account.owned(&parts.pool, &resource.resource, &host);
                        parts.account.launched(&host);
                        let (pool, resource) = (&parts.pool, &resource.resource);
                        let Host { instance, instance_type, zone, spot, .. } = &host;
                        tracing::info!(pool, resource, instance, instance_type, zone, spot, attempt, "launched");
                        Record::Launched { attempt, since_ms: now_ms(), host }
                    }
                    Outcome::Nothing(None) => Record::Over { attempt },
                    Outcome::Doubt(failure) => {
                        if refused_ms.is_none() {
                            journal.write(&request.note(Some(now_ms())).text()?).await?;
                        }
                        return Err(failure);
                    }
                    Outcome::Nothing(Some(failure)) => {
                        // The next try is another request: what is wrong with this one may be mended meanwhile.
                        journal.write(&Record::Over { attempt }.text()?).await?;
                        return Err(failure);
                    }
                }
            }
            Some(Record::Launched { attempt, since_ms, mut host }) => {
                match proved(parts, job, since_ms, &mut host).await? {
                    Proved::Host(mut made, ssh) => {
                        made.handle = Record::Ready { attempt, host, ssh }.text()?;
                        return Ok(made);
                    }
                    Proved::Ended(end) => over(parts, journal, attempt, ended.insert(end), job.attempt).await?,
                    Proved::OtherKey(failure) => return other_key(parts, job, journal, attempt, &host, failure).await,
                }
            }
            Some(Record::Ready { attempt, mut host, .. }) => match proved(parts, job, now_ms(), &mut host).await? {
                Proved::Host(mut made, ssh) => {
                    made.handle = Record::Ready { attempt, host, ssh }.text()?;
                    return Ok(made);
                }
                Proved::Ended(end) => over(parts, journal, attempt, ended.insert(end), job.attempt).await?,
                Proved::OtherKey(failure) => return other_key(parts, job, journal, attempt, &host, failure).await,
            },
        };
        journal.write(&next.text()?).await?;
        note = Some(next);
    }
}

/// A request for an instance, and the journal that stores it.
struct Request<'a> {
    attempt: u32,
    since_ms: i64,
    asked_ms: Option<i64>,
    launch: Box<Launch>,
    host_key: String,
    journal: &'a dyn Journal,
}

impl Request<'_> {
    fn note(&self, refused_ms: Option<i64>) -> Record {
        Record::Launching {
            attempt: self.attempt,
            since_ms: self.since_ms,
            asked_ms: self.asked_ms,
            launch: self.launch.clone(),
            host_key: self.host_key.clone(),
            refused_ms,
        }
    }

    /// Stores the request with the present time. Every request to EC2 follows such a note at once, so that an instance
    /// appears in EC2's lists at most [`LISTED_AFTER_MS`] after the time in the latest note.
    async fn store(&mut self) -> Result<(), Failure> {
        self.asked_ms = Some(now_ms());
        self.journal.write(&self.note(None).text()?).await
    }
}

/// An instance that ended before it was a host.
struct Ended {
    instance: String,
    spot: bool,
    reason: Option<StateReason>,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) => write!(f, "instance {} ended while it booted: {reason}", self.instance),
            None => write!(f, "instance {} ended while it booted, and EC2 gives no reason", self.instance),
        }
    }
}

impl Ended {
    fn by(&self) -> EndedBy {
        self.reason.as_ref().map_or(EndedBy::Provider, StateReason::ended_by)
    }
}

/// The note after an instance ended while it booted. An error: no other instance is launched until the operator acts.
async fn over(
    parts: &Parts,
    journal: &dyn Journal,
    attempt: u32,
    ended: &Ended,
    failures: u32,
) -> Result<Record, Failure> {
    let note = Record::Over { attempt };
    match (ended.by(), &ended.reason) {
        (EndedBy::Configuration, Some(reason)) => {
            // The next instance is another request, since the cause of this end may be corrected until then.
            journal.write(&note.text()?).await?;
            let mut failure = Failure::configuration("LAUNCH_FAILED", format!("{ended}; {}", reason.remedy()));
            failure.retry_after = Some(FUTILE_PAUSE.after(failures.saturating_add(1)));
            return Err(failure);
        }
        (EndedBy::Quota, _) => {
            parts.account.with_stats(|stats| stats.quota_reached(ended.spot, QUOTA_PAUSE));
        }
        (EndedBy::Configuration | EndedBy::Capacity | EndedBy::Call | EndedBy::Provider, _) => {}
    }
    Ok(note)
}

/// Ends an instance whose first boot did not install its host key. The next one would not either.
async fn other_key(
    parts: &Parts,
    job: &ProvisionJob,
    journal: &dyn Journal,
    attempt: u32,
    host: &Host,
    failure: Failure,
) -> Result<Provisioned, Failure> {
    // Without a confirmed end the note of the instance stays, and the next call ends it.
    if terminate::instance(parts, host).await.is_ok() {
        journal.write(&Record::Over { attempt }.text()?).await?;
    }
    let text = format!(
        "instance {} shows another host key than the one in its user data: {}; set host_key_type = \"ecdsa\" for images in \
         FIPS mode, else let the image's cloud-init install `ssh_keys`",
        host.instance, failure.message
    );
    let mut failure = Failure::configuration("HOST_KEY_MISMATCH", text);
    failure.retry_after = Some(FUTILE_PAUSE.after(job.attempt.saturating_add(1)));
    Err(failure)
}

/// The failure after the maximum number of launches.
fn gave_up(launches: u32, ended: Option<&Ended>) -> Failure {
    let Some(ended) = ended else {
        return Failure::provider("NO_CAPACITY", format!("{launches} launches came to nothing"));
    };
    let text = format!("{launches} launches came to nothing; the latest {ended}");
    match ended.by() {
        EndedBy::Capacity => Failure::provider("NO_CAPACITY", text),
        EndedBy::Quota => Failure::provider("QUOTA_REACHED", text),
        EndedBy::Configuration | EndedBy::Call | EndedBy::Provider => Failure::provider("EC2_FAILED", text),
    }
}

/// The next request: which market, which places, one more attempt.
fn plan(parts: &Parts, resource: &ResourceJob, attempt: u32, ended: Option<&Ended>) -> Result<Record, Failure> {
    let config = &parts.config;
    let places = config.places();
    let markets: &[bool] = match config.market {
        Market::SpotOnly => &[true],
        Market::SpotFirst => &[true, false],
        Market::OnDemand => &[false],
    };
    if let Some(error) = parts.account.with_stats(|stats| stats.offered_nowhere(&places, markets)) {
        return Err(error.failure("no place of the pool can have an instance"));
    }
    let mut wait: Option<(Duration, &'static str)> = None;
    let chosen = markets.iter().find_map(|spot| {
        let said = parts.account.with_stats(|stats| match stats.quota_pause(*spot) {
            Some(pause) => Err((pause, "QUOTA_REACHED")),
            None => stats.fair(&places, *spot).map_err(|pause| (pause, "NO_CAPACITY")),
        });
        match said {
            Ok(fair) => Some((*spot, fair)),
            Err(found) => {
                wait = Some(wait.map_or(found, |before| before.min(found)));
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
        let why = if reason == "QUOTA_REACHED" { "the account's quota is used up" } else { "none was to be had" };
        let mut text = format!(
            "no {what} capacity in any of {} types and {} zones: {why}; asked again in {} s",
            config.types.len(),
            config.subnets.len(),
            pause.as_secs()
        );
        if let Some(ended) = ended {
            text = format!("{text}; the latest {ended}");
        }
        let mut failure = Failure::provider(reason, text);
        // Not all at once when it is over.
        failure.retry_after = Some(pause + jitter(Duration::from_secs(5)));
        return Err(failure);
    };
    let token = token(&resource.resource, attempt);
    let login = login_key(config)?;
    let key = wharfinger_ssh::host_key_from(login, &token, config.host_key_type)?;
    let authorized = wharfinger_ssh::public_of(login)?;
    let mut own = config.tags.clone();
    for (name, value) in [
        ("Name", format!("wharfinger {}", parts.pool)),
        (tags::DEPLOYMENT, config.deployment.clone()),
        (tags::POOL, parts.pool.clone()),
        (tags::RESOURCE, resource.resource.clone()),
        (tags::ATTEMPT, attempt.to_string()),
    ] {
        own.entry(name.to_string()).or_insert(value);
    }
    let launch = Launch {
        token,
        spot,
        image: config.image.clone(),
        template: config.template().or_else(|| {
            (places.len() > 1).then(|| Template { name: parts.template.name.clone(), version: "$Default".to_string() })
        }),
        places,
        security_groups: config.security_groups.clone(),
        instance_profile: config.instance_profile.clone(),
        root_volume: config.root_volume_gb.map(|size| (config.root_device.clone(), size)),
        user_data: user_data::stored(config, &key, &authorized)?,
        tags: own,
    };
    let (launch, host_key) = (Box::new(launch), key.public);
    Ok(Record::Launching { attempt, since_ms: now_ms(), asked_ms: None, launch, host_key, refused_ms: None })
}

fn login_key(config: &Config) -> Result<&Path, Failure> {
    config.ssh.key.as_deref().ok_or_else(|| Failure::configuration("BAD_CONFIG", "ssh: there is no key to log in with"))
}

/// The request with the private host key, which is stored nowhere. `None`: the login key is another one than when the request was
/// written down, so the key cannot be derived again.
fn whole(parts: &Parts, launch: &Launch, host_key: &str) -> Result<Option<Launch>, Failure> {
    // The type is the request's own, also if the setting has changed since.
    let kind = HostKeyType::of(host_key).unwrap_or_default();
    let key = wharfinger_ssh::host_key_from(login_key(&parts.config)?, &launch.token, kind)?;
    let user_data = user_data::filled(&launch.user_data, &key);
    if user_data != launch.user_data && key.public != host_key {
        return Ok(None);
    }
    Ok(Some(Launch { user_data, ..launch.clone() }))
}

/// What a request came to.
enum Outcome {
    Launched(Launched),
    /// Certainly nothing; with a failure: nothing more is to be tried now.
    Nothing(Option<Failure>),
    /// Refused, while an earlier one of the same may have been done: it is neither asked for again nor given up before
    /// EC2's lists have had their time.
    Doubt(Failure),
}

/// Makes the request, and repeats it as it stands until its outcome is known.
async fn launched(
    parts: &Parts,
    resource: &ResourceJob,
    request: &mut Request<'_>,
    launch: &Launch,
    mut doubtful: bool,
) -> Result<Outcome, Failure> {
    let mut repeats = 0;
    loop {
        let error = match ask(parts, request, launch).await? {
            Ok(launched) => return Ok(Outcome::Launched(launched)),
            Err(error) => error,
        };
        let (pool, id) = (&parts.pool, &resource.resource);
        tracing::info!(pool, resource = id, spot = launch.spot, class = ?error.class, "not launched: {error}");
        match error.class {
            Class::Throttle => {
                // Not done; the bucket makes us wait. A request that was not heard for minutes is the broker's to repeat.
                repeats += 1;
                if repeats >= REPEATS_MAX {
                    return Err(error.failure("launching"));
                }
                continue;
            }
            Class::Unknown | Class::NotFound => {
                if error.class == Class::NotFound {
                    // Somebody removed the template of the pool, or it is not to be seen everywhere yet.
                    parts.account.without_template(&parts.template.name);
                }
                // Without a stored request the template is missing, and nothing was launched.
                doubtful |= request.asked_ms.is_some();
                repeats += 1;
                if repeats >= REPEATS_MAX {
                    let text = format!("it is not known whether the launch was heard; it is asked again: {error}");
                    return Err(Failure::provider("LAUNCH_IN_DOUBT", text));
                }
                let pause = REPEAT_PAUSE.after(repeats);
                sleep(pause + jitter(pause)).await;
                continue;
            }
            Class::Capacity
            | Class::NotOffered
            | Class::Quota
            | Class::Configuration
            | Class::Credentials
            | Class::ParameterMismatch
            | Class::TokenSpent => {}
        }
        if error.class == Class::Quota {
            tracing::warn!(pool, spot = launch.spot, "the account's quota is used up: {error}");
            parts.account.with_stats(|stats| stats.quota_reached(launch.spot, QUOTA_PAUSE));
        }
        let theirs = matches!(error.class, Class::Configuration | Class::Credentials);
        let failure = theirs.then(|| error.failure("launching"));
        // It may have been done all the same, the first time that it was asked for. A token whose instance is terminated is
        // a definite answer.
        if (doubtful && error.class != Class::TokenSpent) || error.class == Class::ParameterMismatch {
            return Ok(match find(parts, resource, launch).await? {
                Some(found) => Outcome::Launched(found),
                None => Outcome::Doubt(failure.unwrap_or_else(|| in_doubt(LISTED_AFTER_MS))),
            });
        }
        return Ok(Outcome::Nothing(failure));
    }
}

/// What was refused after a lost answer, in lists that are late: found, or not there when they had their time.
async fn looked_for(
    parts: &Parts,
    resource: &ResourceJob,
    launch: &Launch,
    refused_ms: i64,
) -> Result<Outcome, Failure> {
    // The list must have been made after that time.
    let left = refused_ms.saturating_add(LISTED_AFTER_MS) - now_ms();
    Ok(match find(parts, resource, launch).await? {
        Some(found) => Outcome::Launched(found),
        None if left <= 0 => Outcome::Nothing(None),
        None => Outcome::Doubt(in_doubt(left)),
    })
}

fn in_doubt(left_ms: i64) -> Failure {
    let text = format!(
        "a launch was refused after an answer to it was lost; whether there is an instance is known in {} s at the \
         latest, and nothing is bought before",
        left_ms / 1000
    );
    Failure::provider("LAUNCH_IN_DOUBT", text)
}

/// Stores and makes one request. The places without capacity rest. The outer error is the journal's: no request was made.
async fn ask(
    parts: &Parts,
    request: &mut Request<'_>,
    launch: &Launch,
) -> Result<Result<Launched, CloudError>, Failure> {
    let account = &parts.account;
    let cool = account.settings().cool;
    let note_want = |place: &Place| account.with_stats(|stats| stats.no_capacity(place, launch.spot, cool));
    let note_refusal = |place: &Place, error: &CloudError| match error.class {
        Class::Capacity => note_want(place),
        Class::NotOffered => account.with_stats(|stats| stats.not_offered(place, launch.spot, error.clone())),
        _ => {}
    };
    if !launch.is_fleet() {
        // The wait for the rate comes before the note, so that the note has the time of the request.
        account.turn(Kind::Launch).await;
        request.store().await?;
        let answer = account.answered(Kind::Launch, account.cloud.run_instance(launch).await);
        if let (Err(error), Some(place)) = (&answer, launch.places.first()) {
            note_refusal(place, error);
        }
        return Ok(answer);
    }
    if launch.template.as_ref().is_some_and(|template| template.name == parts.template.name)
        && let Err(error) = account.with_template(&parts.template).await
    {
        return Ok(Err(error));
    }
    account.turn(Kind::Launch).await;
    request.store().await?;
    let answer = match account.answered(Kind::Launch, account.cloud.create_fleet(launch).await) {
        Ok(answer) => answer,
        Err(error) => {
            if error.class == Class::Capacity {
                launch.places.iter().for_each(note_want);
            }
            return Ok(Err(error));
        }
    };
    // An error for one place is about that place alone.
    for (place, error) in &answer.errors {
        if let Some(place) = place {
            note_refusal(place, error);
        }
    }
    let mut wants = answer.errors.iter().filter(|(_, error)| error.class == Class::Capacity);
    if let Some(launched) = answer.launched.into_iter().next() {
        return Ok(Ok(launched));
    }
    // A fleet fails with HTTP 200, a list of errors and no instance.
    if wants.any(|(place, _)| place.is_none()) || answer.errors.is_empty() {
        launch.places.iter().for_each(note_want);
    }
    let worst = |class: Class| answer.errors.iter().map(|(_, error)| error).find(|error| error.class == class).cloned();
    let error = worst(Class::Capacity)
        .or_else(|| worst(Class::Quota))
        .or_else(|| worst(Class::Throttle))
        .or_else(|| worst(Class::Unknown))
        .or_else(|| worst(Class::Credentials))
        .or_else(|| worst(Class::Configuration))
        .or_else(|| answer.errors.first().map(|(_, error)| error.clone()));
    let unexplained = || CloudError::from_code("UnfulfillableCapacity", "the fleet has no instance and no error");
    Ok(Err(error.unwrap_or_else(unexplained)))
}

/// The instance of this very attempt, by its tags.
async fn find(parts: &Parts, resource: &ResourceJob, launch: &Launch) -> Result<Option<Launched>, Failure> {
    let which = Which::Tagged(tags::RESOURCE, resource.resource.clone());
    let all =
        parts.account.all_instances(&which).await.map_err(|error| error.failure("looking for what was launched"))?;
    let attempt = launch.tags.get(tags::ATTEMPT);
    let ours = |instance: &Instance| {
        instance.tags.get(tags::DEPLOYMENT) == Some(&parts.config.deployment)
            && instance.tags.get(tags::ATTEMPT) == attempt
            && !instance.state.is_ended()
    };
    Ok(all.into_iter().find(ours).map(|instance| Launched {
        instance: instance.id,
        instance_type: Some(instance.instance_type),
        zone: Some(instance.zone),
    }))
}

fn host_of(launch: &Launch, launched: &Launched, host_key: String) -> Host {
    let first = launch.places.first();
    Host {
        instance: launched.instance.clone(),
        instance_type: launched
            .instance_type
            .clone()
            .or_else(|| first.map(|place| place.instance_type.clone()))
            .unwrap_or_default(),
        zone: launched.zone.clone().or_else(|| first.map(|place| place.zone.clone())).unwrap_or_default(),
        spot: launch.spot,
        launched_ms: now_ms(),
        host_key,
    }
}

/// What became of an instance that boots.
enum Proved {
    /// A host, and what the ssh adapter remembers of it.
    Host(Provisioned, String),
    Ended(Ended),
    /// It shows another host key than its own.
    OtherKey(Failure),
}

/// Waits until the instance is a host that was reached and confirmed its id, or has ended.
async fn proved(parts: &Parts, job: &ProvisionJob, since_ms: i64, host: &mut Host) -> Result<Proved, Failure> {
    let deadline = since_ms.saturating_add(i64::try_from(parts.config.launch_timeout_ms).unwrap_or(i64::MAX));
    let mut last: Option<Failure> = None;
    let mut state = "in no list of EC2".to_string();
    let mut mismatch_ms: Option<i64> = None;
    loop {
        let seen = parts.account.look(&host.instance).await;
        if let Some(instance) = &seen {
            state = instance.state_text();
            if instance.state.is_over() {
                tracing::info!(pool = parts.pool, instance = host.instance, state, "ended before it was a host");
                let ended = Ended { instance: host.instance.clone(), spot: host.spot, reason: instance.reason.clone() };
                if ended.by() == EndedBy::Capacity {
                    parts.account.interrupted(&host.instance);
                }
                return Ok(Proved::Ended(ended));
            }
            host.zone.clone_from(&instance.zone);
            host.instance_type.clone_from(&instance.instance_type);
            if let (State::Running, Some(address)) = (instance.state, address_of(parts, instance)) {
                match reached(parts, job, host, address).await {
                    Ok((made, ssh)) => return Ok(Proved::Host(made, ssh)),
                    Err(failure) if failure.reason == "HOST_KEY_MISMATCH" => {
                        let since_ms = *mismatch_ms.get_or_insert_with(now_ms);
                        if now_ms() - since_ms >= MISMATCH_FOR_MS {
                            return Ok(Proved::OtherKey(failure));
                        }
                        last = Some(failure);
                    }
                    Err(failure) => {
                        mismatch_ms = None;
                        last = Some(failure);
                    }
                }
            }
        }
        if now_ms() >= deadline {
            break;
        }
        sleep(parts.account.settings().boot_poll).await;
    }
    let seconds = parts.config.launch_timeout_ms / 1000;
    Err(match last {
        Some(failure) if failure.reason == "HOST_KEY_MISMATCH" => return Ok(Proved::OtherKey(failure)),
        // Another instance would not take the login key either.
        Some(failure) if failure.blame == Blame::Configuration => failure,
        // An sshd in FIPS mode does not start with an ed25519 key alone.
        Some(failure) if failure.reason == "UNREACHABLE" && parts.config.host_key_type == HostKeyType::Ed25519 => {
            let text = format!(
                "instance {} was no host after {seconds} s: {}; look at the security groups, and set host_key_type = \
                 \"ecdsa\" if the image runs in FIPS mode",
                host.instance, failure.message
            );
            Failure::resource(failure.reason, text)
        }
        Some(failure) => Failure::resource(
            failure.reason,
            format!("instance {} was no host after {seconds} s: {}", host.instance, failure.message),
        ),
        None => Failure::resource(
            "BOOT_TIMEOUT",
            format!("instance {} is {state}, and has no address or does not run after {seconds} s", host.instance),
        ),
    })
}

fn address_of(parts: &Parts, instance: &Instance) -> Option<String> {
    match parts.config.address {
        Address::Private => instance.private_address.clone(),
        Address::Public => instance.public_address.clone(),
    }
}

/// Logs in with the pinned key, proves the host, asks it for its name, and EC2 whether it is still there.
async fn reached(
    parts: &Parts,
    job: &ProvisionJob,
    host: &Host,
    address: String,
) -> Result<(Provisioned, String), Failure> {
    let entry = wharfinger_ssh::Host {
        name: host.instance.clone(),
        address: address.clone(),
        port: None,
        user: None,
        key: None,
        host_key: host.host_key.clone(),
        labels: std::collections::BTreeMap::new(),
        slots: None,
        enabled: true,
        proxy_command: None,
    };
    let mut made = parts.ssh.provision_found(job, &entry).await?;
    let ssh = std::mem::take(&mut made.handle);
    let inner = ResourceJob { item: None, handle: Some(ssh.clone()), ..job.resource.clone() };
    let shell = wharfinger_adapter::Adapter::shell(&*parts.ssh, &inner).await?;
    let command = Command::sh(user_data::identity_command(&parts.config.imds)).timeout(Duration::from_secs(20));
    let output = shell.run(command).await.map_err(|error| Failure::resource("IDENTITY_UNKNOWN", error.to_string()))?;
    match output.exit {
        Exit::Code(0) => {}
        Exit::Code(3) => {
            let text =
                "curl is missing in the image, and without it the host can not ask the metadata service; install it";
            return Err(Failure::configuration("CURL_MISSING", text));
        }
        ref exit => {
            let text = format!("the host's metadata service gives no instance id ({exit:?}): {}", output.complaint());
            return Err(Failure::resource("IDENTITY_UNKNOWN", text));
        }
    }
    let told = output.text();
    if told != host.instance {
        let text = format!("{address} says that it is instance {told:?}, and {} was launched", host.instance);
        return Err(Failure::resource("ANOTHER_INSTANCE", text));
    }
    // An address may have gone to another between the list and the login.
    match parts.account.look(&host.instance).await {
        Some(now) if now.state == State::Running && address_of(parts, &now).as_deref() == Some(address.as_str()) => {}
        Some(now) => {
            let text = format!("instance {} is {:?} by now, or has another address", host.instance, now.state);
            return Err(Failure::resource("INSTANCE_CHANGED", text));
        }
        None => return Err(Failure::provider("EC2_FAILED", "the instance could not be looked at again")),
    }
    for (key, value) in [
        ("zone", host.zone.clone()),
        ("instance_type", host.instance_type.clone()),
        ("market", if host.spot { "spot" } else { "on_demand" }.to_string()),
        ("instance", host.instance.clone()),
    ] {
        made.labels.insert(key.to_string(), value);
    }
    Ok((made, ssh))
}
