//! Holders: they request leases, work, renew, release, repeat requests after an outage, and sometimes just vanish.

use crate::agent::Agent;
use crate::pools;
use crate::rng::Rng;
use std::sync::Arc;
use wharfinger_core::{
    Caller, Claim, Core, Ended, Input, Lease, LeaseId, LeaseRequest, LeaseState, Millis, Outcome, Reply, Scope, Texts,
    Timestamp,
};

/// One holder.
pub(crate) struct Holder {
    name: Arc<str>,
    tenant: Arc<str>,
    doing: Doing,
    requests: u32,
    /// It keeps its leases by a session.
    agent: Option<Agent>,
}

enum Doing {
    /// It does nothing.
    Idle,
    /// It has sent a request, and has no answer.
    Asking(Box<LeaseRequest>),
    /// It has these leases, and works until then.
    Has(Vec<LeaseId>, Timestamp),
}

impl Holder {
    /// One of the holders of a world of this seed. In half of the worlds there is one tenant, and the oracle knows the order
    /// of the queue; in the others there are two.
    pub(crate) fn new(number: usize, seed: u64) -> Self {
        let tenants = if seed.is_multiple_of(2) { 1 } else { 2 };
        // Two tenants have a principal of each name, and both choose the same request ids.
        let name = Arc::from(format!("holder-{}", number / tenants));
        let tenant = Arc::from(format!("tenant-{}", number % tenants));
        Self { name, tenant, doing: Doing::Idle, requests: 0, agent: None }
    }

    /// The same, with a session.
    pub(crate) fn with_session(self) -> Self {
        Self { agent: Some(Agent::new()), ..self }
    }

