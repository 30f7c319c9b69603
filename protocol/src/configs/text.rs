//! Values as text: the decimals that Java reads, and how Kafka writes what it has parsed.

use super::Value;

/// A decimal as `Double.parseDouble` reads it, without hexadecimal digits and without NaN, which no arithmetic
/// survives.
pub(super) fn decimal(text: &str) -> Option<f64> {
    let text = text.strip_suffix(['d', 'D', 'f', 'F']).unwrap_or(text);
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits == "Infinity" {
        return Some(match text.starts_with('-') {
            true => f64::NEG_INFINITY,
            false => f64::INFINITY,
        });
    }
    // Rust takes "inf" and "nan" as well.
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    text.parse().ok()
}

/// The value as `ConfigDef.convertToString` writes it.
pub(super) fn of(value: &Value) -> String {
    match value {
        Value::Boolean(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Decimal(decimal) => of_decimal(*decimal),
        Value::Text(text) => text.clone(),
        Value::List(entries) => entries.join(","),
    }
}

/// The number as `Double.toString` writes it: with an exponent from 10⁷ on and below 10⁻³.
pub(super) fn of_decimal(decimal: f64) -> String {
    if decimal.is_infinite() {
        let sign = if decimal < 0.0 { "-" } else { "" };
        return format!("{sign}Infinity");
    }
    if decimal == 0.0 || (1e-3..1e7).contains(&decimal.abs()) {
        return format!("{decimal:?}");
    }
    let text = format!("{decimal:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0E{exponent}"),
        Some((digits, exponent)) => format!("{digits}E{exponent}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kafka 4.3.1's input and output for log.cleaner.io.max.bytes.per.second.
    #[test]
    fn decimals_are_read_and_written_as_java_does() {
        for (given, shown) in [
            ("1e3", "1000.0"),
            ("1e3d", "1000.0"),
            (".25", "0.25"),
            ("+5", "5.0"),
            ("1234567.5", "1234567.5"),
            ("12345678", "1.2345678E7"),
            ("1e8", "1.0E8"),
            ("0.0001", "1.0E-4"),
            ("Infinity", "Infinity"),
            ("-Infinity", "-Infinity"),
            ("1.7976931348623157E308", "1.7976931348623157E308"),
        ] {
            let value = decimal(given).unwrap_or_else(|| panic!("{given}"));
            assert_eq!(of_decimal(value), shown);
        }
        for refused in [
            "inf",
            "nan",
            "NaN",
            "infinity",
            "",
            "x",
            "--1",
            "+-Infinity",
            "1_0",
        ] {
            assert_eq!(decimal(refused), None, "{refused}");
        }
    }
}
