//! Parses the messages of the notice queue into signals about instances.
//!
//! EventBridge, Auto Scaling and SNS fill the queue, with one event or several in a message. Shapes as in the EC2 User Guide
//! («Spot Instance interruption notices», «EC2 instance rebalance recommendations», «Monitor instance state changes»), the
//! AWS Health User Guide and the SNS Developer Guide («Parsing message formats»). Optional fields may be missing and unknown
//! fields are skipped. The id of an instance is read from `detail`, never from an ARN.

use crate::clock::{rfc2822, rfc3339};
use crate::cloud::{Hook, State};
use serde::Deserialize;
use serde_json::Value;

/// Time from a notice to the end, as the User Guide has it for `terminate` and `stop`.
const WARNING_MS: i64 = 120_000;

/// Maximum number of envelopes around an event: a record, a topic, and one more.
const ENVELOPES_MAX: usize = 3;

/// Length of the text that is reported of an unreadable event, in characters.
const EXCERPT: usize = 200;

/// A fact about one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Id of the instance.
    pub instance: String,
    /// The fact.
    pub kind: SignalKind,
    /// The same as text.
    pub detail: String,
}

/// Kinds of signals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// Spot takes the instance away.
    Interruption {
        /// Time of the end, milliseconds since the epoch.
        at_unix_ms: i64,
    },
    /// Spot may take the instance away.
    Rebalance,
    /// Maintenance is scheduled.
    Maintenance {
        /// Start of the maintenance, milliseconds since the epoch.
        at_unix_ms: i64,
    },
    /// The scheduled maintenance is over or cancelled.
    MaintenanceOver,
    /// The instance has this state.
    State(State),
    /// An Auto Scaling group ends the instance and waits for its lifecycle hook.
    Hook {
        /// The hook to complete.
        hook: Hook,
        /// Time at which the hook is completed even if a lease is active, milliseconds since the epoch.
        at_unix_ms: i64,
    },
}

/// One event of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Facts about instances.
    Signals(Vec<Signal>),
    /// An event without a fact about an instance, or a test message of a service.
    Ignored,
    /// An SNS topic waits until its subscription to the queue is confirmed.
    Unconfirmed {
        /// ARN of the topic.
        topic: String,
    },
    /// Not an event of a known shape.
    Unreadable {
        /// The reason.
        why: String,
        /// The beginning of the text.
        excerpt: String,
    },
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "detail-type")]
    detail_type: String,
    source: String,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    detail: Value,
}

/// Parses the body of one message, which has at least one event. An event without a time has `now_unix_ms`.
pub fn read(body: &str, now_unix_ms: i64) -> Vec<Event> {
    let mut events = Vec::new();
    read_text(body, now_unix_ms, ENVELOPES_MAX, &mut events);
    events
}

/// Parses JSON values, one after the other.
fn read_text(text: &str, now_unix_ms: i64, envelopes: usize, events: &mut Vec<Event>) {
    let before = events.len();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        match value {
            Ok(value) => read_value(value, now_unix_ms, envelopes, events),
            Err(error) => return events.push(unreadable(text, format!("it is not JSON: {error}"))),
        }
    }
    if events.len() == before {
        events.push(unreadable(text, "it is empty"));
    }
}

/// Parses one value: several events, an envelope, or an event.
fn read_value(mut value: Value, now_unix_ms: i64, envelopes: usize, events: &mut Vec<Event>) {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let time = |key: &str| text(key).and_then(rfc3339).unwrap_or(now_unix_ms);
    // SNS wraps a message unless the subscription has raw delivery.
    if let (Some(kind), Some(topic)) = (text("Type"), text("TopicArn")) {
        return match (kind, text("Message"), envelopes.checked_sub(1)) {
            ("SubscriptionConfirmation", ..) => events.push(Event::Unconfirmed { topic: topic.to_string() }),
            ("Notification", Some(message), Some(left)) => read_text(message, time("Timestamp"), left, events),
            (kind, ..) => {
                events.push(unreadable(
                    &value.to_string(),
                    format!("SNS message of type {kind} without text, or in too many envelopes"),
                ));
            }
        };
    }
    // Services test a queue with a message of their own: `s3:TestEvent`, `autoscaling:TEST_NOTIFICATION`.
    if let Some(name) = text("Event").and_then(|event| event.split_once(':')).map(|(_, name)| name)
        && ["TestEvent", "TEST_NOTIFICATION"].contains(&name)
    {
        return events.push(Event::Ignored);
    }
    // A hook that notifies the queue without a rule has no envelope.
    if text("LifecycleActionToken").is_some() {
        let time = time("Time");
        return events.push(hook(&value, time));
    }
    let several = match &mut value {
        Value::Array(several) => Some(std::mem::take(several)),
        Value::Object(fields) => match fields.get_mut("Records") {
            Some(Value::Array(records)) => Some(std::mem::take(records)),
            _ => None,
        },
        _ => None,
    };
    match several {
        Some(several) if !several.is_empty() => {
            for one in several {
                read_record(one, now_unix_ms, envelopes, events);
            }
        }
        _ => events.push(event(value, now_unix_ms)),
    }
}

