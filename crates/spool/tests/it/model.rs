//! Random operations, crashes among them, beside a vector of what should be there.

use std::{fs, path::PathBuf};

use proptest::prelude::*;
use sigillo_model::ids::Epoch;
use sigillo_spool::{Marks, Spool};

use crate::support::*;

#[derive(Debug, Clone, Copy)]
enum Act {
    Append {
        lines: usize,
        bytes: usize,
        mark: u8,
    },
    Marks {
        mark: u8,
        forget: bool,
    },
    Sync,
    Attest,
    /// Of what is there, so many 256ths, with or without heads.
    Release {
        part: u8,
        heads: bool,
    },
    Reopen,
    /// Of what is not synced, so many 256ths are there, and then so much that is none of it.
    Crash {
        part: u8,
        garbage: usize,
    },
    Rechain {
        skip: bool,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (1_usize..4, 1_usize..12_000, 0_u8..4).prop_map(|(lines, bytes, mark)| Act::Append { lines, bytes, mark }),
        1 => (0_u8..4, any::<bool>()).prop_map(|(mark, forget)| Act::Marks { mark, forget }),
        3 => Just(Act::Sync),
        3 => Just(Act::Attest),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(part, heads)| Act::Release { part, heads }),
        1 => Just(Act::Reopen),
        2 => (any::<u8>(), prop_oneof![Just(0), 0_usize..5_000]).prop_map(|(part, garbage)| Act::Crash { part, garbage }),
        1 => any::<bool>().prop_map(|skip| Act::Rechain { skip }),
    ]
}

/// A frame, and the marks after it.
#[derive(Debug, Clone)]
struct Item {
    read: Option<Read>,
    marks: Marks,
}

struct Model {
    folder: Folder,
    spool: Option<Spool>,
    epoch: Epoch,
    items: Vec<Item>,
    /// How many items are durable, and which file was how long then.
    synced: usize,
    durable: (PathBuf, u64),
    next: u64,
    head: u64,
    released: (u64, u64),
    seed: u64,
}

impl Model {
    fn new() -> Self {
        let folder = Folder::new();
        let spool = folder.create();
        let mut model = Self {
            folder,
            spool: Some(spool),
            epoch: EPOCH,
            items: Vec::new(),
            synced: 0,
            durable: (PathBuf::new(), 0),
            next: 0,
            head: 0,
            released: (0, 0),
            seed: 0,
        };
        model.is_synced();
        model
    }

    fn spool(&mut self) -> &mut Spool {
        self.spool.as_mut().unwrap()
    }

    fn last(&self) -> (PathBuf, u64) {
        let path = self.folder.segments().pop().unwrap();
        let length = fs::metadata(&path).unwrap().len();
        (path, length)
    }

    fn is_synced(&mut self) {
        self.synced = self.items.len();
        self.durable = self.last();
    }

    fn marks(&self) -> Marks {
        self.items.last().map(|item| item.marks.clone()).unwrap_or_default()
    }

    fn push(&mut self, read: Option<Read>, marks: Marks) {
        self.items.push(Item { read, marks });
    }

    fn apply(&mut self, act: Act) {
        self.seed += 1;
        let seed = self.seed;
        match act {
            Act::Append { lines, bytes, mark: number } => {
                let lines: Vec<Vec<u8>> = (0..lines).map(|line| noise(seed * 8 + line as u64, bytes)).collect();
                let (before, change) = (self.last().0, mark(&number.to_string(), &seed.to_string()));
                let place = self.spool().append(&mut block(&lines), std::slice::from_ref(&change)).unwrap();
                let mut marks = self.marks();
                marks.insert(change.0, change.1);
                if self.last().0 != before {
                    // Closing a segment makes it durable, and the new one's header.
                    let bytes = fs::read(self.last().0).unwrap();
                    let header = 28 + u64::from(u32::from_be_bytes(bytes[16..20].try_into().unwrap()));
                    self.synced = self.items.len();
                    self.durable = (self.last().0, header);
                }
                let first = self.next;
                self.next += lines.len() as u64;
                assert_eq!(place.end, seq(self.next));
                self.push(Some(Read::Batch(first, lines)), marks);
            }
            Act::Marks { mark: number, forget } => {
                let value = if forget { String::new() } else { seed.to_string() };
                let change = mark(&number.to_string(), &value);
                let before = self.last().0;
                self.spool().append(&mut block::<&[u8]>([]), std::slice::from_ref(&change)).unwrap();
                if self.last().0 != before {
                    let bytes = fs::read(self.last().0).unwrap();
                    let header = 28 + u64::from(u32::from_be_bytes(bytes[16..20].try_into().unwrap()));
                    self.synced = self.items.len();
                    self.durable = (self.last().0, header);
                }
                let mut marks = self.marks();
                if forget {
                    marks.remove(&change.0);
                } else {
                    marks.insert(change.0, change.1);
                }
                self.push(None, marks);
            }
            Act::Sync => {
                self.spool().sync().unwrap();
                self.is_synced();
            }
            Act::Attest => {
                self.spool().attest(seed, seen()).unwrap();
                self.head = seed.max(self.head + 1);
                let (head, marks) = (self.head, self.marks());
                self.push(Some(Read::Head(head)), marks);
                self.is_synced();
            }
            Act::Release { part, heads } => {
                let durable = self.items[..self.synced].iter().filter_map(|item| item.read.as_ref());
                let ends = durable.filter_map(|read| match read {
                    Read::Batch(first, lines) => Some(first + lines.len() as u64),
                    Read::Head(_) => None,
                });
                let ends: Vec<u64> = ends.collect();
                let Some(end) = ends.get(ends.len() * usize::from(part) / 256) else { return };
                let head = if heads { self.head } else { 0 };
                self.released = (self.released.0.max(*end), self.released.1.max(head));
                let (epoch, end) = (self.epoch, *end);
                self.spool().release(epoch, seq(end), head).unwrap();
            }
            Act::Reopen => {
                self.spool = None;
                self.spool = Some(self.folder.reopen());
                self.is_synced();
            }
            Act::Crash { part, garbage } => self.crash(part, &noise(seed, garbage)),
            Act::Rechain { skip } => self.rechain(skip),
        }
        self.check();
    }

