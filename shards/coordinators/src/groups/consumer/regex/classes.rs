//! Sets of ASCII characters: what is left of a class of characters where texts are names of topics.
//!
//! Owns Perl's, POSIX's and Unicode's classes by name, as RE2/J 1.8 knows them (measured: every name
//! against every ASCII character, with and without `(?i)`). Never reads a pattern.

/// Bit n: the character n.
pub(super) type Set = u128;

/// The Kelvin sign and the long s are the only characters beyond ASCII whose other case is in it.
const KELVIN: char = '\u{212a}';
const LONG_S: char = '\u{17f}';

/// One character.
pub(super) fn of_char(char: char, fold: bool) -> Set {
    of_range(char, char, fold)
}

/// The characters from `low` to `high`.
pub(super) fn of_range(low: char, high: char, fold: bool) -> Set {
    let set = ascii(low, high);
    if !fold {
        return set;
    }
    let has = |char: char| (low..=high).contains(&char);
    let kelvin = if has(KELVIN) { bits(b"k") } else { 0 };
    let long_s = if has(LONG_S) { bits(b"s") } else { 0 };
    folded(set | kelvin | long_s)
}

/// The letters of a set in both cases.
pub(super) fn folded(set: Set) -> Set {
    let upper = set & UPPER;
    let lower = set & LOWER;
    set | upper << 32 | lower >> 32
}

const fn ascii(low: char, high: char) -> Set {
    let (low, high) = (low as u32, high as u32);
    if low > 127 || high < low {
        return 0;
    }
    let high = if high > 127 { 127 } else { high };
    (Set::MAX << low) & (Set::MAX >> (127 - high))
}

const fn bits(characters: &[u8]) -> Set {
    let mut set = 0;
    let mut at = 0;
    while at < characters.len() {
        set |= 1 << characters[at];
        at += 1;
    }
    set
}

const UPPER: Set = ascii('A', 'Z');
const LOWER: Set = ascii('a', 'z');
const LETTERS: Set = UPPER | LOWER;
const DIGITS: Set = ascii('0', '9');
const CONTROL: Set = ascii('\0', '\x1f') | bits(b"\x7f");
const WORD: Set = LETTERS | DIGITS | bits(b"_");
const PUNCTUATION: Set = ascii('!', '/') | ascii(':', '@') | ascii('[', '`') | ascii('{', '~');

/// `\d`, `\s`, `\w`, and their opposites in capitals.
pub(super) fn perl(letter: char) -> Option<Set> {
    let set = match letter.to_ascii_lowercase() {
        'd' => DIGITS,
        's' => bits(b"\t\n\x0c\r "),
        'w' => WORD,
        _ => return None,
    };
    Some(if letter.is_ascii_uppercase() {
        !set
    } else {
        set
    })
}

/// Whether a character is one of `\w`.
pub(super) fn is_word(byte: u8) -> bool {
    byte < 128 && WORD >> byte & 1 == 1
}

/// A class within `[: :]`.
pub(super) fn posix(name: &str) -> Option<Set> {
    Some(match name {
        "alnum" => LETTERS | DIGITS,
        "alpha" => LETTERS,
        "ascii" => Set::MAX,
        "blank" => bits(b"\t "),
        "cntrl" => CONTROL,
        "digit" => DIGITS,
        "graph" => ascii('!', '~'),
        "lower" => LOWER,
        "print" => ascii(' ', '~'),
        "punct" => PUNCTUATION,
        "space" => bits(b"\t\n\x0b\x0c\r "),
        "upper" => UPPER,
        "word" => WORD,
        "xdigit" => DIGITS | ascii('A', 'F') | ascii('a', 'f'),
        _ => return None,
    })
}

/// A category or a script of Unicode.
pub(super) fn unicode(name: &str, fold: bool) -> Option<Set> {
    Some(match name {
        "Any" => Set::MAX,
        "C" | "Cc" => CONTROL,
        // Under `(?i)` RE2/J gives the small letters no more capitals than those of the Kelvin sign
        // and of the long s.
        "Ll" if fold => LOWER | bits(b"KS"),
        "Lu" if fold => LETTERS,
        "L" | "Latin" => LETTERS,
        "Ll" => LOWER,
        "Lu" => UPPER,
        "N" | "Nd" => DIGITS,
        "P" => PUNCTUATION & !SYMBOLS,
        "Pc" => bits(b"_"),
        "Pd" => bits(b"-"),
        "Pe" => bits(b")]}"),
        "Po" => PUNCTUATION & !SYMBOLS & !bits(b"_-()[]{}"),
        "Ps" => bits(b"([{"),
        "S" => SYMBOLS,
        "Sc" => bits(b"$"),
        "Sk" => bits(b"^`"),
        "Sm" => bits(b"+<=>|~"),
        "Z" | "Zs" => bits(b" "),
        "Common" => !LETTERS,
        _ => return WITHOUT_ASCII.binary_search(&name).ok().map(|_| 0),
    })
}

const SYMBOLS: Set = bits(b"$^`+<=>|~");

