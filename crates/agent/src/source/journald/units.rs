//! Which entries are passed on. All are read, since the journal's counter says only of all of them whether one is missing.

use glob::Pattern;

use super::export::Entry;

/// What a unit's name ends with; one without is a service's.
const KINDS: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];
/// systemd-coredump's messages (`sd-messages.h`).
const COREDUMP: &str = "fc2e22bc6ee647b6b90729ab34a250b1";

/// Names of units or patterns of them, as `journalctl --unit` takes them.
#[derive(Debug, Clone)]
pub(super) struct Units(Vec<Pattern>);

impl Units {
    /// Reads the names; the error says which one is none.
    pub(super) fn new(names: &[String]) -> Result<Self, String> {
        let pattern = |name: &String| {
            if name.is_empty() || name.contains('/') {
                return Err(format!("[[journald]]: {name:?} is no name of a unit"));
            }
            let has_kind = name.rsplit_once('.').is_some_and(|(_, kind)| KINDS.contains(&kind));
            let whole = if has_kind || name.ends_with('*') { name.clone() } else { format!("{name}.service") };
            Pattern::new(&whole).map_err(|error| format!("[[journald]]: unit {name}: {error}"))
        };
        names.iter().map(pattern).collect::<Result<_, _>>().map(Self)
    }

    /// Whether an entry is of these units or, by somebody who may say so, about them; without any, every one is. Nobody can tell of the
    /// beginning of a message that is too long to be held and is followed by its unit only: it is passed on.
    pub(super) fn has(&self, entry: &Entry) -> bool {
        let is_root = entry.text("_UID") == "0";
        let of = [
            ("_SYSTEMD_UNIT", true),
            ("_SYSTEMD_SLICE", true),
            ("UNIT", entry.text("_PID") == "1"),
            ("OBJECT_SYSTEMD_UNIT", is_root),
            ("COREDUMP_UNIT", is_root && entry.text("MESSAGE_ID") == COREDUMP),
        ];
        let mut named = of.iter().filter(|(_, counts)| *counts).map(|(field, _)| entry.text(field));
        let is_known = entry.whole || !entry.text("_SYSTEMD_UNIT").is_empty();
        self.0.is_empty() || !is_known || named.any(|unit| self.0.iter().any(|pattern| pattern.matches(unit)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::export::Parser, *};

    fn has(units: &[&str], lines: &str) -> bool {
        let mut parser = Parser::default();
        parser.push(format!("__CURSOR=s=1;i=1\nMESSAGE=x\n{lines}\n\n").as_bytes());
        let units: Vec<_> = units.iter().map(ToString::to_string).collect();
        Units::new(&units).unwrap().has(&parser.next_entry().unwrap().unwrap())
    }

    #[test]
    fn entries_of_units_and_about_them_are_told_apart() {
        let ssh = "_SYSTEMD_UNIT=ssh.service";
        for (units, lines, expected) in [
            (&["ssh.service"][..], ssh, true),
            (&["cron", "ssh"], ssh, true),
            (&["ss*"], ssh, true),
            (&["ss?.service"], ssh, true),
            (&["cron"], ssh, false),
            (&["ssh.socket"], ssh, false),
            (&[], "PRIORITY=6", true),
            (&["ssh"], "PRIORITY=6", false),
            (&["system.slice"], "_SYSTEMD_UNIT=a.service\n_SYSTEMD_SLICE=system.slice", true),
            // systemd itself speaks about it; anybody could.
            (&["ssh"], "_SYSTEMD_UNIT=init.scope\n_PID=1\nUNIT=ssh.service", true),
            (&["ssh"], "_SYSTEMD_UNIT=evil.service\n_PID=17\nUNIT=ssh.service", false),
            (&["ssh"], "_UID=0\nOBJECT_SYSTEMD_UNIT=ssh.service", true),
            (&["ssh"], "_UID=33\nOBJECT_SYSTEMD_UNIT=ssh.service", false),
            (&["ssh"], "_UID=0\nCOREDUMP_UNIT=ssh.service\nMESSAGE_ID=fc2e22bc6ee647b6b90729ab34a250b1", true),
            (&["ssh"], "_UID=0\nCOREDUMP_UNIT=ssh.service", false),
        ] {
            assert_eq!(has(units, lines), expected, "{units:?} {lines}");
        }
        for wrong in ["", "/dev/sda", "a[", "a***"] {
            assert!(Units::new(&[wrong.into()]).is_err(), "{wrong}");
        }
    }
}
