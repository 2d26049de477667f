//! EC2 and SQS in memory: eventually consistent, idempotent by token as EC2 is, with faults on demand and a log of calls.

use crate::cloud::{
    Ask, Cloud, Event, FleetAnswer, Instance, Launch, Launched, Message, Page, Place, State, Status, TemplateSpec,
    Which,
};
use crate::doctor::Trial;
use crate::error::CloudError;
use crate::hub::now_ms;
use crate::notices::Hook;
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// What goes wrong with one call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Refused with this code, and not done.
    Refused(&'static str),
    /// Done, and the answer is lost.
    Lost,
    /// Not done, and no answer.
    Unheard,
}

#[derive(Clone, Debug)]
struct Machine {
    instance: Instance,
    /// Listed from then on.
    visible: Instant,
    running: Instant,
    /// Forgotten by EC2.
    forgotten: bool,
    events: Vec<Event>,
    impaired: bool,
}

#[derive(Default)]
struct Inside {
    machines: Vec<Machine>,
    launches: BTreeMap<String, (Launch, Launched)>,
    templates: BTreeMap<String, i64>,
    faults: BTreeMap<&'static str, VecDeque<Fault>>,
    down: bool,
    /// No spot, no on-demand capacity there.
    empty: BTreeSet<(Place, bool)>,
    log: Vec<&'static str>,
    messages: BTreeMap<u64, (Message, Instant)>,
    next: u64,
    lag: Duration,
    boot: Duration,
    address: Option<String>,
    policy: String,
    page: usize,
    witness: Option<Witness>,
    hooks: Vec<String>,
}

/// Sees each request for an instance in the moment in which it is made.
pub type Witness = Arc<dyn Fn(&Launch) + Send + Sync>;

/// See the module.
#[derive(Default)]
pub struct FakeCloud {
    inside: Mutex<Inside>,
    sent: Notify,
}

impl FakeCloud {
    /// An empty account.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Instances are listed so long after their launch, and run so long after it.
    pub fn slow(&self, lag: Duration, boot: Duration) {
        let mut inside = self.lock();
        (inside.lag, inside.boot) = (lag, boot);
    }

    /// So many instances a page.
    pub fn paged(&self, page: usize) {
        self.lock().page = page;
    }

    /// Instances get this address instead of one of their own.
    pub fn at(&self, address: &str) {
        self.lock().address = Some(address.to_string());
    }

    /// The queue has this policy.
    pub fn policy(&self, policy: &str) {
        self.lock().policy = policy.to_string();
    }

    /// The next call of this name meets it; several queue up.
    pub fn fault(&self, call: &'static str, fault: Fault) {
        self.lock().faults.entry(call).or_default().push_back(fault);
    }

    /// No faults, no lag; all is known, and there is capacity everywhere.
    pub fn calm(&self) {
        let mut inside = self.lock();
        inside.faults.clear();
        inside.empty.clear();
        inside.down = false;
        inside.lag = Duration::ZERO;
        inside.boot = Duration::ZERO;
        let now = Instant::now();
        for machine in &mut inside.machines {
            machine.forgotten = false;
            machine.visible = machine.visible.min(now);
        }
    }

    /// Nothing answers.
    pub fn down(&self, down: bool) {
        self.lock().down = down;
    }

    /// Whether there is capacity at this place.
    pub fn capacity(&self, place: &Place, spot: bool, there_is: bool) {
        let mut inside = self.lock();
        if there_is {
            inside.empty.remove(&(place.clone(), spot));
        } else {
            inside.empty.insert((place.clone(), spot));
        }
    }

    /// How often this call was made.
    pub fn calls(&self, call: &str) -> usize {
        self.lock().log.iter().filter(|name| **name == call).count()
    }

    /// All instances that were ever launched, as they are.
    pub fn instances(&self) -> Vec<Instance> {
        self.lock().machines.iter().map(|machine| machine.instance.clone()).collect()
    }

    /// Those that cost money.
    pub fn alive(&self) -> Vec<Instance> {
        self.instances().into_iter().filter(|instance| !instance.state.is_ended()).collect()
    }

    /// Templates that are there.
    pub fn templates_left(&self) -> usize {
        self.lock().templates.len()
    }