/// Names without an ASCII character, sorted.
#[rustfmt::skip]
const WITHOUT_ASCII: &[&str] = &[
    "Arabic", "Armenian", "Avestan", "Balinese", "Bamum", "Batak", "Bengali", "Bopomofo",
    "Brahmi", "Braille", "Buginese", "Buhid", "Canadian_Aboriginal", "Carian", "Cf", "Cham",
    "Cherokee", "Co", "Coptic", "Cs", "Cuneiform", "Cypriot", "Cyrillic", "Deseret", "Devanagari",
    "Egyptian_Hieroglyphs", "Ethiopic", "Georgian", "Glagolitic", "Gothic", "Greek", "Gujarati",
    "Gurmukhi", "Han", "Hangul", "Hanunoo", "Hebrew", "Hiragana", "Imperial_Aramaic", "Inherited",
    "Inscriptional_Pahlavi", "Inscriptional_Parthian", "Javanese", "Kaithi", "Kannada",
    "Katakana", "Kayah_Li", "Kharoshthi", "Khmer", "Lao", "Lepcha", "Limbu", "Linear_B", "Lisu",
    "Lm", "Lo", "Lt", "Lycian", "Lydian", "M", "Malayalam", "Mandaic", "Mc", "Me", "Meetei_Mayek",
    "Mn", "Mongolian", "Myanmar", "New_Tai_Lue", "Nko", "Nl", "No", "Ogham", "Ol_Chiki",
    "Old_Italic", "Old_Persian", "Old_South_Arabian", "Old_Turkic", "Oriya", "Osmanya", "Pf",
    "Phags_Pa", "Phoenician", "Pi", "Rejang", "Runic", "Samaritan", "Saurashtra", "Shavian",
    "Sinhala", "So", "Sundanese", "Syloti_Nagri", "Syriac", "Tagalog", "Tagbanwa", "Tai_Le",
    "Tai_Tham", "Tai_Viet", "Tamil", "Telugu", "Thaana", "Thai", "Tibetan", "Tifinagh",
    "Ugaritic", "Unknown", "Vai", "Yi", "Zl", "Zp",
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A name, its ASCII characters, and those with `(?i)`.
    #[rustfmt::skip]
    const CLASSES: [(&str, Set, Set); 21] = [
        ("C", 0x800000000000000000000000ffffffff, 0x800000000000000000000000ffffffff),
        ("Cc", 0x800000000000000000000000ffffffff, 0x800000000000000000000000ffffffff),
        ("L", 0x7fffffe07fffffe0000000000000000, 0x7fffffe07fffffe0000000000000000),
        ("Ll", 0x7fffffe000000000000000000000000, 0x7fffffe000808000000000000000000),
        ("Lu", 0x7fffffe0000000000000000, 0x7fffffe07fffffe0000000000000000),
        ("N", 0x3ff000000000000, 0x3ff000000000000),
        ("Nd", 0x3ff000000000000, 0x3ff000000000000),
        ("P", 0x28000000b80000018c00f7ee00000000, 0x28000000b80000018c00f7ee00000000),
        ("Pc", 0x800000000000000000000000, 0x800000000000000000000000),
        ("Pd", 0x200000000000, 0x200000000000),
        ("Pe", 0x20000000200000000000020000000000, 0x20000000200000000000020000000000),
        ("Po", 0x100000018c00d4ee00000000, 0x100000018c00d4ee00000000),
        ("Ps", 0x8000000080000000000010000000000, 0x8000000080000000000010000000000),
        ("S", 0x50000001400000007000081000000000, 0x50000001400000007000081000000000),
        ("Sc", 0x1000000000, 0x1000000000),
        ("Sk", 0x1400000000000000000000000, 0x1400000000000000000000000),
        ("Sm", 0x50000000000000007000080000000000, 0x50000000000000007000080000000000),
        ("Z", 0x100000000, 0x100000000),
        ("Zs", 0x100000000, 0x100000000),
        ("Common", 0xf8000001f8000001ffffffffffffffff, 0xf8000001f8000001ffffffffffffffff),
        ("Latin", 0x7fffffe07fffffe0000000000000000, 0x7fffffe07fffffe0000000000000000),
    ];

    #[test]
    fn classes_are_those_of_re2j() {
        assert!(WITHOUT_ASCII.is_sorted());
        for (name, plain, fold) in CLASSES {
            assert_eq!(unicode(name, false), Some(plain), "{name}");
            assert_eq!(unicode(name, true), Some(fold), "(?i){name}");
        }
        for unknown in [
            "", "l", "letter", "LC", "Cn", "latin", "ASCII", "IsGreek", "Kawi",
        ] {
            assert_eq!(unicode(unknown, false), None, "{unknown}");
        }
        assert_eq!(unicode("Greek", true), Some(0));
    }

    #[test]
    fn cases_are_folded_where_they_meet_ascii() {
        assert_eq!(of_char('k', true), bits(b"kK"));
        assert_eq!(of_char(KELVIN, true), bits(b"kK"));
        assert_eq!(of_char(LONG_S, true), bits(b"sS"));
        assert_eq!(of_char(KELVIN, false), 0);
        assert_eq!(of_range('X', 'b', true), bits(b"XYZ[\\]^_`abABxyz"));
        assert_eq!(of_range('\0', char::MAX, false), Set::MAX);
        assert_eq!(of_char('é', true), 0);
    }
}
