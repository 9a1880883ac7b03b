//! Comparing the stored rows of the tree with those that a walk gives: exactly those must be there.

use std::sync::Arc;

use sigillo_model::tree::TreeRow;

use crate::{
    layout::{self, Table},
    read::Pairs,
    store::{Direction, Pair, Store},
    verify::{VerifyError, altered, at},
};

/// The stored rows, level beside level: a walk completes the rows of each level in order.
pub(crate) struct TreeRows {
    store: Arc<dyn Store>,
    levels: Vec<Level>,
}

struct Level {
    rows: Pairs,
    /// Records that the rows compared so far cover.
    covered: u64,
}

impl TreeRows {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        let mut rows = Self { store, levels: Vec::new() };
        rows.reach(0);
        rows
    }

    /// Begins to read all levels up to this one.
    fn reach(&mut self, level: u8) {
        while self.levels.len() <= usize::from(level) {
            // At most `level`.
            let next = u8::try_from(self.levels.len()).unwrap_or(level);
            let from = layout::tree_key(next, 0).to_vec();
            let rows = Pairs::new(self.store.clone(), Table::Tree, from, Direction::Forward);
            self.levels.push(Level { rows, covered: 0 });
        }
    }

    /// The next stored row of this row's level must be this one.
    pub(crate) fn check(&mut self, row: &TreeRow) -> Result<(), VerifyError> {
        self.reach(row.level);
        let Some(level) = self.levels.get_mut(usize::from(row.level)) else { return Ok(()) };
        let first = if row.level == 0 { level.covered } else { row.first_record() };
        level.covered =
            TreeRow { index: if row.level == 0 { row.index } else { row.index + 1 }, ..*row }.first_record();
        let found = level.rows.next().transpose().map_err(|error| at(first, &error))?;
        let (_, key, value) = layout::tree_row(row);
        match found {
            Some((found_key, found)) if *found_key == *key && *found == *value => Ok(()),
            _ => {
                let TreeRow { level, index, .. } = row;
                let what =
                    format!("row {index} of level {level} of the tree is missing or wrong, or one is added before it");
                Err(altered(first, level_end(row), what))
            }
        }
    }

    /// No level may have more rows than the walk gave, and no other level any.
    pub(crate) fn check_end(mut self, size: u64) -> Result<(), VerifyError> {
        let levels = u8::try_from(self.levels.len()).unwrap_or(u8::MAX);
        for (level, state) in (0_u8..).zip(&mut self.levels) {
            let next = state.rows.next().transpose().map_err(|error| at(size, &error))?;
            if next.as_ref().is_some_and(|pair| belongs(pair, level, levels)) {
                return Err(altered(state.covered, size, format!("level {level} of the tree has a row too many")));
            }
        }
        Ok(())
    }
}

/// True if this row, found after the last of a level, belongs to none of the other levels of the walk.
fn belongs((key, _): &Pair, level: u8, levels: u8) -> bool {
    layout::decode_tree_key(key).is_none_or(|(found, _)| found != level + 1 || found >= levels)
}

fn level_end(row: &TreeRow) -> u64 {
    let index = if row.level == 0 { row.index } else { row.index.saturating_add(1) };
    TreeRow { index, ..*row }.first_record()
}