    fn with(&self, id: &str, change: impl FnOnce(&mut Machine)) {
        if let Some(machine) = self.lock().machines.iter_mut().find(|machine| machine.instance.id == id) {
            change(machine);
        }
    }

    /// It goes to this state, for this reason.
    pub fn becomes(&self, id: &str, state: State, reason: Option<&str>) {
        self.with(id, |machine| {
            machine.instance.state = state;
            machine.instance.reason = reason.map(String::from);
            machine.instance.since_unix_ms = Some(now_ms());
        });
    }

    /// EC2 forgets it, or remembers it again.
    pub fn forgets(&self, id: &str, forgotten: bool) {
        self.with(id, |machine| machine.forgotten = forgotten);
    }

    /// Whether EC2 has forgotten it.
    pub fn is_forgotten(&self, id: &str) -> bool {
        self.lock().machines.iter().any(|machine| machine.instance.id == id && machine.forgotten)
    }

    /// What is scheduled for it, and whether its checks fail.
    pub fn status(&self, id: &str, events: Vec<Event>, impaired: bool) {
        self.with(id, |machine| (machine.events, machine.impaired) = (events, impaired));
    }

    /// Launched long ago.
    pub fn ages(&self, id: &str, by: Duration) {
        self.with(id, |machine| {
            machine.instance.launched_unix_ms -= i64::try_from(by.as_millis()).unwrap_or(0);
        });
    }

    /// Puts an instance there that nobody asked us for.
    pub fn stray(&self, tags: &[(&str, &str)]) -> String {
        let mut inside = self.lock();
        let tags = tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        inside.start("m7i.large", "us-east-1a", false, tags)
    }

    /// This one sees every request for an instance from now on.
    pub fn witness(&self, sees: impl Fn(&Launch) + Send + Sync + 'static) {
        self.lock().witness = Some(Arc::new(sees));
    }

    fn is_asked(&self, launch: &Launch) {
        let witness = self.lock().witness.clone();
        if let Some(sees) = witness {
            sees(launch);
        }
    }

    /// A message for the queue.
    pub fn send(&self, body: &str) {
        let mut inside = self.lock();
        inside.next += 1;
        let number = inside.next;
        let message = Message { receipt: number.to_string(), body: body.to_string(), received: 0 };
        inside.messages.insert(number, (message, Instant::now()));
        drop(inside);
        self.sent.notify_waiters();
    }

    /// Tokens of the hooks that were let go.
    pub fn hooks_completed(&self) -> Vec<String> {
        self.lock().hooks.clone()
    }

    /// Messages that were not deleted.
    pub fn messages_left(&self) -> usize {
        self.lock().messages.len()
    }

    /// Begins a call: its fault, if there is one.
    fn begin(&self, call: &'static str) -> Result<Option<Fault>, CloudError> {
        let mut inside = self.lock();
        inside.log.push(call);
        if inside.down {
            return Err(CloudError::unknown("Timeout", "no answer"));
        }
        match inside.faults.get_mut(call).and_then(VecDeque::pop_front) {
            Some(Fault::Refused(code)) => Err(CloudError::from_code(code, "as the test wants it")),
            Some(Fault::Unheard) => Err(CloudError::unknown("Timeout", "no answer")),
            other => Ok(other),
        }
    }
}

impl Inside {
    fn start(&mut self, instance_type: &str, zone: &str, spot: bool, tags: BTreeMap<String, String>) -> String {
        self.next += 1;
        let id = format!("i-{:017x}", self.next);
        let now = Instant::now();
        let address =
            self.address.clone().unwrap_or_else(|| format!("10.0.{}.{}", self.next / 250, self.next % 250 + 1));
        let instance = Instance {
            id: id.clone(),
            state: State::Pending,
            reason: None,
            since_unix_ms: None,
            private_address: Some(address),
            public_address: None,
            instance_type: instance_type.to_string(),
            zone: zone.to_string(),
            spot,
            launched_unix_ms: now_ms(),
            tags,
        };
        let (visible, running) = (now + self.lag, now + self.boot);
        let (forgotten, events, impaired) = (false, Vec::new(), false);
        self.machines.push(Machine { instance, visible, running, forgotten, events, impaired });
        id
    }

