//! Evidence: a file that proves records offline. Read and written as a stream of sections; laid out in `FORMAT.md`.
//!
//! [`Writer`] makes the sections, [`Verifier`] checks them one by one and ends with a [`Report`]. Neither does input or output:
//! whoever holds the file feeds [`Verifier`] with one section after the other, each bounded by [`Kind::max_bytes`].

mod about;
mod gone;
mod heads;
mod record;
mod report;
mod run;
mod seal;
mod section;
mod shared;
mod verify;
mod write;

pub use about::{About, Attachment, NAME_MAX_BYTES, Tools, is_attachment_name, peek_origin};
pub use heads::{BatchProof, HeadFault, HeadProof, HeadVerdict, Stated};
pub use record::{PartBody, RecordBody, RecordView};
pub use report::{Checkpointed, Completeness, Existed, Finding, Hidden, NotShown, Removed, Report, RunVerdict, Signed};
pub use run::{CounterProof, Run, RunFault};
pub use seal::{Seal, SealError};
pub use section::{HEADER_BYTES, Header, Kind, MAGIC};
pub use shared::{GAP_MAX_HASHES, GapError, Nodes, SharedRoot, gap_hashes, subtrees};
pub use verify::{Verifier, Watch};
pub use write::{WriteError, Writer};
