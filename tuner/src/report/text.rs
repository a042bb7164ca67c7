//! Numbers and sentences as a person reads them.

use engine::TimeUs;

/// A median has so many runs behind it at least, where it is printed with quartiles.
pub const RUNS: usize = 5;

/// A number in three digits, or more where it has more before the point.
pub fn short(value: f64) -> String {
    let decimals = match value.abs() {
        v if v < 0.9995 => 3,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// A time in three digits, in microseconds below a millisecond and in milliseconds from there on.
pub fn time_text(us: f64) -> String {
    if us < 999.5 { format!("{} µs", short(us)) } else { format!("{} ms", short(us / 1e3)) }
}

/// `1 thread`, `2 threads`, `2 entries`.
pub fn count(n: usize, what: &str) -> String {
    match what.strip_suffix('y') {
        _ if n == 1 => format!("{n} {what}"),
        Some(stem) => format!("{n} {stem}ies"),
        None => format!("{n} {what}s"),
    }
}

/// First and third quartile in microseconds; `-` of too few runs, where their number is known.
pub fn quartiles(time: TimeUs, runs: Option<usize>) -> String {
    match runs {
        Some(runs) if runs < RUNS => "-".to_string(),
        _ => format!("{} .. {}", short(time.low), short(time.high)),
    }
}

/// How much more a ratio is than 1, in percent with a sign.
pub fn more(ratio: f64) -> String {
    format!("{:+.1}%", (ratio - 1.0) * 100.0)
}

/// A ratio with the interval that holds it in 95 of 100 cases.
pub fn ratio_text(ratio: f64, ci95: Option<[f64; 2]>) -> String {
    let interval = ci95.map_or(String::new(), |[low, high]| format!(" ({low:.2} .. {high:.2})"));
    format!("{ratio:.2}{interval}")
}

/// Bytes in MiB.
pub fn mib(bytes: usize) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// Words in lines of at most `width` characters, unless one is longer; lines after the first are
/// indented by `indent`.
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let length = |text: &str| text.chars().count();
    let mut words = text.trim_start().split(' ');
    let lead = " ".repeat(text.len() - text.trim_start().len());
    let mut lines = vec![lead + words.next().unwrap_or_default()];
    for word in words {
        let last = lines.last_mut().expect("a line");
        if length(last) + 1 + length(word) > width {
            lines.push(" ".repeat(indent) + word);
        } else {
            last.push(' ');
            last.push_str(word);
        }
    }
    lines.join("\n")
}

/// Texts that are [wrapped](wrap) and end with their line.
pub fn paragraphs(texts: impl IntoIterator<Item = impl AsRef<str>>, width: usize, indent: usize) -> String {
    texts.into_iter().map(|text| wrap(text.as_ref(), width, indent) + "\n").collect()
}

/// Day of a time in seconds since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms").
pub fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    format!("{:04}-{month:02}-{day:02}", year + era * 400 + u64::from(month <= 2))
}

/// Texts with an empty line between two; those that are empty are left out.
pub fn sections(texts: impl IntoIterator<Item = String>) -> String {
    texts.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(951_782_400), "2000-02-29");
        assert_eq!(date(1_795_494_631), "2026-11-24");
    }

    #[test]
    fn times_have_three_digits_in_the_unit_that_fits() {
        let all = [0.5, 9.996, 54.88, 999.4, 999.6, 13_194.0, 123_456.0].map(time_text);
        assert_eq!(all, ["0.500 µs", "10.0 µs", "54.9 µs", "999 µs", "1.00 ms", "13.2 ms", "123 ms"]);
    }

    #[test]
    fn one_is_no_plural() {
        let all = [count(1, "thread"), count(2, "thread"), count(0, "entry")];
        assert_eq!(all, ["1 thread", "2 threads", "0 entries"]);
    }

    #[test]
    fn quartiles_of_few_runs_are_not_shown() {
        let time = TimeUs { median: 2.0, low: 1.0, high: 3.0 };
        let all = [Some(4), Some(5), None].map(|runs| quartiles(time, runs));
        assert_eq!(all, ["-", "1.00 .. 3.00", "1.00 .. 3.00"]);
    }

    #[test]
    fn words_wrap() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("  one two", 6, 4), "  one\n    two");
    }
}
