//! The nearest known name, for messages about a misspelt one.

/// The known name that `typed` was most likely meant to be, if one is near enough.
///
/// Near enough: at most a third of the letters differ, case and the choice of `-` or `_` aside.
pub fn nearest<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A long text is no misspelling, and distances to it cost time.
    const CHARS_MAX: usize = 64;
    if typed.chars().count() > CHARS_MAX {
        return None;
    }
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let typed = plain(typed);
    let distance = |name: &str| strsim::damerau_levenshtein(&typed, &plain(name));
    let n_typed = typed.chars().count();
    let near = |distance: usize, name: &str| distance * 3 <= name.chars().count().max(n_typed);
    let candidates = known.into_iter().map(|name| (distance(name), name));
    candidates.filter(|(distance, name)| near(*distance, name)).min().map(|(_, name)| name)
}

/// `; did you mean "x"?`, or nothing.
pub fn hint<'a>(typed: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, known).map_or(String::new(), |name| format!("; did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["models", "pooling", "datasets", "num_samples", "CKA", "k"];
        let check =
            |typed: &str, expected: Option<&str>| assert_eq!(nearest(typed, known), expected, "{typed}");
        check("modles", Some("models"));
        check("model", Some("models"));
        check("num-samples", Some("num_samples"));
        check("cka", Some("CKA"));
        check("CKAA", Some("CKA"));
        check("learning_rate", None);
        check("", None);
        check(&"models".repeat(1000), None);
    }
}
