//! The address of a bucket: what a user types, and what a coordinator tells its workers.
//!
//! ```text
//! folder · file:///folder
//! s3://bucket/prefix?endpoint=https://host:port&region=R&style=path     what the query leaves out comes from AWS_…
//! gs://bucket/prefix?endpoint=…    az://container/prefix?account=A&endpoint=…
//! ```
//! Credentials are never part of it.

use std::fmt;
use std::path::PathBuf;

use super::StoreError;

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A directory of this machine.
    Folder(PathBuf),
    /// A bucket of a service.
    Bucket(BucketUrl),
}

/// Who keeps a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// S3, and what speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
}

impl Service {
    /// Before `://`.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        }
    }
}

/// A bucket of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketUrl {
    /// Who keeps it.
    pub service: Service,
    /// The bucket, or the container.
    pub bucket: String,
    /// What all keys begin with; without slashes at its ends, may be empty.
    pub prefix: String,
    /// Where the service is, `http://…` or `https://…`; none: where the service usually is.
    pub endpoint: Option<String>,
    /// The region, of S3 alone.
    pub region: Option<String>,
    /// Whether the bucket is part of the host's name, of S3 alone.
    pub virtual_hosted: bool,
    /// The storage account, of Azure alone.
    pub account: Option<String>,
}

impl StoreUrl {
    /// What `text` names.
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        let refuse = |reason: String| StoreError::Url { url: without_user(text), reason };
        if text.is_empty() {
            return Err(refuse("it is empty".to_owned()));
        }
        let Some((scheme, rest)) = text.split_once("://") else { return Ok(Self::Folder(text.into())) };
        let service = match scheme {
            "file" => return Ok(Self::Folder(rest.into())),
            "s3" => Service::S3,
            "gs" => Service::Gs,
            "az" => Service::Az,
            "s3a" | "s3n" => return Err(refuse("write s3://".to_owned())),
            "gcs" => return Err(refuse("write gs://".to_owned())),
            "azure" | "abfs" | "abfss" | "adl" => {
                return Err(refuse("write az://container/prefix".to_owned()));
            }
            "http" | "https" => {
                let reason =
                    "a service's address belongs into the query: s3://bucket/prefix?endpoint=https://…";
                return Err(refuse(reason.to_owned()));
            }
            _ => return Err(refuse(format!("{scheme:?} is no kind of store"))),
        };
        BucketUrl::parse(service, rest).map(Self::Bucket).map_err(refuse)
    }
}

impl BucketUrl {
    /// A whole bucket, where its service usually is.
    pub fn new(service: Service, bucket: &str) -> Self {
        Self {
            service,
            bucket: bucket.to_owned(),
            prefix: String::new(),
            endpoint: None,
            region: None,
            virtual_hosted: false,
            account: None,
        }
    }

    fn parse(service: Service, rest: &str) -> Result<Self, String> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        if bucket.contains('@') {
            return Err("credentials do not belong into an address; set them in the environment".to_owned());
        }
        if bucket.is_empty() || !bucket.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)) {
            return Err("the bucket's name is made of letters, digits, '-', '.' and '_'".to_owned());
        }
        let prefix = prefix.trim_matches('/');
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let is_plain = |c: char| c.is_ascii_graphic() && !"?#%*{}^`|~\"<>\\[]".contains(c);
        let is_prefix = prefix.is_empty() || prefix.split('/').all(is_part) && prefix.chars().all(is_plain);
        if !is_prefix {
            return Err("the prefix is made of plain characters and single slashes".to_owned());
        }
        let mut url = Self { prefix: prefix.to_owned(), ..Self::new(service, bucket) };
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            url.set(name, value)?;
        }
        Ok(url)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let is_name = |text: &str| {
            !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        match (name, self.service) {
            ("endpoint", _) => {
                check_endpoint(value)?;
                self.endpoint = Some(value.trim_end_matches('/').to_owned());
            }
            ("region", Service::S3) if is_name(value) => self.region = Some(value.to_owned()),
            ("style", Service::S3) if value == "virtual" || value == "path" => {
                self.virtual_hosted = value == "virtual";
            }
            ("account", Service::Az) if is_name(value) => self.account = Some(value.to_owned()),
            ("region", Service::S3) | ("account", Service::Az) => {
                return Err(format!("{name} is made of letters, digits and '-'"));
            }
            ("style", Service::S3) => return Err("style is path or virtual".to_owned()),
            _ => {
                let known = match self.service {
                    Service::S3 => "endpoint, region and style",
                    Service::Gs => "endpoint",
                    Service::Az => "account and endpoint",
                };
                return Err(format!(
                    "{name:?} is no setting of {}://; known: {known}",
                    self.service.scheme()
                ));
            }
        }
        Ok(())
    }
}

