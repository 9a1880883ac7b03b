//! One line of the log: `type=SYSCALL msg=audit(1700000000.123:456): arch=…`, with `node=NAME ` before it where auditd is told to name
//! the machine. The number in parentheses is the event's serial; the lines of one event share it and the time.

/// To which event a line belongs, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) kind: &'a str,
    pub(super) event: EventId,
}

/// Time in milliseconds since 1970, and serial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventId {
    pub(super) time_ms: u64,
    pub(super) serial: u64,
}

/// Kinds of which an event has one line and no more: messages of programs. All others come from the kernel, in groups.
const ALONE: [&str; 20] = [
    "ACCT_",
    "ADD_",
    "ANOM_LOGIN_",
    "CHGRP_",
    "CHUSER_",
    "CRED_",
    "CRYPTO_",
    "DAEMON_",
    "DEL_",
    "GRP_",
    "LABEL_",
    "RESP_",
    "ROLE_",
    "SERVICE_",
    "SOFTWARE_",
    "SYSTEM_",
    "TEST",
    "TRUSTED_",
    "USER",
    "VIRT_",
];

/// Reads the beginning of a line; `None` if it is none of the log's.
pub(super) fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = match line.strip_prefix(b"node=") {
        Some(rest) => rest.splitn(2, |byte| *byte == b' ').nth(1)?,
        None => line,
    };
    let rest = line.strip_prefix(b"type=")?;
    let end = rest.iter().take(64).position(|byte| *byte == b' ')?;
    let kind = std::str::from_utf8(rest.get(..end)?).ok()?;
    let rest = rest.get(end..)?.strip_prefix(b" msg=audit(")?;
    let end = rest.iter().take(64).position(|byte| *byte == b')')?;
    let stamp = std::str::from_utf8(rest.get(..end)?).ok()?;
    let (time, serial) = stamp.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let millis = number(millis).filter(|_| millis.len() == 3)?;
    let time_ms = number(seconds)?.checked_mul(1_000)?.checked_add(millis)?;
    Some(Line { kind, event: EventId { time_ms, serial: number(serial)? } })
}

impl Line<'_> {
    /// Whether nothing of this event comes after this line. The title of the process is what the kernel writes last; auditd may leave
    /// the end's own line out.
    pub(super) fn ends(&self) -> bool {
        matches!(self.kind, "EOE" | "PROCTITLE") || ALONE.iter().any(|kind| self.kind.starts_with(kind))
    }

    /// Whether auditd speaks of itself. It numbers these by a counter of its own.
    pub(super) fn is_of_auditd(&self) -> bool {
        self.kind.starts_with("DAEMON_")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn real_lines_are_read() {
        for (line, kind, serial, ends) in [
            (
                "type=SYSCALL msg=audit(1700000000.123:456): arch=c000003e syscall=59 success=yes exit=0",
                "SYSCALL",
                456,
                false,
            ),
            ("type=PROCTITLE msg=audit(1700000000.123:456): proctitle=6C73", "PROCTITLE", 456, true),
            ("type=EOE msg=audit(1700000000.123:456): ", "EOE", 456, true),
            ("node=web-1 type=USER_AUTH msg=audit(1700000000.123:9): pid=1 uid=0", "USER_AUTH", 9, true),
            ("type=UNKNOWN[1421] msg=audit(1700000000.123:4294967295): x", "UNKNOWN[1421]", 4_294_967_295, false),
            ("type=DAEMON_START msg=audit(1700000000.123:7001): op=start ver=3.0.9", "DAEMON_START", 7_001, true),
            ("type=AVC msg=audit(1700000000.123:12): apparmor=\"DENIED\"", "AVC", 12, false),
        ] {
            let event = EventId { time_ms: 1_700_000_000_123, serial };
            let read = parse(line.as_bytes()).unwrap();
            assert_eq!((read, read.ends()), (Line { kind, event }, ends), "{line}");
        }
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "type=",
            "type=SYSCALL",
            "type=SYSCALL msg=audit(1700000000.123:456",
            "type=SYSCALL msg=audit(1700000000:456): x",
            "type=SYSCALL msg=audit(1700000000.12:456): x",
            "type=SYSCALL msg=audit(99999999999999999999.123:456): x",
            "type=SYSCALL msg=audit(1700000000.123:-1): x",
            "node=web-1",
            "Nov 23 12:00:00 web-1 audit: x",
        ] {
            assert_eq!(parse(line.as_bytes()), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_line_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
            let _ = parse(&[&b"type=X msg=audit("[..], &bytes].concat());
        }
    }
}
