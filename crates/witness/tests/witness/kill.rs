//! A log that has two versions and shows them to the witness at once, while the witness is killed again and again.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use sigillo_model::{
    checkpoint::Checkpoint,
    note::{Note, Signature},
};

use crate::support::{Log, Witness};

const ROUNDS: u64 = 32;
/// Most time that a round may take.
const ROUND_MAX: Duration = Duration::from_secs(60);
/// Submitters for each version of the log.
const SUBMITTERS: u64 = 3;
const LEAVES: u64 = 2_000;

/// What was cosigned: by origin and size, the text.
type Cosigned = Mutex<BTreeMap<(String, u64), String>>;

#[test]
fn no_kill_makes_it_sign_two_roots_of_one_size() {
    let dir = tempfile::tempdir().unwrap();
    let origins: Vec<String> = (0..ROUNDS).map(|round| format!("example.com/log{round}")).collect();
    let cosigned = Cosigned::default();
    let mut killed_at = Vec::new();
    for round in 0..ROUNDS {
        let mut witness = Witness::start(dir.path(), &origins, "");
        // The log of this round, on which both versions race for the first signature, and that of the round before, which was
        // interrupted.
        let now = usize::try_from(round).unwrap();
        let logs: Vec<[Log; 2]> = origins[now.saturating_sub(1)..=now]
            .iter()
            .map(|origin| [Log::new(origin, 0, LEAVES), Log::new(origin, 1, LEAVES)])
            .collect();
        let (logs, cosigned) = (&logs, &cosigned);
        let before = cosigned.lock().unwrap().len();
        // Kills fall at every stage: some before the first signature, most among many, each a little later within a request.
        let wanted = usize::try_from(round % 8).unwrap();
        let later = Duration::from_micros(round * 137 % 2_000);
        thread::scope(|scope| {
            for submitter in 0..2 * SUBMITTERS {
                let version = usize::from(submitter % 2 == 1);
                let connection = witness.connect();
                let (witness_key, step) = (&witness.key, 1 + submitter / 2);
                scope.spawn(move || {
                    let Ok(mut connection) = connection else { return };
                    let mut known = vec![0; logs.len()];
                    loop {
                        for (log, size) in logs.iter().zip(&mut known) {
                            let request = log[version].request(*size, (*size + step).min(LEAVES));
                            let Ok(answer) = connection.send(&request) else { return };
                            match answer.status {
                                200 => {
                                    let line = Signature::parse(answer.body.trim_end()).unwrap();
                                    let note = Note::new(request.checkpoint.text(), vec![line]).unwrap();
                                    note.verify(std::slice::from_ref(witness_key)).unwrap();
                                    *size = remember(cosigned, &note);
                                }
                                409 => *size = answer.body.trim_end().parse().unwrap(),
                                // The version that came second.
                                422 => {}
                                other => panic!("{other}: {}", answer.body),
                            }
                        }
                    }
                });
            }
            let start = Instant::now();
            while cosigned.lock().unwrap().len() < before + wanted {
                assert!(start.elapsed() < ROUND_MAX, "only {} signatures", cosigned.lock().unwrap().len() - before);
                thread::yield_now();
            }
            thread::sleep(later);
            witness.child.kill().unwrap();
            witness.child.wait().unwrap();
        });
        killed_at.push(cosigned.lock().unwrap().len() - before);
    }
    eprintln!("{} sizes cosigned; between kills: {killed_at:?}", cosigned.lock().unwrap().len());
    assert!(killed_at.iter().sum::<usize>() >= 100, "too few to mean anything: {killed_at:?}");
}

/// Notes what was cosigned; returns its size.
fn remember(cosigned: &Cosigned, note: &Note) -> u64 {
    let checkpoint = Checkpoint::parse_own(note.text()).unwrap();
    let place = (checkpoint.origin, checkpoint.size);
    let mut cosigned = cosigned.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let first = cosigned.entry(place).or_insert_with(|| note.text().to_owned());
    assert_eq!(first, note.text(), "two roots of one size were cosigned");
    checkpoint.size
}
