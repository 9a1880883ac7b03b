//! What comes from disk or network, damaged in every way that a seeded program thinks of: no decoder panics, none takes a second
//! form of what it reads, none asks for memory that the bytes don't justify.
//!
//! `SIGILLO_SEED` repeats a run, `SIGILLO_ROUNDS` makes it longer, `SIGILLO_SEEDS` is a folder into which the undamaged inputs are
//! written, for the fuzz targets to begin with.

#[allow(dead_code, unreachable_pub, reason = "also used by the fuzz targets")]
mod points;
mod seeds;

use std::{env, fs, panic, path::Path};

use self::{
    points::{ALL, Point},
    seeds::seeds,
};

/// Rounds for each decoder.
const ROUNDS: u64 = 8_000;
/// Most memory that the whole run may take at its peak: some times that of the largest input.
const MEMORY_MAX_KIB: u64 = 160 << 10;

/// What numbers, lines and paths are replaced by.
const WORDS: &[&[u8]] = &[
    b"0",
    b"00",
    b"-1",
    b"+1",
    b"9223372036854775808",
    b"9223372036854775809",
    b"18446744073709551615",
    b"18446744073709551616",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\0",
    b" ",
    b"=",
    b"+",
    b"../",
    b"/",
    b"\xe2\x80\x94 ",
    b"\xc2\x85",
    b"\xff\xff\xff\xff",
    b"\x80\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x30\x84\xff\xff\xff\xff",
];

/// Numbers that follow from a seed: splitmix64.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `end`, which is not 0.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (one, other) = (self.below(length + 1), self.below(length + 1));
        one.min(other)..one.max(other)
    }
}

/// Damages `bytes` once.
fn damage(bytes: &mut Vec<u8>, others: &[Vec<u8>], dice: &mut Dice) {
    let length = bytes.len();
    if length == 0 {
        bytes.extend_from_slice(WORDS[dice.below(WORDS.len())]);
        return;
    }
    let at = dice.below(length);
    match dice.below(10) {
        0 => bytes[at] ^= 1 << dice.below(8),
        1 => bytes[at] = dice.next().to_le_bytes()[0],
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(dice.range(length))),
        4 => {
            let word = WORDS[dice.below(WORDS.len())];
            let end = (at + word.len()).min(length);
            bytes.splice(at..end, word.iter().copied());
        }
        5 => drop(bytes.splice(at..at, WORDS[dice.below(WORDS.len())].iter().copied())),
        6 => {
            let other = &others[dice.below(others.len())];
            let piece = other[dice.range(other.len())].to_vec();
            bytes.splice(dice.range(length), piece);
        }
        7 => {
            let piece = bytes[dice.range(length)].to_vec();
            bytes.splice(at..at, piece);
        }
        // Lines, or what stands for them: one twice, two in the other order.
        8 => {
            let mut lines: Vec<Vec<u8>> = bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
            if dice.below(2) == 0 {
                lines.swap(one, other);
            } else {
                lines.insert(one, lines[other].clone());
            }
            *bytes = lines.concat();
        }
        _ => {
            let digits: Vec<usize> = (0..length).filter(|at| bytes[*at].is_ascii_digit()).collect();
            let Some(at) = (!digits.is_empty()).then(|| digits[dice.below(digits.len())]) else { return };
            let end = (at..length).find(|at| !bytes[*at].is_ascii_digit()).unwrap_or(length);
            bytes.splice(at..end, WORDS[dice.below(8)].iter().copied());
        }
    }
    // Inputs don't grow without end.
    bytes.truncate(256 << 10);
}

fn number(name: &str, default: u64) -> u64 {
    env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run(point: &Point, seed: u64) {
    let (name, decode) = *point;
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for seed in &seeds {
        decode(seed);
    }
    let mut dice = Dice(seed);
    // A file of evidence is verified whole each time.
    let share = if name.starts_with("evidence") { 4 } else { 1 };
    for round in 0..number("SIGILLO_ROUNDS", ROUNDS) / share {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(3) {
            damage(&mut bytes, &seeds, &mut dice);
        }
        if let Err(problem) = panic::catch_unwind(|| decode(&bytes)) {
            let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.bad"));
            fs::write(&file, &bytes).unwrap();
            eprintln!("{name}, round {round}, SIGILLO_SEED={seed}: the input is in {}", file.display());
            panic::resume_unwind(problem);
        }
    }
}

#[test]
fn no_decoder_falls_over_or_takes_a_second_form() {
    let seed = number("SIGILLO_SEED", 1);
    // Each alone, so that the first that fails does not hide the others.
    let failed: Vec<&str> =
        ALL.iter().filter(|point| panic::catch_unwind(|| run(point, seed)).is_err()).map(|(name, _)| *name).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
    let peak: u64 = peak.unwrap_or_default();
    assert!(peak <= MEMORY_MAX_KIB, "{peak} KiB were in use at the peak");
}

#[test]
fn every_decoder_takes_what_it_should() {
    // Without this the test above would pass by refusing everything.
    for (name, _) in ALL {
        assert!(seeds::taken(name), "not every seed of {name} is taken");
        let Some(folder) = env::var_os("SIGILLO_SEEDS") else { continue };
        let folder = Path::new(&folder).join(name);
        fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds(name).iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
    }
}

#[test]
fn every_fuzz_target_is_one_of_these() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/fuzz_targets");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut targets: Vec<String> = files.map(|name| name.trim_end_matches(".rs").to_owned()).collect();
    let mut names: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
    targets.sort_unstable();
    names.sort_unstable();
    assert_eq!(targets, names);
}
