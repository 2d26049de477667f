//! The result file: its values by evidence, and its writing.

use super::*;
use crate::cli::ui::ColorChoice;
use clap::Parser;
use std::collections::HashMap;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    contract: Contract,
}

fn contract(args: &[&str]) -> Contract {
    Line::try_parse_from(std::iter::once("x").chain(args.iter().copied())).ok().unwrap().contract
}

fn record(args: &[&str]) -> Record {
    let request = pb::LeaseRequest {
        request_id: "req-1".into(),
        holder: "https://ci/7\n".into(),
        work: "job@1".into(),
        ..pb::LeaseRequest::default()
    };
    Record::begin(Ui::new(false, ColorChoice::Never), &contract(args), &request, None).unwrap()
}

fn active() -> pb::Lease {
    let more = HashMap::from([("machine".to_string(), "hosts/a".to_string())]);
    pb::Lease {
        id: "lse_1".into(),
        state: pb::LeaseState::Active.into(),
        resource_id: "res_1".into(),
        pool: "hosts".into(),
        access: Some(pb::Access { more, commit: "abc".into(), ..pb::Access::default() }),
        ..pb::Lease::default()
    }
}

fn released(outcome: pb::Outcome, fault: Option<pb::finding::Fault>) -> pb::Lease {
    let finding = fault.map(|fault| pb::Finding { fault: fault.into(), detail: "evidence\u{1b}[31m".into() });
    pb::Lease { state: pb::LeaseState::Released.into(), outcome: outcome.into(), finding, ..active() }
}

fn broken(reason: &str) -> Lost {
    let cause = |reason: &str| pb::Cause { subject: "res_1".into(), reason: reason.into(), ..pb::Cause::default() };
    let causes = vec![cause("PARENT_GONE"), cause(reason)];
    Lost::Ended(Arc::new(pb::Lease { state: pb::LeaseState::Broken.into(), causes, ..active() }))
}

fn judged(record: &Record, ended: &Result<End, Failure>) -> (String, String, bool) {
    let state = record.lock();
    let said = state.json(ended, state.contract.exit(ended));
    let word = |key: &str| said[key].as_str().unwrap().to_string();
    (word("ended"), word("fault"), said["retry"].as_bool().unwrap())
}

fn one(change: impl FnOnce(&Record)) -> Record {
    let record = record(&[]);
    record.asked(&pb::Lease { state: pb::LeaseState::Queued.into(), ..active() });
    record.active(&active());
    change(&record);
    record
}

#[test]
fn fault_is_by_evidence() {
    use pb::finding::Fault as F;
    let failed = || Ok(End::Command(CommandExit::Code(3)));
    let lost = || Err(Failure::new(Exit::Lost, "the lease was lost for good: tried 3 times"));
    let after = |fault| move |record: &Record| record.released(&released(pb::Outcome::Failed, Some(fault)));
    let expect = |record: Record, ended: Result<End, Failure>, all: (&str, &str, bool)| {
        assert_eq!(judged(&record, &ended), (all.0.into(), all.1.into(), all.2), "{ended:?}");
    };
    expect(one(|_| ()), Ok(End::Command(CommandExit::Code(0))), ("command", "NONE", false));
    expect(one(|_| ()), failed(), ("command", "UNDECIDED", false));
    expect(one(after(F::Undecided)), failed(), ("command", "UNDECIDED", false));
    expect(one(after(F::Work)), failed(), ("command", "WORK", false));
    expect(one(after(F::Resource)), failed(), ("command", "RESOURCE", true));
    expect(one(after(F::Open)), failed(), ("command", "OPEN", false));
    expect(one(after(F::Undecided)), Ok(End::NotStarted), ("command", "UNDECIDED", false));
    expect(one(after(F::Undecided)), Ok(End::Command(CommandExit::TimedOut)), ("timeout", "UNDECIDED", false));
    expect(one(|r| r.lost(&broken("RESOURCE_GONE"))), lost(), ("lost", "RESOURCE", true));
    expect(one(|r| r.lost(&broken("OPERATOR"))), lost(), ("lost", "SERVICE", true));
    expect(one(|r| r.lost(&broken("WORK_BLAMED"))), Ok(End::Blamed(None)), ("blamed", "WORK", false));
    let contact = Lost::NoContact(Arc::new(active()));
    expect(one(|r| r.lost(&contact)), lost(), ("lost", "SERVICE", true));
    let by_another = Lost::Ended(Arc::new(released(pb::Outcome::Ok, None)));
    expect(one(|r| r.lost(&by_another)), lost(), ("lost", "NONE", false));
    let unreached = |r: &Record| {
        r.unreached("lse_1", "not reached from here: no route");
        r.released(&released(pb::Outcome::Ok, None));
    };
    expect(one(unreached), lost(), ("lost", "SERVICE", true));
    expect(record(&[]), Err(Failure::new(Exit::Unavailable, "no server")), ("failed", "SERVICE", true));
    expect(record(&[]), Err(Failure::new(Exit::BadData, "no such pool")), ("refused", "REQUEST", false));
    expect(record(&[]), Ok(End::Cancelled(Signal::Int)), ("cancelled", "NONE", false));
}

