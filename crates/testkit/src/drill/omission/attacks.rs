//! What an owner of database, log key and exporter key does to let a record go unseen in "complete" evidence.

use anyhow::{Context, Result, ensure};
use rand::Rng;
use sigillo_model::{
    envelope::Envelope,
    evidence::Run,
    ids::{Count, TenantId},
    statement::counters::{CounterKey, CounterTree},
};

use super::{
    Expected, Made, Scene,
    file::{Export, Show, proof},
    journal::{Content, Journal, Plan, Sealed},
};

pub(super) type Attack = fn(&mut Scene<'_>) -> Result<Made>;

pub(super) const ATTACKS: [(&str, Attack); 18] = [
    ("withheld from the middle", middle),
    ("withheld from the beginning", beginning),
    ("withheld at the end, said to be the end", suffix),
    ("withheld, and nothing claimed", unclaimed),
    ("all withheld, and an empty run claimed", nothing),
    ("counted twice, one of the two withheld", twice_withheld),
    ("counted twice, both shown", twice_shown),
    ("numbers skipped", skipped),
    ("filed under another when received", misfiled),
    ("filed under another later", misfiled_later),
    ("envelope changed in the file alone", changed),
    ("counters record that lies", lying_counters),
    ("older counters record", older_counters),
    ("counters record missing or hidden", missing_counters),
    ("counters of another salt, root or place", other_counters),
    ("auditor's signature from another checkpoint", copied_signature),
    ("claimed for another id", other_id),
    ("two runs or two journals spliced", spliced),
];

/// Takes these out of the file.
fn withhold(export: &mut Export, rows: &[u64]) {
    export.shown.retain(|seq, _| !rows.contains(seq));
}

/// All of somebody in the journal that nobody has altered, and the sequences of its records.
fn honest(scene: &mut Scene<'_>) -> Result<(Export, CounterKey, Vec<u64>)> {
    let (key, name) = scene.somebody();
    let journal = &scene.base.journal;
    let size = journal.size();
    let (note, _) = scene.checkpoint(journal, size, &[])?;
    let export = Export::lawful(journal, &key, &name, size, note)?;
    Ok((export, key, journal.of(&key, size)))
}

fn made(scene: &Scene<'_>, export: Export, expected: Expected) -> Made {
    Made { export, journal: scene.base.journal.clone(), expected }
}

fn middle(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, _, rows) = honest(scene)?;
    let from = scene.random.random_range(1..rows.len() - 1);
    let to = scene.random.random_range(from + 1..rows.len()).min(from + 20);
    withhold(&mut export, rows.get(from..to).unwrap_or_default());
    Ok(made(scene, export, Expected::NotShown))
}

fn beginning(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, _, rows) = honest(scene)?;
    let to = scene.random.random_range(1..=rows.len());
    withhold(&mut export, rows.get(..to).unwrap_or_default());
    Ok(made(scene, export, Expected::NotShown))
}

fn suffix(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, _, rows) = honest(scene)?;
    let from = scene.random.random_range(1..rows.len());
    withhold(&mut export, rows.get(from..).unwrap_or_default());
    let claimed = scene.random.random_range(0..3);
    if let Some(run) = export.runs.first_mut().filter(|_| claimed > 0) {
        run.to = from as u64;
    }
    if claimed > 1 {
        export.proofs.clear();
    }
    Ok(made(scene, export, Expected::NotShown))
}

fn unclaimed(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, _, rows) = honest(scene)?;
    let from = scene.random.random_range(1..rows.len());
    withhold(&mut export, rows.get(from..).unwrap_or_default());
    export.runs.clear();
    export.proofs.clear();
    Ok(made(scene, export, Expected::NotClaimed))
}

fn nothing(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, _, rows) = honest(scene)?;
    withhold(&mut export, &rows);
    let at_end = scene.random.random();
    let run = export.runs.first_mut().context("no run")?;
    (run.from, run.reaches_end) = (run.to, at_end);
    Ok(made(scene, export, Expected::Rejected))
}