/// Parses one of several events in a body: an event itself, or the record of a service around it.
fn read_record(mut record: Value, now_unix_ms: i64, envelopes: usize, events: &mut Vec<Event>) {
    let Some(left) = envelopes.checked_sub(1) else {
        return events.push(unreadable(&record.to_string(), "it has too many envelopes"));
    };
    // Records of S3 and the like are of no instance.
    let source = record.get("eventSource").or_else(|| record.get("EventSource"));
    match source.and_then(Value::as_str).map(str::to_string).as_deref() {
        Some("aws:sns") => match record.get_mut("Sns").map(Value::take) {
            Some(message) => read_value(message, now_unix_ms, left, events),
            None => events.push(unreadable(&record.to_string(), "SNS record without a message")),
        },
        Some("aws:sqs") => match record.get("body").and_then(Value::as_str) {
            Some(body) => read_text(body, now_unix_ms, left, events),
            None => events.push(unreadable(&record.to_string(), "SQS record without a body")),
        },
        Some(_) => events.push(Event::Ignored),
        None => read_value(record, now_unix_ms, left, events),
    }
}

fn unreadable(text: &str, why: impl Into<String>) -> Event {
    Event::Unreadable { why: why.into(), excerpt: text.chars().take(EXCERPT).collect() }
}

/// Parses an event of EventBridge.
fn event(value: Value, now_unix_ms: i64) -> Event {
    let text = value.to_string();
    let envelope: Envelope = match serde_json::from_value(value) {
        Ok(envelope) => envelope,
        Err(error) => return unreadable(&text, format!("it is not an event: {error}")),
    };
    let time = envelope.time.as_deref().and_then(rfc3339).unwrap_or(now_unix_ms);
    let detail = &envelope.detail;
    match (envelope.source.as_str(), envelope.detail_type.as_str()) {
        (
            "aws.ec2" | "wharfinger.doctor",
            "EC2 Spot Instance Interruption Warning" | "EC2 Capacity Reservation Instance Interruption Warning",
        ) => interruption(detail, time),
        ("aws.ec2", "EC2 Instance Rebalance Recommendation") => {
            one(detail, SignalKind::Rebalance, "rebalance recommended".to_string())
        }
        ("aws.ec2", "EC2 Instance State-change Notification") => {
            let Some(state) = detail.get("state").and_then(Value::as_str) else {
                return unreadable(&text, "state change without a state");
            };
            one(detail, SignalKind::State(State::from_name(state)), format!("EC2 reports the state {state}"))
        }
        ("aws.health", "AWS Health Event") => health(detail, time),
        ("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action") => hook(detail, time),
        _ => Event::Ignored,
    }
}

/// Only the end of an instance waits for the broker.
fn hook(detail: &Value, time: i64) -> Event {
    match serde_json::from_value::<Hook>(detail.clone()) {
        Ok(hook) if hook.transition != "autoscaling:EC2_INSTANCE_TERMINATING" => Event::Ignored,
        Ok(hook) if is_instance(&hook.instance) => {
            let (instance, detail) = (hook.instance.clone(), format!("Auto Scaling group {} ends it", hook.group));
            let kind = SignalKind::Hook { hook, at_unix_ms: time.saturating_add(WARNING_MS) };
            Event::Signals(vec![Signal { instance, kind, detail }])
        }
        Ok(_) => unreadable(&detail.to_string(), "it has no instance id"),
        Err(error) => unreadable(&detail.to_string(), format!("it is not a lifecycle hook: {error}")),
    }
}

