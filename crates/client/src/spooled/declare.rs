//! What can't be sent and is said to be lost.

use sigillo_spool::Damage;

/// A loss, for the record that declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Where it was lost: the spool.
    pub stream: String,
    /// Why, for people.
    pub reason: String,
    /// Where it begins: an epoch and the number of a record, or a place in a file.
    pub from: String,
    /// Where it ends, exclusive.
    pub to: String,
    /// Records, when that is known.
    pub records: Option<u64>,
    /// Bytes, when that is known.
    pub bytes: Option<u64>,
}

impl Loss {
    /// What a damaged spool has lost.
    pub(super) fn of(damage: &Damage) -> Vec<Self> {
        let reason = format!("the spool is damaged: {}", damage.findings.join("; "));
        let losses = damage.lost.iter().map(|lost| Loss {
            stream: "spool".into(),
            reason: reason.clone(),
            from: format!("{}:{}", lost.epoch, lost.from),
            to: lost.to.map_or_else(|| "unknown".into(), |to| format!("{}:{to}", lost.epoch)),
            records: lost.to.and_then(|to| to.get().checked_sub(lost.from.get())),
            bytes: None,
        });
        let losses: Vec<Loss> = losses.collect();
        if !losses.is_empty() {
            return losses;
        }
        let (stream, from, to) = ("spool".into(), String::new(), String::new());
        vec![Loss { stream, reason, from, to, records: None, bytes: None }]
    }
}
