//! Who may do what. One table, matched exhaustively: a new role or action does not compile until each pair is decided.

/// What somebody who calls the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// An enrolled sender of records.
    Source,
    /// Runs the service: sees that it is alive and grows, reads no record.
    Operator,
    /// Searches and follows records after an incident.
    Investigator,
    /// Checks the journal itself: reads records as an investigator does, and every stored entry.
    Auditor,
}

/// What can be done through the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Append records.
    Append,
    /// Learn the durable head: size and chain value.
    Head,
    /// Search records.
    Search,
    /// Follow records as they arrive.
    Tail,
    /// Read stored entries, to recompute the chain.
    Walk,
    /// Take records out as evidence.
    Export,
    /// See who sends, who has gone quiet, and how far behind each of them is.
    Sources,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Source, Self::Operator, Self::Investigator, Self::Auditor];

    /// The name in configuration and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Operator => "operator",
            Self::Investigator => "investigator",
            Self::Auditor => "auditor",
        }
    }
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Append, Self::Head, Self::Search, Self::Tail, Self::Walk, Self::Export, Self::Sources];

    /// The name in records and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Head => "head",
            Self::Search => "search",
            Self::Tail => "tail",
            Self::Walk => "walk",
            Self::Export => "export",
            Self::Sources => "sources",
        }
    }
}

/// The table.
pub const fn allows(role: Role, action: Action) -> bool {
    // Who sends can't read, and who reads can't send: neither can cover what the other does. Everybody may know the head: it
    // holds hashes only, and senders will compare it with the one they remember.
    match role {
        Role::Source => match action {
            Action::Append | Action::Head => true,
            Action::Search | Action::Tail | Action::Walk | Action::Export | Action::Sources => false,
        },
        Role::Operator => match action {
            Action::Head | Action::Sources => true,
            Action::Append | Action::Search | Action::Tail | Action::Walk | Action::Export => false,
        },
        Role::Investigator => match action {
            Action::Head | Action::Search | Action::Tail | Action::Export | Action::Sources => true,
            Action::Append | Action::Walk => false,
        },
        Role::Auditor => match action {
            Action::Head | Action::Search | Action::Tail | Action::Walk | Action::Export | Action::Sources => true,
            Action::Append => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads_as_documented() {
        let allowed = |role| -> Vec<&str> {
            Action::ALL.into_iter().filter(|action| allows(role, *action)).map(Action::name).collect()
        };
        assert_eq!(allowed(Role::Source), ["append", "head"]);
        assert_eq!(allowed(Role::Operator), ["head", "sources"]);
        assert_eq!(allowed(Role::Investigator), ["head", "search", "tail", "export", "sources"]);
        assert_eq!(allowed(Role::Auditor), ["head", "search", "tail", "walk", "export", "sources"]);
    }
}