    /// The server's process died, and the stream of the session with it.
    pub(crate) fn cut(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.cut();
        }
    }

    /// The answer to an input about a session, if that is this holder's.
    pub(crate) fn session_answered(&mut self, input: &Input, reply: Option<&Reply>) {
        let own = self.caller();
        let Some(agent) = &mut self.agent else { return };
        let ours = match input {
            Input::OpenSession(request) => request.caller == own,
            Input::ResumeSession { caller, .. } => *caller == own,
            Input::Beat(stream) => agent.stream() == Some(*stream),
            _ => false,
        };
        if ours {
            agent.answered(reply);
        }
    }

    /// The holder belongs to one of two tenants, and sees only its own leases.
    fn caller(&self) -> Caller {
        let (tenant, principal): (Arc<str>, Arc<str>) = (self.tenant.clone(), self.name.clone());
        let own = Scope::Own { tenant: tenant.clone(), principal: principal.clone() };
        Caller { tenant, principal, sees: own.clone(), ends: own, proved: None }
    }

    pub(crate) fn asks(&self) -> Option<&LeaseRequest> {
        match &self.doing {
            Doing::Asking(request) => Some(request),
            Doing::Idle | Doing::Has(..) => None,
        }
    }

    /// Whether it has this lease and renews it.
    pub(crate) fn minds(&self, lease: &Lease) -> bool {
        lease.spec.tenant == self.tenant
            && *lease.spec.holder == *self.name
            && matches!(&self.doing, Doing::Has(leases, _) if leases.contains(&lease.id))
    }

    /// The holder's next action, and the time of its next look.
    pub(crate) fn act(&mut self, now: Timestamp, core: &Core, calm: bool, rng: &mut Rng) -> (Vec<Input>, Timestamp) {
        let later = now.after(Millis(rng.between(200, 4000)));
        let caller = self.caller();
        let mut said = Vec::new();
        if let Some(agent) = &mut self.agent {
            if let Some(until) = agent.frozen(now) {
                return (Vec::new(), until);
            }
            let idle = matches!(self.doing, Doing::Idle) && calm;
            if !idle {
                let (inputs, goes_on) = agent.act(now, &caller, calm, rng);
                if !goes_on {
                    return (inputs, later);
                }
                said = inputs;
            }
        }
        let (inputs, again) = self.work(now, core, calm, later, rng);
        said.extend(inputs);
        (said, again)
    }

    fn work(
        &mut self,
        now: Timestamp,
        core: &Core,
        calm: bool,
        later: Timestamp,
        rng: &mut Rng,
    ) -> (Vec<Input>, Timestamp) {
        match &mut self.doing {
            Doing::Idle if calm => (Vec::new(), now.after(Millis::secs(1_000_000))),
            Doing::Idle => {
                self.requests += 1;
                let mut request = self.request(rng);
                if let Some(agent) = &self.agent {
                    agent.keeps(&mut request);
                }
                self.doing = Doing::Asking(Box::new(request.clone()));
                (vec![Input::Lease(request)], later)
            }
            // There was no answer: it repeats the same request.
            Doing::Asking(request) => {
                if let Some(agent) = &self.agent {
                    agent.keeps(request);
                }
                (vec![Input::Lease(LeaseRequest::clone(request))], later)
            }
            Doing::Has(leases, until) => {
                let rows: Vec<Arc<Lease>> = leases.iter().filter_map(|id| core.lease(*id).cloned()).collect();
                if let Some(successors) = successors(&rows) {
                    self.doing = Doing::Has(successors, *until);
                    return (Vec::new(), later);
                }
                let live: Vec<&Arc<Lease>> = rows.iter().filter(|row| !row.ended()).collect();
                if live.is_empty() {
                    self.doing = Doing::Idle;
                    return (Vec::new(), later);
                }
                let (done, until) = (*until <= now || calm, *until);
                let (mut inputs, mut renewals) = (Vec::new(), Vec::new());
                for row in live {
                    match row.state {
                        LeaseState::Active { .. } if done => inputs.push(self.release(row.id, calm, rng)),
                        LeaseState::Active { .. } if !calm && rng.chance(30) => {
                            // Some holders report again and again.
                            for _ in 0..rng.between(1, 6) {
                                let (caller, note) = (self.caller(), Arc::from(""));
                                inputs.push(Input::Report { lease: row.id, caller, note });
                            }
                        }
                        LeaseState::Active { .. } => {
                            renewals.push(row.id);
                        }
                        LeaseState::Queued | LeaseState::Preparing { .. } if !calm && rng.chance(30) => {
                            inputs.push(self.release(row.id, calm, rng));
                        }
                        LeaseState::Queued | LeaseState::Preparing { .. } | LeaseState::Ended { .. } => {}
                    }
                }
                // Some holders renew one by one, others all at once. A session takes in what it does not keep yet, and its
                // heartbeats keep it.
                let (caller, ttl) = (self.caller(), None);
                if let Some(stream) = self.agent.as_ref().and_then(Agent::stream) {
                    renewals.retain(|id| core.lease(*id).is_some_and(|row| row.session != Some(stream.session)));
                    if !renewals.is_empty() {
                        inputs.push(Input::KeepAll { leases: renewals, caller, stream });
                    }
                } else if renewals.len() > 1 && rng.chance(500) {
                    inputs.push(Input::RenewAll { leases: renewals, caller, ttl });
                } else {
                    let each = renewals.into_iter();
                    inputs.extend(each.map(|lease| Input::Renew { lease, caller: caller.clone(), ttl }));
                }
                // Work begins when the lease does; a waiting holder does not hurry. Some holders vanish while they
                // wait for the rest of a set.
                let partial = rows.iter().any(|row| matches!(row.state, LeaseState::Queued))
                    && rows.iter().any(|row| matches!(row.state, LeaseState::Active { .. }));
                if !calm && until > now && rng.chance(if partial { 300 } else { 20 }) {
                    self.doing = Doing::Idle;
                    if let Some(agent) = &mut self.agent {
                        agent.vanish();
                    }
                    return (Vec::new(), now.after(Millis::secs(20)));
                }
                (inputs, later)
            }
        }
    }

    /// The answer to the holder's request.
    pub(crate) fn answered(&mut self, now: Timestamp, reply: Option<&Reply>, rng: &mut Rng) {
        if !matches!(self.doing, Doing::Asking(_)) {
            return;
        }
        self.doing = match reply {
            Some(Reply::Leases(leases)) => {
                let ids = leases.iter().map(|lease| lease.id).collect();
                Doing::Has(ids, now.after(Millis(rng.between(500, 40_000))))
            }
            Some(_) | None => Doing::Idle,
        };
    }

    fn release(&self, lease: LeaseId, calm: bool, rng: &mut Rng) -> Input {
        let outcome = match rng.below(10) {
            0 | 2 if !calm => Outcome::Failed,
            1 if !calm => Outcome::Tainted,
            3 if !calm => Outcome::Abandoned,
            _ => Outcome::Ok,
        };
        let hold = (!calm && outcome != Outcome::Ok && rng.chance(150)).then(|| Millis::secs(rng.between(1, 30)));
        Input::Release { lease, caller: self.caller(), outcome, note: Arc::from(""), hold }
    }

    fn request(&self, rng: &mut Rng) -> LeaseRequest {
        let selectors = pools::selectors();
        let params = Arc::new(Texts::new());
        // Some requests have the parameters of earlier ones: affinity is one more reason to choose a resource.
        let wish = |rng: &mut Rng| match rng.below(6) {
            branch @ 0..3 => Arc::new(Texts::from([(Arc::from("branch"), Arc::from(format!("b{branch}")))])),
            _ => params.clone(),
        };
        let mut claims = Vec::new();
        // Sets: of one kind, of several, of kinds that share pools. Each kind occurs once or several times.
        let kinds = if rng.chance(250) { rng.between(2, 4) } else { 1 };
        for _ in 0..kinds {
            let selector = rng.pick(&selectors).expect("there are some");
            let count = if rng.chance(150) { 2 } else { 1 };
            claims.push(Claim { selector: Arc::new(selector), count, params: wish(rng) });
        }
        LeaseRequest {
            request_id: Arc::from(format!("{}-{}", self.name, self.requests)),
            caller: self.caller(),
            holder: self.name.clone(),
            claims,
            priority: if rng.chance(200) { rng.between(-1, 3) as i32 } else { 0 },
            ttl: rng.chance(500).then(|| Millis::secs(rng.between(5, 60))),
            queue_for: rng.chance(200).then(|| Millis::secs(rng.between(1, 40))),
            no_queue: rng.chance(60),
            expected: rng.chance(150).then(|| Millis::secs(rng.between(1, 60))),
            tags: params,
            independent: rng.chance(400),
            replace: rng.chance(400),
            work: rng.chance(700).then(|| Arc::from(format!("work {}", rng.below(6)))),
            avoid: Vec::new(),
            total: None,
            session: None,
        }
    }
}

/// The replacement, if its lease was broken and replaced.
fn successors(rows: &[Arc<Lease>]) -> Option<Vec<LeaseId>> {
    let mut found = Vec::new();
    for row in rows {
        match &row.state {
            LeaseState::Ended { how: Ended::Broken { replacement: Some(id), .. }, .. } => found.push(*id),
            LeaseState::Ended { .. } => {}
            LeaseState::Queued | LeaseState::Preparing { .. } | LeaseState::Active { .. } => found.push(row.id),
        }
    }
    (rows.iter().any(|row| !found.contains(&row.id)) && !found.is_empty()).then_some(found)
}
