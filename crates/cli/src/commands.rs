//! One file per command. Each has its arguments and a function `run`.

pub(crate) mod append;
pub(crate) mod completion;
pub(crate) mod evidence;
pub(crate) mod head;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod man;
pub(crate) mod order;
pub(crate) mod query;
pub(crate) mod sources;
pub(crate) mod tail;
pub(crate) mod verify;