fn interruption(detail: &Value, time: i64) -> Event {
    let action = detail.get("instance-action").and_then(Value::as_str).unwrap_or("terminate");
    // Hibernation begins with the notice.
    let ends = match detail.get("instance-termination-time").and_then(Value::as_str).and_then(rfc3339) {
        Some(announced) => announced,
        None if action == "hibernate" => time,
        None => time.saturating_add(WARNING_MS),
    };
    one(detail, SignalKind::Interruption { at_unix_ms: ends }, format!("spot: {action}"))
}

fn one(detail: &Value, kind: SignalKind, text: String) -> Event {
    match detail.get("instance-id").and_then(Value::as_str).filter(|id| is_instance(id)) {
        Some(instance) => Event::Signals(vec![Signal { instance: instance.to_string(), kind, detail: text }]),
        None => unreadable(&detail.to_string(), "it has no instance id"),
    }
}

fn health(detail: &Value, time: i64) -> Event {
    let text = |key: &str| detail.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("service") != "EC2" || text("eventTypeCategory") != "scheduledChange" {
        return Event::Ignored;
    }
    let code = text("eventTypeCode");
    let over = text("statusCode") == "closed";
    let at_unix_ms = rfc2822(text("startTime")).or_else(|| rfc3339(text("startTime"))).unwrap_or(time);
    let entities = detail.get("affectedEntities").and_then(Value::as_array).into_iter().flatten();
    let signals: Vec<Signal> = entities
        .filter_map(|entity| entity.get("entityValue").and_then(Value::as_str))
        // Some are ARNs.
        .filter_map(|value| value.rsplit(['/', ':']).next())
        .filter(|id| is_instance(id))
        .map(|instance| Signal {
            instance: instance.to_string(),
            kind: if over { SignalKind::MaintenanceOver } else { SignalKind::Maintenance { at_unix_ms } },
            detail: code.to_string(),
        })
        .collect();
    if signals.is_empty() { Event::Ignored } else { Event::Signals(signals) }
}

