//! Which split is read: names that mean the same, and what is taken for one that is not there.

use super::contents::Split;
use crate::dataset::name::listed;

/// Names of the same split; the first is the usual one.
const SAME: [&[&str]; 3] = [
    &["train", "training"],
    &["validation", "valid", "val", "dev"],
    &["test", "testing", "eval", "evaluation"],
];

/// What is taken for a split that is not there, in this order, where nothing better is known.
const FALLBACKS: [&str; 3] = ["test", "validation", "dev"];

/// The split that is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Whether the user named it; otherwise it is what is read by default.
    pub(super) is_asked: bool,
    /// What is taken in its place, in this order.
    pub(super) instead: &'a [&'a str],
}

impl Wanted<'_> {
    /// The split to read out of those of a config, and what to say where it is not the one wanted.
    pub(super) fn choose<'s>(&self, splits: &'s [Split]) -> Option<(&'s Split, Option<String>)> {
        if let Some(split) = find(splits, self.name) {
            return Some((split, None));
        }
        let instead = self.instead.iter().copied().chain(FALLBACKS);
        let split = instead.filter_map(|name| find(splits, name)).next().or_else(|| splits.first())?;
        let names = listed(splits.iter().map(|split| split.name.as_str()), splits.len());
        let asked = if self.is_asked { "" } else { "no split was asked for, and " };
        let (name, wanted) = (&split.name, self.name);
        Some((
            split,
            Some(format!("{asked}there is no split {wanted:?}; {name:?} is read (there are: {names})")),
        ))
    }

    /// As [`Wanted::choose`], but a split that is the only one is taken without a word: corpora and queries rarely have
    /// several, and theirs is called anything.
    pub(super) fn choose_or_only<'s>(&self, splits: &'s [Split]) -> Option<(&'s Split, Option<String>)> {
        match splits {
            [only] => Some((only, None)),
            _ => self.choose(splits),
        }
    }
}

/// The split of that name, or of a name that means the same.
fn find<'s>(splits: &'s [Split], name: &str) -> Option<&'s Split> {
    let exact = splits.iter().find(|split| split.name == name);
    let any_case = || splits.iter().find(|split| split.name.eq_ignore_ascii_case(name));
    let same = || {
        let group = SAME.iter().find(|group| group.iter().any(|word| word.eq_ignore_ascii_case(name)))?;
        group.iter().find_map(|word| splits.iter().find(|split| split.name.eq_ignore_ascii_case(word)))
    };
    exact.or_else(any_case).or_else(same)
}

/// The word in `text` that names a split, in lower case: `test` in `banking-test.v2`.
pub(super) fn word(text: &str) -> Option<&'static str> {
    text.split(|c: char| !c.is_alphabetic()).find_map(whole_word)
}

/// The word that `text` is, if that names a split.
pub(super) fn whole_word(text: &str) -> Option<&'static str> {
    SAME.into_iter().flatten().copied().find(|word| word.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splits(names: &[&str]) -> Vec<Split> {
        let split = |name: &&str| Split { name: (*name).to_owned(), files: Vec::new(), is_partial: false };
        names.iter().map(split).collect()
    }

    #[test]
    fn the_split_wanted_or_the_next_best() {
        let check = |names: &[&str], wanted: &str, instead: &[&str], expected: Option<(&str, bool)>| {
            let splits = splits(names);
            let wanted = Wanted { name: wanted, is_asked: true, instead };
            let found = wanted.choose(&splits).map(|(split, said)| (split.name.as_str(), said.is_some()));
            assert_eq!(found, expected, "{names:?} {wanted:?}");
        };
        check(&["train", "test"], "train", &[], Some(("train", false)));
        check(&["train", "dev"], "validation", &[], Some(("dev", false)));
        check(&["train", "dev", "validation"], "validation", &[], Some(("validation", false)));
        check(&["Train"], "train", &[], Some(("Train", false)));
        check(&["dev", "test"], "train", &["dev"], Some(("dev", true)));
        check(&["dev", "test"], "train", &["test_2021", "validation"], Some(("dev", true)));
        check(&["dev", "test"], "train", &[], Some(("test", true)));
        check(&["devtest", "x"], "train", &["devtest"], Some(("devtest", true)));
        check(&["standard", "long"], "train", &[], Some(("standard", true)));
        check(&[], "train", &[], None);
    }

    #[test]
    fn what_is_said() {
        let splits = splits(&["test", "x"]);
        let said = |is_asked: bool| {
            let wanted = Wanted { name: "train", is_asked, instead: &[] };
            wanted.choose(&splits).and_then(|(_, said)| said).expect("something is said")
        };
        assert_eq!(said(true), "there is no split \"train\"; \"test\" is read (there are: test, x)");
        assert!(said(false).starts_with("no split was asked for, and there is no split \"train\"; \"test\""));
    }

    #[test]
    fn words() {
        let check = |text: &str, expected: Option<&str>| assert_eq!(word(text), expected, "{text}");
        check("train", Some("train"));
        check("train-00000-of-00001", Some("train"));
        check("banking_Test.v2", Some("test"));
        check("dev2", Some("dev"));
        check("devtest", None);
        check("trainer", None);
        check("", None);
    }
}