/// That an endpoint is one, and holds no secret. It is not repeated: it may hold a password.
pub fn check_endpoint(endpoint: &str) -> Result<(), String> {
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err("the endpoint begins with neither https:// nor http://".to_owned());
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.is_empty() || host.contains('@') || rest.contains(['?', '#', '&', ' ']) {
        return Err("the endpoint has no host, or more than host, port and path".to_owned());
    }
    Ok(())
}

/// `text` without what stands between `://` and `@`.
fn without_user(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => text.to_owned(),
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "file://{}", path.display()),
            Self::Bucket(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.service.scheme(), self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        let style = self.virtual_hosted.then_some("virtual");
        let settings = [
            ("account", self.account.as_deref()),
            ("endpoint", self.endpoint.as_deref()),
            ("region", self.region.as_deref()),
            ("style", style),
        ];
        let set = settings.iter().filter_map(|(name, value)| value.map(|value| (name, value)));
        for (place, (name, value)) in set.enumerate() {
            write!(f, "{}{name}={value}", if place == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_alike() {
        for text in [
            "file:///data/lsa",
            "s3://bucket",
            "s3://bucket/a/b",
            "s3://bucket/a?endpoint=http://127.0.0.1:9000&region=eu-west-1&style=virtual",
            "gs://bucket/a",
            "az://container/a?account=me&endpoint=https://me.blob.core.windows.net",
        ] {
            let url = StoreUrl::parse(text).expect(text);
            assert_eq!(url.to_string(), text);
        }
        let url =
            StoreUrl::parse("s3://bucket//a/?style=path&endpoint=https://s3.example/").expect("a bucket");
        assert_eq!(url.to_string(), "s3://bucket/a?endpoint=https://s3.example");
        assert_eq!(StoreUrl::parse("a/b").expect("a folder"), StoreUrl::Folder("a/b".into()));
    }

    #[test]
    fn what_is_no_address_is_told() {
        let check = |text: &str, expected: &str| {
            let message = StoreUrl::parse(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
            assert!(!message.contains("secret"), "{message}");
        };
        check("", "it is empty");
        check("s4://bucket", "\"s4\" is no kind of store");
        check("s3a://bucket", "write s3://");
        check("https://s3.example/bucket", "s3://bucket/prefix?endpoint=https://…");
        check("s3:///prefix", "the bucket's name");
        check("s3://me:secret@bucket/a", "credentials do not belong");
        check("s3://bucket/a//b", "the prefix is made of");
        check("s3://bucket/../b", "the prefix is made of");
        check("s3://bucket/a#b", "the prefix is made of");
        for endpoint in ["", "minio:9000", "http://", "ftp://minio"] {
            assert!(check_endpoint(endpoint).is_err(), "{endpoint}");
        }
        check("s3://bucket?endpoint=minio:9000", "neither https:// nor http://");
        check("s3://bucket?endpoint=https://me:secret@minio", "more than host");
        check("s3://bucket?style=other", "style is path or virtual");
        check("s3://bucket?account=a", "known: endpoint, region and style");
        check("gs://bucket?region=x", "known: endpoint");
    }
}
