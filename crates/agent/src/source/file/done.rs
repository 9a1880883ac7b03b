//! Files that were read to their end and closed, and turn up again under another name.

use std::collections::VecDeque;

use super::{content::FileId, mark::Mark};

/// So many are remembered.
const DONE_MAX: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct Done {
    marks: VecDeque<Mark>,
}

impl Done {
    pub(super) fn add(&mut self, mark: Mark) {
        if self.marks.len() == DONE_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back(mark);
    }

    /// Where the reading of a file ended.
    pub(super) fn of(&self, id: &FileId) -> Option<&Mark> {
        self.marks.iter().rev().find(|mark| mark.id.is(id))
    }
}
