//! The rotation table: what happens to a file x {while the agent runs, while it is stopped, while it is stopped and killed after
//! every chunk from then on}, and exactly the lines that come.

use super::*;

struct Case {
    name: &'static str,
    /// What was read before.
    before: &'static str,
    /// What happens then between two looks.
    then: &'static str,
    /// What comes of it, if the agent runs.
    running: &'static [&'static str],
    /// What comes, if it is stopped meanwhile; the same, if empty.
    stopped: &'static [&'static str],
}

const NOTHING: &[&str] = &["nothing"];

const TABLE: &[Case] = &[
    Case {
        name: "growth",
        before: "line log a; part log b",
        then: "line log c; line log d; part log e",
        running: &["bc", "d"],
        stopped: &[],
    },
    Case {
        name: "rename, with late lines and an unfinished one",
        before: "line log a",
        then: "mv log log.1; line log.1 late; part log.1 rest; line log new",
        running: &["late", "rest", "new"],
        stopped: &[],
    },
    Case {
        name: "rename, nothing there yet",
        before: "line log a",
        then: "line log b; mv log log.1; line log.1 c",
        running: &["b", "c"],
        stopped: &[],
    },
    Case {
        name: "rename, the new file stays empty while the writer goes on in the old one",
        before: "line log a",
        then: "mv log log.1; empty log; line log.1 b; part log.1 c",
        running: &["b"],
        stopped: &[],
    },
    Case {
        name: "several renames between two looks",
        before: "line log.1 history; line log a",
        then: "line log b; mv log.1 log.2; mv log log.1; line log c; mv log.2 log.3; mv log.1 log.2; mv log log.1; line log d;
            mv log.3 log.4; mv log.2 log.3; mv log.1 log.2; mv log log.1; line log e",
        running: &["b", "c", "d", "e"],
        stopped: &[],
    },
    Case {
        name: "several renames, all but the newest compressed",
        before: "line log.1 history; gz log.1; line log a",
        then: "line log b; mv log.1.gz log.2.gz; mv log log.1; line log c; mv log.2.gz log.3.gz; gz log.1; mv log.1.gz log.2.gz; mv log log.1;
            gz log.1; line log d",
        running: &["b", "c", "d"],
        stopped: &[],
    },
    Case {
        name: "renames to dates",
        before: "line log-20261120 history; line log a",
        then: "line log b; mv log log-20261121; line log c; mv log log-20261122; gz log-20261122; line log d",
        running: &["b", "c", "d"],
        stopped: &[],
    },
    Case {
        name: "rename and remove before its end was read",
        before: "line log a",
        then: "line log b; mv log log.1; rm log.1; line log c",
        running: &["b", "c"],
        stopped: &["lost:2-", "c"],
    },
    Case {
        name: "rename, remove, and one more rename",
        before: "line log.1 history; line log a",
        then: "rm log.1; mv log log.1; line log b; rm log.1; mv log log.1; line log c",
        running: &["b", "c"],
        stopped: &["lost:2-", "b", "c"],
    },
    Case {
        name: "compressed after rotation",
        before: "line log a",
        then: "line log b; part log rest; mv log log.1; gz log.1; line log c",
        running: &["b", "rest", "c"],
        stopped: &[],
    },
    Case {
        name: "rotated unseen and compressed, with no beginning that can be unpacked",
        before: "line log a",
        then: "line log b; mv log log.1; line log c; mv log.1 log.2; mv log log.1; gz log.1; spoil log.1.gz 3; line log d",
        running: &["b", "lost:0-", "d"],
        stopped: &[],
    },
    Case {
        name: "rotated unseen and compressed, and damaged behind some lines",
        before: "line log a",
        then: "mv log log.1; line log b; line log c; mv log.1 log.2; mv log log.1; gz log.1; spoil log.1.gz 17; line log d",
        running: &["b", "c", "lost:4-", "d"],
        stopped: &[],
    },
    Case {
        name: "copied and truncated",
        before: "line log a; part log b",
        then: "line log c; part log d; cp log log.1; empty log; line log e",
        running: &["bc", "d", "e"],
        stopped: &[],
    },
    Case {
        name: "copied and truncated, and grown past our place",
        before: "line log a",
        then: "line log b; cp log log.1; empty log; line log something-much-longer",
        running: &["b", "something-much-longer"],
        stopped: &[],
    },
    Case {
        name: "copied and truncated, nothing written since",
        before: "line log a",
        then: "line log b; cp log log.1; empty log",
        running: &["b"],
        stopped: &[],
    },
    Case {
        name: "copied and truncated twice, the older copy compressed",
        before: "line log.1 history; line log a",
        then: "line log b; mv log.1 log.2; cp log log.1; empty log; line log c; mv log.2 log.3; gz log.1; mv log.1.gz log.2.gz;
            cp log log.1; empty log; line log d",
        running: &["b", "c", "d"],
        stopped: &[],
    },
    Case {
        name: "copied, read on, and truncated",
        before: "long log ab; look .; cp log log.1; long log cd",
        then: "line log e; empty log; line log f",
        running: &["lost:1202-", "f"],
        stopped: &[],
    },
    Case {
        name: "truncated without a copy",
        before: "line log a; part log b",
        then: "empty log; line log x",
        running: &["b", "lost:3-", "x"],
        stopped: &["lost:2-", "x"],
    },
    Case {
        name: "truncated without a copy, with an older copy of the same bytes",
        before: "line log a; line log b; look .; cp log log.1; empty log; line log a",
        then: "empty log; line log x",
        running: &["lost:2-", "x"],
        stopped: &[],
    },
    Case {
        name: "truncated and rewritten with the same length",
        before: "line log abc",
        then: "empty log; line log abd",
        running: &["lost:4-", "abd"],
        stopped: &[],
    },
    Case {
        name: "truncated and rewritten longer, with the same first bytes",
        before: "long log ab; long log cd",
        then: "empty log; long log ab; line log x; long log cd; long log ef",
        running: &["lost:1202-", "AB", "x", "CD", "EF"],
        stopped: &[],
    },
    Case {
        name: "truncated under a writer that keeps its place",
        before: "long log ab; long log cd; long log ef; long log gh; long log ij; long log kl; long log mn; long log op",
        then: "cp log log.1; empty log; at log 4808 x; line log y",
        running: &["x", "y"],
        stopped: &[],
    },
    Case {
        name: "removed and made anew",
        before: "line log a",
        then: "rm log; line log b",
        running: &["b"],
        stopped: &["lost:2-", "b"],
    },
    Case {
        name: "removed and made anew with the very same bytes, perhaps with the same inode",
        before: "line log a",
        then: "rm log; line log a",
        running: &["a"],
        stopped: &["lost:2-", "a"],
    },
    Case {
        name: "renamed, and the new one holds the same bytes",
        before: "line log a",
        then: "mv log log.1; line log a",
        running: &["a"],
        stopped: &[],
    },
    Case {
        name: "renamed twice, and all hold the same bytes",
        before: "line log a",
        then: "mv log log.1; line log a; mv log.1 log.2; mv log log.1; line log a",
        running: &["a", "a"],
        stopped: &[],
    },
    Case { name: "removed", before: "line log a", then: "line log b; rm log", running: &["b"], stopped: &["lost:2-"] },
    Case {
        name: "replaced by a copy of itself, as when a disk is exchanged",
        before: "long log ab",
        then: "cp log x; rm log; mv x log; line log b",
        running: &["AB", "b"],
        stopped: &["b"],
    },
    Case {
        name: "renamed and back again",
        before: "line log a",
        then: "mv log log.1; line log.1 b; mv log.1 log; line log c",
        running: &["b", "c"],
        stopped: &[],
    },
    Case {
        name: "symbolic link to another file",
        before: "line one a; link log one",
        then: "line one b; line two c; rm log; link log two; part one rest",
        running: &["b", "rest", "c"],
        stopped: &[],
    },
    Case {
        name: "symbolic link, its file renamed in its own folder",
        before: "mkdir d; line d/app a; link log d/app",
        then: "line d/app b; mv d/app d/app.1; line d/app c; mv d/app.1 d/app.2; mv d/app d/app.1; line d/app d",
        running: &["b", "c", "d"],
        stopped: &[],
    },
    Case {
        name: "symbolic link to itself in between",
        before: "line log a",
        then: "mv log log.1; link log log; rm log; line log b",
        running: &["b"],
        stopped: &[],
    },
    Case { name: "nothing", before: "line log a", then: "line other x", running: NOTHING, stopped: &[] },
];

