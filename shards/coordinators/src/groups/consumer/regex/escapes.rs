//! What stands behind a backslash, and between brackets, in RE2's syntax.
//!
//! Owns a cursor over a pattern and the reading of single characters and of classes. Never builds a
//! tree.

use super::classes::{Set, folded, of_range, perl, posix, unicode};

const ESCAPE: &str = "invalid escape sequence";
const RANGE: &str = "invalid character class range";
const BRACKET: &str = "missing closing ]";

/// The rest of a pattern.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a>(&'a str);

impl<'a> Cursor<'a> {
    pub(super) fn new(pattern: &'a str) -> Self {
        Cursor(pattern)
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.0.chars().next()
    }

    pub(super) fn peek_second(&self) -> Option<char> {
        self.0.chars().nth(1)
    }

    pub(super) fn starts_with(&self, text: &str) -> bool {
        self.0.starts_with(text)
    }

    /// Passes over bytes that were looked at.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.0 = self.0.get(bytes..).unwrap_or_default();
    }

    fn take(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.skip(char.len_utf8());
        Some(char)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let is_next = self.peek() == Some(wanted);
        if is_next {
            self.skip(wanted.len_utf8());
        }
        is_next
    }

    /// What stands before `end`, which is passed over; all of it where there is no end.
    pub(super) fn until(&mut self, end: &str) -> &'a str {
        let (text, rest) = self.0.split_once(end).unwrap_or((self.0, ""));
        self.0 = rest;
        text
    }

    /// What stands before `end`, which is passed over.
    pub(super) fn before(&mut self, end: &str) -> Option<&'a str> {
        let (text, rest) = self.0.split_once(end)?;
        self.0 = rest;
        Some(text)
    }

    /// A decimal number without zeros in front; what is too large is as large as can be.
    pub(super) fn number(&mut self) -> Option<u32> {
        let digits = self.0.bytes().take_while(u8::is_ascii_digit).count();
        let text = self.0.get(..digits)?;
        if text.is_empty() || (text.len() > 1 && text.starts_with('0')) {
            return None;
        }
        self.skip(digits);
        Some(text.parse().unwrap_or(u32::MAX))
    }
}

/// The character that an escape stands for; the cursor is at the backslash.
pub(super) fn char(rest: &mut Cursor<'_>) -> Result<char, &'static str> {
    rest.skip(1);
    let Some(first) = rest.take() else {
        return Err("trailing backslash at end of expression");
    };
    Ok(match first {
        // A digit alone would refer back.
        '1'..='7' if !matches!(rest.peek(), Some('0'..='7')) => return Err(ESCAPE),
        '0'..='7' => {
            let mut value = first.to_digit(8).unwrap_or(0);
            for _ in 0..2 {
                let Some(digit) = rest.peek().and_then(|char| char.to_digit(8)) else {
                    break;
                };
                rest.skip(1);
                value = value * 8 + digit;
            }
            char::from_u32(value).ok_or(ESCAPE)?
        }
        'x' => hexadecimal(rest).ok_or(ESCAPE)?,
        'a' => '\x07',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        other if other.is_ascii_alphanumeric() => return Err(ESCAPE),
        other => other,
    })
}

/// `41` or `{41}`; surrogates are no text, and so stand for what no name has.
fn hexadecimal(rest: &mut Cursor<'_>) -> Option<char> {
    let mut value = 0_u32;
    if rest.eat('{') {
        let mut digits = 0;
        while !rest.eat('}') {
            value = value * 16 + rest.take()?.to_digit(16)?;
            digits += 1;
            if value > char::MAX as u32 {
                return None;
            }
        }
        if digits == 0 {
            return None;
        }
    } else {
        for _ in 0..2 {
            value = value * 16 + rest.take()?.to_digit(16)?;
        }
    }
    Some(char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// `\d`, `\pN`, `\p{Greek}` and the like, if that is what the cursor is at.
pub(super) fn named_class(rest: &mut Cursor<'_>, fold: bool) -> Result<Option<Set>, &'static str> {
    let Some(letter) = rest.peek_second() else {
        return Ok(None);
    };
    if let Some(set) = perl(letter) {
        rest.skip(2);
        return Ok(Some(set));
    }
    if !matches!(letter, 'p' | 'P') {
        return Ok(None);
    }
    rest.skip(2);
    let mut negated = letter == 'P';
    let mut one = [0; 4];
    let mut name = match rest.take().ok_or(RANGE)? {
        '{' => rest.before("}").ok_or(RANGE)?,
        other => &*other.encode_utf8(&mut one),
    };
    if let Some(opposite) = name.strip_prefix('^') {
        negated = !negated;
        name = opposite;
    }
    let set = unicode(name, fold).ok_or(RANGE)?;
    Ok(Some(if negated { !set } else { set }))
}

/// What is between brackets; the cursor is at the opening one.
pub(super) fn class(rest: &mut Cursor<'_>, fold: bool) -> Result<Set, &'static str> {
    rest.skip(1);
    let negated = rest.eat('^');
    let mut set = 0;
    let mut first = true;
    while first || rest.peek() != Some(']') {
        first = false;
        if rest.starts_with("[:")
            && let Some(named) = posix_class(rest, fold)?
        {
            set |= named;
            continue;
        }
        if rest.peek() == Some('\\')
            && let Some(named) = named_class(rest, fold)?
        {
            set |= named;
            continue;
        }
        let low = class_char(rest)?;
        let mut high = low;
        let is_range = rest.peek() == Some('-') && !matches!(rest.peek_second(), None | Some(']'));
        if is_range {
            rest.skip(1);
            high = class_char(rest)?;
            if high < low {
                return Err(RANGE);
            }
        }
        set |= of_range(low, high, fold);
    }
    rest.skip(1);
    Ok(if negated { !set } else { set })
}

fn class_char(rest: &mut Cursor<'_>) -> Result<char, &'static str> {
    match rest.peek() {
        None => Err(BRACKET),
        Some('\\') => char(rest),
        Some(other) => {
            rest.skip(other.len_utf8());
            Ok(other)
        }
    }
}

/// `[:name:]`; `None` where nothing ends it.
fn posix_class(rest: &mut Cursor<'_>, fold: bool) -> Result<Option<Set>, &'static str> {
    let mut after = *rest;
    after.skip(2);
    let Some(name) = after.before(":]") else {
        return Ok(None);
    };
    let (name, negated) = match name.strip_prefix('^') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let set = posix(name).ok_or(RANGE)?;
    let set = if fold { folded(set) } else { set };
    *rest = after;
    Ok(Some(if negated { !set } else { set }))
}