fn is_instance(id: &str) -> bool {
    id.strip_prefix("i-")
        .is_some_and(|rest| (8..=32).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const NOW: i64 = 1_800_000_000_000;

    fn event(source: &str, detail_type: &str, detail: &Value) -> String {
        json!({ "version": "0", "id": "x", "source": source, "detail-type": detail_type, "account": "1",
                "time": "2026-11-28T03:00:00Z", "region": "us-east-1",
                "resources": ["arn:aws:ec2:us-east-1b:instance/i-wrong"], "detail": detail })
        .to_string()
    }

    fn time() -> i64 {
        rfc3339("2026-11-28T03:00:00Z").unwrap()
    }

    /// The only event of a body.
    fn only(body: &str) -> Event {
        let mut events = read(body, NOW);
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    fn signal(kind: SignalKind, detail: &str) -> Event {
        Event::Signals(vec![Signal { instance: "i-0123456789abcdef0".into(), kind, detail: detail.into() }])
    }

    #[test]
    fn each_kind_is_parsed() {
        let id = "i-0123456789abcdef0";
        let spot = |action: &str| {
            let detail = json!({ "instance-id": id, "instance-action": action });
            only(&event("aws.ec2", "EC2 Spot Instance Interruption Warning", &detail))
        };
        let at_unix_ms = time() + 120_000;
        assert_eq!(spot("terminate"), signal(SignalKind::Interruption { at_unix_ms }, "spot: terminate"));
        let at_unix_ms = time();
        assert_eq!(spot("hibernate"), signal(SignalKind::Interruption { at_unix_ms }, "spot: hibernate"));
        let detail = json!({ "instance-id": id });
        assert_eq!(
            only(&event("aws.ec2", "EC2 Instance Rebalance Recommendation", &detail)),
            signal(SignalKind::Rebalance, "rebalance recommended")
        );
        let detail = json!({ "instance-id": id, "state": "shutting-down" });
        assert_eq!(
            only(&event("aws.ec2", "EC2 Instance State-change Notification", &detail)),
            signal(SignalKind::State(State::ShuttingDown), "EC2 reports the state shutting-down")
        );
    }

    #[test]
    fn a_lifecycle_hook_is_parsed_with_and_without_an_envelope() {
        let detail = |transition: &str| {
            json!({ "LifecycleActionToken": "87654321-4321-4321-4321-210987654321", "AutoScalingGroupName": "farm",
                    "LifecycleHookName": "drain", "EC2InstanceId": "i-0123456789abcdef0",
                    "LifecycleTransition": transition, "NotificationMetadata": "x", "Origin": "AutoScalingGroup" })
        };
        let ends = detail("autoscaling:EC2_INSTANCE_TERMINATING");
        let by_rule = only(&event("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action", &ends));
        let mut raw = ends.clone();
        raw["Time"] = json!("2026-11-28T03:00:00.000Z");
        raw["Service"] = json!("AWS Auto Scaling");
        let Event::Signals(found) = &by_rule else { panic!("{by_rule:?}") };
        let SignalKind::Hook { hook, at_unix_ms } = &found[0].kind else { panic!("{found:?}") };
        assert_eq!((hook.group.as_str(), hook.name.as_str(), *at_unix_ms), ("farm", "drain", time() + 120_000));
        assert_eq!(only(&raw.to_string()), by_rule);
        let begins = detail("autoscaling:EC2_INSTANCE_LAUNCHING");
        assert_eq!(only(&begins.to_string()), Event::Ignored);
        assert!(matches!(only(&json!({ "LifecycleActionToken": "x" }).to_string()), Event::Unreadable { .. }));
    }

    #[test]
    fn a_health_event_names_several_instances_and_may_be_closed() {
        let entities = json!([{ "entityValue": "i-0123456789abcdef0" }, { "entityValue": "vol-1" },
                              { "entityValue": "arn:aws:ec2:us-east-1:1:instance/i-0123456789abcdef1" }]);
        let detail = |status: &str, category: &str| {
            json!({ "service": "EC2", "eventTypeCategory": category, "statusCode": status,
                    "eventTypeCode": "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED",
                    "startTime": "Sat, 05 Jun 2016 15:10:09 GMT", "affectedEntities": entities.clone() })
        };
        let Event::Signals(found) =
            only(&event("aws.health", "AWS Health Event", &detail("upcoming", "scheduledChange")))
        else {
            panic!()
        };
        let at_unix_ms = rfc3339("2016-06-05T15:10:09Z").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].instance, "i-0123456789abcdef1");
        assert_eq!(found[0].kind, SignalKind::Maintenance { at_unix_ms });
        let over = only(&event("aws.health", "AWS Health Event", &detail("closed", "scheduledChange")));
        assert!(matches!(over, Event::Signals(found) if found[0].kind == SignalKind::MaintenanceOver));
        let issue = only(&event("aws.health", "AWS Health Event", &detail("open", "issue")));
        assert_eq!(issue, Event::Ignored);
    }

    #[test]
    fn missing_fields_unknown_events_and_unreadable_text_are_distinguished() {
        // moto's events have no account; AWS's own example of a state change has no version.
        let bare = json!({ "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning",
                           "detail": { "instance-id": "i-0123456789abcdef0" } });
        let at_unix_ms = NOW + 120_000;
        assert_eq!(only(&bare.to_string()), signal(SignalKind::Interruption { at_unix_ms }, "spot: terminate"));
        assert_eq!(only(&event("aws.ec2", "EC2 Something New", &json!({}))), Event::Ignored);
        assert_eq!(only(&json!({ "Event": "autoscaling:TEST_NOTIFICATION" }).to_string()), Event::Ignored);
        let no_id = event("aws.ec2", "EC2 Instance Rebalance Recommendation", &json!({ "instance-id": "-rf" }));
        for body in ["", "hello", "{}", "[]", "null", no_id.as_str()] {
            assert!(matches!(only(body), Event::Unreadable { .. }), "{body:?}");
        }
    }

    fn warning(instance: &str) -> Value {
        let detail = json!({ "instance-id": instance, "instance-action": "terminate" });
        serde_json::from_str(&event("aws.ec2", "EC2 Spot Instance Interruption Warning", &detail)).unwrap()
    }

    fn sns(message: &str) -> Value {
        json!({ "Type": "Notification", "MessageId": "22b80b92", "TopicArn": "arn:aws:sns:us-east-1:1:ends",
                "Subject": "x", "Message": message, "Timestamp": "2026-11-28T03:00:00.000Z", "SignatureVersion": "1",
                "Signature": "x", "SigningCertURL": "https://x", "UnsubscribeURL": "https://x" })
    }

    #[test]
    fn an_event_is_the_same_raw_and_wrapped_by_sns() {
        let raw = warning("i-0123456789abcdef0").to_string();
        let expected = only(&raw);
        assert!(matches!(&expected, Event::Signals(found) if found.len() == 1), "{expected:?}");
        assert_eq!(only(&sns(&raw).to_string()), expected);
        assert_eq!(only(&sns(&sns(&raw).to_string()).to_string()), expected, "a topic behind a topic");
        // The envelope's time stands in for a time that the event lacks.
        let hook = json!({ "LifecycleActionToken": "x", "AutoScalingGroupName": "farm", "LifecycleHookName": "drain",
                           "EC2InstanceId": "i-0123456789abcdef0",
                           "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING" });
        let Event::Signals(found) = only(&sns(&hook.to_string()).to_string()) else { panic!() };
        let SignalKind::Hook { at_unix_ms, .. } = &found[0].kind else { panic!("{found:?}") };
        assert_eq!(*at_unix_ms, time() + 120_000);
        let unconfirmed = json!({ "Type": "SubscriptionConfirmation", "TopicArn": "arn:aws:sns:us-east-1:1:ends",
                                  "Token": "secret", "Message": "You have chosen to subscribe",
                                  "SubscribeURL": "https://x" });
        assert_eq!(only(&unconfirmed.to_string()), Event::Unconfirmed { topic: "arn:aws:sns:us-east-1:1:ends".into() });
        let mut nested = raw;
        for _ in 0..=ENVELOPES_MAX {
            nested = sns(&nested).to_string();
        }
        assert!(matches!(only(&nested), Event::Unreadable { .. }), "the depth is limited");
    }

    #[test]
    fn test_messages_of_services_are_ignored() {
        let s3 = json!({ "Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2014-10-13T15:57:02.089Z",
                         "Bucket": "b", "RequestId": "x", "HostId": "x" });
        let group = json!({ "AccountId": "1", "RequestId": "x", "AutoScalingGroupARN": "x", "AutoScalingGroupName": "farm",
                            "Service": "AWS Auto Scaling", "Event": "autoscaling:TEST_NOTIFICATION" });
        let bus = event("my.application", "test", &json!({ "key": "value" }));
        let upload = json!({ "Records": [{ "eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {} }] });
        for body in [s3.to_string(), group.to_string(), bus, upload.to_string()] {
            assert_eq!(only(&body), Event::Ignored, "{body}");
            assert_eq!(only(&sns(&body).to_string()), Event::Ignored, "{body}");
        }
    }

    #[test]
    fn several_events_in_one_body_are_all_parsed() {
        let (one, two) = (warning("i-0123456789abcdef0"), warning("i-0123456789abcdef1"));
        let expected = [only(&one.to_string()), only(&two.to_string())];
        let list = json!([one.clone(), two.clone()]).to_string();
        for body in [
            list.clone(),
            format!("{one}\n{two}\n"),
            sns(&list).to_string(),
            json!({ "Records": [{ "EventSource": "aws:sns", "Sns": sns(&one.to_string()) },
                                { "eventSource": "aws:sqs", "body": two.to_string() }] })
            .to_string(),
        ] {
            assert_eq!(read(&body, NOW), expected, "{body}");
        }
        // An unreadable event does not affect the other events of its message.
        let mixed = read(&format!("{one} {{\"half\": "), NOW);
        assert_eq!((mixed.len(), &mixed[0]), (2, &expected[0]), "{mixed:?}");
        assert!(matches!(&mixed[1], Event::Unreadable { .. }), "{mixed:?}");
        let mut nested = one.to_string();
        for _ in 0..=ENVELOPES_MAX {
            nested = format!("[{nested}]");
        }
        assert!(matches!(only(&nested), Event::Unreadable { .. }), "the depth is limited");
    }
}