/// Long lines are named by their first two letters, in capitals.
fn short(lines: Vec<String>) -> Vec<String> {
    let short = |line: String| if line.len() == 600 { line[..2].to_uppercase() } else { line };
    lines.into_iter().map(short).collect()
}

fn expected(case: &Case, is_stopped: bool) -> &'static [&'static str] {
    let found = if is_stopped && !case.stopped.is_empty() { case.stopped } else { case.running };
    if found == NOTHING { &[] } else { found }
}

fn prepared(case: &Case) -> Agent {
    let mut agent = Agent::new();
    // So that what comes before is history.
    let (history, before) = case
        .before
        .split_once("line log ")
        .map_or(("", case.before), |(history, _)| (history, &case.before[history.len()..]));
    agent.run(history);
    Agent::tick();
    agent.run(before);
    agent.read_long();
    Agent::tick();
    agent
}

fn failures(run: impl Fn(&Case) -> Vec<String>, is_stopped: bool) -> Vec<String> {
    let mut failures = Vec::new();
    for case in TABLE {
        let found = short(run(case));
        if found != expected(case, is_stopped) {
            failures.push(format!("{}: {:?} instead of {:?}", case.name, found, expected(case, is_stopped)));
        }
    }
    failures
}

#[test]
fn while_the_agent_runs() {
    let run = |case: &Case| {
        let mut agent = prepared(case);
        agent.run(case.then);
        agent.read_long()
    };
    assert_eq!(failures(run, false), [""; 0]);
}

#[test]
fn while_the_agent_is_stopped() {
    let run = |case: &Case| {
        let mut agent = prepared(case);
        agent.run(case.then);
        agent.restart();
        agent.read_long()
    };
    assert_eq!(failures(run, true), [""; 0]);
}

#[test]
fn while_the_agent_is_stopped_and_killed_after_every_chunk() {
    let run = |case: &Case| {
        let mut agent = prepared(case);
        agent.run(case.then);
        agent.is_restless = true;
        agent.restart();
        agent.read_long()
    };
    assert_eq!(failures(run, true), [""; 0]);
}
