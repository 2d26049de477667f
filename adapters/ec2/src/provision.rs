//! From a wanted host to a proved one: the request is written down, then made, and repeated as it stands until its outcome
//! is known; the instance is waited for, reached with its pinned host key, and asked who it is.

use crate::adapter::Parts;
use crate::buckets::{Kind, jitter};
use crate::cloud::{Instance, LISTED_AFTER_MS, Launch, Launched, Place, State, Template, Which};
use crate::config::{Address, Config, Market};
use crate::error::{Class, CloudError};
use crate::hub::now_ms;
use crate::note::{Host, Note, token};
use crate::{tags, user_data};
use std::path::Path;
use std::time::Duration;
use tokio::time::sleep;
use wharfinger_adapter::{Blame, Command, Exit, Failure, Journal, ProvisionJob, Provisioned, ResourceJob};

/// Launches in one call; then the broker asks again, with a pause.
const LAUNCHES_MAX: u32 = 4;

/// Repetitions of a request whose outcome is not known, in one call.
const REPEATS_MAX: u32 = 6;

/// Nothing of a kind is bought for so long after its quota was reached.
const QUOTA_PAUSE: Duration = Duration::from_secs(300);

/// Makes the host of this job, or goes on where the last call was cut off.
pub(crate) async fn provision(
    parts: &Parts,
    job: &ProvisionJob,
    journal: &dyn Journal,
) -> Result<Provisioned, Failure> {
    let resource = &job.resource;
    let mut note = Note::read(resource.handle.as_deref())?;
    // What an earlier call has begun may have been done, whatever this one hears.
    let mut doubtful = note.is_some();
    let mut launches = 0;
    loop {
        let next = match note.take() {
            // A request is stored when it is made, not when it is planned: until then it can be planned anew.
            None => {
                note = Some(plan(parts, resource, 1)?);
                continue;
            }
            Some(Note::Over { attempt }) => {
                if launches >= LAUNCHES_MAX {
                    let text = format!("{launches} launches came to nothing");
                    return Err(Failure::provider("NO_CAPACITY", text));
                }
                doubtful = false;
                note = Some(plan(parts, resource, attempt + 1)?);
                continue;
            }
            Some(Note::Launching { attempt, since_ms, asked_ms, launch, host_key, refused_ms }) => {
                launches += 1;
                let mut request = Request { attempt, since_ms, asked_ms, launch, host_key, journal };
                // Until its owner is known.
                let _under_way = parts.hub.launching();
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
                        parts.hub.owned(&parts.pool, &resource.resource, &host);
                        parts.hub.launched(&host);
                        let (pool, resource) = (&parts.pool, &resource.resource);
                        let Host { instance, instance_type, zone, spot, .. } = &host;
                        tracing::info!(pool, resource, instance, instance_type, zone, spot, attempt, "launched");
                        Note::Launched { attempt, since_ms: now_ms(), host }
                    }
                    Outcome::Nothing(None) => Note::Over { attempt },
                    Outcome::Doubt(failure) => {
                        if refused_ms.is_none() {
                            journal.write(&request.note(Some(now_ms())).text()?).await?;
                        }
                        return Err(failure);
                    }
                    Outcome::Nothing(Some(failure)) => {
                        // The next try is another request: what is wrong with this one may be mended meanwhile.
                        journal.write(&Note::Over { attempt }.text()?).await?;
                        return Err(failure);
                    }
                }
            }
            Some(Note::Launched { attempt, since_ms, mut host }) => {
                match proved(parts, job, since_ms, &mut host).await? {
                    Some((mut made, ssh)) => {
                        made.handle = Note::Ready { attempt, host, ssh }.text()?;
                        return Ok(made);
                    }
                    None => Note::Over { attempt },
                }
            }
            Some(Note::Ready { attempt, mut host, .. }) => match proved(parts, job, now_ms(), &mut host).await? {
                Some((mut made, ssh)) => {
                    made.handle = Note::Ready { attempt, host, ssh }.text()?;
                    return Ok(made);
                }
                None => Note::Over { attempt },
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
    fn note(&self, refused_ms: Option<i64>) -> Note {
        Note::Launching {
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

/// The next request: which market, which places, one more attempt.
fn plan(parts: &Parts, resource: &ResourceJob, attempt: u32) -> Result<Note, Failure> {
    let config = &parts.config;
    let places = config.places();
    let markets: &[bool] = match config.market {
        Market::SpotOnly => &[true],
        Market::SpotFirst => &[true, false],
        Market::OnDemand => &[false],
    };
    let mut wait: Option<(Duration, &'static str)> = None;
    let chosen = markets.iter().find_map(|spot| {
        let said = parts.hub.with_weather(|weather| match weather.quota_pause(*spot) {
            Some(pause) => Err((pause, "QUOTA_REACHED")),
            None => weather.fair(&places, *spot).map_err(|pause| (pause, "NO_CAPACITY")),
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
        let text = format!(
            "no {what} capacity in any of {} types and {} zones: {why}; asked again in {} s",
            config.types.len(),
            config.subnets.len(),
            pause.as_secs()
        );
        let mut failure = Failure::provider(reason, text);
        // Not all at once when it is over.
        failure.retry_after = Some(pause + jitter(Duration::from_secs(5)));
        return Err(failure);
    };
    let token = token(&resource.resource, attempt);
    let login = login_key(config)?;
    let (key, authorized) = (wharfinger_ssh::host_key_from(login, &token)?, wharfinger_ssh::public_of(login)?);
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
    Ok(Note::Launching { attempt, since_ms: now_ms(), asked_ms: None, launch, host_key, refused_ms: None })
}

fn login_key(config: &Config) -> Result<&Path, Failure> {
    config.ssh.key.as_deref().ok_or_else(|| Failure::configuration("BAD_CONFIG", "ssh: there is no key to log in with"))
}

/// The request with the private host key, which is stored nowhere. `None`: the login key is another one than when the request was
/// written down, so the key cannot be derived again.
fn whole(parts: &Parts, launch: &Launch, host_key: &str) -> Result<Option<Launch>, Failure> {
    let key = wharfinger_ssh::host_key_from(login_key(&parts.config)?, &launch.token)?;
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
                    parts.hub.without_template(&parts.template.name);
                }
                // Without a stored request the template is missing, and nothing was launched.
                doubtful |= request.asked_ms.is_some();
                repeats += 1;
                if repeats >= REPEATS_MAX {
                    let text = format!("it is not known whether the launch was heard; it is asked again: {error}");
                    return Err(Failure::provider("LAUNCH_IN_DOUBT", text));
                }
                let pause = Duration::from_millis(500 << repeats.min(5));
                sleep(pause + jitter(pause)).await;
                continue;
            }
            Class::Capacity
            | Class::Quota
            | Class::Configuration
            | Class::Credentials
            | Class::ParameterMismatch
            | Class::TokenSpent => {}
        }
        if error.class == Class::Quota {
            tracing::warn!(pool, spot = launch.spot, "the account's quota is used up: {error}");
            parts.hub.with_weather(|weather| weather.quota_reached(launch.spot, QUOTA_PAUSE));
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
    let hub = &parts.hub;
    let cool = hub.settings().cool;
    let note_want = |place: &Place| hub.with_weather(|weather| weather.no_capacity(place, launch.spot, cool));
    if !launch.is_fleet() {
        // The wait for the rate comes before the note, so that the note has the time of the request.
        hub.turn(Kind::Launch).await;
        request.store().await?;
        let answer = hub.answered(Kind::Launch, hub.cloud.run_instance(launch).await);
        if let (Err(error), Some(place)) = (&answer, launch.places.first())
            && error.class == Class::Capacity
        {
            note_want(place);
        }
        return Ok(answer);
    }
    if launch.template.as_ref().is_some_and(|template| template.name == parts.template.name)
        && let Err(error) = hub.with_template(&parts.template).await
    {
        return Ok(Err(error));
    }
    hub.turn(Kind::Launch).await;
    request.store().await?;
    let answer = match hub.answered(Kind::Launch, hub.cloud.create_fleet(launch).await) {
        Ok(answer) => answer,
        Err(error) => {
            if error.class == Class::Capacity {
                launch.places.iter().for_each(note_want);
            }
            return Ok(Err(error));
        }
    };
    let wants = answer.errors.iter().filter(|(_, error)| error.class == Class::Capacity);
    for (place, _) in wants.clone() {
        if let Some(place) = place {
            note_want(place);
        }
    }
    if let Some(launched) = answer.launched.into_iter().next() {
        return Ok(Ok(launched));
    }
    // A fleet fails with HTTP 200, a list of errors and no instance.
    if wants.clone().any(|(place, _)| place.is_none()) || answer.errors.is_empty() {
        launch.places.iter().for_each(note_want);
    }
    let worst = |class: Class| answer.errors.iter().map(|(_, error)| error).find(|error| error.class == class).cloned();
    let error = worst(Class::Capacity)
        .or_else(|| worst(Class::Quota))
        .or_else(|| worst(Class::Throttle))
        .or_else(|| worst(Class::Unknown))
        .or_else(|| answer.errors.first().map(|(_, error)| error.clone()));
    let unexplained = || CloudError::from_code("UnfulfillableCapacity", "the fleet has no instance and no error");
    Ok(Err(error.unwrap_or_else(unexplained)))
}

/// The instance of this very attempt, by its tags.
async fn find(parts: &Parts, resource: &ResourceJob, launch: &Launch) -> Result<Option<Launched>, Failure> {
    let which = Which::Tagged(tags::RESOURCE, resource.resource.clone());
    let all = parts.hub.all_instances(&which).await.map_err(|error| error.failure("looking for what was launched"))?;
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

/// Waits until the instance is a host that was reached and told its name. `None`: it is no more.
async fn proved(
    parts: &Parts,
    job: &ProvisionJob,
    since_ms: i64,
    host: &mut Host,
) -> Result<Option<(Provisioned, String)>, Failure> {
    let deadline = since_ms.saturating_add(i64::try_from(parts.config.launch_timeout_ms).unwrap_or(i64::MAX));
    let mut last: Option<Failure> = None;
    loop {
        let seen = parts.hub.look(&host.instance).await;
        if let Some(instance) = &seen {
            if instance.state.is_over() {
                let reason = instance.reason.clone().unwrap_or_else(|| "no reason given".to_string());
                tracing::info!(pool = parts.pool, instance = host.instance, reason, "ended before it was a host");
                if reason == "Server.SpotInstanceTermination" || reason == "Server.InsufficientInstanceCapacity" {
                    parts.hub.interrupted(&host.instance);
                }
                return Ok(None);
            }
            host.zone.clone_from(&instance.zone);
            host.instance_type.clone_from(&instance.instance_type);
            if let (State::Running, Some(address)) = (instance.state, address_of(parts, instance)) {
                match reached(parts, job, host, address).await {
                    Ok(made) => return Ok(Some(made)),
                    Err(failure) => last = Some(failure),
                }
            }
        }
        if now_ms() >= deadline {
            break;
        }
        sleep(parts.hub.settings().boot_poll).await;
    }
    let seconds = parts.config.launch_timeout_ms / 1000;
    Err(match last {
        // Another instance would not take the key either.
        Some(failure) if failure.blame == Blame::Configuration && failure.reason != "HOST_KEY_MISMATCH" => failure,
        Some(failure) => Failure::resource(
            failure.reason,
            format!("instance {} was no host after {seconds} s: {}", host.instance, failure.message),
        ),
        None => Failure::resource(
            "BOOT_TIMEOUT",
            format!("instance {} does not run, or has no address, after {seconds} s", host.instance),
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
    match parts.hub.look(&host.instance).await {
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
