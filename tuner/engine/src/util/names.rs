//! Names that were mistyped.

use strsim::damerau_levenshtein;

/// The most characters of a name that are compared.
const COMPARED: usize = 200;

/// Edits from one name to another.
fn edits(a: &str, b: &str) -> usize {
    let start = |name: &str| name.chars().take(COMPARED).collect::<String>();
    damerau_levenshtein(&start(a), &start(b))
}

/// The name with the fewest edits; none of none.
pub fn closest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names.into_iter().min_by_key(|name| (edits(wanted, name), *name))
}

/// The nearest of some names, where it is no more than a third of the letters away.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = closest(wanted, names)?;
    (edits(wanted, name) * 3 <= wanted.chars().count().min(COMPARED)).then_some(name)
}

/// The most characters of a list of names in a message.
const LISTED: usize = 100;

/// What is expected where `wanted` is none of the names: the nearest, or all, or how many there are.
pub fn expected<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(name) = nearest(wanted, names.clone()) {
        return format!("{name}, which is the nearest");
    }
    let all: Vec<&str> = names.clone().into_iter().collect();
    let list = all.join(" ");
    match closest(wanted, names) {
        Some(name) if list.len() > LISTED => format!("one of {} names such as {name}", all.len()),
        _ => format!("one of {list}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_gets_the_nearest_name_and_others_get_all() {
        let names = ["winograd_avx2", "winograd_avx512", "direct"];
        assert_eq!(expected("winograd_avx51", names), "winograd_avx512, which is the nearest");
        assert_eq!(expected("dierct", names), "direct, which is the nearest");
        assert_eq!(expected("gemm", names), "one of winograd_avx2 winograd_avx512 direct");
        let many = ["direct"; 30];
        assert_eq!(expected("gemm", many), "one of 30 names such as direct");
        assert_eq!(expected(&"é".repeat(100_000), many), "one of 30 names such as direct");
    }
}
