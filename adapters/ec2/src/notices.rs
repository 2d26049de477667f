//! What EventBridge puts into the queue, read and brought to one form.
//!
//! Shapes as in the EC2 User Guide («Spot Instance interruption notices», «EC2 instance rebalance recommendations»,
//! «Monitor instance state changes») and the AWS Health User Guide. Fields that are not needed may be missing, and fields
//! that are not known are skipped; an instance's id is taken from `detail`, never from an ARN.

use crate::cloud::State;
use serde::Deserialize;
use serde_json::Value;

/// From the notice to the end, as the User Guide has it for `terminate` and `stop`.
const WARNING_MS: i64 = 120_000;

/// What is said of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signal {
    /// Of which.
    pub instance: String,
    /// What.
    pub kind: SignalKind,
    /// In words.
    pub detail: String,
}

/// Kinds of signals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// Spot takes it away at this time (milliseconds since the epoch).
    Interruption {
        /// When.
        at_unix_ms: i64,
    },
    /// It may be taken away.
    Rebalance,
    /// Planned work at this time (milliseconds since the epoch).
    Maintenance {
        /// When.
        at_unix_ms: i64,
    },
    /// The planned work is over, or called off.
    MaintenanceOver,
    /// It is in this state now.
    State(State),
    /// An Auto Scaling group is about to end it, and waits for leave to do so.
    Hook {
        /// What the group waits for.
        hook: Hook,
        /// Leave is given then, whoever still works (milliseconds since the epoch).
        at_unix_ms: i64,
    },
}

/// A lifecycle hook of an Auto Scaling group that waits, for one instance.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Hook {
    /// The group.
    #[serde(rename = "AutoScalingGroupName")]
    pub group: String,
    /// The hook.
    #[serde(rename = "LifecycleHookName")]
    pub name: String,
    /// Names this very transition.
    #[serde(rename = "LifecycleActionToken")]
    pub token: String,
    /// Of which instance.
    #[serde(rename = "EC2InstanceId")]
    pub instance: String,
    #[serde(rename = "LifecycleTransition")]
    transition: String,
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Of these instances.
    Signals(Vec<Signal>),
    /// Nothing of interest.
    Nothing,
    /// It can not be read, and why.
    Unreadable(String),
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

/// Reads one message; `now_unix_ms` stands in for a time that is missing.
pub fn read(body: &str, now_unix_ms: i64) -> Said {
    let value: Value = match serde_json::from_str(body) {
        Ok(value) => value,
        Err(error) => return Said::Unreadable(format!("no JSON: {error}")),
    };
    // Auto Scaling tests its hook with a message that has no envelope.
    if value.get("Event").is_some_and(|event| event == "autoscaling:TEST_NOTIFICATION") {
        return Said::Nothing;
    }
    // The hook itself comes without one, if it notifies the queue and no rule does.
    if value.get("LifecycleActionToken").is_some() {
        let time = value.get("Time").and_then(Value::as_str).and_then(rfc3339).unwrap_or(now_unix_ms);
        return hook(&value, time);
    }
    let envelope: Envelope = match serde_json::from_value(value) {
        Ok(envelope) => envelope,
        Err(error) => return Said::Unreadable(format!("no event: {error}")),
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
                return Said::Unreadable("a state change without a state".to_string());
            };
            one(detail, SignalKind::State(State::from_name(state)), format!("EC2 says: {state}"))
        }
        ("aws.health", "AWS Health Event") => health(detail, time),
        ("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action") => hook(detail, time),
        _ => Said::Nothing,
    }
}

/// Only the end of an instance is ours to hold up.
fn hook(detail: &Value, time: i64) -> Said {
    match serde_json::from_value::<Hook>(detail.clone()) {
        Ok(hook) if hook.transition != "autoscaling:EC2_INSTANCE_TERMINATING" => Said::Nothing,
        Ok(hook) if is_instance(&hook.instance) => {
            let (instance, detail) = (hook.instance.clone(), format!("Auto Scaling group {} ends it", hook.group));
            let kind = SignalKind::Hook { hook, at_unix_ms: time.saturating_add(WARNING_MS) };
            Said::Signals(vec![Signal { instance, kind, detail }])
        }
        Ok(_) => Said::Unreadable("no instance-id".to_string()),
        Err(error) => Said::Unreadable(format!("no lifecycle hook: {error}")),
    }
}