/// Somebody's batch in the plan whose first number is off by this.
fn shifted(scene: &mut Scene<'_>, shift: i64) -> Result<(Plan, usize, CounterKey, String)> {
    let (key, name) = scene.somebody();
    let place = scene.batch_of(&key)?;
    let mut plan = scene.base.plan.clone();
    let piece = plan.pieces.get_mut(place).context("no batch")?;
    match key {
        CounterKey::Source(_) => piece.source_shift = shift,
        CounterKey::Tenant(_) => piece.tenant_shift = shift,
    }
    Ok((plan, place, key, name))
}

/// Builds a journal that no auditor may sign who walks it, and all of somebody in it.
fn forged(scene: &mut Scene<'_>, plan: &Plan, key: &CounterKey, name: &str) -> Result<(Export, Journal)> {
    let journal = Journal::build(&scene.base.origin, plan)?;
    let (note, signed) = scene.checkpoint(&journal, journal.size(), &[])?;
    ensure!(!signed, "an auditor who walked the forged journal has signed it");
    let export = Export::lawful(&journal, key, name, journal.size(), note)?;
    Ok((export, journal))
}

fn twice_withheld(scene: &mut Scene<'_>) -> Result<Made> {
    let (plan, place, key, name) = shifted(scene, -1)?;
    let (mut export, journal) = forged(scene, &plan, &key, &name)?;
    // One of the two that have the number: the batch's first record, or the one of the same person before it.
    let seq = plan.seq_of(place);
    let before = journal.of(&key, seq).pop().context("nothing before it")?;
    withhold(&mut export, &[if scene.random.random() { seq } else { before }]);
    Ok(Made { export, journal, expected: Expected::ProvidersWord })
}

fn twice_shown(scene: &mut Scene<'_>) -> Result<Made> {
    let (plan, _, key, name) = shifted(scene, -1)?;
    let (export, journal) = forged(scene, &plan, &key, &name)?;
    Ok(Made { export, journal, expected: Expected::Rejected })
}

fn skipped(scene: &mut Scene<'_>) -> Result<Made> {
    let by = scene.random.random_range(1..4);
    let (plan, _, key, name) = shifted(scene, by)?;
    let (export, journal) = forged(scene, &plan, &key, &name)?;
    Ok(Made { export, journal, expected: Expected::NotShown })
}

/// The plan with one of somebody's batches under another source or tenant, and where it stands.
pub(super) fn refiled(scene: &mut Scene<'_>, key: &CounterKey) -> Result<(Plan, usize)> {
    let place = scene.batch_of(key)?;
    let mut plan = scene.base.plan.clone();
    let piece = plan.pieces.get_mut(place).context("no batch")?;
    match key {
        CounterKey::Source(_) => piece.source = "elsewhere-1".into(),
        CounterKey::Tenant(_) => piece.tenant = "home".into(),
    }
    Ok((plan, place))
}

/// Nobody has walked: that it is complete is the provider's word, and the verdict must say so.
fn misfiled(scene: &mut Scene<'_>) -> Result<Made> {
    scene.no_walk();
    let (key, name) = scene.somebody();
    let (plan, _) = refiled(scene, &key)?;
    let (export, journal) = forged(scene, &plan, &key, &name)?;
    Ok(Made { export, journal, expected: Expected::ProvidersWord })
}

fn misfiled_later(scene: &mut Scene<'_>) -> Result<Made> {
    let (key, name) = scene.somebody();
    let (plan, place) = refiled(scene, &key)?;
    let base = scene.base;
    let rewritten = Journal::build(&base.origin, &plan)?;
    // A checkpoint of the time before the change, which witnesses and auditors remember.
    let after = plan.seq_of(place);
    let size = base.sizes.iter().copied().find(|size| *size > after).context("no checkpoint after it")?;
    let remembered = base.keys.checkpoint(&base.journal, size)?;
    let (note, signed) = scene.checkpoint(&rewritten, rewritten.size(), std::slice::from_ref(&remembered))?;
    ensure!(!signed, "an auditor who remembers another journal has signed this one");
    let mut export = Export::lawful(&rewritten, &key, &name, rewritten.size(), note)?;
    let expected = match scene.random.random_range(0..3) {
        // The earlier checkpoint is left out of the file: a verifier without it has only the provider's word.
        0 => Expected::ProvidersWord,
        1 if size < rewritten.size() => {
            export.add_earlier(&rewritten, remembered, size)?;
            Expected::Rejected
        }
        _ => {
            export.note = base.keys.checkpoint(&base.journal, rewritten.size())?;
            Expected::Rejected
        }
    };
    Ok(Made { export, journal: rewritten, expected })
}

