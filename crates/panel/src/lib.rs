//! Writes what is done in a control panel to a journal: who did what to what, in whose name, and how it ended.
//!
//! [`Panel::write`] returns when the activity is durable in the journal, or, when the journal can't be reached within the panel's
//! patience, when it is synced in a queue on the disk. What was queued reaches the journal later, exactly once and in order, also
//! over crashes and restarts of the panel.
//!
//! ```no_run
//! use sigillo_panel::{Activity, Actor, ActorKind, Endpoint, Options, Outcome, Panel, Written};
//!
//! # async fn example() -> Result<(), sigillo_panel::PanelError> {
//! let endpoint = Endpoint {
//!     url: "https://journal.example".into(),
//!     ca: "/etc/panel/ca.pem".into(),
//!     cert: "/etc/panel/panel.pem".into(),
//!     key: "/etc/panel/panel.key".into(),
//!     name: None,
//!     trust: Some("/etc/panel/trust.txt".into()),
//!     remember: None,
//! };
//! let panel = Panel::open(Options::new(endpoint, "/var/lib/panel/journal", "panel 4.2")).await?;
//! let activity = Activity {
//!     actor: Some(Actor { id: "c-1042".into(), name: "m.rossi".into(), kind: ActorKind::Customer }),
//!     outcome: Some(Outcome::Success),
//!     message: "rebooted for the kernel update".into(),
//!     ..Activity::new("server.reboot").on("server", "srv-17")
//! };
//! match panel.write(activity).await? {
//!     Written::Durable { sequence, .. } => println!("record {sequence:?} of the journal"),
//!     Written::Queued { why } => println!("queued: {why}"),
//! }
//! # Ok(())
//! # }
//! ```

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

mod activity;
mod error;
mod loss;
mod panel;
mod receipts;

pub use sigillo_client::{
    Endpoint,
    spooled::{Hold, Progress},
};

pub use self::{
    activity::{Activity, Actor, ActorKind, Outcome, Severity, Value},
    error::PanelError,
    panel::{Options, Panel, Written},
};