    fn crash(&mut self, part: u8, garbage: &[u8]) {
        self.spool = None;
        let (path, length) = self.last();
        assert_eq!(path, self.durable.0);
        let kept = self.durable.1 + (length - self.durable.1) * u64::from(part) / 256;
        let mut bytes = fs::read(&path).unwrap();
        bytes.truncate(usize::try_from(kept).unwrap());
        bytes.extend(garbage);
        fs::write(&path, bytes).unwrap();
        let spool = self.folder.reopen();
        // Some whole frames of what was not synced may be there, from the first on.
        let (next, head) = (spool.state().next.get(), spool.state().head_time_ns);
        let (marks, synced) = (spool.marks().clone(), self.synced);
        let stands = |items: &[Item]| {
            let mut end = (0, 0);
            for read in items.iter().filter_map(|item| item.read.as_ref()) {
                match read {
                    Read::Batch(first, lines) => end.0 = first + lines.len() as u64,
                    Read::Head(time) => end.1 = *time,
                }
            }
            let after = items.last().map(|item| item.marks.clone()).unwrap_or_default();
            // Times of heads go on from epochs before.
            end.0 == next && (end.1 == head || end.1 == 0) && after == marks
        };
        let there = (synced..=self.items.len()).find(|there| stands(&self.items[..*there]));
        self.items.truncate(there.expect("what was synced is there"));
        (self.next, self.head) = (next, head);
        self.spool = Some(spool);
        self.is_synced();
    }

    fn rechain(&mut self, skip: bool) {
        let epoch = Epoch::new(self.epoch.get() + 1);
        let from = (self.epoch, seq(self.released.0));
        self.spool().rechain(identity(), epoch, None, from, skip, (0, seen())).unwrap();
        let (marks, released) = (self.marks(), self.released.0);
        let mut left = self.items.drain(..).filter_map(|item| match item.read {
            Some(Read::Batch(first, lines)) if first >= released => Some((lines, item.marks)),
            _ => None,
        });
        if skip {
            left.next();
        }
        let mut items = Vec::new();
        let mut next = 0;
        for (lines, marks) in left {
            let count = lines.len() as u64;
            items.push(Item { read: Some(Read::Batch(next, lines)), marks });
            next += count;
        }
        // What the left ones changed is there, too.
        items.push(Item { read: None, marks });
        (self.items, self.next, self.epoch, self.released) = (items, next, epoch, (0, self.head));
        self.is_synced();
    }

    /// What is durable is read, from where it was released on.
    fn check(&mut self) {
        let (released, heads) = self.released;
        let expected =
            self.items[..self.synced].iter().filter_map(|item| item.read.clone()).filter(|read| match read {
                Read::Batch(first, _) => *first >= released,
                Read::Head(time) => *time > heads,
            });
        let expected: Vec<Read> = expected.collect();
        let marks = self.marks();
        let spool = self.spool.as_ref().unwrap();
        assert_eq!(read_from(spool, released, heads), expected);
        assert_eq!(*spool.marks(), marks);
        assert_eq!((spool.state().next, spool.state().head_time_ns), (seq(self.next), self.head));
        let length = self.folder.segments().iter().map(|path| fs::metadata(path).unwrap().len()).sum::<u64>();
        assert_eq!(spool.state().bytes, length);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn what_is_synced_stays_and_nothing_else_comes(acts in proptest::collection::vec(act(), 1..60)) {
        let mut model = Model::new();
        for act in acts {
            model.apply(act);
        }
    }
}
