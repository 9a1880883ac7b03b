//! What a person is told when a connection can't be made.

use std::fs;

use sigillo_client::{ClientError, Connection, Endpoint};
use sigillo_proto::v1;

use crate::server::TestServer;

async fn refused(endpoint: &Endpoint) -> ClientError {
    match Connection::open(endpoint).await {
        Ok(connection) => connection.append(v1::Hello::default()).await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn missing_and_wrong_files_are_named() {
    let server = TestServer::start([]).await;
    let path = server.dir.path().join("other");
    for (content, hint) in [(None, "correct the path"), (Some("no PEM"), "certificate"), (Some(""), "certificate")] {
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        let error = refused(&Endpoint { cert: path.clone(), ..server.endpoint.clone() }).await.to_string();
        assert!(error.starts_with("cert file") && error.contains("other") && error.contains(hint), "{error}");
    }
    let error = refused(&Endpoint { key: server.dir.path().join("server.key"), ..server.endpoint.clone() }).await;
    assert!(matches!(&error, ClientError::File { setting: "key", .. }), "{error}");
}

#[tokio::test]
async fn an_unknown_authority_and_a_wrong_name_are_told_apart_from_silence() {
    let (server, other) = (TestServer::start([]).await, TestServer::start([]).await);
    let with = |change: fn(&mut Endpoint, &Endpoint)| {
        let mut endpoint = server.endpoint.clone();
        change(&mut endpoint, &other.endpoint);
        endpoint
    };
    let error = refused(&with(|ours, other| ours.ca.clone_from(&other.ca))).await;
    assert!(matches!(&error, ClientError::Tls { what, .. } if what.contains("`ca`")), "{error}");
    let error = refused(&with(|ours, _| ours.name = Some("elsewhere".into()))).await;
    assert!(matches!(&error, ClientError::Tls { what, .. } if what.contains("`name`")), "{error}");
    let error = refused(&with(|ours, other| {
        ours.cert.clone_from(&other.cert);
        ours.key.clone_from(&other.key);
    }))
    .await;
    assert!(matches!(&error, ClientError::Tls { what, .. } if what.contains("our certificate")), "{error}");
    let error = refused(&with(|ours, _| ours.url = "https://127.0.0.1:1".into())).await;
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn the_server_says_who_we_are() {
    let server = TestServer::start([]).await;
    let connection = Connection::open(&server.endpoint).await.unwrap();
    let session = connection.append(v1::Hello { protocol: 1, ..v1::Hello::default() }).await.unwrap();
    assert_eq!(session.welcome, server.shared().welcome());
}
