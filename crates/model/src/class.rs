//! Classes of sources. A class fixes defaults: parsing, retention, who may read.

use crate::ids::{ClassId, RetentionId};

/// The classes that every journal knows, with the numbers that envelopes carry. Numbers are never reused; those from
/// [`FIRST_CONFIGURED`] on are given to configured classes, by a record in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum Class {
    /// The product's own acts.
    Journal = 0,
    /// Servers that hold customers' backups.
    Backup = 1,
    /// Servers that run the infrastructure.
    Management = 2,
    /// Servers that serve customers.
    Service = 3,
    /// What customers, and staff acting for them, do in the control panel.
    Panel = 4,
    /// Administrators' machines.
    Admin = 5,
}

/// First number of a configured class.
pub const FIRST_CONFIGURED: u16 = 256;

impl Class {
    /// All of them, by number.
    pub const ALL: [Self; 6] = [Self::Journal, Self::Backup, Self::Management, Self::Service, Self::Panel, Self::Admin];

    /// The number in the envelope.
    pub const fn id(self) -> ClassId {
        ClassId::new(self as u16)
    }

    /// The retention class of the same number, which records of this class get unless configured otherwise.
    pub const fn retention(self) -> RetentionId {
        RetentionId::new(self as u16)
    }

    /// The name in configuration, filters and output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Backup => "backup",
            Self::Management => "management",
            Self::Service => "service",
            Self::Panel => "panel",
            Self::Admin => "admin",
        }
    }

    /// The class of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The class of this number.
    pub fn from_id(id: ClassId) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.id() == id)
    }
}
