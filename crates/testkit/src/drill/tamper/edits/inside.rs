//! Edits of one entry: its records, and what the server added to them.

use anyhow::{Context, Result};
use bytes::Bytes;
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use sigillo_model::{
    entry::Salts,
    envelope::Flags,
    ids::{
        BatchHash, BatchSecret, ChainHash, ClassId, Count, Epoch, ReceiptTime, RetentionId, SourceId, SourceSeq,
        TenantId,
    },
    record::{Part, Record},
};

use super::{super::verdict::Place, Inflated, Scene, flip_bit};

pub(super) fn core_byte(scene: &mut Scene<'_>) -> Result<Place> {
    part_byte(scene, Part::Core)
}

pub(super) fn personal_byte(scene: &mut Scene<'_>) -> Result<Place> {
    part_byte(scene, Part::Personal)
}

pub(super) fn content_byte(scene: &mut Scene<'_>) -> Result<Place> {
    part_byte(scene, Part::Content)
}

fn part_byte(scene: &mut Scene<'_>, part: Part) -> Result<Place> {
    let has = |record: &Record| record.as_ref().part(part).is_some_and(|bytes| !bytes.is_empty());
    let entry = scene.pick(|inflated| inflated.records.iter().any(has))?;
    scene.change(entry, |inflated, random| {
        let record = any(&mut inflated.records, random, has)?;
        let slot = slot(record, part);
        let mut bytes = slot.take().context("the part is there")?.to_vec();
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= random.random_range(1..=u8::MAX);
        *slot = Some(bytes.into());
        Ok(())
    })
}

pub(super) fn part_removed(scene: &mut Scene<'_>) -> Result<Place> {
    let has = |record: &Record| record.core.is_some() && record.personal.is_some();
    let entry = scene.pick(|inflated| inflated.records.iter().any(has))?;
    scene.change(entry, |inflated, random| {
        let part = if random.random() { Part::Core } else { Part::Personal };
        *slot(any(&mut inflated.records, random, has)?, part) = None;
        Ok(())
    })
}

fn slot(record: &mut Record, part: Part) -> &mut Option<Bytes> {
    match part {
        Part::Core => &mut record.core,
        Part::Personal => &mut record.personal,
        Part::Content => &mut record.content,
    }
}

/// One of the records of which this is true.
fn any<'a>(
    records: &'a mut [Record],
    random: &mut ChaCha12Rng,
    suits: impl Fn(&Record) -> bool,
) -> Result<&'a mut Record> {
    let number = records.iter().filter(|record| suits(record)).count();
    let chosen = random.random_range(0..number);
    records.iter_mut().filter(|record| suits(record)).nth(chosen).context("no record suits")
}

/// Two records or more, of which the last run has two.
fn can_lose_one(inflated: &Inflated<'_>) -> bool {
    inflated.entry.runs.last().is_some_and(|run| run.records > 1)
}

pub(super) fn record_deleted(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.pick(can_lose_one)?;
    scene.change(entry, |inflated, random| {
        inflated.records.remove(random.random_range(0..inflated.records.len()));
        inflated.entry.count -= 1;
        inflated.entry.runs.last_mut().context("there is a run")?.records -= 1;
        Ok(())
    })
}

pub(super) fn record_deleted_only(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.pick(can_lose_one)?;
    scene.change(entry, |inflated, random| {
        inflated.records.remove(random.random_range(0..inflated.records.len()));
        Ok(())
    })
}

pub(super) fn record_inserted(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.any_entry()?;
    scene.change(entry, |inflated, random| {
        let record = inflated.records.first().context("there is a record")?.clone();
        inflated.records.insert(random.random_range(0..=inflated.records.len()), record);
        inflated.entry.count += 1;
        inflated.entry.runs.last_mut().context("there is a run")?.records += 1;
        Ok(())
    })
}

pub(super) fn records_swapped(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.pick(|inflated| inflated.records.windows(2).any(|pair| pair[0] != pair[1]))?;
    scene.change(entry, |inflated, random| {
        let last = inflated.records.len() - 1;
        loop {
            let (one, other) = (random.random_range(0..=last), random.random_range(0..=last));
            if inflated.records[one] != inflated.records[other] {
                inflated.records.swap(one, other);
                return Ok(());
            }
        }
    })
}

