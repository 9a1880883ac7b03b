use rand::{Rng, SeedableRng, rngs::StdRng};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

/// A register and the two clocks.
struct World {
    register: Register,
    listened: Duration,
    wall_ns: u64,
    source: SourceId,
}

impl World {
    fn new() -> Self {
        let register = Register::new(HashMap::new(), Duration::ZERO);
        let wall_ns = 1_800_000_000_000_000_000;
        Self { register, listened: Duration::ZERO, wall_ns, source: SourceId::from_name("a") }
    }

    fn now(&self) -> Now {
        Now { listened: self.listened, wall_ns: self.wall_ns }
    }

    fn begins(&mut self, resident: bool) {
        self.register.begins(self.source, self.now(), &v1::Hello { resident, ..Default::default() });
    }

    fn ends(&mut self) {
        self.register.ends(self.source);
    }

    fn hears(&mut self) {
        self.register.takes(self.source, self.now());
        self.register.took(self.source, self.now());
    }

    /// Lets time pass, looking as often as the keeper does, and returns what it finds: after how long, and whether silent.
    fn wait(&mut self, seconds: u64) -> Vec<(u64, bool)> {
        let mut found = Vec::new();
        for second in 1..=seconds {
            self.pass(SECOND);
            found.extend(self.look().into_iter().map(|silent| (second, silent)));
        }
        found
    }

    fn pass(&mut self, time: Duration) {
        self.listened += time;
        self.wall_ns += u64::try_from(time.as_nanos()).unwrap();
    }

    fn look(&mut self) -> Vec<bool> {
        self.register.look(self.listened).iter().map(|report| report.allowed.is_some()).collect()
    }

    /// The server stops, and starts again from what it wrote.
    fn restart(&mut self) {
        let stored = |entry: &Entry| serde_json::from_slice(&serde_json::to_vec(entry).unwrap()).unwrap();
        let entries = self.register.entries().iter().map(|(source, entry)| (*source, stored(entry)));
        self.register = Register::new(entries.collect(), self.listened);
    }

    fn entry(&self) -> &Entry {
        self.register.get(self.source).unwrap()
    }
}

#[test]
fn a_source_that_stays_connected_is_missed_within_30_s_and_once() {
    let mut world = World::new();
    world.begins(true);
    for _ in 0..100 {
        assert_eq!(world.wait(10), []);
        world.hears();
    }
    assert_eq!(world.wait(100_000), [(20, true)]);
    assert!(world.entry().is_silent());
    world.hears();
    assert_eq!(world.wait(5), [(1, false)]);
    assert!(!world.entry().is_silent());
    // And anew.
    assert_eq!(world.wait(30), [(15, true)]);
}

#[test]
fn it_makes_no_difference_whether_its_stream_was_cut_or_it_said_goodbye() {
    let mut world = World::new();
    world.begins(true);
    world.register.goodbye(world.source, "SIGTERM");
    world.ends();
    assert_eq!(world.wait(60), [(20, true)]);
    assert_eq!(world.entry().goodbye.as_deref(), Some("SIGTERM"));
    world.begins(true);
    assert_eq!(world.wait(1), [(1, false)]);
    assert_eq!(world.entry().goodbye, None);
}

#[test]
fn a_source_that_the_server_lets_wait_is_not_silent() {
    let mut world = World::new();
    world.begins(true);
    world.register.takes(world.source, world.now());
    assert_eq!(world.wait(600), []);
    world.register.took(world.source, world.now());
    assert_eq!(world.wait(60), [(20, true)]);
}

#[test]
fn a_source_that_the_server_sends_away_has_time_to_come_back() {
    let mut world = World::new();
    world.begins(true);
    world.register.sends_away(world.source, world.now());
    world.ends();
    assert_eq!(world.wait(1), []);
    world.begins(true);
    world.ends();
    // Back, and gone by itself.
    assert_eq!(world.wait(60), [(20, true)]);
    world.begins(true);
    world.register.sends_away(world.source, world.now());
    world.ends();
    assert_eq!(world.wait(60), [(1, false), (30, true)]);
}

