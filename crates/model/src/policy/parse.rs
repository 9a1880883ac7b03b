//! Reading and writing the trust file.

use std::collections::{BTreeMap, BTreeSet};

use super::{Group, Log, Member, POLICY_MAX_BYTES, POLICY_MAX_LINES, Policy, Quorum, Witness, Word};
use crate::{
    note::{KeyError, KeyKind, VerifierKey},
    text,
};

/// Why a trust file is not taken. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Larger than [`POLICY_MAX_BYTES`].
    #[error("the trust file has {0} bytes; {POLICY_MAX_BYTES} are taken at most")]
    TooLong(usize),
    /// The last line has no newline.
    #[error(
        "the trust file's last line does not end in a newline: the file may have been cut off; add the newline if not"
    )]
    CutOff,
    /// A line that does not hold.
    #[error("line {line} of the trust file: {fault}")]
    Line {
        /// Its number.
        line: usize,
        /// What is wrong.
        fault: Fault,
    },
    /// No quorum line.
    #[error("the trust file has no `quorum` line; write `quorum none` if no witness is asked for")]
    NoQuorum,
}

/// What is wrong with a line of a trust file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A control character other than tab.
    #[error("control characters other than tab and newline are not allowed")]
    Control,
    /// An unknown first word.
    // What stands there is not repeated: somebody may have named a file of private keys.
    #[error(
        "its first word is none of log, witness, group, quorum, recovery, receipt, officer, auditor, exporter, tsa"
    )]
    Keyword,
    /// Too few or too many words.
    #[error("`{0}` is expected")]
    Words(&'static str),
    /// Not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key of another kind.
    #[error("a {expected} key is expected, but `{name}` is a {kind} key")]
    Kind {
        /// Name of the key.
        name: String,
        /// What it is.
        kind: KeyKind,
        /// What it should be.
        expected: KeyKind,
    },
    /// The same public key twice.
    #[error("the public key of `{0}` stands in an earlier line of the same kind")]
    Duplicate(String),
    /// A name defined twice, or `none` defined.
    #[error("the name `{0}` is already taken")]
    Taken(Word),
    /// A name that no earlier line defines.
    #[error("`{0}` is not the name of a witness or group of an earlier line")]
    Undefined(Word),
    /// A name that is already a member of a group.
    #[error("`{0}` is already a member of a group; each may be a member once")]
    Member(Word),
    /// Not a number of members.
    #[error("the group's threshold must be `all`, `any` or a number from 1 to that of its members")]
    Threshold,
    /// A second quorum line.
    #[error("there is a `quorum` line already")]
    SecondQuorum,
    /// Not a SHA-256 hash.
    #[error("64 lower-case hexadecimal digits are expected: the SHA-256 of the authority's certificate")]
    Hash,
    /// More than [`POLICY_MAX_LINES`].
    #[error("there are more than {POLICY_MAX_LINES} lines of this kind")]
    TooMany,
}

