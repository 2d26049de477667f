use super::*;
use crate::Client;
use crate::pb;
use crate::pb::LeaseState;
use crate::testing::{Broker, bookmark, lease};
use std::time::Duration;
use tonic_types::{ErrorDetails, StatusExt};

fn stands_by(leader: Option<String>) -> Status {
    let metadata: std::collections::HashMap<String, String> =
        leader.into_iter().map(|leader| ("leader".to_string(), leader)).collect();
    let mut details = ErrorDetails::with_error_info("NOT_LEADER", "wharfinger", metadata);
    details.set_retry_info(Some(Duration::from_millis(1)));
    Status::with_error_details(Code::Unavailable, "this server stands by", details)
}

fn answers(broker: &Broker, revision: u64) {
    let found = pb::GetResponse { lease: Some(lease(revision, LeaseState::Active)), revision: 0 };
    broker.script.get.lock().unwrap().push_back(Ok(found));
}

fn refuses(broker: &Broker, leader: Option<&Broker>) {
    let leader = leader.map(|leader| format!("http://{}", leader.address));
    broker.script.get.lock().unwrap().push_back(Err(stands_by(leader)));
}

fn client(brokers: &[&Broker]) -> Client {
    let list: Vec<String> = brokers.iter().map(|broker| broker.address.to_string()).collect();
    let options = ClientOptions { retry_for: Duration::from_secs(20), ..ClientOptions::default() };
    Client::connect_lazy(&list.join(","), options).unwrap()
}

#[tokio::test]
async fn the_leader_is_found_by_what_others_say_also_if_it_was_not_named() {
    let (a, b) = (Broker::start().await, Broker::start().await);
    refuses(&a, Some(&b));
    answers(&b, 7);
    let both = client(&[&a, &b]);
    let options =
        ClientOptions { retry_for: Duration::from_secs(20), follow: Follow::SameHosts, ..ClientOptions::default() };
    let one = Client::connect_lazy(&a.address.to_string(), options).unwrap();
    for client in [both, one] {
        for _ in 0..3 {
            assert_eq!(client.get("l").await.unwrap().revision, 7);
        }
    }
}

/// A stranger that answers as a server can name any address.
#[tokio::test]
async fn a_refusal_leads_to_no_server_that_the_client_may_not_follow() {
    for (follow, elsewhere) in [
        (Follow::Listed, "127.0.0.1"),
        (Follow::Listed, "127.0.0.2"),
        (Follow::SameHosts, "127.0.0.2"),
        (Follow::SameHosts, "[::1]"),
    ] {
        let Ok(stranger) = tokio::net::TcpListener::bind(format!("{elsewhere}:0")).await else {
            assert_eq!(elsewhere, "[::1]", "loopback has these addresses");
            continue;
        };
        let port = stranger.local_addr().unwrap().port();
        let broker = Broker::start().await;
        for _ in 0..4 {
            let status = stands_by(Some(format!("http://{elsewhere}:{port}")));
            broker.script.get.lock().unwrap().push_back(Err(status));
        }
        let options = ClientOptions { retry_for: Duration::ZERO, follow, ..ClientOptions::default() };
        let client = Client::connect_lazy(&broker.address.to_string(), options).unwrap();
        let refused = client.get("l").await.unwrap_err();
        assert_eq!(error::reason(refused.status().unwrap()).as_deref(), Some("NOT_LEADER"), "{refused}");
        let called = tokio::time::timeout(Duration::from_millis(50), stranger.accept()).await;
        assert!(called.is_err(), "{follow:?} leads to {elsewhere}");
    }
}

/// Others could read it on its way.
#[tokio::test]
async fn a_token_is_sent_to_this_machine_and_to_no_other() {
    for (address, here) in [
        ("127.0.0.1:1", true),
        ("127.8.8.8:1", true),
        ("[::1]:1", true),
        ("localhost:1", false),
        ("10.0.0.1:1", false),
        ("127.0.0.1.example.org:1", false),
        ("[2001:db8::1]:1", false),
    ] {
        assert_eq!(is_here(address), here, "{address}");
    }
    let token = AuthToken::new(" wfk_a_b_c\n").unwrap();
    assert_eq!(format!("{token:?}"), "AuthToken(..)");
    assert_eq!((AuthToken::new(""), AuthToken::new("a b"), AuthToken::new("a\u{e4}")), (None, None, None));
    let options = ClientOptions { retry_for: Duration::ZERO, token: Some(token), ..ClientOptions::default() };
    let client = Client::connect_lazy("192.0.2.1:1", options).unwrap();
    let refused = client.get("l").await.unwrap_err();
    assert!(refused.to_string().contains("is not sent to 192.0.2.1:1"), "{refused}");
}