    /// EC2's part of a launch: the token first, then the capacity.
    fn launch(&mut self, launch: &Launch) -> Result<Launched, CloudError> {
        if let Some((known, launched)) = self.launches.get(&launch.token) {
            if known != launch {
                return Err(CloudError::from_code("IdempotentParameterMismatch", "another request had this token"));
            }
            let ended = self.machines.iter().any(|m| m.instance.id == launched.instance && m.instance.state.is_ended());
            if ended {
                return Err(CloudError::from_code("IdempotentInstanceTerminated", "it is terminated"));
            }
            return Ok(launched.clone());
        }
        let place = launch.places.iter().find(|place| !self.empty.contains(&((*place).clone(), launch.spot)));
        let Some(place) = place.cloned() else {
            return Err(CloudError::from_code("InsufficientInstanceCapacity", "there is none"));
        };
        let instance = self.start(&place.instance_type, &place.zone, launch.spot, launch.tags.clone());
        let launched = Launched { instance, instance_type: Some(place.instance_type), zone: Some(place.zone) };
        self.launches.insert(launch.token.clone(), (launch.clone(), launched.clone()));
        Ok(launched)
    }
}

fn answer<T>(fault: Option<Fault>, value: T) -> Result<T, CloudError> {
    match fault {
        Some(Fault::Lost) => Err(CloudError::unknown("Timeout", "the answer is lost")),
        Some(Fault::Refused(_) | Fault::Unheard) | None => Ok(value),
    }
}

#[async_trait]
impl Cloud for FakeCloud {
    async fn run_instance(&self, launch: &Launch) -> Result<Launched, CloudError> {
        self.is_asked(launch);
        let fault = self.begin("RunInstances")?;
        let launched = self.lock().launch(launch)?;
        answer(fault, launched)
    }

    async fn create_template(&self, spec: &TemplateSpec) -> Result<(), CloudError> {
        let fault = self.begin("CreateLaunchTemplate")?;
        self.lock().templates.entry(spec.name.clone()).or_insert_with(now_ms);
        answer(fault, ())
    }

    async fn create_fleet(&self, launch: &Launch) -> Result<FleetAnswer, CloudError> {
        self.is_asked(launch);
        let fault = self.begin("CreateFleet")?;
        let mut inside = self.lock();
        if !launch.template.as_ref().is_some_and(|own| inside.templates.contains_key(&own.name)) {
            return Err(CloudError::from_code("InvalidLaunchTemplateName.NotFoundException", "no such template"));
        }
        let empty: Vec<Place> = launch
            .places
            .iter()
            .filter(|place| inside.empty.contains(&((*place).clone(), launch.spot)))
            .cloned()
            .collect();
        let mut told = FleetAnswer::default();
        match inside.launch(launch) {
            Ok(launched) => told.launched.push(launched),
            Err(error) if error.code == "InsufficientInstanceCapacity" => {}
            Err(error) => return Err(error),
        }
        let none = CloudError::from_code("InsufficientInstanceCapacity", "there is none");
        told.errors = empty.into_iter().map(|place| (Some(place), none.clone())).collect();
        answer(fault, told)
    }

    async fn delete_template(&self, name: &str) -> Result<(), CloudError> {
        let fault = self.begin("DeleteLaunchTemplate")?;
        self.lock().templates.remove(name);
        answer(fault, ())
    }

    async fn templates(&self, _deployment: &str, _page: Option<String>) -> Result<Page<(String, i64)>, CloudError> {
        let fault = self.begin("DescribeLaunchTemplates")?;
        let items = self.lock().templates.iter().map(|(name, at)| (name.clone(), *at)).collect();
        answer(fault, Page { items, next: None })
    }

    async fn instances(&self, which: &Which, page: Option<String>) -> Result<Page<Instance>, CloudError> {
        let fault = self.begin("DescribeInstances")?;
        let mut inside = self.lock();
        let now = Instant::now();
        for machine in &mut inside.machines {
            if machine.instance.state == State::Pending && machine.running <= now {
                machine.instance.state = State::Running;
            }
        }
        let all: Vec<Instance> = inside
            .machines
            .iter()
            .filter(|machine| machine.visible <= now && !machine.forgotten)
            .map(|machine| machine.instance.clone())
            .filter(|instance| match which {
                Which::Tagged(key, value) => instance.tags.get(*key) == Some(value),
                Which::Ids(ids) => ids.contains(&instance.id),
            })
            .collect();
        // What shuts down is over at the next look.
        for machine in &mut inside.machines {
            if machine.instance.state == State::ShuttingDown {
                machine.instance.state = State::Terminated;
            }
        }
        let size = if inside.page == 0 { 1000 } else { inside.page };
        let from: usize = page.and_then(|page| page.parse().ok()).unwrap_or(0);
        let next = (from + size < all.len()).then(|| (from + size).to_string());
        let items = all.into_iter().skip(from).take(size).collect();
        answer(fault, Page { items, next })
    }