pub(super) fn records_exchanged(scene: &mut Scene<'_>) -> Result<Place> {
    let one = scene.any_entry()?;
    let of_one = Inflated::read(&scene.entry_bytes(&one)?)?.records.swap_remove(0);
    let other = scene.pick(|inflated| inflated.records[0] != of_one && inflated.entry.seq.get() != one.from)?;
    let of_other = Inflated::read(&scene.entry_bytes(&other)?)?.records.swap_remove(0);
    for (entry, record) in [(one, of_other), (other, of_one)] {
        scene.change(entry, |inflated, _| {
            inflated.records[0] = record;
            Ok(())
        })?;
    }
    Ok(if one.from < other.from { one.place() } else { other.place() })
}

pub(super) fn class(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, _| inflated.entry.class = ClassId::new((inflated.entry.class.get() + 1) % 6))
}

pub(super) fn retention(scene: &mut Scene<'_>) -> Result<Place> {
    // All runs alike, so that neighbours still differ.
    envelope(scene, |inflated, _| {
        inflated.entry.runs.iter_mut().for_each(|run| run.retention = RetentionId::new(run.retention.get() + 1));
    })
}

pub(super) fn flags(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, random| {
        let bits = [Flags::AT_MOST_ONCE, Flags::TENANT_REFUSED, Flags::COMMITTED_BY_LISTENER];
        let bit = bits[random.random_range(0..bits.len())].bits();
        for run in &mut inflated.entry.runs {
            run.flags = Flags::from_bits(run.flags.bits() ^ bit).unwrap_or_default();
        }
    })
}

pub(super) fn tenant(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, random| {
        let stranger = TenantId::new(random.random());
        if let Some((tenant, _)) = inflated.entry.tenants.last_mut() {
            *tenant = stranger;
        }
    })
}

pub(super) fn tenant_count(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, random| {
        let more = random.random_range(1..5);
        if let Some((_, count)) = inflated.entry.tenants.last_mut() {
            *count = Count::new(count.get() + more);
        }
    })
}

pub(super) fn run_border(scene: &mut Scene<'_>) -> Result<Place> {
    let entry = scene.pick(|inflated| inflated.entry.runs.len() > 1 && inflated.entry.runs[0].records > 1)?;
    scene.change(entry, |inflated, _| {
        inflated.entry.runs[0].records -= 1;
        inflated.entry.runs[1].records += 1;
        Ok(())
    })
}

pub(super) fn receipt_time(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, random| {
        let time = inflated.entry.receipt_time.get();
        let step = random.random_range(1..1_000);
        inflated.entry.receipt_time = ReceiptTime::new(if random.random() { time + step } else { time - step });
    })
}

pub(super) fn source(scene: &mut Scene<'_>) -> Result<Place> {
    let other = scene.any_entry()?.source;
    let entry = scene.pick(|inflated| inflated.entry.source != other)?;
    scene.change(entry, |inflated, random| {
        inflated.entry.source = if random.random() { other } else { SourceId::new(random.random()) };
        Ok(())
    })
}

pub(super) fn epoch(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, _| inflated.entry.epoch = Epoch::new(inflated.entry.epoch.get() + 1))
}

pub(super) fn source_seq(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, _| inflated.entry.source_seq = SourceSeq::new(inflated.entry.source_seq.get() + 1))
}

pub(super) fn source_count(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, _| inflated.entry.source_count = Count::new(inflated.entry.source_count.get() + 1))
}

pub(super) fn secret(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, random| {
        if let Salts::Secret(secret) = &mut inflated.entry.salts {
            *secret = BatchSecret::new(flip_bit(secret.expose(), random));
        }
    })
}

pub(super) fn batch_hash(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, random| {
        inflated.entry.batch_hash = BatchHash::new(flip_bit(inflated.entry.batch_hash.as_bytes(), random));
    })
}

pub(super) fn chain_hash(scene: &mut Scene<'_>) -> Result<Place> {
    envelope(scene, |inflated, random| {
        inflated.entry.chain_hash = ChainHash::new(flip_bit(inflated.entry.chain_hash.as_bytes(), random));
    })
}

fn envelope(scene: &mut Scene<'_>, change: impl FnOnce(&mut Inflated<'_>, &mut ChaCha12Rng)) -> Result<Place> {
    let entry = scene.any_entry()?;
    scene.change(entry, |inflated, random| {
        change(inflated, random);
        Ok(())
    })
}
