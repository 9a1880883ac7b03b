//! Records that are really gone from the database, and statements that shall make it look lawful.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use rand::{Rng, seq::IndexedRandom};
use sigillo_model::{
    class::Class,
    entry::Gone,
    ids::RetentionId,
    note::SigningKey,
    record::Part,
    statement::{Act, Erasure, Order, Purge, Retention},
};

use super::{
    super::{
        disk,
        hands::Expected,
        image::{KEPT, SECOND_NS},
    },
    Made, Scene,
};

impl Scene<'_> {
    /// Sequences of records that somebody sent, anywhere.
    fn records(&self, suits: impl Fn(usize, RetentionId) -> bool) -> Vec<u64> {
        let mut found = Vec::new();
        for (at, piece) in self.image.pieces.iter().enumerate().filter(|(_, piece)| !piece.is_own()) {
            for (run, start) in piece.runs.iter().zip(piece.run_starts()) {
                if suits(at, run.retention) {
                    let first = self.image.starts[at] + start;
                    found.extend(first..first + u64::from(run.records));
                }
            }
        }
        found
    }

    fn some_records(&mut self, count: usize) -> Result<Vec<u64>> {
        let all = self.records(|_, _| true);
        let mut some: Vec<u64> = all.choose_multiple(self.random, count).copied().collect();
        some.sort_unstable();
        some.first().context("there are no records")?;
        Ok(some)
    }

    /// The whole record, or one part, which all of them have.
    fn gone(&mut self) -> Gone {
        let parts = [Gone::RECORD, Gone::part(Part::Core), Gone::part(Part::Content)];
        parts[self.random.random_range(0..parts.len())]
    }

    /// Takes these parts out, and states this.
    fn take_out(&mut self, what: &BTreeMap<u64, Gone>, texts: Vec<Vec<u8>>, expected: Expected) -> Result<Made> {
        self.append(texts)?;
        disk::take_out(self.dir, what)?;
        Ok(Made::at(*what.first_key_value().context("nothing is taken out")?.0, expected))
    }
}

fn erasure(what: &BTreeMap<u64, Gone>) -> Act {
    let targets = what.iter().map(|(seq, gone)| (*seq, *gone)).collect();
    Act::Erase(Erasure { basis: "request of a customer".to_owned(), targets })
}

/// Erases what an order names that these signed.
fn by_order(scene: &mut Scene<'_>, sign: impl Fn(&mut Scene<'_>, &Act) -> Result<Vec<u8>>) -> Result<Made> {
    let count = scene.random.random_range(1..4);
    let gone = scene.gone();
    let what: BTreeMap<u64, Gone> = scene.some_records(count)?.into_iter().map(|seq| (seq, gone)).collect();
    let text = sign(scene, &erasure(&what))?;
    let first = *what.first_key_value().context("nothing is named")?.0;
    scene.take_out(&what, vec![text], Expected::at(first, None))
}

/// None of them, one, or one twice.
pub(super) fn too_few_officers(scene: &mut Scene<'_>) -> Result<Made> {
    by_order(scene, |scene, act| {
        let keys = &scene.image.keys;
        let officer = keys.officers.choose(scene.random).context("there are no officers")?;
        // A log's key is no officer's, and neither is a stranger's.
        let stranger = keys.strangers.last().context("there are no strangers")?;
        match scene.random.random_range(0..5) {
            0 => Ok(Order::text(&keys.origin, act).into_bytes()),
            1 => keys.order(act, &[officer]),
            2 => keys.order(act, &[officer, officer]),
            3 => keys.order(act, &[officer, &keys.log]),
            _ => keys.order(act, &[officer, stranger]),
        }
    })
}

/// Two of them, some with officers' names, or with signatures of officers under another text.
pub(super) fn strangers(scene: &mut Scene<'_>) -> Result<Made> {
    by_order(scene, |scene, act| {
        let keys = &scene.image.keys;
        if scene.random.random_ratio(1, 3) {
            return forged_signatures(scene, act);
        }
        let two: Vec<&SigningKey> = keys.strangers.choose_multiple(scene.random, 2).collect();
        keys.order(act, &two)
    })
}

/// Officers' true signatures of another order, put under this one.
fn forged_signatures(scene: &Scene<'_>, act: &Act) -> Result<Vec<u8>> {
    let keys = &scene.image.keys;
    let other = keys.lawful_order(&Act::Keep(Retention { class: Class::Admin.retention(), keep_s: 1 }))?;
    let other = String::from_utf8(other)?;
    let (_, signatures) = other.split_once("\n\n").context("a note without signatures")?;
    Ok(format!("{}\n{signatures}", Order::text(&keys.origin, act)).into_bytes())
}