#[test]
fn steps_of_the_servers_clock_report_nobody_and_hide_nobody() {
    let mut world = World::new();
    world.begins(true);
    world.wall_ns += 86_400_000_000_000;
    assert_eq!(world.wait(19), []);
    world.wall_ns -= 2 * 86_400_000_000_000;
    assert_eq!(world.wait(1), [(1, true)]);
}

#[test]
fn after_a_restart_everybody_has_time_to_come_back() {
    let mut world = World::new();
    world.begins(true);
    world.wait(19);
    world.restart();
    assert_eq!(world.entry().streams, 0);
    assert_eq!(world.wait(29), []);
    world.begins(true);
    world.ends();
    // Back, and gone: no grace any more.
    assert_eq!(world.wait(60), [(20, true)]);
    // Who was reported before the restart is not reported again.
    world.restart();
    assert_eq!(world.wait(10_000), []);
    world.begins(true);
    assert_eq!(world.wait(1), [(1, false)]);
    world.restart();
    assert_eq!(world.wait(10_000), [(30, true)]);
}

#[test]
fn once_it_stayed_connected_it_is_missed_until_another_rhythm_is_known() {
    let mut world = World::new();
    world.begins(true);
    world.ends();
    world.wait(20);
    for day in 0..9 {
        // Not resident, for ten seconds each day: reported each time, until eight days and three pauses are known.
        world.begins(false);
        world.hears();
        world.ends();
        let reports = world.wait(86_400).len();
        assert_eq!(reports, if day < 8 { 2 } else { 1 }, "day {day}");
    }
    assert!(!world.entry().resident);
    assert_eq!(world.entry().allowed(), Some(hours(72)));
}

/// Goes from session to session as people and timers do: on workdays, at odd hours, now and then in bursts, now and then not at all.
/// Returns what was reported.
fn rarely_heard(world: &mut World, random: &mut StdRng, weeks: u64) -> usize {
    const HOUR: u64 = 3_600;
    let mut reports = 0;
    for day in 0..weeks * 7 {
        let night = random.random_range(0..10 * HOUR);
        let mut left = 24 * HOUR - night;
        reports += hours_pass(world, night);
        let off = day % 7 >= 5 || random.random_ratio(1, 10);
        let sessions = if off { 0 } else { [1, 1, 2, 30][random.random_range(0..4)] };
        for _ in 0..sessions {
            world.begins(false);
            world.hears();
            world.ends();
            let pause = random.random_range(1..HOUR / 4);
            left -= pause;
            reports += hours_pass(world, pause);
        }
        if random.random_ratio(1, 20) {
            world.restart();
        }
        reports += hours_pass(world, left);
    }
    reports
}

/// Looks now and then: a silence that would be reported stays until somebody looks.
fn hours_pass(world: &mut World, seconds: u64) -> usize {
    world.pass(Duration::from_secs(seconds));
    world.look().len()
}

#[test]
fn a_source_that_is_rarely_heard_is_never_reported_falsely_and_is_when_it_is_gone() {
    for seed in 0..200 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut world = World::new();
        assert_eq!(rarely_heard(&mut world, &mut random, 26), 0, "seed {seed}");
        let allowed = world.entry().allowed().expect("its rhythm is known");
        // A weekend at least, and no more than a few weeks.
        let days = allowed.as_secs() / 86_400;
        assert!((6..60).contains(&days), "seed {seed}: {days} days");
        let reported = world.entry().heard + allowed;
        world.pass(reported.saturating_sub(world.listened + SECOND));
        assert_eq!(world.wait(2), [(1, true)], "seed {seed}");
    }
}

