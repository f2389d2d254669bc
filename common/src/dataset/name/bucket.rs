//! `s3://bucket/prefix[#column]`

use std::fmt;

use super::NameError;
use crate::dataset::format::kind_of;

/// An object in a bucket, or all objects under a prefix.
///
/// What follows the last `#` is a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BucketName {
    bucket: String,
    prefix: String,
    column: Option<String>,
}

impl BucketName {
    pub(super) fn parse(text: &str, rest: &str) -> Result<Self, NameError> {
        let form = "s3://bucket/prefix or s3://bucket/prefix#column";
        let malformed = |reason| Err(NameError::Malformed { name: text.to_owned(), reason, form });
        let (place, column) = rest.rsplit_once('#').map_or((rest, None), |(place, c)| (place, Some(c)));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.is_empty() {
            return malformed("the bucket is missing");
        }
        if !bucket.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
            return malformed("a bucket's name is made of letters, digits, '-', '.' and '_'");
        }
        if prefix.trim_matches('/').is_empty() {
            return malformed("the prefix is missing");
        }
        if prefix.contains('\0') {
            return malformed("a prefix cannot contain the character U+0000");
        }
        if column == Some("") {
            return malformed("the column after '#' is missing");
        }
        let column = column.map(str::to_owned);
        Ok(Self { bucket: bucket.to_owned(), prefix: prefix.to_owned(), column })
    }

    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What the keys of the objects begin with; the key itself where there is one object.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The column asked for, if one was.
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// The last part of the prefix without endings.
    pub fn stem(&self) -> String {
        let last = self.prefix.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let endings = kind_of(last)
            .map_or(0, |(format, compression)| format.ending().len() + compression.ending().len());
        last[..last.len() - endings].to_owned()
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}/{}", self.bucket, self.prefix)?;
        self.column.iter().try_for_each(|column| write!(f, "#{column}"))
    }
}

/// Says why another kind of place is not reached.
pub(super) fn refuse(text: &str, scheme: &str) -> NameError {
    let reason = match scheme.to_ascii_lowercase().as_str() {
        "gs" | "gcs" | "az" | "azure" | "abfs" | "abfss" | "adl" => {
            "this program speaks the protocol of S3 only; copy it to such a bucket and write s3://bucket/prefix, or \
             to this machine and write file:PATH"
        }
        "http" | "https" | "ftp" => "this program does not read web addresses; fetch it and write file:PATH",
        "file" => "a path follows file: without slashes of its own; write file:PATH",
        "hf" => "write hf:owner/name",
        _ => "the place is unknown; write file:PATH, hf:owner/name or s3://bucket/prefix",
    };
    NameError::OtherPlace { name: text.to_owned(), reason }
}
