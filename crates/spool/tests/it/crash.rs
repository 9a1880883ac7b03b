//! What a crash leaves: torn ends, steps that were done in part.

use std::fs;

use sigillo_spool::Marks;

use crate::support::*;

#[test]
fn whatever_of_the_last_segment_is_there_its_whole_frames_are() {
    let folder = Folder::new();
    let mut spool = folder.create();
    let mut ends = Vec::new();
    spool.append(&mut block(["durable"]), &[mark("f", "0")]).unwrap();
    spool.attest(10, seen()).unwrap();
    for number in 1..6 {
        ends.push(spool.state().bytes);
        spool.append(&mut block([format!("line {number}")]), &[mark("f", &number.to_string())]).unwrap();
    }
    let whole = spool.state().bytes;
    for length in ends[0]..whole {
        // Of what was never synced, other pages may be there.
        for filler in [&b""[..], &[0; 100], &noise(length, 300)] {
            let copy = folder.copy();
            let mut bytes = fs::read(&folder.segments()[0]).unwrap();
            bytes.truncate(usize::try_from(length).unwrap());
            bytes.extend(filler);
            fs::write(&copy.segments()[0], bytes).unwrap();
            let opened = copy.open();
            assert_eq!(opened.damage, None, "{length}");
            let there = ends.iter().rposition(|end| *end <= length).unwrap();
            assert_eq!(opened.torn_bytes, length - ends[there] + filler.len() as u64);
            let mut spool = opened.spool.unwrap();
            let mark = there.to_string();
            assert_eq!(*spool.marks(), Marks::from([crate::support::mark("f", &mark)]));
            // And it goes on.
            spool.append(&mut block(["after"]), &[]).unwrap();
            spool.attest(11, seen()).unwrap();
            let read = read_from(&spool, 0, 0);
            assert_eq!(read.len(), there + 4);
            drop(spool);
            assert_eq!(read_from(&copy.reopen(), 0, 0), read);
        }
    }
}