fn interruption(detail: &Value, time: i64) -> Said {
    let action = detail.get("instance-action").and_then(Value::as_str).unwrap_or("terminate");
    // One that hibernates begins at once.
    let ends = match detail.get("instance-termination-time").and_then(Value::as_str).and_then(rfc3339) {
        Some(told) => told,
        None if action == "hibernate" => time,
        None => time.saturating_add(WARNING_MS),
    };
    one(detail, SignalKind::Interruption { at_unix_ms: ends }, format!("spot: {action}"))
}

fn one(detail: &Value, kind: SignalKind, words: String) -> Said {
    match detail.get("instance-id").and_then(Value::as_str).filter(|id| is_instance(id)) {
        Some(instance) => Said::Signals(vec![Signal { instance: instance.to_string(), kind, detail: words }]),
        None => Said::Unreadable("no instance-id".to_string()),
    }
}

fn health(detail: &Value, time: i64) -> Said {
    let text = |key: &str| detail.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("service") != "EC2" || text("eventTypeCategory") != "scheduledChange" {
        return Said::Nothing;
    }
    let code = text("eventTypeCode");
    let over = text("statusCode") == "closed";
    let at_unix_ms = rfc2822(text("startTime")).or_else(|| rfc3339(text("startTime"))).unwrap_or(time);
    let entities = detail.get("affectedEntities").and_then(Value::as_array).into_iter().flatten();
    let signals: Vec<Signal> = entities
        .filter_map(|entity| entity.get("entityValue").and_then(Value::as_str))
        // Some come as ARNs.
        .filter_map(|value| value.rsplit(['/', ':']).next())
        .filter(|id| is_instance(id))
        .map(|instance| Signal {
            instance: instance.to_string(),
            kind: if over { SignalKind::MaintenanceOver } else { SignalKind::Maintenance { at_unix_ms } },
            detail: code.to_string(),
        })
        .collect();
    if signals.is_empty() { Said::Nothing } else { Said::Signals(signals) }
}