    async fn statuses(&self, _ask: Ask, _page: Option<String>) -> Result<Page<Status>, CloudError> {
        let fault = self.begin("DescribeInstanceStatus")?;
        // As moto does, and unlike EC2: whatever was asked for, all of them.
        let items = self
            .lock()
            .machines
            .iter()
            .filter(|machine| machine.instance.state == State::Running && !machine.forgotten)
            .map(|machine| Status {
                instance: machine.instance.id.clone(),
                impaired: machine.impaired,
                events: machine.events.clone(),
            })
            .collect();
        answer(fault, Page { items, next: None })
    }

    async fn terminate(&self, instances: &[String]) -> Result<(), CloudError> {
        let fault = self.begin("TerminateInstances")?;
        let mut inside = self.lock();
        let now = Instant::now();
        let known =
            |machine: &Machine, id: &String| machine.instance.id == *id && !machine.forgotten && machine.visible <= now;
        if !instances.iter().all(|id| inside.machines.iter().any(|machine| known(machine, id))) {
            return Err(CloudError::from_code("InvalidInstanceID.NotFound", "one of them is not known"));
        }
        for machine in &mut inside.machines {
            if instances.contains(&machine.instance.id) && !machine.instance.state.is_ended() {
                machine.instance.state = State::ShuttingDown;
                machine.instance.reason = Some("Client.UserInitiatedShutdown".to_string());
            }
        }
        answer(fault, ())
    }

    async fn receive(&self, _queue: &str) -> Result<Vec<Message>, CloudError> {
        let begun = Instant::now();
        let fault = self.begin("ReceiveMessage")?;
        loop {
            let sent = self.sent.notified();
            {
                let mut inside = self.lock();
                let now = Instant::now();
                let mut found = Vec::new();
                for (message, visible) in inside.messages.values_mut().filter(|(_, visible)| *visible <= now).take(10) {
                    *visible = now + Duration::from_secs(30);
                    message.received += 1;
                    found.push(message.clone());
                }
                if !found.is_empty() || begun.elapsed() >= Duration::from_secs(20) {
                    return answer(fault, found);
                }
            }
            let _ = tokio::time::timeout(Duration::from_secs(1), sent).await;
        }
    }

    async fn try_out(&self, trial: &Trial, _launch: &Launch) -> Result<(), CloudError> {
        self.begin(match trial {
            Trial::Run => "RunInstances",
            Trial::Fleet => "CreateFleet",
            Trial::Template => "CreateLaunchTemplate",
            Trial::DeleteTemplate => "DeleteLaunchTemplate",
            Trial::Terminate(_) => "TerminateInstances",
        })
        .map(drop)
    }

    async fn complete_hook(&self, hook: &Hook) -> Result<(), CloudError> {
        let fault = self.begin("CompleteLifecycleAction")?;
        self.lock().hooks.push(hook.token.clone());
        answer(fault, ())
    }

    async fn queue_policy(&self, _queue: &str) -> Result<String, CloudError> {
        self.begin("GetQueueAttributes")?;
        Ok(self.lock().policy.clone())
    }

    async fn send(&self, _queue: &str, body: &str) -> Result<(), CloudError> {
        self.begin("SendMessage")?;
        FakeCloud::send(self, body);
        Ok(())
    }

    async fn peek(&self, queue: &str) -> Result<Vec<Message>, CloudError> {
        self.receive(queue).await
    }

    async fn delete_messages(&self, _queue: &str, receipts: &[String]) -> Result<(), CloudError> {
        let fault = self.begin("DeleteMessageBatch")?;
        let mut inside = self.lock();
        inside.messages.retain(|number, _| !receipts.contains(&number.to_string()));
        drop(inside);
        answer(fault, ())
    }
}
