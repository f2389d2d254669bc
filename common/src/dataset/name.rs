//! What a dataset is called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::catalogue;
use super::format::kind_of;
use crate::suggest;

mod bucket;
mod error;
mod file;
mod hub;

pub use bucket::BucketName;
pub use error::NameError;
pub use file::FileName;
pub(super) use hub::listed;
pub use hub::{C4Name, HubName, RepoName, TaskName};

/// What a dataset is called, as a user writes it and as it is printed again.
///
/// `c4` and `c4/CONFIG`; a task of MTEB, `TASK` or `TASK/SUBSET`; `hf:owner/name[@revision][#config/split/column]`;
/// `file:PATH[#column]`, where the path may be a pattern; `s3://bucket/prefix[#column]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DatasetName {
    /// Files on this machine.
    File(FileName),
    /// Files of a repository.
    Hub(HubName),
    /// Objects in a bucket.
    Bucket(BucketName),
}

impl DatasetName {
    /// A short name without folders, owners and endings, for names of experiments: `reviews` for
    /// `file:data/reviews.jsonl.gz`, `c4_de` for `c4/de`. It does not tell datasets apart.
    pub fn stem(&self) -> String {
        match self {
            Self::File(name) => name.stem(),
            Self::Hub(name) => name.stem(),
            Self::Bucket(name) => name.stem(),
        }
    }

    /// What stands above the stem and may tell two datasets apart: a file's folder, a repository's owner, a bucket.
    pub fn folder(&self) -> Option<&str> {
        match self {
            Self::File(name) => name.folder(),
            Self::Hub(HubName::Repo(name)) => name.owner(),
            Self::Hub(HubName::C4(_) | HubName::Task(_)) => None,
            Self::Bucket(name) => Some(name.bucket()),
        }
    }

    /// The column asked for, if one was.
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::File(name) => name.column(),
            Self::Hub(HubName::Repo(name)) => name.column(),
            Self::Hub(HubName::C4(_) | HubName::Task(_)) => None,
            Self::Bucket(name) => name.column(),
        }
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => name.fmt(f),
            Self::Hub(name) => name.fmt(f),
            Self::Bucket(name) => name.fmt(f),
        }
    }
}

impl FromStr for DatasetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if let Some(rest) = text.strip_prefix("file:") {
            return FileName::parse(text, rest).map(Self::File);
        }
        if let Some(rest) = text.strip_prefix("hf:") {
            return RepoName::parse(text, rest).map(HubName::Repo).map(Self::Hub);
        }
        if let Some(rest) = text.strip_prefix("s3://") {
            return BucketName::parse(text, rest).map(Self::Bucket);
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(bucket::refuse(text, scheme));
        }
        let (head, subset) = text.split_once('/').map_or((text, None), |(head, subset)| (head, Some(subset)));
        if head.eq_ignore_ascii_case("c4") {
            return C4Name::parse(text, subset).map(HubName::C4).map(Self::Hub);
        }
        match catalogue::find(head) {
            Some(task) => TaskName::parse(text, task, subset).map(HubName::Task).map(Self::Hub),
            None => Err(unknown(text, head, subset)),
        }
    }
}

/// Says what was most likely meant by a name that is none.
fn unknown(text: &str, head: &str, subset: Option<&str>) -> NameError {
    let name = text.to_owned();
    if kind_of(text.rsplit_once('#').map_or(text, |(path, _)| path)).is_some() && !text.contains(':') {
        return NameError::NoScheme { name };
    }
    if let Some((scheme, _)) = text.split_once(':') {
        return NameError::UnknownScheme { hint: suggest::hint(scheme, ["file", "hf"]), name };
    }
    let names = catalogue::tasks().iter().map(|task| task.name).chain(["c4"]);
    let hint = match suggest::nearest(head, names) {
        Some(near) => {
            let subset = subset.map_or(String::new(), |subset| format!("/{subset}"));
            format!("did you mean \"{near}{subset}\"?")
        }
        None => match subset {
            Some(_) => format!("for a repository on the hub write hf:{text}, for a file file:{text}"),
            None => "`lsa-coordinator datasets` lists all that have names of their own".to_owned(),
        },
    };
    NameError::Unknown { name, hint }
}