fn is_instance(id: &str) -> bool {
    id.strip_prefix("i-")
        .is_some_and(|rest| (8..=32).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Milliseconds since the epoch.
pub(crate) fn rfc3339(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// `Sat, 05 Jun 2016 15:10:09 GMT`, of which AWS's own example has the wrong weekday.
fn rfc2822(text: &str) -> Option<i64> {
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    parser.parse_timestamp(text).ok().map(jiff::Timestamp::as_millisecond)
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

    fn signal(kind: SignalKind, detail: &str) -> Said {
        Said::Signals(vec![Signal { instance: "i-0123456789abcdef0".into(), kind, detail: detail.into() }])
    }

    #[test]
    fn each_kind_is_read() {
        let id = "i-0123456789abcdef0";
        let spot = |action: &str| {
            let detail = json!({ "instance-id": id, "instance-action": action });
            read(&event("aws.ec2", "EC2 Spot Instance Interruption Warning", &detail), NOW)
        };
        let at_unix_ms = time() + 120_000;
        assert_eq!(spot("terminate"), signal(SignalKind::Interruption { at_unix_ms }, "spot: terminate"));
        let at_unix_ms = time();
        assert_eq!(spot("hibernate"), signal(SignalKind::Interruption { at_unix_ms }, "spot: hibernate"));
        let detail = json!({ "instance-id": id });
        assert_eq!(
            read(&event("aws.ec2", "EC2 Instance Rebalance Recommendation", &detail), NOW),
            signal(SignalKind::Rebalance, "rebalance recommended")
        );
        let detail = json!({ "instance-id": id, "state": "shutting-down" });
        assert_eq!(
            read(&event("aws.ec2", "EC2 Instance State-change Notification", &detail), NOW),
            signal(SignalKind::State(State::ShuttingDown), "EC2 says: shutting-down")
        );
    }

    #[test]
    fn a_lifecycle_hook_is_read_with_and_without_an_envelope() {
        let detail = |transition: &str| {
            json!({ "LifecycleActionToken": "87654321-4321-4321-4321-210987654321", "AutoScalingGroupName": "farm",
                    "LifecycleHookName": "drain", "EC2InstanceId": "i-0123456789abcdef0",
                    "LifecycleTransition": transition, "NotificationMetadata": "x", "Origin": "AutoScalingGroup" })
        };
        let ends = detail("autoscaling:EC2_INSTANCE_TERMINATING");
        let by_rule = read(&event("aws.autoscaling", "EC2 Instance-terminate Lifecycle Action", &ends), NOW);
        let mut raw = ends.clone();
        raw["Time"] = json!("2026-11-28T03:00:00.000Z");
        raw["Service"] = json!("AWS Auto Scaling");
        let Said::Signals(found) = &by_rule else { panic!("{by_rule:?}") };
        let SignalKind::Hook { hook, at_unix_ms } = &found[0].kind else { panic!("{found:?}") };
        assert_eq!((hook.group.as_str(), hook.name.as_str(), *at_unix_ms), ("farm", "drain", time() + 120_000));
        assert_eq!(read(&raw.to_string(), NOW), by_rule);
        let begins = detail("autoscaling:EC2_INSTANCE_LAUNCHING");
        assert_eq!(read(&begins.to_string(), NOW), Said::Nothing);
        assert!(matches!(read(&json!({ "LifecycleActionToken": "x" }).to_string(), NOW), Said::Unreadable(_)));
    }

    #[test]
    fn a_health_event_names_several_and_may_be_over() {
        let entities = json!([{ "entityValue": "i-0123456789abcdef0" }, { "entityValue": "vol-1" },
                              { "entityValue": "arn:aws:ec2:us-east-1:1:instance/i-0123456789abcdef1" }]);
        let detail = |status: &str, category: &str| {
            json!({ "service": "EC2", "eventTypeCategory": category, "statusCode": status,
                    "eventTypeCode": "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED",
                    "startTime": "Sat, 05 Jun 2016 15:10:09 GMT", "affectedEntities": entities.clone() })
        };
        let Said::Signals(found) =
            read(&event("aws.health", "AWS Health Event", &detail("upcoming", "scheduledChange")), NOW)
        else {
            panic!()
        };
        let at_unix_ms = rfc3339("2016-06-05T15:10:09Z").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].instance, "i-0123456789abcdef1");
        assert_eq!(found[0].kind, SignalKind::Maintenance { at_unix_ms });
        let over = read(&event("aws.health", "AWS Health Event", &detail("closed", "scheduledChange")), NOW);
        assert!(matches!(over, Said::Signals(found) if found[0].kind == SignalKind::MaintenanceOver));
        let issue = read(&event("aws.health", "AWS Health Event", &detail("open", "issue")), NOW);
        assert_eq!(issue, Said::Nothing);
    }

    #[test]
    fn what_is_missing_unknown_or_no_event_is_told_apart() {
        // moto's events have no account; AWS's own example of a state change has no version.
        let bare = json!({ "source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning",
                           "detail": { "instance-id": "i-0123456789abcdef0" } });
        let at_unix_ms = NOW + 120_000;
        assert_eq!(read(&bare.to_string(), NOW), signal(SignalKind::Interruption { at_unix_ms }, "spot: terminate"));
        assert_eq!(read(&event("aws.ec2", "EC2 Something New", &json!({})), NOW), Said::Nothing);
        assert_eq!(read(&json!({ "Event": "autoscaling:TEST_NOTIFICATION" }).to_string(), NOW), Said::Nothing);
        let no_id = event("aws.ec2", "EC2 Instance Rebalance Recommendation", &json!({ "instance-id": "-rf" }));
        for body in ["", "hello", "{}", "[]", "null", no_id.as_str()] {
            assert!(matches!(read(body, NOW), Said::Unreadable(_)), "{body:?}");
        }
    }
}
