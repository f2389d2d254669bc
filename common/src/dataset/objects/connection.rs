//! A bucket at the place, and with the credentials, that the environment tells.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3ConfigKey;
use object_store::{ObjectStore, RetryConfig};

use super::error::reason;
use super::{BucketName, ObjectsError};
use crate::store::{BucketUrl, Service};

const RETRIES: usize = 5;
/// Retries are bounded by their number: an object may take a while, and its connection break at the end of it.
const RETRYING_MAX: Duration = Duration::from_secs(6 * 3600);

/// A bucket.
pub(super) struct Connection {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Where it is asked for, without credentials.
    pub(super) endpoint: String,
}

/// Connects to the bucket of `name`, as far as having credentials.
pub(super) async fn open(name: &BucketName) -> Result<Connection, ObjectsError> {
    let settings = |reason: String| ObjectsError::Settings { name: name.to_string(), reason };
    let url = BucketUrl::new(Service::S3, name.bucket());
    let (builder, url) = crate::store::s3(&url).map_err(settings)?;
    let is_yes = |text: String| ["1", "true", "on", "yes", "y"].contains(&&*text.to_ascii_lowercase());
    let is_signed = !builder.get_config_value(&AmazonS3ConfigKey::SkipSignature).is_some_and(is_yes);
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRYING_MAX, ..RetryConfig::default() };
    let bucket = builder.with_retry(retry);
    let bucket = bucket.build().map_err(|error| settings(reason(&error)))?;
    if is_signed && let Err(error) = bucket.credentials().get_credential().await {
        return Err(ObjectsError::NoCredentials { name: name.to_string(), reason: reason(&error) });
    }
    Ok(Connection { objects: Arc::new(bucket), endpoint: url.endpoint.unwrap_or_default() })
}
