use crate::client::{Client, ClientError};
use crate::pb;
use crate::pb::lease_service_client::LeaseServiceClient;
use crate::rpc::PoolCredentials;
use crate::rpc::testing::{Broker, broker};
use crate::rpc::tests::{active, wanted};
use async_trait::async_trait;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tonic_types::StatusExt;
use wharfinger_adapter::Failure;
use wharfinger_adapter::login::{Certificate, CertificateSource, LoginJob};

/// Signs nothing: it keeps what it was asked, and answers as the key says.
#[derive(Clone, Default)]
struct Source(Arc<Mutex<Vec<LoginJob>>>, Arc<Notify>);

#[async_trait]
impl CertificateSource for Source {
    async fn certify(&self, job: &LoginJob) -> Result<Certificate, Failure> {
        self.0.lock().unwrap().push(job.clone());
        match job.public_key.as_str() {
            "refuse" => Err(Failure::request("KEY_REFUSED", "this key is bad")),
            "fail" => Err(Failure::configuration("CA_UNUSABLE", "/etc/ca: MARKED")),
            "hang" => std::future::pending().await,
            "slow" => {
                self.1.notified().await;
                Ok(Certificate { text: "signed".into(), valid_before: job.now + 100 })
            }
            _ => Ok(Certificate { text: "signed".into(), valid_before: job.now + 100 }),
        }
    }
}

async fn signing() -> (Broker, Client, Source) {
    let broker = broker(1, 1).await;
    let source = Source::default();
    broker.credentials.set("p", PoolCredentials::Certificates(Arc::new(source.clone())));
    let client = broker.client().await;
    (broker, client, source)
}

fn reason(error: &ClientError) -> String {
    let status = match error {
        ClientError::Unavailable(status)
        | ClientError::Request(status)
        | ClientError::State(status)
        | ClientError::NotFound(status)
        | ClientError::Bug(status) => status,
        other => panic!("{other:?}"),
    };
    status.get_details_error_info().unwrap().reason
}

#[tokio::test]
async fn a_holder_gets_a_certificate_for_its_own_lease_while_it_is_active() {
    let (_broker, client, source) = signing().await;
    let lease = active(&client, "a").await;
    assert_eq!((&lease.credentials, &lease.missing_credentials), (&None, &None), "no answer carries a secret");
    let answer = client.login(&lease.id, "key").await.unwrap();
    assert_eq!(answer.certificate, "signed");
    let job = source.0.lock().unwrap()[0].clone();
    assert_eq!((&job.lease, job.token, &*job.pool, &*job.tenant), (&lease.id, lease.fencing_token, "p", "default"));
    let expires = u64::try_from(lease.expires_at.unwrap().seconds).unwrap();
    assert!(job.expires_at.abs_diff(expires) <= 1 && job.now < expires && expires <= job.now + 61, "{job:?} {expires}");
    let seconds = |at: Option<prost_types::Timestamp>| u64::try_from(at.unwrap().seconds).unwrap();
    assert_eq!(seconds(answer.valid_before), job.now + 100);
    assert_eq!(seconds(answer.renew_at), job.now + 50, "half of its life");

    // Another lease waits, and the refusal says so.
    let waits = client.lease(wanted("b")).await.unwrap().lease.unwrap();
    assert_eq!(reason(&client.login(&waits.id, "key").await.unwrap_err()), "LEASE_NOT_ACTIVE");
    client.release(&lease.id, pb::Outcome::Ok, "").await.unwrap();
    assert_eq!(reason(&client.login(&lease.id, "key").await.unwrap_err()), "LEASE_ENDED");
    assert_eq!(reason(&client.login("lse_00000000000000000000000000", "key").await.unwrap_err()), "UNKNOWN_LEASE");
    assert_eq!(source.0.lock().unwrap().len(), 1, "nothing is signed for those");
}

/// N137: the lease is looked at again after the signature.
#[tokio::test]
async fn a_lease_that_ends_while_its_certificate_is_signed_gets_none() {
    let (_broker, client, source) = signing().await;
    for (ends, number) in [(false, 1), (true, 2)] {
        let lease = active(&client, if ends { "ends" } else { "stays" }).await;
        let login = client.login(&lease.id, "slow");
        let meanwhile = async {
            while source.0.lock().unwrap().len() < number {
                tokio::task::yield_now().await;
            }
            if ends {
                client.release(&lease.id, pb::Outcome::Ok, "").await.unwrap();
            }
            source.1.notify_one();
        };
        let (answer, ()) = tokio::join!(login, meanwhile);
        if ends {
            assert_eq!(reason(&answer.unwrap_err()), "LEASE_ENDED");
        } else {
            assert_eq!(answer.unwrap().certificate, "signed");
            client.release(&lease.id, pb::Outcome::Ok, "").await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_refusal_says_who_must_act_and_names_no_file_of_the_server() {
    let (broker, client, _) = signing().await;
    let lease = active(&client, "a").await;
    let refused = client.login(&lease.id, "refuse").await.unwrap_err();
    assert_eq!(reason(&refused), "KEY_REFUSED");
    assert!(refused.to_string().contains("this key is bad"), "{refused}");
    // The generated client: this one would try again.
    let mut plain = LeaseServiceClient::connect(format!("http://{}", broker.server.address)).await.unwrap();
    for key in ["fail", "hang"] {
        let request = pb::LoginRequest { lease_id: lease.id.clone(), public_key: key.into() };
        let status = plain.login(request).await.unwrap_err();
        let info = status.get_details_error_info().unwrap();
        assert!(["CA_UNUSABLE", "TIMED_OUT"].contains(&&*info.reason), "{status:?}");
        assert!(!status.message().contains("MARKED"), "{status:?}");
    }
    broker.credentials.set("p", PoolCredentials::None);
    assert_eq!(reason(&client.login(&lease.id, "key").await.unwrap_err()), "NO_CERTIFICATES");
}
