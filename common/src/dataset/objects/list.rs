//! Which objects a name stands for.

use std::sync::Arc;

use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _};

use super::{BucketName, ObjectsError, kind_of};
use crate::dataset::{Compression, Format};

/// S3 knows no longer keys.
const KEY_BYTES_MAX: usize = 1024;

/// An object that will be read.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    /// `s3://bucket/key`.
    pub(super) name: String,
    pub(super) location: Path,
    pub(super) size: u64,
    /// What the bucket calls this version of it.
    pub(super) etag: Option<String>,
    pub(super) format: Format,
    pub(super) compression: Compression,
}

/// The object of that name, or else all below it, with the endings of data files and sorted bytewise. At most
/// `objects_max` are looked at.
pub(super) async fn list(
    objects: &Arc<dyn ObjectStore>,
    name: &BucketName,
    objects_max: usize,
) -> Result<Vec<Listed>, ObjectsError> {
    let prefix = location(name)?;
    if !name.prefix().ends_with('/')
        && let Some(kind) = kind_of(prefix.as_ref())
    {
        match objects.head(&prefix).await {
            Ok(found) => return Ok(vec![listed(name, found, kind)?]),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(ObjectsError::of(&name.to_string(), &error)),
        }
    }
    let below = format!("{prefix}/");
    let mut found: Vec<Listed> = Vec::new();
    let mut n_seen = 0_usize;
    let mut all = objects.list(Some(&prefix));
    while let Some(object) =
        all.try_next().await.map_err(|error| ObjectsError::of(&name.to_string(), &error))?
    {
        n_seen += 1;
        if n_seen > objects_max {
            return Err(ObjectsError::TooMany { name: name.to_string(), limit: objects_max });
        }
        // An object of no bytes is what some programs take for a folder; texts are in none.
        if object.size == 0 || !object.location.as_ref().starts_with(&below) {
            continue;
        }
        if let Some(kind) = kind_of(object.location.as_ref()) {
            found.push(listed(name, object, kind)?);
        }
    }
    if found.is_empty() {
        return Err(ObjectsError::Nothing { name: name.to_string(), n_seen });
    }
    found.sort_by(|a, b| a.location.as_ref().as_bytes().cmp(b.location.as_ref().as_bytes()));
    Ok(found)
}

/// The prefix as a key, where every part of it is one that a bucket and a terminal take as it is.
fn location(name: &BucketName) -> Result<Path, ObjectsError> {
    let bad = |reason: String| ObjectsError::BadName { name: name.to_string(), reason };
    if name.prefix().starts_with('/') {
        return Err(bad("it begins with '/'".to_owned()));
    }
    check(name.prefix()).map_err(bad)?;
    Path::parse(name.prefix()).map_err(|_| bad("it has an empty part, or one that is '.' or '..'".to_owned()))
}

fn listed(
    name: &BucketName,
    object: ObjectMeta,
    (format, compression): (Format, Compression),
) -> Result<Listed, ObjectsError> {
    let full = format!("s3://{}/{}", name.bucket(), object.location);
    if let Err(reason) = check(object.location.as_ref()) {
        return Err(ObjectsError::BadName { name: full, reason });
    }
    let ObjectMeta { location, size, e_tag: etag, .. } = object;
    Ok(Listed { name: full, location, size, etag, format, compression })
}

/// A key goes into messages and reports.
fn check(key: &str) -> Result<(), String> {
    // Those that turn the direction of writing make one name look like another.
    let is_hostile =
        |c: &char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    match key.chars().find(is_hostile) {
        Some(c) => Err(format!("it contains the character U+{:04X}", u32::from(c))),
        None if key.len() > KEY_BYTES_MAX => Err(format!("it is longer than {KEY_BYTES_MAX} bytes")),
        None => Ok(()),
    }
}