/// A lawful order stands in the journal, and more goes than it names: other records, or more parts.
pub(super) fn not_named(scene: &mut Scene<'_>) -> Result<Made> {
    let targets = scene.some_records(2)?;
    let (named, other) = if scene.random.random() { (targets[0], targets[1]) } else { (targets[1], targets[0]) };
    let order = |seq, gone| scene.image.keys.lawful_order(&erasure(&BTreeMap::from([(seq, gone)])));
    let (text, what, first) = match scene.random.random_range(0..3) {
        0 => (order(named, Gone::RECORD)?, BTreeMap::from([(other, Gone::RECORD)]), other),
        1 => (order(named, Gone::RECORD)?, BTreeMap::from([(named, Gone::RECORD), (other, Gone::RECORD)]), other),
        _ => {
            let order = order(named, Gone::part(Part::Personal))?;
            (order, BTreeMap::from([(named, Gone::RECORD)]), named)
        }
    };
    scene.take_out(&what, vec![text], Expected::at(first, Some(first + 1)))
}

/// Which retention statement holds for a class.
fn in_force(scene: &Scene<'_>, class: Class) -> Result<(u64, u64)> {
    let place =
        KEPT.iter().position(|(kept, _)| *kept == class).context("no officer has said anything of this class")?;
    Ok((scene.image.retentions[place], KEPT[place].1))
}

/// Purges records of a class in a range, and says so. `expected` is the first that must not be gone.
fn purge(
    scene: &mut Scene<'_>,
    stated: Purge,
    keep_s: u64,
    before: Vec<Vec<u8>>,
    what: &[u64],
    expected: u64,
) -> Result<Made> {
    let what: BTreeMap<u64, Gone> = what.iter().map(|seq| (*seq, Gone::PURGED)).collect();
    let texts = [before, vec![stated.text(&scene.image.keys.origin).into_bytes()]].concat();
    let made = scene.take_out(&what, texts, Expected::at(expected, None))?;
    disk::put_class(scene.dir, stated.class, stated.retention, keep_s, stated.to)?;
    Ok(made)
}

/// The minute of receipt was over for less than the time to keep when the purge was stated, by the definition.
fn is_due(scene: &Scene<'_>, at: usize, keep_s: u64) -> bool {
    let minute = 60 * SECOND_NS;
    let received = scene.image.pieces[at].received.get() / minute * minute;
    let now = scene.image.next_time().get();
    now.checked_sub(keep_s * SECOND_NS).is_some_and(|latest| received < latest / minute * minute)
}

/// Records of a class that are kept longer; or all of a class, also those of the last days.
pub(super) fn not_due(scene: &mut Scene<'_>) -> Result<Made> {
    let class = if scene.random.random() { Class::Management } else { Class::Service };
    let (retention, keep_s) = in_force(scene, class)?;
    let all = scene.records(|_, of| of == class.retention());
    let not_due = scene.records(|at, of| of == class.retention() && !is_due(scene, at, keep_s));
    let least = *not_due.choose(scene.random).context("all is due")?;
    let what: Vec<u64> = if scene.random.random() { all } else { not_due };
    let what: Vec<u64> = what.into_iter().filter(|seq| *seq <= least).collect();
    let first = scene.records(|at, of| of == class.retention() && !is_due(scene, at, keep_s));
    let first = *first.first().context("all is due")?;
    let stated = Purge { from: 0, to: least + 1, class: class.retention(), retention };
    purge(scene, stated, keep_s, Vec::new(), &what, first)
}

/// A lawful purge, and with it records that are of another class.
pub(super) fn another_class(scene: &mut Scene<'_>) -> Result<Made> {
    let (retention, keep_s) = in_force(scene, Class::Service)?;
    let due = scene.records(|at, of| of == Class::Service.retention() && is_due(scene, at, keep_s));
    let to = due.last().context("nothing is due")? + 1;
    let others = scene.records(|_, of| of != Class::Service.retention());
    let others: Vec<u64> = others.into_iter().filter(|seq| *seq < to).collect();
    let count = scene.random.random_range(1..5);
    let mut others: Vec<u64> = others.choose_multiple(scene.random, count).copied().collect();
    others.sort_unstable();
    let first = *others.first().context("there are no others")?;
    let stated = Purge { from: 0, to, class: Class::Service.retention(), retention };
    let mut what = if scene.random.random() { due } else { Vec::new() };
    what.extend(others);
    what.sort_unstable();
    purge(scene, stated, keep_s, Vec::new(), &what, first)
}

/// Of a class of which officers said nothing: by another class's statement, or by one that the owner made up.
pub(super) fn no_policy(scene: &mut Scene<'_>) -> Result<Made> {
    let class = Class::Panel.retention();
    let all = scene.records(|_, of| of == class);
    let last = *all.choose(scene.random).context("there are none of this class")?;
    let what: Vec<u64> = all.into_iter().filter(|seq| *seq <= last).collect();
    let first = *what.first().context("there are none of this class")?;
    let keys = &scene.image.keys;
    let act = Act::Keep(Retention { class, keep_s: 0 });
    let officer = keys.officers.first().context("there are no officers")?;
    let (before, retention) = match scene.random.random_range(0..4) {
        0 => (Vec::new(), in_force(scene, Class::Service)?.0),
        1 => (Vec::new(), first),
        2 => (vec![keys.order(&act, &keys.strangers.iter().take(2).collect::<Vec<_>>())?], scene.image.size()),
        _ => (vec![keys.order(&act, &[officer])?], scene.image.size()),
    };
    purge(scene, Purge { from: 0, to: last + 1, class, retention }, 0, before, &what, first)
}
