//! Searches over a real journal, compared with a naive filter over the records that were put into it.

use std::{collections::HashMap, ops::Range};

use proptest::{prelude::*, sample::select, test_runner::Config};
use sigillo_journal::{Journal, Options, Reader, Submission, TenantRun};
use sigillo_model::{
    batch::{self, Batch},
    block::{Block, BlockBuilder, Inflater},
    class::Class,
    envelope::Flags,
    ids::{BatchSecret, ClassId, Epoch, Origin, ReceiptTime, SourceId, SourceSeq, TenantId},
    record::Record,
};
use sigillo_proto::{
    record::Fields,
    v1::{self, any_value::Value},
};
use sigillo_query::{Filter, Hit, Order, Search, Step};
use tempfile::TempDir;

const NAMES: [&str; 4] = ["", "a", "web-1", "web-10"];

/// One batch as a source sends it, and when it is received.
#[derive(Debug, Clone)]
struct Sent {
    source: u8,
    class: Class,
    received: u64,
    /// The tenant of each record, and its parts.
    records: Vec<(u8, Record)>,
}

/// What the journal should know of one record.
#[derive(Debug)]
struct Known {
    class: ClassId,
    source: SourceId,
    tenant: TenantId,
    received: u64,
    record: Record,
}

struct TestJournal {
    journal: Journal,
    known: Vec<Known>,
    runtime: tokio::runtime::Runtime,
    _dir: TempDir,
}

