//! Lawful evidence, which must be called exactly what it is.

use anyhow::{Context, Result};
use rand::Rng;
use sigillo_model::{
    entry::Gone,
    record::Part,
    statement::{Act, Erasure, Order, counters::CounterKey},
};

use super::{
    Expected, Made, Scene,
    attacks::{Attack, refiled},
    file::{Export, Show, proof},
    journal::{Content, Journal, Piece, Plan, Sealed},
};

pub(super) const CONTROLS: [(&str, Attack); 10] = [
    ("whole", whole),
    ("what does not match as commitments", commitments),
    ("content hidden", content_hidden),
    ("said to be gone, and nothing explains it", said_gone),
    ("part of the numbers, said to be a part", part),
    ("an older checkpoint", older),
    ("with earlier checkpoints", with_earlier),
    ("a source and a tenant in one file", two_ids),
    ("erased by an order of two officers", erased),
    ("limit: misfiled when received, then walked", misfiled),
];

/// All of somebody up to a size. An auditor who walks signs.
fn lawful(
    scene: &mut Scene<'_>,
    journal: &Journal,
    key: &CounterKey,
    name: &str,
    size: u64,
) -> Result<(Export, Expected)> {
    let note = scene.base.keys.checkpoint(journal, size)?;
    journal.audit(&scene.base.keys.policy, &note, &[]).context("an auditor would not sign")?;
    let (note, signed) = scene.checkpoint(journal, size, &[])?;
    let expected = if signed { Expected::Checked } else { Expected::ProvidersWord };
    Ok((Export::lawful(journal, key, name, size, note)?, expected))
}

fn of_base(scene: &mut Scene<'_>) -> Result<(Made, CounterKey)> {
    let (key, name) = scene.somebody();
    let journal = scene.base.journal.clone();
    let (export, expected) = lawful(scene, &journal, &key, &name, journal.size())?;
    Ok((Made { export, journal, expected }, key))
}

fn whole(scene: &mut Scene<'_>) -> Result<Made> {
    Ok(of_base(scene)?.0)
}

/// Shows some of the records of the run otherwise.
fn shown_as(scene: &mut Scene<'_>, show: Show) -> Result<Made> {
    let (mut made, _) = of_base(scene)?;
    let last = made.export.size - 1;
    let share = scene.random.random_range(0.05..0.95);
    for (seq, shown) in &mut made.export.shown {
        if *seq != last && scene.random.random_bool(share) {
            *shown = show;
        }
    }
    Ok(made)
}

fn commitments(scene: &mut Scene<'_>) -> Result<Made> {
    shown_as(scene, Show::Commitment)
}

fn content_hidden(scene: &mut Scene<'_>) -> Result<Made> {
    shown_as(scene, Show::NoContent)
}

fn said_gone(scene: &mut Scene<'_>) -> Result<Made> {
    shown_as(scene, Show::SaidGone)
}

fn part(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut made, key) = of_base(scene)?;
    let rows = made.journal.of(&key, made.export.size);
    let from = scene.random.random_range(0..rows.len() - 1);
    let to = scene.random.random_range(from + 1..rows.len());
    made.export.shown.retain(|seq, _| rows.get(from..to).is_some_and(|rows| rows.contains(seq)));
    made.export.proofs.clear();
    let run = made.export.runs.first_mut().context("no run")?;
    (run.from, run.to, run.reaches_end) = (from as u64, to as u64, false);
    Ok(made)
}

fn older(scene: &mut Scene<'_>) -> Result<Made> {
    let (key, name) = scene.somebody();
    let journal = scene.base.journal.clone();
    let size = *scene.base.sizes.get(scene.random.random_range(0..scene.base.sizes.len())).context("no size")?;
    let (export, expected) = lawful(scene, &journal, &key, &name, size)?;
    Ok(Made { export, journal, expected })
}

fn with_earlier(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut made, _) = of_base(scene)?;
    let size = made.export.size;
    for size in scene.base.sizes.iter().copied().filter(|earlier| *earlier < size) {
        let note = scene.base.keys.checkpoint(&made.journal, size)?;
        made.export.add_earlier(&made.journal, note, size)?;
    }
    Ok(made)
}

fn two_ids(scene: &mut Scene<'_>) -> Result<Made> {
    let (mut made, key) = of_base(scene)?;
    let (other, name) = scene.somebody_but(&key);
    let also = Export::lawful(&made.journal, &other, &name, made.export.size, made.export.note.clone())?;
    let tree = made.journal.counters.get(&(made.export.size - 1)).context("no counters record")?;
    made.export.proofs.push(proof(tree, &other, 1)?);
    made.export.runs.extend(also.runs);
    made.export.shown.extend(also.shown);
    Ok(made)
}

fn erased(scene: &mut Scene<'_>) -> Result<Made> {
    let (key, name) = scene.somebody();
    let mut plan: Plan = scene.base.plan.clone();
    let rows = scene.base.journal.of(&key, scene.base.journal.size());
    for seq in rows {
        if scene.random.random_bool(0.02) {
            let gone = if scene.random.random() { Gone::RECORD } else { Gone::part(Part::Content) };
            plan.gone.insert(seq, gone);
        }
    }
    // The order stands before the counters record at the end.
    let order = plan.pieces.len() - 1;
    if !plan.gone.is_empty() {
        let targets = plan.gone.iter().map(|(seq, gone)| (*seq, *gone)).collect();
        let text = Order::text(&scene.base.origin, &Act::Erase(Erasure { basis: "case 7".into(), targets }));
        let note = scene.base.keys.order(&text)?.to_bytes();
        let statement = Content::Records(Sealed::statement(&note, scene.random.random())?);
        plan.pieces.insert(order, Piece::own(statement));
    }
    let journal = Journal::build(&scene.base.origin, &plan)?;
    let (mut export, expected) = lawful(scene, &journal, &key, &name, journal.size())?;
    if !plan.gone.is_empty() {
        export.shown.insert(plan.seq_of(order), Show::Whole);
    }
    Ok(Made { export, journal, expected })
}

/// What no walk can see: a record that was filed under another when it was received. The numbers are what an auditor checks, and
/// the verdict says no more.
fn misfiled(scene: &mut Scene<'_>) -> Result<Made> {
    let (key, name) = scene.somebody();
    let (plan, _) = refiled(scene, &key)?;
    let journal = Journal::build(&scene.base.origin, &plan)?;
    let (export, expected) = lawful(scene, &journal, &key, &name, journal.size())?;
    Ok(Made { export, journal, expected })
}
