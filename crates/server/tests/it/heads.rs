//! Sessions of a source, and its signed heads.

use sigillo_proto::v1;
use tonic::Code;

use crate::support::{Append, Chain, Fixture, line};

/// A session that goes on with an epoch, as agents open it.
async fn session(server: &Fixture, name: &str, epoch: u64) -> Append {
    let hello = v1::Hello { epoch, ..v1::Hello::default() };
    Append::saying(server.channel(name).await, hello).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_session_ends_the_older_ones_of_its_source() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let mut asking = server.append("agent").await;
    let mut older = session(&server, "agent", 1).await;
    let mut other = session(&server, "panel", 1).await;
    older.receipt(chain.seal(&[line("one")])).await;
    // Who only asks ends nobody; a session ends everything before it.
    server.append("agent").await;
    older.receipt(chain.seal(&[line("two")])).await;
    let mut newer = session(&server, "agent", 1).await;
    assert_eq!(newer.welcome.next_sequence, 2);
    for ended in [&mut older, &mut asking] {
        let status = ended.answer().await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Aborted, "a newer session of this source has begun"));
    }
    newer.receipt(chain.seal(&[line("three")])).await;
    other.receipt(Chain::new("dev-panel").seal(&[line("of another source")])).await;
    server.stop().await;
}