impl Policy {
    /// Reads a trust file.
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_MAX_BYTES {
            return Err(PolicyError::TooLong(bytes.len()));
        }
        let lines = match bytes.strip_suffix(b"\n") {
            Some(lines) => lines,
            None if bytes.is_empty() => return Err(PolicyError::NoQuorum),
            None => return Err(PolicyError::CutOff),
        };
        let mut reader = Reader::default();
        for (index, line) in lines.split(|byte| *byte == b'\n').enumerate() {
            reader.line(line).map_err(|fault| PolicyError::Line { line: index + 1, fault })?;
        }
        let quorum = reader.quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(Self { quorum, ..reader.policy })
    }

    /// The trust file, without comments. Reading it again gives the same.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut line = |words: &[&[u8]]| {
            out.extend(words.join(&b' '));
            out.push(b'\n');
        };
        let url = |url: &Option<Word>| url.as_ref().map(|url| url.0.clone());
        for log in &self.logs {
            let (key, url) = (log.key.to_string(), url(&log.url));
            line(
                &[Some(b"log".as_slice()), Some(key.as_bytes()), url.as_deref()]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>(),
            );
        }
        for Witness { name, key, url: at } in &self.witnesses {
            let (key, url) = (key.to_string(), url(at));
            let words = [Some(b"witness".as_slice()), Some(&name.0), Some(key.as_bytes()), url.as_deref()];
            line(&words.into_iter().flatten().collect::<Vec<_>>());
        }
        for Group { name, threshold, members } in &self.groups {
            let threshold = threshold.to_string();
            let mut words = vec![b"group".as_slice(), &name.0, threshold.as_bytes()];
            words.extend(members.iter().map(|member| self.name_of(*member)));
            line(&words);
        }
        line(&[
            b"quorum",
            match self.quorum {
                Quorum::None => NONE,
                Quorum::Of(member) => self.name_of(member),
            },
        ]);
        let keys = [
            ("recovery", &self.recovery),
            ("receipt", &self.receipts),
            ("officer", &self.officers),
            ("auditor", &self.auditors),
            ("exporter", &self.exporters),
        ];
        for (keyword, keys) in keys {
            for key in keys {
                line(&[keyword.as_bytes(), key.to_string().as_bytes()]);
            }
        }
        for authority in &self.authorities {
            line(&[b"tsa", hex::encode(authority).as_bytes()]);
        }
        out
    }

    fn name_of(&self, member: Member) -> &[u8] {
        match member {
            Member::Witness(index) => self.witnesses.get(index).map_or(NONE, |witness| &witness.name.0),
            Member::Group(index) => self.groups.get(index).map_or(NONE, |group| &group.name.0),
        }
    }
}

/// The name that stands for no witness at all.
const NONE: &[u8] = b"none";

/// What has been read so far.
struct Reader {
    policy: Policy,
    quorum: Option<Quorum>,
    names: BTreeMap<Word, Member>,
    /// Names that are members of a group.
    used: BTreeSet<Word>,
}

