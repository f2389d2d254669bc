//! What a repository holds: configs, their splits, and the files of each in reading order.

use std::cmp::Ordering;

use crate::hub::HubFile;

/// A part of a repository that is read on its own: a language, a task, `corpus`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    /// What it is called.
    pub(super) name: String,
    /// Whether the repository says that it is the one to read.
    pub(super) is_default: bool,
    /// At least one.
    pub(super) splits: Vec<Split>,
}

/// A division of a config's rows.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Split {
    /// What it is called, such as `train`.
    pub(super) name: String,
    /// At least one, in reading order. All have a known ending.
    pub(super) files: Vec<HubFile>,
    /// Whether it is known to be cut short.
    pub(super) is_partial: bool,
}

/// The name of a config that the repository gives no name.
pub(super) const DEFAULT: &str = "default";

/// Puts files into reading order: numbers by value, `part-10` after `part-9`; all else by character.
pub(super) fn sort(files: &mut [HubFile]) {
    files.sort_by(|a, b| natural(&a.path, &b.path));
}

fn natural(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    while let (Some(char_a), Some(char_b)) = (rest_a.chars().next(), rest_b.chars().next()) {
        if char_a.is_ascii_digit() && char_b.is_ascii_digit() {
            let (digits_a, after_a) = digits(rest_a);
            let (digits_b, after_b) = digits(rest_b);
            // Without leading zeros the longer number is the larger one, whatever its size.
            let order = digits_a.len().cmp(&digits_b.len()).then_with(|| digits_a.cmp(digits_b));
            if order.is_ne() {
                return order;
            }
            (rest_a, rest_b) = (after_a, after_b);
        } else if char_a == char_b {
            (rest_a, rest_b) = (&rest_a[char_a.len_utf8()..], &rest_b[char_b.len_utf8()..]);
        } else {
            return char_a.cmp(&char_b);
        }
    }
    // Equal but for leading zeros: still an order, and always the same one.
    rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b))
}

/// The number at the start without its leading zeros, and what follows it.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (text[..end].trim_start_matches('0'), &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_sorted_by_value() {
        let check = |sorted: &[&str]| {
            for a in 0..sorted.len() {
                for b in 0..sorted.len() {
                    assert_eq!(natural(sorted[a], sorted[b]), a.cmp(&b), "{} {}", sorted[a], sorted[b]);
                }
            }
        };
        check(&["a", "a1", "a2", "a10", "a10b", "b"]);
        check(&["train-00000-of-00012", "train-00002-of-00012", "train-00011-of-00012"]);
        check(&["part-1/10", "part-2/1", "part-10/0"]);
        check(&["x01", "x1", "x2", "é", "é99999999999999999999999999999999999999"]);
        check(&["", "0", "00", "1"]);
    }
}
