//! One pass over a line that says which patterns can match at all.

/// Bytes of a text by which it is known first. No text is shorter.
const BLOCK_BYTES: usize = 4;
const HASH_BITS: u32 = 16;
const WORDS: usize = 1 << (HASH_BITS - 6);

/// Finds any of some short texts, letters in either case. It asks of the four bytes at every place whether some text begins so;
/// nearly always none does. No step depends on the one before, which is why this is faster than an automaton.
pub(super) struct Sieve {
    /// One bit per hash of four bytes.
    bits: Box<[u64; WORDS]>,
    /// Text in lower case, and the rule that needs it.
    needles: Vec<(&'static [u8], usize)>,
}

impl Sieve {
    /// Texts in lower case, each with the number of its rule, below 32.
    pub(super) fn new(needles: impl Iterator<Item = (&'static str, usize)>) -> Self {
        let needles: Vec<_> = needles.map(|(text, rule)| (text.as_bytes(), rule)).collect();
        let mut bits = Box::new([0; WORDS]);
        for block in needles.iter().filter_map(|(text, _)| text.first_chunk()) {
            let (word, bit) = place(*block);
            if let Some(word) = bits.get_mut(word) {
                *word |= bit;
            }
        }
        Self { bits, needles }
    }

    /// One bit per rule of which a text occurs.
    pub(super) fn sift(&self, line: &[u8]) -> u32 {
        let mut rules = 0;
        for (at, block) in line.windows(BLOCK_BYTES).enumerate() {
            let block = block.first_chunk().copied().unwrap_or_default();
            let (word, bit) = place(block);
            if self.bits.get(word).is_some_and(|word| word & bit != 0) {
                rules |= self.judge(line.get(at..).unwrap_or_default());
            }
        }
        rules
    }

    #[cold]
    fn judge(&self, rest: &[u8]) -> u32 {
        let begins = |text: &[u8]| rest.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
        self.needles.iter().filter(|(text, _)| begins(text)).fold(0, |rules, (_, rule)| rules | 1 << rule)
    }
}

/// Where the bit of four bytes stands, letters in either case alike.
fn place(block: [u8; BLOCK_BYTES]) -> (usize, u64) {
    let folded = u32::from_le_bytes(block) | 0x2020_2020;
    let hash = folded.wrapping_mul(0x9e37_79b1) >> (u32::BITS - HASH_BITS);
    ((hash >> 6) as usize, 1 << (hash & 63))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_found_at_every_place_and_in_either_case() {
        let sieve = Sieve::new([("passw", 0), ("key=", 1), ("passphrase", 2)].into_iter());
        for (line, rules) in [
            ("", 0),
            ("pas", 0),
            ("pass", 0),
            ("passw", 1),
            ("xPaSsWx", 1),
            ("KEY=", 2),
            ("the key= passphrase", 6),
            ("pasphrase, ke=y", 0),
        ] {
            assert_eq!(sieve.sift(line.as_bytes()), rules, "{line:?}");
        }
    }
}