fn changed(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, key, rows) = honest(scene)?;
    let journal = &scene.base.journal;
    let envelope =
        |seq: u64| -> Result<Envelope> { Ok(journal.rows.get(usize::try_from(seq)?).context("no record")?.envelope) };
    let at = scene.random.random_range(1..rows.len());
    let first = *rows.get(at).context("no record")?;
    if scene.random.random() {
        // Withheld, and what follows is numbered anew.
        withhold(&mut export, &[first]);
        for seq in rows.iter().skip(at + 1) {
            let mut envelope = envelope(*seq)?;
            match key {
                CounterKey::Source(_) => envelope.source_count = Count::new(envelope.source_count.get() - 1),
                CounterKey::Tenant(_) => envelope.tenant_count = Count::new(envelope.tenant_count.get() - 1),
            }
            export.changed.insert(*seq, envelope);
        }
        if let Some(run) = export.runs.first_mut() {
            run.to -= 1;
        }
        if export.changed.is_empty() {
            return Ok(made(scene, export, Expected::NotShown));
        }
    } else {
        let envelope = envelope(first)?;
        export.changed.insert(first, Envelope { tenant: TenantId::new([9; 16]), ..envelope });
    }
    Ok(made(scene, export, Expected::Rejected))
}

fn lying_counters(scene: &mut Scene<'_>) -> Result<Made> {
    let (key, name) = scene.somebody();
    let rows = scene.base.journal.of(&key, scene.base.journal.size());
    let off = scene.random.random_range(1..rows.len().min(20));
    let mut plan = scene.base.plan.clone();
    if let Some(Content::Counters { lie, .. }) = plan.pieces.last_mut().map(|piece| &mut piece.content) {
        *lie = Some((key, off as u64));
    }
    let (mut export, journal) = forged(scene, &plan, &key, &name)?;
    withhold(&mut export, rows.get(rows.len() - off..).unwrap_or_default());
    Ok(Made { export, journal, expected: Expected::ProvidersWord })
}

fn older_counters(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, key, _) = honest(scene)?;
    let base = scene.base;
    let older = *base.sizes.get(scene.random.random_range(0..base.sizes.len() - 1)).context("no size")?;
    let tree = base.journal.counters.get(&(older - 1)).context("no counters record")?;
    let next = tree.find(&key).context("nobody of this id")?.1.next.get();
    export.proofs = vec![proof(tree, &key, 0)?];
    let last = export.size - 1;
    export.shown.retain(|seq, _| *seq < older || *seq == last);
    export.shown.insert(older - 1, Show::Whole);
    if let Some(run) = export.runs.first_mut() {
        run.to = next;
    }
    if scene.random.random() {
        // Under a checkpoint of a batch later, which ends with no counters record.
        let mut size = 0;
        for piece in &base.plan.pieces {
            size += piece.count();
            if size > older {
                break;
            }
        }
        export.shown.remove(&last);
        export.size = size;
        export.note = scene.checkpoint(&base.journal, size, &[])?.0;
    }
    Ok(made(scene, export, Expected::NotShown))
}

fn missing_counters(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, _, _) = honest(scene)?;
    let last = export.size - 1;
    match scene.random.random_range(0..4) {
        0 => _ = export.shown.remove(&last),
        1 => _ = export.shown.insert(last, Show::NoContent),
        2 => _ = export.shown.insert(last, Show::Commitment),
        _ => export.proofs.clear(),
    }
    Ok(made(scene, export, Expected::NotShown))
}