impl TestJournal {
    fn with(batches: &[Sent]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(dir.path(), Origin::new("search.test").unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let journal = Journal::open(&options).unwrap().journal;
        let (mut known, mut sources) = (Vec::new(), HashMap::new());
        let mut latest = 0;
        for sent in batches {
            let source = SourceId::new([sent.source; 16]);
            let opening = (SourceSeq::new(0), journal.epoch_opening(source, Epoch::new(1)));
            let place = sources.entry(source).or_insert(opening);
            let submission = submission(sent, source, *place);
            *place = (submission.batch.end(), submission.batch.hash);
            let receipt = runtime.block_on(journal.submit(submission)).unwrap();
            assert_eq!(receipt.seq.get(), known.len() as u64);
            latest = sent.received.max(latest);
            known.extend(sent.records.iter().map(|(tenant, record)| Known {
                class: sent.class.id(),
                source,
                tenant: TenantId::new([*tenant; 16]),
                received: latest,
                record: record.clone(),
            }));
        }
        Self { journal, known, runtime, _dir: dir }
    }

    fn reader(&self) -> Reader {
        self.journal.reader()
    }

    fn size(&self) -> u64 {
        self.known.len() as u64
    }

    fn search(&self, filter: &Filter, order: Order, range: Range<u64>) -> Search {
        Search::new(self.reader(), filter.clone(), order, range)
    }
}

impl Drop for TestJournal {
    fn drop(&mut self) {
        self.runtime.block_on(self.journal.clone().close()).unwrap();
    }
}

fn submission(
    sent: &Sent,
    source: SourceId,
    (first, previous): (SourceSeq, sigillo_model::ids::BatchHash),
) -> Submission {
    let mut builder = BlockBuilder::default();
    for (_, record) in &sent.records {
        builder.push(record.as_ref()).unwrap();
    }
    let secret = BatchSecret::new([7; 32]);
    let batch = Batch::seal(&mut builder, source, Epoch::new(1), first, previous, secret, 1).unwrap();
    let mut inflater = Inflater::default();
    let block: Block<'_> = batch.open(&mut inflater).unwrap();
    let commitments = batch::commitments(&batch.secret, &block);
    let run = |tenant| TenantRun {
        tenant: TenantId::new([tenant; 16]),
        retention: sent.class.retention(),
        flags: Flags::default(),
        records: 0,
    };
    let mut runs: Vec<TenantRun> = Vec::new();
    for (tenant, _) in &sent.records {
        if runs.last().is_none_or(|last| last.tenant != TenantId::new([*tenant; 16])) {
            runs.push(run(*tenant));
        }
        runs.last_mut().unwrap().records += 1;
    }
    let (class, received) = (sent.class.id(), ReceiptTime::new(sent.received));
    Submission { source, class, batch, commitments, runs, received }
}

/// The filter's meaning, word for word from `query.proto`.
fn wanted(filter: &Filter, known: &Known) -> bool {
    let fields = Fields::decode(known.record.as_ref());
    let core = fields.core.clone().unwrap_or_default();
    let personal = fields.personal.clone().unwrap_or_default();
    let timed = filter.since.is_some() || filter.until.is_some();
    let within = |range: (Option<u64>, Option<u64>), time: u64| {
        range.0.is_none_or(|since| time >= since) && range.1.is_none_or(|until| time < until)
    };
    let mut persons = [personal.actor, personal.impersonator].into_iter().flatten();
    (!timed || fields.time().is_some_and(|time| within((filter.since, filter.until), time)))
        && within((filter.received_since, filter.received_until), known.received)
        && (filter.classes.is_empty() || filter.classes.contains(&known.class))
        && (filter.tenants.is_empty() || filter.tenants.contains(&known.tenant))
        && (filter.sources.is_empty() || filter.sources.contains(&known.source))
        && (filter.hosts.is_empty() || filter.hosts.contains(&core.host))
        && (filter.actions.is_empty() || filter.actions.contains(&core.action))
        && (filter.targets.is_empty()
            || core.target.is_some_and(|target| {
                let both = format!("{}:{}", target.r#type, target.id);
                filter.targets.contains(&target.id) || filter.targets.contains(&both)
            }))
        && (filter.actors.is_empty()
            || persons.any(|actor| filter.actors.contains(&actor.id) || filter.actors.contains(&actor.name)))
        && core.severity_number >= filter.min_severity
        && (filter.contains.is_empty() || texts(&known.record, &fields).iter().any(|text| has(text, &filter.contains)))
}

fn has(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

/// Everything that `contains` looks into.
fn texts(record: &Record, fields: &Fields) -> Vec<Vec<u8>> {
    fn collect(value: &v1::AnyValue, out: &mut Vec<Vec<u8>>) {
        match &value.value {
            Some(Value::StringValue(text)) => out.push(text.clone().into_bytes()),
            Some(Value::BytesValue(bytes)) => out.push(bytes.to_vec()),
            Some(Value::ArrayValue(array)) => array.values.iter().for_each(|value| collect(value, out)),
            Some(Value::KvlistValue(list)) => {
                list.values.iter().flat_map(|pair| &pair.value).for_each(|value| collect(value, out));
            }
            _ => {}
        }
    }
    let Some(content) = &fields.content else { return record.content.iter().map(|bytes| bytes.to_vec()).collect() };
    let mut out = vec![content.original.to_vec()];
    content.body.iter().for_each(|body| collect(body, &mut out));
    content.attributes.iter().flat_map(|pair| &pair.value).for_each(|value| collect(value, &mut out));
    out
}

fn value() -> impl Strategy<Value = v1::AnyValue> {
    let leaf = prop_oneof![
        "[ab\n]{0,5}".prop_map(Value::StringValue),
        "[ab]{0,5}".prop_map(|text| Value::BytesValue(text.into())),
        any::<i64>().prop_map(Value::IntValue),
    ];
    let leaf = leaf.prop_map(|value| v1::AnyValue { value: Some(value) });
    leaf.prop_recursive(3, 8, 3, |inner| {
        let array =
            prop::collection::vec(inner.clone(), 0..3).prop_map(|values| Value::ArrayValue(v1::ArrayValue { values }));
        let list = pairs(inner).prop_map(|values| Value::KvlistValue(v1::KeyValueList { values }));
        prop_oneof![array, list].prop_map(|value| v1::AnyValue { value: Some(value) })
    })
}

fn pairs(value: impl Strategy<Value = v1::AnyValue>) -> impl Strategy<Value = Vec<v1::KeyValue>> {
    let pair = ("[ab]{0,4}", prop::option::of(value)).prop_map(|(key, value)| v1::KeyValue { key, value });
    prop::collection::vec(pair, 0..3)
}

fn name() -> impl Strategy<Value = String> {
    select(NAMES.as_slice()).prop_map(str::to_owned)
}

fn target_text() -> impl Strategy<Value = String> {
    select(["", "a", "b", "a:b", ":", "b:"].as_slice()).prop_map(str::to_owned)
}

fn record() -> impl Strategy<Value = Record> {
    let target = prop::option::of((target_text(), target_text()).prop_map(|(r#type, id)| v1::Target { r#type, id }));
    let core = (0_u64..6, 0_u64..6, 0_u32..25, name(), name(), target).prop_map(
        |(event, observed, severity, host, action, target)| v1::CorePart {
            target,
            event_time_unix_nano: event,
            observed_time_unix_nano: observed,
            severity_number: severity,
            host,
            action,
            // Met by coarse looks for other fields.
            stream: "web-1".into(),
            ..Default::default()
        },
    );
    let actor = || prop::option::of((name(), name()).prop_map(|(id, name)| v1::Actor { id, name, kind: 0 }));
    let personal = (actor(), actor()).prop_map(|(actor, impersonator)| v1::PersonalPart {
        actor,
        impersonator,
        user_agent: "a".into(),
        ..Default::default()
    });
    let content = (prop::option::of(value()), pairs(value()), "[ab]{0,6}").prop_map(|(body, attributes, original)| {
        v1::ContentPart { body, attributes, original: original.into(), ..Default::default() }
    });
    let optional = (prop::option::of(core), prop::option::of(personal), prop::option::of(content), "[ab]{1,6}", 0..10);
    optional.prop_map(|(core, personal, content, odd, dice)| {
        let mut record = Fields { core, personal, content, unreadable: Vec::new() }.encode();
        if dice == 0 || record.as_ref().bitmap() == 0 {
            // Not a message, but kept and found all the same.
            record.content = Some(format!("\u{7f}{odd}").into());
        }
        record
    })
}

fn batches() -> impl Strategy<Value = Vec<Sent>> {
    let records = prop::collection::vec((0_u8..3, record()), 1..12);
    let class = select(vec![Class::Service, Class::Panel]);
    let batch = (0_u8..3, class, 1_u64..8, records).prop_map(|(source, class, received, records)| Sent {
        source,
        class,
        received,
        records,
    });
    prop::collection::vec(batch, 0..8)
}

fn filter() -> impl Strategy<Value = Filter> {
    // Each condition is absent more often than not, so that enough matches.
    let names = || prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(name(), 1..3)];
    let time = || prop_oneof![4 => Just(None), 1 => (0_u64..9).prop_map(Some)];
    let ids = || prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(0_u8..4, 1..3)];
    let classes = select(vec![vec![], vec![], vec![Class::Panel.id()], vec![Class::Admin.id()]]);
    let contains = prop_oneof![2 => Just(String::new()), 4 => "[ab]{1,3}", 1 => "[\n\u{1}-\u{8}]{1,2}"];
    let severity = prop_oneof![3 => Just(0_u32), 1 => 1_u32..25];
    let targets = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec("[ab:]{0,4}", 1..3)];
    let times = (time(), time(), time(), time());
    (times, (names(), names(), names(), targets), (ids(), ids()), classes, contains, severity).prop_map(
        |(
            (since, until, received_since, received_until),
            (hosts, actors, actions, targets),
            (tenants, sources),
            classes,
            contains,
            severity,
        )| {
            Filter {
                since,
                until,
                received_since,
                received_until,
                classes,
                hosts,
                tenants: tenants.into_iter().map(|id| TenantId::new([id; 16])).collect(),
                sources: sources.into_iter().map(|id| SourceId::new([id; 16])).collect(),
                actors,
                actions,
                targets,
                min_severity: severity,
                contains: contains.into_bytes(),
            }
        },
    )
}

fn run(search: &mut Search) -> Vec<Hit> {
    std::iter::from_fn(|| search.next().unwrap())
        .filter_map(|step| match step {
            Step::Match(hit) => Some(hit),
            Step::Scanned { .. } => None,
        })
        .collect()
}

fn order() -> impl Strategy<Value = Order> {
    select(vec![Order::OldestFirst, Order::NewestFirst])
}

proptest! {
    // Each case opens a database.
    #![proptest_config(Config { cases: 48, ..Config::default() })]

    #[test]
    fn a_search_finds_what_a_naive_filter_finds(
        batches in batches(),
        filters in prop::collection::vec((filter(), order(), 0_u64..100, 0_u64..100), 20),
    ) {
        let journal = TestJournal::with(&batches);
        for (filter, order, start, end) in filters {
            let mut expected: Vec<(u64, &Known)> = (0..)
                .zip(&journal.known)
                .filter(|(seq, known)| (start..end).contains(seq) && wanted(&filter, known))
                .collect();
            if order == Order::NewestFirst {
                expected.reverse();
            }
            let mut search = journal.search(&filter, order, start..end);
            let found = run(&mut search);
            let seqs = |hits: &[Hit]| hits.iter().map(|hit| hit.envelope.seq.get()).collect::<Vec<_>>();
            let expected_seqs: Vec<u64> = expected.iter().map(|(seq, _)| *seq).collect();
            prop_assert_eq!(seqs(&found), expected_seqs, "{:?}", &filter);
            for (hit, (_, known)) in found.iter().zip(expected) {
                prop_assert_eq!(&hit.record, &known.record);
                prop_assert_eq!(hit.envelope.tenant, known.tenant);
                prop_assert_eq!(hit.envelope.receipt_time.get(), known.received);
            }
            prop_assert!(search.remaining().is_empty());
            prop_assert_eq!(search.scanned(), end.min(journal.size()).saturating_sub(start));
        }
    }

    #[test]
    fn pages_are_together_one_go(
        batches in batches(),
        filters in prop::collection::vec((filter(), order(), prop::collection::vec(1_usize..5, 1..8)), 10),
    ) {
        let journal = TestJournal::with(&batches);
        for (filter, order, page_sizes) in filters {
            let whole = run(&mut journal.search(&filter, order, 0..u64::MAX));
            let mut paged = Vec::new();
            let mut range = 0..u64::MAX;
            for size in page_sizes.iter().cycle() {
                let mut search = journal.search(&filter, order, range.clone());
                let mut page = Vec::new();
                while page.len() < *size && let Some(step) = search.next().unwrap() {
                    page.extend(match step {
                        Step::Match(hit) => Some(hit),
                        Step::Scanned { .. } => None,
                    });
                }
                paged.append(&mut page);
                range = search.remaining();
                if range.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(&paged, &whole, "{:?}", &filter);
        }
    }
}

/// A batch of as many records as one may hold.
fn full_batch(received: u64) -> Sent {
    let content = v1::ContentPart { original: "nothing to see".into(), ..Default::default() };
    let record = Fields { content: Some(content), ..Fields::default() }.encode();
    Sent { source: 1, class: Class::Service, received, records: vec![(1, record); 16_384] }
}

#[test]
fn a_long_search_without_matches_gives_signs_of_life() {
    let journal = TestJournal::with(&(0..6).map(full_batch).collect::<Vec<_>>());
    let filter = Filter { contains: b"needle".to_vec(), ..Filter::default() };
    let mut search = journal.search(&filter, Order::NewestFirst, 0..u64::MAX);
    assert_eq!(search.next().unwrap(), Some(Step::Scanned { scanned: 65_536, total: 98_304 }));
    assert_eq!(search.remaining(), 0..32_768);
    assert_eq!(search.next().unwrap(), None);
    assert_eq!((search.remaining(), search.scanned()), (0..0, 98_304));
}

#[test]
fn receipt_time_narrows_what_is_read() {
    let journal = TestJournal::with(&(1..6).map(full_batch).collect::<Vec<_>>());
    let filter = Filter { received_since: Some(2), received_until: Some(4), ..Filter::default() };
    let mut search = journal.search(&filter, Order::OldestFirst, 0..u64::MAX);
    let Some(Step::Match(hit)) = search.next().unwrap() else { panic!("no match") };
    assert_eq!(hit.envelope.seq.get(), 16_384);
    assert_eq!(search.remaining().start, 16_385);
    assert_eq!(run(&mut search).len(), 2 * 16_384 - 1);
}

#[test]
fn what_arrives_later_is_not_part_of_a_search() {
    let journal = TestJournal::with(&[full_batch(1)]);
    let mut search = journal.search(&Filter::default(), Order::OldestFirst, 0..u64::MAX);
    let source = SourceId::new([2; 16]);
    let opening = (SourceSeq::new(0), journal.journal.epoch_opening(source, Epoch::new(1)));
    let later = submission(&full_batch(1), source, opening);
    journal.runtime.block_on(journal.journal.submit(later)).unwrap();
    assert_eq!(run(&mut search).len(), 16_384);
}
