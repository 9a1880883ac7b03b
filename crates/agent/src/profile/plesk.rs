//! Plesk's action log, and failed logins in its panel log.
//!
//! The action log is taken as `plesk bin action-log --show` writes it, `ADDRESS NAME [TIME] 'ACTION' ('COMPONENT': 'OLD' => 'NEW', …)`,
//! and as JSON objects, one a line, with the names of the table behind it (`action_name`, `user`, `ip_address`, `date`, components).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use sigillo_proto::v1::{ActorKind, Outcome};

use crate::{
    profile::{
        facts::{
            Facts,
            severity::{INFO, WARN},
        },
        scan::word,
    },
    when::{self, Clock},
};

/// One line.
pub(super) fn read<'a>(text: &'a str, clock: Clock<'_>) -> Option<Facts<'a>> {
    if text.starts_with('{') {
        return json(text, clock);
    }
    if let Some((_, rest)) = text.split_once("Failed login attempt with login '") {
        let (name, rest) = rest.rsplit_once("' from IP ")?;
        let facts = Facts::new("plesk.login", "login", Outcome::Failure).on("service", "plesk");
        return Some(facts.by(name, kind(name)).from(word(rest).0).severity(WARN));
    }
    let (address, rest) = word(text);
    address.parse::<std::net::IpAddr>().ok()?;
    let (name, rest) = rest.split_once(" [")?;
    let (time, rest) = rest.split_once("] '")?;
    let time = clock.local(when::civil(time.as_bytes()).filter(|_| time.len() == 19)?);
    let (action, rest) = rest.split_once('\'')?;
    let mut facts = action_facts(action).by(name, kind(name)).from(address).at(time);
    let mut rest = rest.strip_prefix(" (").map_or("", |rest| rest.strip_suffix(')').unwrap_or(rest));
    // `'Domain name': '' => 'example.com', …`: the end of a value is a quote before the next component.
    while let Some((component, after)) = rest.strip_prefix('\'').and_then(|rest| rest.split_once("': '")) {
        let (old, after) = after.split_once("' => '")?;
        let (new, after) =
            after.split_once("', '").map_or((after.strip_suffix('\'').unwrap_or(after), ""), |(new, _)| {
                (new, after.get(new.len() + 3..).unwrap_or_default())
            });
        change(&mut facts, component, old, new);
        rest = after;
    }
    Some(facts)
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, alias = "action", alias = "event", alias = "event_name", alias = "type")]
    action_name: Cow<'a, str>,
    #[serde(borrow, default, alias = "username", alias = "login", alias = "actor")]
    user: Cow<'a, str>,
    #[serde(borrow, default, alias = "ip", alias = "remote_address", alias = "host")]
    ip_address: Cow<'a, str>,
    #[serde(borrow, default, alias = "time")]
    date: Cow<'a, str>,
    #[serde(default, alias = "values", alias = "details")]
    components: Value,
}

fn json<'a>(text: &'a str, clock: Clock<'_>) -> Option<Facts<'a>> {
    let entry: Entry<'a> = serde_json::from_str(text).ok()?;
    let time = match entry.date.parse::<jiff::Timestamp>() {
        Ok(time) => when::nanos(time),
        Err(_) => when::civil(entry.date.as_bytes()).map_or(0, |time| clock.local(time)),
    };
    let kind = kind(&entry.user);
    let mut facts = action_facts(&entry.action_name).into_owned().by(entry.user, kind).at(time);
    if entry.ip_address.parse::<std::net::IpAddr>().is_ok() {
        facts.client_address = entry.ip_address;
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match &entry.components {
        Value::Array(list) => {
            for item in list.iter().filter_map(Value::as_object) {
                let of = |key: &str| item.get(key).map(text).unwrap_or_default();
                let name = item.get("component").or_else(|| item.get("name")).map(text).unwrap_or_default();
                change(&mut facts, &name, &of("old_value"), &of("new_value"));
            }
        }
        Value::Object(map) => map.iter().for_each(|(key, value)| change(&mut facts, key, "", &text(value))),
        _ => {}
    }
    Some(facts)
}

/// A component's new value as an attribute of its name, its old one as `NAME.old`; the first that names a thing is the target.
fn change(facts: &mut Facts<'_>, component: &str, old: &str, new: &str) {
    if component.is_empty() {
        return;
    }
    let name = component.to_ascii_lowercase().replace(' ', "_");
    let value = if new.is_empty() { old } else { new };
    let names = ["name", "login"].iter().any(|end| name.ends_with(end)) && name != "contact_name";
    if facts.target_id.is_empty() && names {
        facts.target_id = value.to_owned().into();
    }
    facts.push(&name, new);
    if old != new {
        facts.push(&format!("{name}.old"), old);
    }
}

/// `Domain Created`, `domain_create`, `CP User Login`: the last word says what was done, those before it to what.
fn action_facts(name: &str) -> Facts<'_> {
    let lower = name.to_ascii_lowercase().replace([' ', '-', '.'], "_");
    let words: Vec<&str> =
        lower.split('_').filter(|word| !matches!(*word, "" | "was" | "were" | "has" | "been")).collect();
    let (verb, things) = words.split_last().map_or(("", &[] as &[&str]), |(verb, things)| (*verb, things));
    let verb = match verb {
        "login" | "logout" => {
            let action = if verb == "login" { "login" } else { "logout" };
            let event = if verb == "login" { "plesk.login" } else { "plesk.logout" };
            let facts = Facts::new(event, action, Outcome::Success).on("service", "plesk").severity(INFO);
            return facts.with("event", name);
        }
        "created" | "added" | "create" | "add" => "create",
        "deleted" | "removed" | "delete" | "remove" => "delete",
        "updated" | "changed" | "modified" | "update" | "change" | "reconfigured" => "update",
        "suspended" | "suspend" => "suspend",
        "activated" | "activate" => "activate",
        "installed" | "install" => "install",
        "uninstalled" | "uninstall" => "uninstall",
        "started" | "start" => "start",
        "stopped" | "stop" => "stop",
        "restarted" | "restart" => "restart",
        other => other,
    };
    let thing = things.join("_");
    let mut facts = Facts::new("plesk.action", "plesk.action", Outcome::Success).severity(INFO).with("event", name);
    if !thing.is_empty() && !verb.is_empty() {
        facts.action = format!("{thing}.{verb}").into();
    }
    facts.target_type = thing.into();
    facts
}