fn other_counters(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, key, _) = honest(scene)?;
    let tree = scene.base.journal.counters.last_key_value().context("no counters record")?.1;
    let (other, _) = scene.somebody_but(&key);
    match scene.random.random_range(0..5) {
        0 => {
            let tree = CounterTree::build(scene.random.random(), tree.entries().to_vec());
            export.proofs = vec![proof(&tree, &key, 0)?];
        }
        1 => export.proofs = vec![proof(tree, &other, 0)?],
        2 => export.proofs.iter_mut().for_each(|proof| proof.index ^= 1),
        3 => export.proofs.iter_mut().for_each(|proof| proof.hashes.reverse()),
        _ => export.proofs.iter_mut().for_each(|proof| proof.epoch += 1),
    }
    Ok(made(scene, export, Expected::NotShown))
}

/// An auditor has signed an older checkpoint, or the honest one of the same size.
fn copied_signature(scene: &mut Scene<'_>) -> Result<Made> {
    scene.no_walk();
    let base = scene.base;
    let (plan, place, key, name) = shifted(scene, -1)?;
    let (mut export, journal) = forged(scene, &plan, &key, &name)?;
    withhold(&mut export, &[plan.seq_of(place)]);
    let size = *base.sizes.get(scene.random.random_range(0..base.sizes.len())).context("no size")?;
    let mut honest = base.keys.checkpoint(&base.journal, size)?;
    base.journal.audit(&base.keys.policy, &honest, &[])?;
    honest.add(base.keys.auditor.cosign(honest.text(), super::keys::NOW_S)?)?;
    let copied = honest.signatures().last().context("no signature")?.clone();
    export.note = base.keys.checkpoint(&journal, journal.size())?;
    export.note.add(copied)?;
    Ok(Made { export, journal, expected: Expected::Rejected })
}

fn other_id(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, key, _) = honest(scene)?;
    let (other, name) = scene.somebody_but(&key);
    let tree = scene.base.journal.counters.last_key_value().context("no counters record")?.1;
    let run = export.runs.first_mut().context("no run")?;
    let expected = match scene.random.random_range(0..3) {
        // The name of another than the id's.
        0 => {
            run.name = Some(name);
            Expected::Rejected
        }
        1 => {
            (run.key, run.name) = (other, Some(name));
            Expected::NotShown
        }
        _ => {
            (run.key, run.name, run.to) = (other, Some(name), tree.find(&other).context("nobody")?.1.next.get());
            export.proofs = vec![proof(tree, &other, 0)?];
            Expected::NotShown
        }
    };
    Ok(made(scene, export, expected))
}

fn spliced(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut export, key, rows) = honest(scene)?;
    if scene.random.random() {
        // Each of two runs is whole. What lies between them is withheld.
        let from = scene.random.random_range(1..rows.len() - 1);
        let to = scene.random.random_range(from + 1..rows.len());
        withhold(&mut export, rows.get(from..to).unwrap_or_default());
        let whole = export.runs.pop().context("no run")?;
        let first = Run { to: from as u64, reaches_end: false, ..whole.clone() };
        export.runs = vec![first, Run { from: to as u64, ..whole }];
        export.proofs.iter_mut().for_each(|proof| proof.run = 1);
        return Ok(made(scene, export, Expected::Rejected));
    }
    // The same numbers in another journal of the same owner, from the next batch on.
    let place = scene.batch_of(&key)?;
    let mut plan = scene.base.plan.clone();
    let piece = plan.pieces.get_mut(place).context("no batch")?;
    if let Content::Records(sealed) = &mut piece.content {
        *sealed = Sealed::new(sealed.records.clone(), scene.random.random())?;
    }
    let at = usize::try_from(plan.seq_of(place + 1))?;
    let journal = scene.base.journal.spliced(&Journal::build(&scene.base.origin, &plan)?, at);
    Ok(Made { export, journal, expected: Expected::Rejected })
}
