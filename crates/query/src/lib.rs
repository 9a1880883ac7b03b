//! Searching a journal: filters, times as people write them, evaluation over the journal's reader.
