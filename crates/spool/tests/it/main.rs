//! The spool against an exact model, and against everything that a crash, a full disk or a stranger does to its files.

mod basics;
mod crash;
mod damage;
mod full_disk;
mod golden;
mod model;
mod rechain;
mod support;
