//! Objects in a bucket: listed, brought to this machine, and from then on local files.
//!
//! ```text
//! s3://bucket/prefix ─► list: keys, sizes, ETags ─► cache: <folder>/objects/<sha256><ending> ─► Place::Local
//! ```
//! What they are is told by their bytes, as with any local file, so that the same objects under another name, or as
//! files, give the same job.

mod cache;
mod connection;
mod error;
mod list;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use object_store::ObjectStore;
use tokio::runtime::Handle;

use super::format::kind_of;
use super::{BucketName, Columns, Format, Place, ReadSettings, SourceFile, TextsPlan};
use crate::hub::ContentId;
pub use error::ObjectsError;

use cache::Cache;
use list::Listed;

/// The most objects below one prefix.
const OBJECTS_MAX: usize = 100_000;

/// Objects that are fetched at once: most of the time of a small one is spent waiting for its first byte.
const FETCHED_AT_ONCE: usize = 8;

/// What is wanted of the objects behind an `s3://` name, which are brought to the folder `cache`.
///
/// The place of the bucket and the credentials come from the variables `AWS_…`. Blocks, and waits on `runtime`.
pub fn objects_plan(
    name: &BucketName,
    settings: ReadSettings,
    runtime: &Handle,
    cache: &Path,
) -> Result<TextsPlan, ObjectsError> {
    let files = runtime.block_on(async {
        let connection = connection::open(name).await?;
        files(&connection.objects, &connection.endpoint, name, cache).await
    })?;
    Ok(TextsPlan::new(name.to_string(), files, settings))
}

/// The objects that `name` stands for, sorted bytewise, as files below `cache`. Writes to the disk between its waits.
///
/// `endpoint` tells buckets of one name apart.
async fn files(
    objects: &Arc<dyn ObjectStore>,
    endpoint: &str,
    name: &BucketName,
    cache: &Path,
) -> Result<Vec<SourceFile>, ObjectsError> {
    let listed = list::list(objects, name, OBJECTS_MAX).await?;
    let cache = Cache::open(cache, endpoint, name.bucket())?;
    let fetched = listed.iter().map(|object| file(objects, &cache, name, object));
    futures::stream::iter(fetched).buffered(FETCHED_AT_ONCE).try_collect().await
}

async fn file(
    objects: &Arc<dyn ObjectStore>,
    cache: &Cache,
    name: &BucketName,
    object: &Listed,
) -> Result<SourceFile, ObjectsError> {
    let (sha256, hint) = cache.bring(objects, object).await?;
    let columns = name.column().filter(|_| object.format != Format::Text);
    Ok(SourceFile {
        place: Place::Local { name: object.name.clone(), hint },
        size: object.size,
        content: Some(ContentId::Sha256(sha256)),
        format: object.format,
        compression: object.compression,
        columns: columns.map(|column| Columns { names: vec![column.to_owned()], joined: false }),
    })
}