#[test]
fn an_attempt_tells_its_whole_story_and_drives_no_terminal() {
    let record = one(|record| {
        record.command("lse_1", &CommandExit::Signal("KILL".into()), "signal KILL");
        record.released(&released(pb::Outcome::Failed, Some(pb::finding::Fault::Undecided)));
    });
    let state = record.lock();
    let said = state.json(&Ok(End::Command(CommandExit::Signal("KILL".into()))), Exit::Command(137));
    assert!(!said.to_string().contains("\\u001b") && !said.to_string().contains("\\n"), "{said}");
    for (field, value) in [
        ("version", json!(1)),
        ("exits_with", json!(137)),
        ("exit_code", Value::Null),
        ("signal", json!("KILL")),
        ("holder", json!("https://ci/7")),
        ("lease", json!("lse_1")),
        ("machine", json!("hosts/a")),
        ("commit", json!("abc")),
        ("error", Value::Null),
        ("why", json!("wharfinger why lse_1")),
    ] {
        assert_eq!(said[field], value, "{field}");
    }
    let attempt = &said["attempts"][0];
    assert_eq!((&attempt["state"], &attempt["outcome"]), (&json!("RELEASED"), &json!("FAILED")));
    assert_eq!(attempt["why_ended"], "the command ended with signal KILL");
    assert!(attempt["ran_ms"].is_u64() && attempt["waited_ms"].is_u64(), "{attempt}");
}

#[test]
fn the_file_is_whole_or_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.json");
    std::fs::write(&path, "old").unwrap();
    let text = path.to_str().unwrap();
    let record = record(&["--result", text, "--exit-lost", "9"]);
    assert!(!path.exists(), "one of an earlier run is removed");
    let failure = record.finish(Err(Failure::new(Exit::Lost, "gone").remedy("again"))).unwrap_err();
    assert_eq!(failure.exit.code(), 9);
    let said: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(
        (&said["ended"], &said["exits_with"], &said["error"]["remedy"]),
        (&json!("lost"), &json!(9), &json!("again"))
    );
    // The first word counts.
    record.cut_short(Signal::Term);
    let again: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(again["ended"], "lost");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn a_file_that_cannot_be_written_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let request = pb::LeaseRequest::default();
    for path in [folder.path().join("no/such/r.json"), folder.path().to_path_buf(), "/dev/null".into()] {
        let contract = contract(&["--result", path.to_str().unwrap()]);
        let failure = Record::begin(Ui::new(false, ColorChoice::Never), &contract, &request, None).unwrap_err();
        assert_eq!(failure.exit, Exit::BadData);
        assert!(failure.message.contains("cannot be written"), "{}", failure.message);
    }
    assert!(Path::new("/dev/null").exists());
}

#[test]
fn a_long_text_is_cut_between_characters() {
    let cut = clean(&"ä".repeat(4000));
    assert!(cut.len() <= TEXT_BYTES_MAX && cut.chars().all(|c| c == 'ä'));
}
