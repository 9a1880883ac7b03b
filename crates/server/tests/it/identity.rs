//! Who may do what, by certificate.

use sigillo_proto::v1::{self, audit_client::AuditClient, query_client::QueryClient, sources_client::SourcesClient};
use sigillo_server::config::{Fingerprints, RoleName};
use tonic::{Code, Status, transport::Channel};

use crate::support::{Append, Chain, Fixture, attribute, configure, connect, line, write_config};

async fn attempts(channel: Channel) -> [Result<(), Code>; 6] {
    let code = |status: Status| status.code();
    let mut query = QueryClient::new(channel.clone());
    let mut audit = AuditClient::new(channel.clone());
    let mut sources = SourcesClient::new(channel.clone());
    [
        Append::open(channel).await.map(drop).map_err(code),
        audit.get_head(v1::GetHeadRequest {}).await.map(drop).map_err(code),
        query.search(v1::SearchRequest::default()).await.map(drop).map_err(code),
        query.tail(v1::TailRequest::default()).await.map(drop).map_err(code),
        audit.walk(v1::WalkRequest::default()).await.map(drop).map_err(code),
        sources.list(v1::ListSourcesRequest::default()).await.map(drop).map_err(code),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_opens_what_its_role_may_do() {
    const NO: Result<(), Code> = Err(Code::PermissionDenied);
    const WHO: Result<(), Code> = Err(Code::Unauthenticated);
    let roles = [
        (None, [NO, Ok(()), Ok(()), Ok(()), Ok(()), Ok(())]),
        (Some(RoleName::Investigator), [NO, Ok(()), Ok(()), Ok(()), NO, Ok(())]),
        (Some(RoleName::Operator), [NO, Ok(()), NO, NO, NO, Ok(())]),
    ];
    for (role, expected) in roles {
        let server = Fixture::start_with(|config| {
            config.sources.retain(|source| source.name != "dev-panel");
            if let Some(role) = role {
                config.readers[0].role = role;
            }
        })
        .await;
        assert_eq!(attempts(server.channel("reader").await).await, expected, "{role:?}");
        assert_eq!(attempts(server.channel("agent").await).await, [Ok(()), Ok(()), NO, NO, NO, NO]);
        // Of the right authority, but nobody that the configuration names.
        assert_eq!(attempts(server.channel("panel").await).await, [WHO; 6]);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_of_our_authority_there_is_no_connection() {
    let server = Fixture::start().await;
    let other = tempfile::tempdir().unwrap();
    configure(other.path(), |_| {});
    std::fs::copy(server.dir.path().join("ca.pem"), other.path().join("ca.pem")).unwrap();
    for name in [None, Some("agent")] {
        // In TLS 1.3 the client learns it with the first answer at the latest.
        let refused = match connect(server.address, other.path(), name).await {
            Err(_) => true,
            Ok(channel) => AuditClient::new(channel).get_head(v1::GetHeadRequest {}).await.is_err(),
        };
        assert!(refused, "{name:?}");
    }
    let head = server.audit().await.get_head(v1::GetHeadRequest {}).await;
    assert!(head.is_ok(), "{head:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_access_is_on_record_and_many_attempts_are_few_records() {
    const ATTEMPTS: usize = 50;
    let server = Fixture::start().await;
    let mut query = QueryClient::new(server.channel("agent").await);
    for _ in 0..ATTEMPTS {
        assert_eq!(query.search(v1::SearchRequest::default()).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let mut refused = server.events("access.refused").await;
    while refused.is_empty() {
        refused = server.events("access.refused").await;
    }
    assert!(refused.len() < ATTEMPTS / 2, "{} records", refused.len());
    let first = &refused[0];
    assert_eq!(attribute(first, "attempted"), "search");
    let actor = first.personal.clone().unwrap();
    assert_eq!((actor.actor.unwrap().id.as_str(), actor.client_address.as_str()), ("dev-agent", "127.0.0.1"));
    assert_eq!(first.core.clone().unwrap().target.unwrap().id.len(), 64);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standing_is_lost_in_an_open_stream() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let mut stream = server.append("agent").await;
    stream.receipt(chain.seal(&[line("one")])).await;

    let text = std::fs::read_to_string(server.dir.path().join("sigillod.toml")).unwrap();
    let mut config: sigillo_server::config::Config = toml::from_str(&text).unwrap();
    config.sources.retain(|source| source.name != "dev-agent");
    write_config(server.dir.path(), &config);
    server.controls.reload.notify_one();
    while server.events("config.loaded").await.len() < 2 {}
    // The new configuration comes into effect right after its record.
    while Append::open(server.channel("agent").await).await.is_ok() {}

    stream.send(v1::append_request::Message::Batch(chain.seal(&[line("two")]))).await;
    assert_eq!(stream.answer().await.unwrap_err().code(), Code::Unauthenticated);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_renewed_with_overlap() {
    // The source has two: what is the panel's elsewhere is its new one here.
    let mut certificates = Vec::new();
    let server = Fixture::start_with(|config| {
        let panel = config.sources.remove(1);
        for fingerprint in [&config.sources[0].fingerprint, &panel.fingerprint] {
            let Fingerprints::One(fingerprint) = fingerprint else { panic!("a list") };
            certificates.push(fingerprint.clone());
        }
        config.sources[0].fingerprint = Fingerprints::Several(certificates.clone());
    })
    .await;
    let mut chain = Chain::new("dev-agent");
    let (mut old, mut new) = (server.append("agent").await, server.append("panel").await);
    old.receipt(chain.seal(&[line("by the old one")])).await;
    new.receipt(chain.seal(&[line("by the new one")])).await;
    let mut beating = server.append("agent").await;
    assert_eq!(server.of_source("dev-agent").await.len(), 2);

    let text = std::fs::read_to_string(server.dir.path().join("sigillod.toml")).unwrap();
    let mut config: sigillo_server::config::Config = toml::from_str(&text).unwrap();
    config.sources[0].fingerprint = Fingerprints::Several(certificates.split_off(1));
    write_config(server.dir.path(), &config);
    server.controls.reload.notify_one();
    while Append::open(server.channel("agent").await).await.is_ok() {}

    let batch = chain.clone().seal(&[line("too late")]);
    old.send(v1::append_request::Message::Batch(batch)).await;
    assert_eq!(old.answer().await.unwrap_err().code(), Code::Unauthenticated);
    // Nor does it pass for a source that is alive.
    beating.send(v1::append_request::Message::Heartbeat(v1::Heartbeat::default())).await;
    assert_eq!(beating.answer().await.unwrap_err().code(), Code::Unauthenticated);
    // The other one's stream goes on.
    let begun = new.receipt(chain.seal(&[line("still")])).await;
    assert_eq!(begun.first, 2);
    server.stop().await;
}