#[test]
fn before_its_rhythm_is_known_nothing_is_expected() {
    let mut world = World::new();
    for _ in 0..100 {
        world.begins(false);
        world.hears();
        world.ends();
        assert_eq!(world.wait(10), []);
    }
    world.pass(hours(365 * 24));
    assert!(world.look().is_empty());
}

#[test]
fn a_source_that_is_configured_and_never_comes_is_missed_once() {
    const DAY: u64 = 86_400;
    let mut world = World::new();
    let configured = HashSet::from([world.source]);
    world.register.configure(&configured, world.listened);
    // Time to set it up, which no restart and no other configuration gives anew.
    assert_eq!(world.wait(DAY / 2), []);
    world.restart();
    world.register.configure(&configured, world.listened);
    assert_eq!(world.wait(DAY), [(DAY / 2, true)]);
    assert!(world.entry().is_silent());
    world.restart();
    world.register.configure(&configured, world.listened);
    assert_eq!(world.wait(2 * DAY), []);
    // Heard at last: what it is to be held to shows from then on.
    world.begins(false);
    assert_eq!(world.wait(DAY), [(1, false)]);
    assert_eq!(world.entry().allowed(), None);
    // One that comes in time is nobody's matter.
    world.source = SourceId::from_name("b");
    world.register.configure(&HashSet::from([world.source]), world.listened);
    assert_eq!(world.wait(DAY - 1), []);
    world.begins(false);
    assert_eq!(world.wait(2 * DAY), []);
}

#[test]
fn skew_is_told_by_the_fastest_statement_and_lag_by_the_sources_own_clock() {
    let mut world = World::new();
    world.begins(true);
    assert_eq!(world.entry().skew_ns(), 0);
    // An hour slow; on their way for some milliseconds.
    let hour = 3_600_000_000_000_i64;
    for way_ms in [9, 3, 7, 20] {
        let clock_unix_nano = world.wall_ns - 3_600_000_000_000 - way_ms * 1_000_000;
        let heartbeat = v1::Heartbeat { waiting_records: 5, oldest_unix_nano: clock_unix_nano - 70, clock_unix_nano };
        world.register.heartbeat(world.source, world.now(), &heartbeat);
    }
    assert_eq!(world.entry().skew_ns(), -hour - 3_000_000);
    assert_eq!((world.entry().told.waiting, world.entry().told.lag), (5, Duration::from_nanos(70)));
    // Its clock is put right: what was said before is forgotten.
    for _ in 0..SKEWS {
        let heartbeat = v1::Heartbeat { clock_unix_nano: world.wall_ns - 1_000, ..Default::default() };
        world.register.heartbeat(world.source, world.now(), &heartbeat);
    }
    assert_eq!(world.entry().skew_ns(), -1_000);
    assert_eq!((world.entry().told.waiting, world.entry().told.lag), (0, Duration::ZERO));
}

#[test]
fn what_is_refused_and_declared_is_counted_and_outlives_a_restart() {
    let mut world = World::new();
    world.begins(true);
    let mut declared = Declared::default();
    declared.note(b"agent.loss", sigillo_model::record::Record::default().as_ref());
    world.register.declares(world.source, world.now(), declared);
    for kind in [RefusalKind::Gap, RefusalKind::Gap, RefusalKind::Fork, RefusalKind::Head] {
        world.register.refused(world.source, kind);
    }
    // Of a source that was never welcomed.
    world.register.refused(SourceId::from_name("b"), RefusalKind::Gap);
    world.restart();
    let Refusals { gaps, forks, stale_epochs, invalid_batches, invalid_heads } = world.entry().refusals;
    assert_eq!([gaps, forks, stale_epochs, invalid_batches, invalid_heads], [2, 1, 0, 0, 1]);
    assert_eq!((world.entry().declared.losses, world.entry().last_loss_ns), (1, world.wall_ns));
    assert_eq!(world.register.entries().len(), 1);
    world.register.configure(&HashSet::new(), world.listened);
    assert_eq!(world.register.entries().len(), 0);
}
