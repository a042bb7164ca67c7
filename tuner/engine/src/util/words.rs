//! What is wrong with a JSON text, in words of its reader and not of the parser.

use serde_json::Error;
use serde_json::error::Category;

use crate::util::files::quoted;

/// How the parser calls types, and how a reader does.
const TYPES: [(&str, &str); 12] = [
    ("usize", "a whole number"),
    ("u64", "a whole number"),
    ("u32", "a whole number"),
    ("u8", "a whole number"),
    ("f64", "a number"),
    ("f32", "a number"),
    ("a boolean", "true or false"),
    ("a string", "a text"),
    ("a sequence", "a list"),
    ("a map", "an object"),
    ("any valid JSON value", "a value"),
    ("unit", "null"),
];

/// Why a text was not read, with line and column where they are known.
pub fn of_json(error: &Error) -> String {
    let (line, column) = (error.line(), error.column());
    let at = |text: &str| match line {
        0 => text.to_owned(),
        line => format!("{text} at line {line} column {column}"),
    };
    match error.classify() {
        Category::Syntax => at("found a text that is no JSON"),
        Category::Eof => at("found JSON that ends too early"),
        Category::Io => error.to_string(),
        Category::Data => {
            let text = error.to_string();
            let text = text.rsplit_once(" at line ").map_or(&text[..], |(text, _)| text);
            at(&of_data(text))
        }
    }
}

/// `invalid type: string "one", expected usize` as `found string "one", expected a whole number`.
fn of_data(text: &str) -> String {
    if let Some(name) = text.strip_prefix("missing field ") {
        return format!("{} is missing", quoted(name));
    }
    let found = ["invalid type: ", "invalid value: "].into_iter().find_map(|start| text.strip_prefix(start));
    let Some((found, expected)) = found.and_then(|found| found.rsplit_once(", expected ")) else {
        return quoted(text);
    };
    let expected = match TYPES.iter().find(|(name, _)| *name == expected) {
        Some((_, words)) => words,
        None if expected.starts_with("struct ") => "an object",
        None => expected,
    };
    format!("found {}, expected {}", quoted(found), quoted(expected))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Record {
        #[serde(rename = "threads")]
        _threads: usize,
        #[serde(rename = "list")]
        _list: Vec<f64>,
    }

    #[test]
    fn errors_of_json_are_told_without_words_of_the_parser() {
        for (text, words) in [
            ("none", "found a text that is no JSON at line 1 column 2"),
            ("{\n\"threads\" 1}", "found a text that is no JSON at line 2 column 11"),
            ("{\"threads\": 1", "found JSON that ends too early at line 1 column 13"),
            ("{\"threads\": \"one\"}", "found string \"one\", expected a whole number at line 1 column 17"),
            ("{\"threads\": -1}", "found integer `-1`, expected a whole number at line 1 column 14"),
            ("{\"threads\": 1, \"list\": 2}", "found integer `2`, expected a list at line 1 column 24"),
            ("{\n}", "`threads` is missing at line 2 column 1"),
            ("3", "found integer `3`, expected an object at line 1 column 1"),
        ] {
            let error = serde_json::from_str::<Record>(text).expect_err(text);
            assert_eq!(of_json(&error), words, "{text}");
        }
    }
}
