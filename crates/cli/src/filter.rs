//! Options that say which records, alike for `query` and `tail`.

use clap::Args;
use jiff::Zoned;
use sigillo_proto::v1;
use sigillo_query::when;
use sigillo_verify::show::severity;

/// Which records. Options of different kinds are joined by AND, repetitions of one by OR.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which records (an option may be repeated: any of its values)")]
pub(crate) struct FilterArgs {
    /// Text within the message, the original line or an attribute; exact, by bytes
    #[arg(value_name = "TEXT", conflicts_with = "contains", help_heading = None::<&str>)]
    pub(crate) text: Option<String>,
    /// The same as TEXT, as an option
    #[arg(short = 'g', long, value_name = "TEXT")]
    pub(crate) contains: Option<String>,
    /// Class of the source: backup, management, service, panel, admin, journal, or a configured one
    #[arg(long, value_name = "NAME")]
    pub(crate) class: Vec<String>,
    /// Machine on which it happened
    #[arg(long, value_name = "NAME")]
    pub(crate) host: Vec<String>,
    /// Tenant concerned
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Vec<String>,
    /// Id or name of who did it, or of who acted in their name
    #[arg(long, value_name = "ID")]
    pub(crate) actor: Vec<String>,
    /// What was done, such as server.reboot
    #[arg(long, value_name = "VERB")]
    pub(crate) action: Vec<String>,
    /// What it was done to: its id, or TYPE:ID such as server:4711
    #[arg(long, value_name = "TARGET")]
    pub(crate) target: Vec<String>,
    /// Source that sent it
    #[arg(long, value_name = "NAME")]
    pub(crate) source: Vec<String>,
    /// So severe or more: trace, debug, info, notice, warn, error, crit, alert, fatal, or 1 to 24
    #[arg(long, value_name = "LEVEL", value_parser = severity::parse)]
    pub(crate) severity: Option<u32>,
    /// Happened at this time or later: "2026-11-23 12:00", 12:00, today, -2h, "2 hours ago", RFC 3339, @UNIX-TIME;
    /// local time unless a zone follows
    #[arg(short = 'S', long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub(crate) since: Option<u64>,
    /// Happened before this time
    #[arg(short = 'U', long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub(crate) until: Option<u64>,
    /// Reached the journal at this time or later, by the server's clock
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub(crate) received_since: Option<u64>,
    /// Reached the journal before this time
    #[arg(long, value_name = "TIME", value_parser = time, allow_hyphen_values = true)]
    pub(crate) received_until: Option<u64>,
    /// Why you read: a case, a ticket, a sentence. Kept in the journal, as is every read
    #[arg(long, value_name = "TEXT", default_value = "", help_heading = None::<&str>)]
    pub(crate) reason: String,
}

impl FilterArgs {
    /// The filter and the reason as they are sent.
    pub(crate) fn into_parts(self) -> (v1::Filter, String) {
        let filter = v1::Filter {
            since_unix_nano: self.since,
            until_unix_nano: self.until,
            received_since_unix_nano: self.received_since,
            received_until_unix_nano: self.received_until,
            classes: self.class,
            hosts: self.host,
            tenants: self.tenant,
            actors: self.actor,
            actions: self.action,
            min_severity: self.severity.unwrap_or(0),
            contains: self.text.or(self.contains).unwrap_or_default().into(),
            sources: self.source,
            targets: self.target,
        };
        (filter, self.reason)
    }
}

fn time(text: &str) -> Result<u64, when::WhenError> {
    when::parse(text, &Zoned::now())
}
