//! Files to verify: the golden case, and others made of it.

use std::{fs, path::PathBuf};

use sigillo_model::{
    evidence::{HEADER_BYTES, Header, Kind, MAGIC, Seal, Writer},
    ids::Origin,
    note::{KeyKind, Note, SigningKey},
};

// Relative to the package, in which cargo runs its tests.
const GOLDEN: &str = "../../tests/golden/v2/evidence";

/// A file of the golden case.
pub(crate) fn golden(name: &str) -> PathBuf {
    PathBuf::from(GOLDEN).join(name)
}

pub(crate) fn case() -> Vec<u8> {
    fs::read(golden("case.sigillo")).unwrap()
}

pub(crate) fn trust() -> String {
    fs::read_to_string(golden("trust.txt")).unwrap()
}

/// The sections of a file.
pub(crate) fn sections(file: &[u8]) -> Vec<(Kind, Vec<u8>)> {
    let mut rest = &file[MAGIC.len()..];
    let mut found = Vec::new();
    while let Some((header, after)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::parse(*header).unwrap();
        found.push((header.kind, after[..header.length].to_vec()));
        rest = &after[header.length..];
    }
    found
}

/// A file of these sections, sealed anew with the exporter's key.
pub(crate) fn sealed(sections: &[(Kind, Vec<u8>)]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    let put = |file: &mut Vec<u8>, kind, payload: &[u8]| {
        file.extend(Header { kind, length: payload.len() }.to_bytes());
        file.extend(payload);
    };
    for (kind, payload) in sections.iter().filter(|(kind, _)| *kind != Kind::End) {
        put(&mut file, *kind, payload);
    }
    let mut seal = Seal::default();
    seal.update(&file);
    let text = seal.text(&Origin::new("journal.example.net/2026").unwrap());
    let exporter = SigningKey::from_seed("exporter.example", KeyKind::Log, &[30; 32]).unwrap();
    let note = Note::new(text.clone(), vec![exporter.sign(&text).unwrap()]).unwrap();
    put(&mut file, Kind::End, &note.to_bytes());
    file
}

/// The golden case with a time-stamp token.
pub(crate) fn with_token(name: &str, token: &[u8]) -> Vec<u8> {
    let mut all = sections(&case());
    let mut writer = Writer::resume_after_records();
    writer.token(name, token).unwrap();
    let section = writer.take()[HEADER_BYTES..].to_vec();
    let at = all.iter().position(|(kind, _)| *kind == Kind::Tools).unwrap();
    all.insert(at, (Kind::Token, section));
    sealed(&all)
}

/// The note of the golden case's checkpoint, or of its first earlier one.
pub(crate) fn note(earlier: bool) -> Vec<u8> {
    let wanted = if earlier { Kind::Earlier } else { Kind::Checkpoint };
    let (_, payload) = sections(&case()).into_iter().find(|(kind, _)| *kind == wanted).unwrap();
    if earlier { payload[1 + 32 * usize::from(payload[0])..].to_vec() } else { payload }
}
