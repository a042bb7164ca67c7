//! Names that were mistyped.

use strsim::damerau_levenshtein;

/// The name with the fewest edits; none of none.
pub fn closest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    names.into_iter().min_by_key(|name| (damerau_levenshtein(wanted, name), *name))
}

/// The nearest of some names, where it is no more than a third of the letters away.
pub fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name = closest(wanted, names)?;
    (damerau_levenshtein(wanted, name) * 3 <= wanted.chars().count()).then_some(name)
}

/// What is expected where `wanted` is none of the names: the nearest, or all.
pub fn expected<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str> + Clone) -> String {
    match nearest(wanted, names.clone()) {
        Some(name) => format!("{name}, which is the nearest"),
        None => format!("one of {}", names.into_iter().collect::<Vec<_>>().join(" ")),
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
    }
}