/// Sockets are files of this machine: a list names them, and no answer does.
#[tokio::test]
async fn a_unix_socket_is_used_if_it_is_listed_and_no_answer_leads_to_one() {
    let folder = std::env::temp_dir().join(format!("w-client-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("w.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let options = ClientOptions {
        retry_for: Duration::ZERO,
        call_timeout: Duration::from_secs(2),
        follow: Follow::Anywhere,
        ..ClientOptions::default()
    };
    let socket = format!("unix://{}", path.display());
    for leads in [false, true] {
        let broker = Broker::start().await;
        for _ in 0..4 {
            broker.script.get.lock().unwrap().push_back(Err(stands_by(Some(socket.clone()))));
        }
        let list = if leads { format!("{},{socket}", broker.address) } else { broker.address.to_string() };
        let client = Client::connect_lazy(&list, options.clone()).unwrap();
        // The call ends by itself where it leads nowhere; the socket answers nothing.
        let called = tokio::select! {
            biased;
            called = listener.accept() => called.is_ok(),
            _ = client.get("l") => false,
        };
        assert_eq!(called, leads, "listed: {leads}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
    for wrong in ["unix://", "unix://relative", "unix:/path", "unix:///", "unix:///dir/", "tcp://a:1"] {
        assert!(Client::connect_lazy(wrong, options.clone()).is_err(), "{wrong}");
    }
}

/// As behind published ports: what servers call each other by leads nowhere from here.
#[tokio::test]
async fn a_leader_whose_own_address_leads_nowhere_is_found_in_the_list() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (a, b, c) = (Broker::start().await, Broker::start().await, Broker::start().await);
    for follower in [&a, &b] {
        for _ in 0..9 {
            let status = stands_by(Some(format!("http://{dead}")));
            follower.script.get.lock().unwrap().push_back(Err(status));
        }
    }
    answers(&c, 7);
    let list = [&a, &b, &c].map(|broker| broker.address.to_string()).join(",");
    let options = ClientOptions { retry_for: Duration::ZERO, ..ClientOptions::default() };
    let client = Client::connect_lazy(&list, options).unwrap();
    assert_eq!(client.get("l").await.unwrap().revision, 7);
}

#[tokio::test]
async fn a_server_that_names_no_leader_is_followed_by_the_next() {
    let (a, b, c) = (Broker::start().await, Broker::start().await, Broker::start().await);
    refuses(&a, None);
    refuses(&b, None);
    answers(&c, 9);
    assert_eq!(client(&[&a, &b, &c]).get("l").await.unwrap().revision, 9);
}

#[tokio::test]
async fn servers_that_all_stand_by_are_asked_again_later() {
    let (a, b) = (Broker::start().await, Broker::start().await);
    // Each says that the other leads, as they may while the lead changes.
    for _ in 0..6 {
        refuses(&a, Some(&b));
        refuses(&b, Some(&a));
    }
    answers(&a, 3);
    assert_eq!(client(&[&a, &b]).get("l").await.unwrap().revision, 3);
    // One try says so, and does not go round for ever.
    refuses(&b, Some(&a));
    let lonely = Broker::start().await;
    refuses(&lonely, None);
    let options = ClientOptions { retry_for: Duration::ZERO, ..ClientOptions::default() };
    let once = Client::connect_lazy(&lonely.address.to_string(), options).unwrap();
    assert_eq!(once.get("l").await.unwrap_err().reason().as_deref(), Some("NOT_LEADER"));
}

#[tokio::test]
async fn a_dead_server_is_passed_by_even_for_a_call_that_is_tried_once() {
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let live = Broker::start().await;
    answers(&live, 5);
    let options = ClientOptions { retry_for: Duration::ZERO, ..ClientOptions::default() };
    let client = Client::connect_lazy(&format!("{dead},{}", live.address), options).unwrap();
    assert_eq!(client.get("l").await.unwrap().revision, 5);
}

/// A server that takes calls and says nothing, as one that is stopped.
#[tokio::test]
async fn a_server_that_hangs_is_left_for_another() {
    let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let live = Broker::start().await;
    answers(&live, 5);
    let options = ClientOptions {
        call_timeout: Duration::from_millis(300),
        retry_for: Duration::from_secs(20),
        ..ClientOptions::default()
    };
    let list = format!("{},{}", deaf.local_addr().unwrap(), live.address);
    let client = Client::connect_lazy(&list, options).unwrap();
    assert_eq!(client.get("l").await.unwrap().revision, 5);
}

#[tokio::test]
async fn a_watch_goes_to_any_of_them() {
    let (mut a, mut b) = (Broker::start().await, Broker::start().await);
    refuses(&a, Some(&b));
    answers(&b, 7);
    let client = client(&[&a, &b]);
    client.get("l").await.unwrap();
    let mut watch = client.watch(pb::WatchRequest { from_revision: 4, ..pb::WatchRequest::default() });
    let reading = tokio::spawn(async move { watch.next().await.unwrap() });
    let (asked, tell) = tokio::select! {
        watch = a.watches.recv() => watch.unwrap(),
        watch = b.watches.recv() => watch.unwrap(),
    };
    assert_eq!(asked.from_revision, 4);
    tell.send(bookmark(8, true)).await.unwrap();
    assert_eq!(reading.await.unwrap(), crate::Watched::Synced { revision: 8 });
}
