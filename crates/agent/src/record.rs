//! Lines into records.

use sigillo_model::{limits::FIELD_MAX_BYTES, record::Record};
use sigillo_proto::{
    record::Fields,
    v1::{ContentPart, CorePart},
};

use crate::{
    line::Piece,
    stamp::{self, Stamp},
};

/// What all records of one stream have in common.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub(crate) host: String,
    pub(crate) tenant: String,
    /// Path, unit or channel.
    pub(crate) name: String,
}

impl Stream {
    /// A record of a line that says itself when and what it is, or doesn't. Only a line's first piece has a header.
    pub(crate) fn line(&self, piece: Piece, observed_unix_nano: u64) -> Record {
        let has_header = piece.fragment.is_none_or(|fragment| fragment.index == 0);
        let bytes = piece.bytes.clone();
        let stamp = if has_header { stamp::read(&bytes, &self.host) } else { Stamp::default() };
        self.record(piece, stamp, observed_unix_nano)
    }

    /// A record of a piece and what is known about it.
    pub(crate) fn record(&self, piece: Piece, stamp: Stamp<'_>, observed_unix_nano: u64) -> Record {
        let (severity_number, severity_text) = stamp.priority.map_or((0, ""), stamp::severity);
        let host = if stamp.host.is_empty() { &self.host } else { stamp.host };
        let core = CorePart {
            event_time_unix_nano: stamp.event_time_unix_nano,
            observed_time_unix_nano: observed_unix_nano,
            severity_number,
            severity_text: severity_text.to_owned(),
            host: short(host),
            tenant: self.tenant.clone(),
            stream: short(&self.name),
            program: short(stamp.program),
            process_id: stamp.process_id,
            ..CorePart::default()
        };
        let content = ContentPart { original: piece.bytes, fragment: piece.fragment, ..ContentPart::default() };
        Fields { core: Some(core), personal: None, content: Some(content), unreadable: Vec::new() }.encode()
    }
}

/// Cut to what a short field may hold; the whole stands in the original.
fn short(text: &str) -> String {
    let end = (0..=text.len().min(FIELD_MAX_BYTES)).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or_default()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_fields_are_cut_between_characters() {
        assert_eq!(short(&"é".repeat(FIELD_MAX_BYTES)).len(), FIELD_MAX_BYTES);
        assert_eq!(short(&format!("x{}", "é".repeat(FIELD_MAX_BYTES))).len(), FIELD_MAX_BYTES - 1);
        assert_eq!(short("é"), "é");
    }
}