impl Default for Reader {
    fn default() -> Self {
        let policy = Policy {
            logs: Vec::new(),
            witnesses: Vec::new(),
            groups: Vec::new(),
            quorum: Quorum::None,
            recovery: Vec::new(),
            receipts: Vec::new(),
            officers: Vec::new(),
            auditors: Vec::new(),
            exporters: Vec::new(),
            authorities: Vec::new(),
        };
        Self { policy, quorum: None, names: BTreeMap::new(), used: BTreeSet::new() }
    }
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), Fault> {
        if line.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(Fault::Control);
        }
        let words: Vec<&[u8]> =
            line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty()).collect();
        let Some((keyword, words)) = words.split_first() else { return Ok(()) };
        let policy = &mut self.policy;
        match *keyword {
            [b'#', ..] => Ok(()),
            b"log" => self.log(words),
            b"witness" => self.witness(words),
            b"group" => self.group(words),
            b"quorum" => self.set_quorum(words),
            b"recovery" => one_key(&mut policy.recovery, words, KeyKind::Log, "recovery <key>"),
            b"receipt" => one_key(&mut policy.receipts, words, KeyKind::Log, "receipt <key>"),
            b"officer" => one_key(&mut policy.officers, words, KeyKind::Log, "officer <key>"),
            b"auditor" => one_key(&mut policy.auditors, words, KeyKind::Auditor, "auditor <key>"),
            b"exporter" => one_key(&mut policy.exporters, words, KeyKind::Log, "exporter <key>"),
            b"tsa" => self.authority(words),
            _ => Err(Fault::Keyword),
        }
    }

    fn log(&mut self, words: &[&[u8]]) -> Result<(), Fault> {
        let ([key] | [key, _]) = words else { return Err(Fault::Words("log <key> [<url>]")) };
        let key = parse_key(key, KeyKind::Log)?;
        let logs = &mut self.policy.logs;
        check_new(logs.iter().map(|log| &log.key), &key)?;
        logs.push(Log { key, url: words.get(1).map(|url| Word(url.to_vec())) });
        Ok(())
    }

    fn witness(&mut self, words: &[&[u8]]) -> Result<(), Fault> {
        let ([name, key] | [name, key, _]) = words else {
            return Err(Fault::Words("witness <name> <key> [<url>]"));
        };
        let key = parse_key(key, KeyKind::Cosigner)?;
        let witnesses = &mut self.policy.witnesses;
        check_new(witnesses.iter().map(|witness| &witness.key), &key)?;
        let name = Word(name.to_vec());
        define(&mut self.names, &name, Member::Witness(witnesses.len()))?;
        witnesses.push(Witness { name, key, url: words.get(2).map(|url| Word(url.to_vec())) });
        Ok(())
    }

    fn group(&mut self, words: &[&[u8]]) -> Result<(), Fault> {
        let [name, threshold, names @ ..] = words else {
            return Err(Fault::Words("group <name> all|any|<number> <member>..."));
        };
        let threshold = match *threshold {
            b"all" => names.len(),
            b"any" => 1,
            number => std::str::from_utf8(number)
                .ok()
                .and_then(text::decimal)
                .and_then(|number| usize::try_from(number).ok())
                .ok_or(Fault::Threshold)?,
        };
        if !(1..=names.len()).contains(&threshold) {
            return Err(Fault::Threshold);
        }
        let mut members = Vec::new();
        for name in names {
            let name = Word(name.to_vec());
            members.push(*self.names.get(&name).ok_or_else(|| Fault::Undefined(name.clone()))?);
            if !self.used.insert(name.clone()) {
                return Err(Fault::Member(name));
            }
        }
        let groups = &mut self.policy.groups;
        if groups.len() >= POLICY_MAX_LINES {
            return Err(Fault::TooMany);
        }
        let name = Word(name.to_vec());
        define(&mut self.names, &name, Member::Group(groups.len()))?;
        groups.push(Group { name, threshold, members });
        Ok(())
    }

    fn set_quorum(&mut self, words: &[&[u8]]) -> Result<(), Fault> {
        let [name] = words else { return Err(Fault::Words("quorum <name>|none")) };
        let name = Word(name.to_vec());
        let quorum = if name.0 == NONE {
            Quorum::None
        } else {
            Quorum::Of(*self.names.get(&name).ok_or(Fault::Undefined(name))?)
        };
        if self.quorum.replace(quorum).is_some() { Err(Fault::SecondQuorum) } else { Ok(()) }
    }

    fn authority(&mut self, words: &[&[u8]]) -> Result<(), Fault> {
        let [digits] = words else { return Err(Fault::Words("tsa <sha256 of the certificate>")) };
        let mut hash = [0; 32];
        if hex::decode_to_slice(digits, &mut hash).is_err() || digits.iter().any(u8::is_ascii_uppercase) {
            return Err(Fault::Hash);
        }
        let authorities = &mut self.policy.authorities;
        if authorities.len() >= POLICY_MAX_LINES {
            return Err(Fault::TooMany);
        }
        authorities.push(hash);
        Ok(())
    }
}

fn one_key(keys: &mut Vec<VerifierKey>, words: &[&[u8]], kind: KeyKind, expected: &'static str) -> Result<(), Fault> {
    let [key] = words else { return Err(Fault::Words(expected)) };
    let key = parse_key(key, kind)?;
    check_new(keys.iter(), &key)?;
    keys.push(key);
    Ok(())
}

fn parse_key(word: &[u8], expected: KeyKind) -> Result<VerifierKey, Fault> {
    let key = VerifierKey::parse(std::str::from_utf8(word).map_err(|_| KeyError::Form)?)?;
    if key.kind() == expected {
        Ok(key)
    } else {
        Err(Fault::Kind { name: key.name().to_owned(), kind: key.kind(), expected })
    }
}

/// Whether there is room for the key, and no line of the same kind has its public key.
fn check_new<'a>(known: impl ExactSizeIterator<Item = &'a VerifierKey>, key: &VerifierKey) -> Result<(), Fault> {
    if known.len() >= POLICY_MAX_LINES {
        return Err(Fault::TooMany);
    }
    let mut known = known;
    if known.any(|other| other.public_bytes() == key.public_bytes()) {
        Err(Fault::Duplicate(key.name().to_owned()))
    } else {
        Ok(())
    }
}

fn define(names: &mut BTreeMap<Word, Member>, name: &Word, member: Member) -> Result<(), Fault> {
    if name.0 == NONE || names.contains_key(name) {
        return Err(Fault::Taken(name.clone()));
    }
    names.insert(name.clone(), member);
    Ok(())
}
