//! Published resources, as a stranger's client would read them.

use sigillo_model::{
    checkpoint::Checkpoint,
    ids::NodeHash,
    note::Note,
    proof,
    tile::{TileKind, TilePath},
    tree::{self, RootBuilder},
};
use sigillo_proto::v1;

use crate::support::{Chain, Fixture, line};

async fn published(server: &Fixture) -> Checkpoint {
    let (status, _, body) = server.get("/checkpoint").await;
    assert_eq!(status, 200);
    Checkpoint::parse_own(Note::parse(&body).unwrap().text()).unwrap()
}

/// Waits until so many records are published.
async fn reaches(server: &Fixture, size: u64) -> Checkpoint {
    loop {
        let (status, ..) = server.get("/checkpoint").await;
        if status == 200 {
            let checkpoint = published(server).await;
            if checkpoint.size >= size {
                return checkpoint;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

fn hashes(bytes: &[u8]) -> Vec<NodeHash> {
    bytes.chunks(32).map(|hash| NodeHash::from_slice(hash).unwrap()).collect()
}

async fn tile(server: &Fixture, kind: TileKind, index: u64, size: u64) -> Vec<u8> {
    let path = TilePath::within(kind, index, size).unwrap();
    let (status, head, body) = server.get(&format!("/{path}")).await;
    assert_eq!(status, 200, "{path}");
    assert!(head.contains("content-type: application/octet-stream") && head.contains("immutable"), "{head}");
    let each = if matches!(kind, TileKind::Entries) { 34 } else { 32 };
    assert_eq!(body.len(), usize::from(path.width) * each, "{path}");
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn tiles_and_bundles_give_the_root_that_was_signed() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let mut stream = server.append("agent").await;
    for batch in 0..7 {
        let lines: Vec<_> = (0..100).map(|place| line(&format!("{batch} {place}"))).collect();
        stream.receipt(chain.seal(&lines)).await;
    }
    let checkpoint = reaches(&server, 700).await;
    let size = checkpoint.size;
    let (mut by_tiles, mut by_entries) = (RootBuilder::default(), RootBuilder::default());
    for index in 0..size.div_ceil(256) {
        let leaves = hashes(&tile(&server, TileKind::Hashes(0), index, size).await);
        let bundle = tile(&server, TileKind::Entries, index, size).await;
        for (leaf, entry) in leaves.iter().zip(bundle.chunks(34)) {
            assert_eq!(entry[..2], [0, 32]);
            assert_eq!(tree::leaf(&entry[2..]), *leaf);
            by_tiles.push(*leaf);
            by_entries.push(tree::leaf(&entry[2..]));
        }
    }
    assert_eq!((by_tiles.root(), by_entries.root()), (checkpoint.root, checkpoint.root));
    // The level above holds the roots of the full tiles below.
    let above = hashes(&tile(&server, TileKind::Hashes(1), 0, size).await);
    for (index, expected) in above.iter().enumerate() {
        let mut root = RootBuilder::default();
        for hash in hashes(&tile(&server, TileKind::Hashes(0), index as u64, size).await) {
            root.push(hash);
        }
        assert_eq!(root.root(), *expected);
    }
    // Smaller partial tiles were published once.
    assert_eq!(server.get("/tile/0/000.p/7").await.2.len(), 7 * 32);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_beyond_the_published_size_and_nothing_else() {
    let server = Fixture::start().await;
    server.append("agent").await.receipt(Chain::new("dev-agent").seal(&[line("one")])).await;
    reaches(&server, 3).await;
    for path in [
        "/",
        "/tile/0/000",
        "/tile/1/000.p/1",
        "/tile/0/001.p/1",
        "/tile/0/000.p/0",
        "/tile/0/000.p/256",
        "/tile/64/000",
        "/tile/0/x000/000",
        "/tile/entries/000",
        "/tile/0/x999/x999/x999/x999/x999/999",
        "/../etc/passwd",
        "/tile/0/000.p/200",
        "/checkpoint/x",
        "/tile/-1/000",
        "/head",
    ] {
        assert_eq!(server.get(path).await.0, 404, "{path}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proofs_are_given_to_those_who_are_connected() {
    let server = Fixture::start().await;
    let mut chain = Chain::new("dev-agent");
    let mut stream = server.append("agent").await;
    let lines: Vec<_> = (0..300).map(|place| line(&place.to_string())).collect();
    stream.receipt(chain.seal(&lines)).await;
    let old = reaches(&server, 300).await;
    stream.receipt(chain.seal(&lines)).await;
    let new = reaches(&server, 600).await;
    let mut log = server.log().await;
    let request = v1::GetConsistencyRequest { old_size: old.size, new_size: new.size };
    let proof = log.get_consistency(request).await.unwrap().into_inner();
    let proof: Vec<NodeHash> = proof.hashes.iter().map(|hash| NodeHash::from_slice(hash).unwrap()).collect();
    proof::verify_consistency(old.size, &old.root, new.size, &new.root, &proof).unwrap();
    let tile = log.get_tile(v1::GetTileRequest { path: "tile/0/001".into() }).await.unwrap().into_inner();
    let leaf = hashes(&tile.content)[260 - 256];
    let request = v1::GetInclusionRequest { sequence: 260, size: new.size };
    let proof = log.get_inclusion(request).await.unwrap().into_inner();
    let proof: Vec<NodeHash> = proof.hashes.iter().map(|hash| NodeHash::from_slice(hash).unwrap()).collect();
    proof::verify_inclusion(&leaf, 260, new.size, &proof, &new.root).unwrap();
    let beyond = v1::GetInclusionRequest { sequence: 5, size: new.size + 1_000_000 };
    assert_eq!(log.get_inclusion(beyond).await.unwrap_err().code(), tonic::Code::OutOfRange);
    let beyond = v1::GetInclusionRequest { sequence: new.size, size: new.size };
    assert_eq!(log.get_inclusion(beyond).await.unwrap_err().code(), tonic::Code::OutOfRange);
    server.stop().await;
}
