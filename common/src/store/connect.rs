//! From the address of a bucket and the environment to a connection.
//!
//! | | settings | who asks |
//! |---|---|---|
//! | s3 | `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_CA_BUNDLE`, the profile | `AWS_ACCESS_KEY_ID` …, `AWS_PROFILE`, a web identity token (IRSA), ECS and EKS, the instance |
//! | gs | `endpoint=` | `GOOGLE_APPLICATION_CREDENTIALS`, the user's default credentials, the metadata server |
//! | az | `AZURE_STORAGE_ACCOUNT_NAME`, `endpoint=` | `AZURE_STORAGE_ACCOUNT_KEY`, a SAS token, a federated token, the instance |

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig, prefix::PrefixStore,
};

use super::StoreError;
use super::profile::ProfileFiles;
use super::url::{BucketUrl, Service, check_endpoint};

/// A server that says nothing for that long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// A request is sent that often again, with pauses of 0.1 s doubled to 15 s; a busy store asks for no less.
const RETRIES_MAX: usize = 8;
/// And not for longer: it is signed once, and credentials may end.
const RETRYING_MAX: Duration = Duration::from_secs(120);

/// A connection, and the address with everything that was found out: what another process needs to reach it.
pub(super) struct Connection {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) url: BucketUrl,
}

/// Connects, without asking the service anything.
pub(super) fn connect(url: &BucketUrl) -> Result<Connection, StoreError> {
    let settings = |reason: String| StoreError::Settings { url: url.to_string(), reason };
    let (objects, url) = match url.service {
        Service::S3 => {
            let (builder, url) = s3(url).map_err(settings)?;
            let built = builder.build().map_err(|error| settings(error.to_string()))?;
            (Arc::new(built) as Arc<dyn ObjectStore>, url)
        }
        Service::Gs => (gs(url).map_err(settings)?, url.clone()),
        Service::Az => az(url).map_err(settings)?,
    };
    let objects = match url.prefix.as_str() {
        "" => objects,
        prefix => Arc::new(PrefixStore::new(objects, prefix)),
    };
    Ok(Connection { objects, url })
}

/// The builder of an S3 bucket at the place, and with the credentials, that address and environment tell.
pub(crate) fn s3(url: &BucketUrl) -> Result<(AmazonS3Builder, BucketUrl), String> {
    let mut builder = AmazonS3Builder::from_env();
    let value =
        |builder: &AmazonS3Builder, key| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let has_keys = value(&builder, AmazonS3ConfigKey::AccessKeyId).is_some()
        || value(&builder, AmazonS3ConfigKey::WebIdentityTokenFile).is_some()
        || value(&builder, AmazonS3ConfigKey::SkipSignature).is_some_and(|text| is_yes(&text));
    let profile = ProfileFiles::from_environment().read(!has_keys)?;
    if let (Some(keys), false) = (profile.keys, has_keys) {
        builder = builder.with_access_key_id(keys.id).with_secret_access_key(keys.secret);
        if let Some(token) = keys.token {
            builder = builder.with_token(token);
        }
    }
    let mut url = url.clone();
    url.endpoint = url
        .endpoint
        .or_else(|| value(&builder, AmazonS3ConfigKey::S3Endpoint))
        .or_else(|| value(&builder, AmazonS3ConfigKey::Endpoint))
        .or(profile.endpoint);
    url.region = url.region.or_else(|| value(&builder, AmazonS3ConfigKey::Region)).or(profile.region);
    url.virtual_hosted |=
        value(&builder, AmazonS3ConfigKey::VirtualHostedStyleRequest).is_some_and(|text| is_yes(&text));
    let is_plain = match &url.endpoint {
        Some(endpoint) => {
            check_endpoint(endpoint)?;
            endpoint.starts_with("http://")
        }
        None => false,
    };
    let ca_bundle = named("AWS_CA_BUNDLE").or(profile.ca_bundle);
    builder = builder
        .with_bucket_name(&url.bucket)
        .with_virtual_hosted_style_request(url.virtual_hosted)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_client_options(client_options(is_plain, ca_bundle.as_deref())?)
        .with_retry(retry());
    if let Some(endpoint) = &url.endpoint {
        // The one for S3 alone would win over what the address says.
        builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint).with_endpoint(endpoint);
    }
    if let Some(region) = &url.region {
        builder = builder.with_region(region);
    }
    Ok((builder, url))
}

fn gs(url: &BucketUrl) -> Result<Arc<dyn ObjectStore>, String> {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&url.bucket).with_retry(retry());
    let is_plain = url.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if let Some(endpoint) = &url.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder = builder.with_client_options(client_options(is_plain, None)?);
    builder.build().map(|built| Arc::new(built) as Arc<dyn ObjectStore>).map_err(|error| error.to_string())
}

fn az(url: &BucketUrl) -> Result<(Arc<dyn ObjectStore>, BucketUrl), String> {
    let mut builder = MicrosoftAzureBuilder::from_env().with_container_name(&url.bucket).with_retry(retry());
    let mut url = url.clone();
    url.account = url.account.or_else(|| builder.get_config_value(&AzureConfigKey::AccountName));
    let Some(account) = &url.account else {
        return Err("the storage account is not known; set AZURE_STORAGE_ACCOUNT_NAME, or add ?account=NAME"
            .to_owned());
    };
    builder = builder.with_account(account);
    let is_plain = url.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    if let Some(endpoint) = &url.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder = builder.with_client_options(client_options(is_plain, None)?);
    let built = builder.build().map_err(|error| error.to_string())?;
    Ok((Arc::new(built), url))
}

fn client_options(is_plain: bool, ca_bundle: Option<&Path>) -> Result<ClientOptions, String> {
    // Requests have no limit as a whole: an object may be large and the way to it slow. Silence has one.
    let mut options = ClientOptions::new()
        .with_allow_http(is_plain)
        .with_connect_timeout(CONNECT_MAX)
        .with_timeout_disabled()
        .with_read_timeout(SILENCE_MAX);
    if let Some(path) = ca_bundle {
        let pem = std::fs::read(path)
            .map_err(|error| format!("cannot read {} (AWS_CA_BUNDLE): {error}", path.display()))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|_| format!("{} (AWS_CA_BUNDLE) holds no certificates in PEM form", path.display()))?;
        if certificates.is_empty() {
            return Err(format!("{} (AWS_CA_BUNDLE) holds no certificates in PEM form", path.display()));
        }
        for certificate in certificates {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(15),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRYING_MAX }
}

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn is_yes(text: &str) -> bool {
    ["1", "true", "on", "yes", "y"].contains(&&*text.to_ascii_lowercase())
}
