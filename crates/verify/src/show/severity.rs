//! Severity numbers of OpenTelemetry, and the names that people know them by.

const NAMES: [(&str, u32); 6] = [("trace", 1), ("debug", 5), ("info", 9), ("warn", 13), ("error", 17), ("fatal", 21)];

/// Names of syslog and others, as OpenTelemetry's data model maps them.
const ALIASES: [(&str, u32); 10] = [
    ("informational", 9),
    ("notice", 10),
    ("warning", 13),
    ("err", 17),
    ("crit", 18),
    ("critical", 18),
    ("alert", 19),
    ("emerg", 21),
    ("emergency", 21),
    ("panic", 21),
];

/// Reads a number from 1 to 24, a name of OpenTelemetry (`warn`, `ERROR2`) or one of syslog (`notice`, `crit`).
pub fn parse(text: &str) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    if let Ok(number @ 1..=24) = lower.parse() {
        return Ok(number);
    }
    let named = |(name, number): &(&str, u32)| (*name == lower).then_some(*number);
    let stepped = |(name, number): &(&str, u32)| match lower.strip_prefix(name)?.parse() {
        Ok(step @ 2..=4) => Some(number + step - 1),
        _ => None,
    };
    let mut all = NAMES.iter().chain(&ALIASES);
    all.find_map(named).or_else(|| NAMES.iter().find_map(stepped)).ok_or_else(|| {
        "expected trace, debug, info, notice, warn, error, crit, alert, fatal, or a number from 1 to 24".to_owned()
    })
}

/// The name of a number (`WARN`, `ERROR2`), if it is one of the 24.
pub fn name(number: u32) -> Option<String> {
    let (name, first) = NAMES.iter().rev().find(|(_, first)| *first <= number).filter(|_| number <= 24)?;
    let name = name.to_ascii_uppercase();
    Some(if number == *first { name } else { format!("{name}{}", number - first + 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        let table = [
            ("9", 9),
            ("24", 24),
            ("info", 9),
            ("WARN", 13),
            ("warning", 13),
            ("err", 17),
            ("error2", 18),
            ("FATAL4", 24),
        ];
        for (text, number) in table {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for text in ["", "0", "25", "-1", "loud", "warn5", "warn1", "notice2"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_number_has_a_name_that_leads_back() {
        for number in 1..=24 {
            assert_eq!(parse(&name(number).unwrap()), Ok(number));
        }
        assert_eq!((name(0), name(25)), (None, None));
    }
}