/// Plesk's own administrator is the provider's.
fn kind(user: &str) -> ActorKind {
    match user {
        "" => ActorKind::Unspecified,
        "admin" => ActorKind::Staff,
        _ => ActorKind::Customer,
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::profile::testing::{Expected, check};

    const TIME: u64 = 1_795_435_200_000_000_000;

    #[test]
    fn lines_mean_what_they_say() {
        let zone = TimeZone::UTC;
        let clock = Clock { observed: TIME, zone: &zone };
        let login = |outcome, actor, kind| {
            Expected::new("plesk.login", "login", outcome)
                .target("service", "plesk")
                .actor_of(actor, kind)
                .client("192.0.2.7")
        };
        let created = |event| {
            Expected::new("plesk.action", "domain.create", "success")
                .target("domain", "example.com")
                .actor_of("shop", ActorKind::Customer)
                .client("192.0.2.7")
                .time(TIME)
                .severity(9)
                .with("event", event)
        };
        check(
            |text| read(text, clock),
            [
                (
                    "192.0.2.7 admin [2026-11-23 12:00:00] 'CP User Login' ('Contact Name': '' => 'Ann Admin')",
                    login("success", "admin", ActorKind::Staff)
                        .time(TIME)
                        .severity(9)
                        .with("event", "CP User Login")
                        .with("contact_name", "Ann Admin"),
                ),
                (
                    "192.0.2.7 shop [2026-11-23 12:00:00] 'Domain Created' ('Domain Name': '' => 'example.com', 'Quota': '1' => '2')",
                    created("Domain Created")
                        .with("domain_name", "example.com")
                        .with("quota", "2")
                        .with("quota.old", "1"),
                ),
                (
                    r#"{"id":7,"action_name":"domain_create","user":"shop","ip_address":"192.0.2.7","date":"2026-11-23 12:00:00","components":[{"component":"Domain Name","old_value":"","new_value":"example.com"}]}"#,
                    created("domain_create").with("domain_name", "example.com"),
                ),
                (
                    r#"{"action":"domain_create","login":"shop","ip":"192.0.2.7","time":"2026-11-23T12:00:00Z","details":{"domain_name":"example.com"}}"#,
                    created("domain_create").with("domain_name", "example.com"),
                ),
                (
                    "[2026-11-23 12:00:00.123] 77:ab ERR [panel] Failed login attempt with login 'eve' from IP 192.0.2.7",
                    login("failure", "eve", ActorKind::Customer).severity(13),
                ),
                (
                    "192.0.2.7 shop [2026-11-23 12:00:00] 'Physical hosting was changed' ()",
                    Expected::new("plesk.action", "physical_hosting.update", "success")
                        .target("physical_hosting", "")
                        .actor_of("shop", ActorKind::Customer)
                        .client("192.0.2.7")
                        .time(TIME)
                        .severity(9)
                        .with("event", "Physical hosting was changed"),
                ),
            ],
        );
        for text in ["", "{", "{}", "192.0.2.7 a [b] 'c'", "192.0.2.7 [", "192.0.2.7 admin [2026-11-23 12:00:00] 'x"] {
            assert_eq!(read(text, clock), None, "{text:?}");
        }
    }
}
