//! A bucket at the place, and with the credentials, that the environment tells.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use super::error::reason;
use super::{BucketName, ObjectsError};

/// A server that says nothing for that long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
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
    let builder = AmazonS3Builder::from_env();
    let value = |key| builder.get_config_value(&key);
    let endpoint = value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint));
    let is_yes = |text: String| ["1", "true", "on", "yes", "y"].contains(&&*text.to_ascii_lowercase());
    let is_signed = !value(AmazonS3ConfigKey::SkipSignature).is_some_and(is_yes);
    let is_plain = endpoint.as_deref().map_or(Ok(false), check_endpoint).map_err(settings)?;
    let options =
        ClientOptions::new().with_allow_http(is_plain).with_timeout_disabled().with_read_timeout(SILENCE_MAX);
    let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRYING_MAX, ..RetryConfig::default() };
    let bucket = builder.with_bucket_name(name.bucket()).with_client_options(options).with_retry(retry);
    let bucket = bucket.build().map_err(|error| settings(reason(&error)))?;
    if is_signed && let Err(error) = bucket.credentials().get_credential().await {
        return Err(ObjectsError::NoCredentials { name: name.to_string(), reason: reason(&error) });
    }
    Ok(Connection { objects: Arc::new(bucket), endpoint: endpoint.unwrap_or_default() })
}

/// Whether the endpoint is asked without TLS. Neither it nor a part of it is repeated: it may hold a password.
fn check_endpoint(endpoint: &str) -> Result<bool, String> {
    let (is_plain, rest) = match (endpoint.strip_prefix("http://"), endpoint.strip_prefix("https://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err("the endpoint begins with neither https:// nor http://".to_owned()),
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') {
        return Err("the endpoint has no host, or a user before it".to_owned());
    }
    Ok(is_plain)
}

#[cfg(test)]
mod tests {
    use super::check_endpoint;

    #[test]
    fn endpoints() {
        assert_eq!(check_endpoint("http://127.0.0.1:9000"), Ok(true));
        assert_eq!(check_endpoint("https://minio.example/x"), Ok(false));
        for refused in ["", "minio:9000", "http://", "https://me:secret@minio", "ftp://minio"] {
            let reason = check_endpoint(refused).expect_err(refused);
            assert!(!reason.contains("secret"), "{reason}");
        }
    }
}