impl Serialize for DatasetName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DatasetName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> DatasetName {
        text.parse().expect(text)
    }

    #[test]
    fn names_are_printed_as_they_should_be_written() {
        let check = |text: &str, printed: &str, stem: &str| {
            let parsed = name(text);
            assert_eq!(parsed.to_string(), printed, "{text}");
            assert_eq!(parsed.stem(), stem, "{text}");
            assert_eq!(name(printed), parsed, "{text}");
            let json = serde_json::to_string(&parsed).expect("a name is a string");
            assert_eq!(serde_json::from_str::<DatasetName>(&json).expect("a name is read again"), parsed);
        };
        check("c4", "c4", "c4");
        check("C4", "c4", "c4");
        check("c4/en", "c4", "c4");
        check("c4/realnewslike", "c4/realnewslike", "c4_realnewslike");
        check("c4/EN.noclean", "c4/en.noclean", "c4_en.noclean");
        check("c4/zh-latn", "c4/zh-Latn", "c4_zh-Latn");
        check("Banking77Classification", "Banking77Classification", "Banking77Classification");
        check("banking77classification", "Banking77Classification", "Banking77Classification");
        check(
            "massiveintentclassification/EN",
            "MassiveIntentClassification/en",
            "MassiveIntentClassification_en",
        );
        check("hf:imdb", "hf:imdb", "imdb");
        check("hf:stanfordnlp/imdb", "hf:stanfordnlp/imdb", "imdb");
        check("hf:a/b@v1", "hf:a/b@v1", "b");
        check("hf:a/b@refs/pr/1#c", "hf:a/b@refs/pr/1#c", "b_c");
        check("hf:a/b#c/s", "hf:a/b#c/s", "b_c_s");
        check("hf:a/b#c/s/t", "hf:a/b#c/s/t", "b_c_s");
        check("hf:a/b#/test", "hf:a/b#/test", "b_test");
        check("hf:a/b#//t/u", "hf:a/b#//t/u", "b");
        check("hf:a/b#c/", "hf:a/b#c", "b_c");
        check("s3://bucket/texts/a.jsonl.gz#body", "s3://bucket/texts/a.jsonl.gz#body", "a");
        check("s3://bucket/texts/", "s3://bucket/texts/", "texts");
        check("file:r.csv#body", "file:r.csv#body", "r");
    }

    #[test]
    fn folders_and_columns() {
        let check = |text: &str, folder: Option<&str>, column: Option<&str>| {
            let name = name(text);
            assert_eq!((name.folder(), name.column()), (folder, column), "{text}");
        };
        check("c4/de", None, None);
        check("SciFact", None, None);
        check("hf:imdb#//text", None, Some("text"));
        check("hf:stanfordnlp/imdb", Some("stanfordnlp"), None);
        check("s3://bucket/x#t", Some("bucket"), Some("t"));
        check("file:a/b/c.csv#t", Some("b"), Some("t"));
    }

    #[test]
    fn names_that_are_refused() {
        let check = |text: &str, expected: &str| {
            let message = text.parse::<DatasetName>().expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        };
        check("reviews.txt", "write file:reviews.txt");
        check("data/reviews.csv#body", "write file:data/reviews.csv#body");
        check("imdb", "lsa-coordinator datasets");
        check("", "lsa-coordinator datasets");
        check("Bankng77Classification", "did you mean \"Banking77Classification\"?");
        check("MasiveIntentClassification/en", "did you mean \"MassiveIntentClassification/en\"?");
        check("owner/name", "hf:owner/name");
        check("fil:a.txt", "did you mean \"file\"?");
        check("c4/dee", "did you mean \"de\"?");
        check("c4/", "is no config of c4");
        check("MassiveIntentClassification/enn", "did you mean \"en\"?");
        check("MassiveIntentClassification/klingon", "af, am, ar");
        check("Banking77Classification/en", "has no subsets");
        check("CQADupstackRetrieval", "joins other tasks");
        check("AESDD", "holds no text");
        check("BrightBiologyRetrieval", "code of its own");
        check("hf:", "the repository is missing");
        check("hf:a/b/c", "owner/name");
        check("hf:../b", "owner/name");
        check("hf:a/b@", "the revision after '@' is missing");
        check("hf:a/b@x y", "revision");
        check("hf:a/b#", "nothing after '#'");
        check("hf:a/b#//", "nothing after '#'");
        check("s3://", "the bucket is missing");
        check("s3://bucket", "the prefix is missing");
        check("gs://b/x", "S3");
        check("az://b/x", "S3");
        check("https://x/y.txt", "fetch it");
        check(&"x".repeat(5000), "lsa-coordinator datasets");
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        let parts =
            ["", "c4", "/", "#", "@", ":", "hf:", "file:", "s3://", "é", "\0", "..", "*", ".txt", "SciFact"];
        for a in parts {
            for b in parts {
                for c in ["", "/", "#x"] {
                    let text = format!("{a}{b}{c}");
                    if let Ok(parsed) = text.parse::<DatasetName>() {
                        assert_eq!(name(&parsed.to_string()), parsed, "{text}");
                        parsed.stem();
                        parsed.folder();
                    }
                }
            }
        }
    }
}
