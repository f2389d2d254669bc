//! Where the hub and its cache are and who asks: the environment variables of the Python libraries.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::retry::RetryPolicy;
use super::{HubCache, HubError};

const ENDPOINT: &str = "https://huggingface.co";

/// What proves to the hub who asks. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(HeaderValue);

impl Token {
    /// A token as a user gives it; none of nothing but spaces.
    ///
    /// `name` says in an error where the text came from.
    pub fn new(text: &str, name: &str) -> Result<Option<Self>, HubError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let malformed = || HubError::Setting {
            name: name.to_owned(),
            reason: "it holds characters that no token has".to_owned(),
        };
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed());
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| malformed())?;
        value.set_sensitive(true);
        Ok(Some(Self(value)))
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// For the library that speaks Xet.
    pub(super) fn secret(&self) -> &str {
        self.0.to_str().ok().and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Where the hub and its cache are, who asks, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSettings {
    endpoint: Url,
    /// Sent to the endpoint and to nobody else.
    pub token: Option<Token>,
    /// Where files are kept.
    pub cache: HubCache,
    /// Whether the cache must do, without any request.
    pub offline: bool,
    /// A connection comes about within this time; 10 s.
    pub connect_timeout: Duration,
    /// An answer begins, and goes on after each part, within this time; 30 s.
    pub read_timeout: Duration,
    /// What is done after a failure.
    pub retry: RetryPolicy,
}

impl HubSettings {
    /// The hub at `endpoint`, without a token.
    pub fn new(endpoint: &str, cache: HubCache) -> Result<Self, HubError> {
        Ok(Self {
            endpoint: parse_endpoint(endpoint)?,
            token: None,
            cache,
            offline: false,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            retry: RetryPolicy::default(),
        })
    }

    /// What the environment of this process says.
    pub fn from_environment() -> Result<Self, HubError> {
        Self::from_variables(|name| std::env::var_os(name))
    }

    /// What these variables say: `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`,
    /// `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_HUB_OFFLINE`,
    /// `TRANSFORMERS_OFFLINE`.
    ///
    /// Reads the file with the token where there is one.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, HubError> {
        let endpoint = text(&variable, "HF_ENDPOINT")?;
        let cache = HubCache::at(cache_folder(&variable));
        let mut settings = Self::new(endpoint.as_deref().unwrap_or(ENDPOINT), cache)?;
        settings.offline = is_on(&variable, "HF_HUB_OFFLINE") || is_on(&variable, "TRANSFORMERS_OFFLINE");
        settings.token = find_token(&variable)?;
        Ok(settings)
    }

    /// Where the hub is, without a `/` at its end.
    pub fn endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    pub(super) fn endpoint_url(&self) -> &Url {
        &self.endpoint
    }
}

fn parse_endpoint(text: &str) -> Result<Url, HubError> {
    // The text itself may hold a password.
    let fault =
        |reason: &str| HubError::Setting { name: "HF_ENDPOINT".to_owned(), reason: reason.to_owned() };
    let expected = "it is no address such as https://huggingface.co";
    let url = Url::parse(text.trim()).map_err(|_| fault(expected))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fault("it holds a user or a password; set HF_TOKEN instead"));
    }
    let is_plain = url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_plain {
        return Err(fault(expected));
    }
    Ok(url)
}

/// As `hf auth login` leaves it, unless the user does not want it sent by itself.
fn find_token(variable: &impl Fn(&str) -> Option<OsString>) -> Result<Option<Token>, HubError> {
    if is_on(variable, "HF_HUB_DISABLE_IMPLICIT_TOKEN") {
        return Ok(None);
    }
    if let Some(token) = text(variable, "HF_TOKEN")? {
        return Token::new(&token, "HF_TOKEN");
    }
    let path = folder(variable, "HF_TOKEN_PATH").unwrap_or_else(|| home_folder(variable).join("token"));
    match std::fs::read_to_string(&path) {
        Ok(token) => Token::new(&token, &path.display().to_string()),
        // Most machines have none, and a file of another user is none of ours.
        Err(_) => Ok(None),
    }
}

/// The cache that the Python libraries would use.
pub(super) fn cache_folder(variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    folder(variable, "HF_HUB_CACHE")
        .or_else(|| folder(variable, "HUGGINGFACE_HUB_CACHE"))
        .unwrap_or_else(|| home_folder(variable).join("hub"))
}

fn home_folder(variable: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    folder(variable, "HF_HOME")
        .or_else(|| Some(folder(variable, "XDG_CACHE_HOME")?.join("huggingface")))
        .unwrap_or_else(|| expand_home("~/.cache/huggingface"))
}

fn folder(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Option<PathBuf> {
    let value = variable(name).filter(|value| !value.is_empty())?;
    Some(value.to_str().map_or_else(|| PathBuf::from(&value), expand_home))
}

fn text(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> Result<Option<String>, HubError> {
    let Some(value) = variable(name).filter(|value| !value.is_empty()) else { return Ok(None) };
    let malformed = |_| HubError::Setting { name: name.to_owned(), reason: "it is no text".to_owned() };
    value.into_string().map(Some).map_err(malformed)
}

fn is_on(variable: &impl Fn(&str) -> Option<OsString>, name: &str) -> bool {
    let value = variable(name).unwrap_or_default();
    ["1", "true", "yes", "on"].iter().any(|on| value.eq_ignore_ascii_case(on))
}

/// `~` and `~/…` from the home folder; all else as it is.
pub(crate) fn expand_home(path: &str) -> PathBuf {
    let below = path.strip_prefix('~').filter(|below| below.is_empty() || below.starts_with('/'));
    match (below, std::env::home_dir()) {
        (Some(below), Some(home)) => home.join(below.trim_start_matches('/')),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(set: &[(&str, &str)]) -> Result<HubSettings, HubError> {
        HubSettings::from_variables(|name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    const NO_HOME: (&str, &str) = ("HF_HOME", "/nothing/here");

    #[test]
    fn the_endpoint_is_an_address_without_secrets() {
        let plain = settings(&[NO_HOME]).expect("defaults");
        assert_eq!((plain.endpoint(), plain.offline, &plain.token), (ENDPOINT, false, &None));
        let mirror = settings(&[NO_HOME, ("HF_ENDPOINT", "http://mirror:8080/hub/")]).expect("a mirror");
        assert_eq!(mirror.endpoint(), "http://mirror:8080/hub");
        for bad in ["mirror", "ftp://mirror", "https://", "https://me:secret@mirror", "https://m/?secret"] {
            let error = settings(&[NO_HOME, ("HF_ENDPOINT", bad)]).expect_err(bad).to_string();
            assert!(error.starts_with("HF_ENDPOINT ") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_first_token_that_is_set_is_sent_and_never_shown() {
        let home = tempfile::tempdir().expect("temporary folder");
        let home_path = home.path().to_str().expect("utf-8");
        std::fs::write(home.path().join("token"), "in_home\n").expect("written");
        let other = home.path().join("other");
        std::fs::write(&other, " in_other ").expect("written");
        let other = other.to_str().expect("utf-8");
        let check = |set: &[(&str, &str)], expected: Option<&str>| {
            let found = settings(set).expect("settings");
            assert_eq!(found.token.as_ref().map(Token::secret), expected, "{set:?}");
            assert!(!format!("{found:?}").contains("in_"), "{found:?}");
        };
        check(&[("HF_HOME", home_path)], Some("in_home"));
        check(&[("HF_HOME", home_path), ("HF_TOKEN_PATH", other)], Some("in_other"));
        check(&[("HF_HOME", home_path), ("HF_TOKEN_PATH", "/nothing/here")], None);
        check(&[("HF_HOME", home_path), ("HF_TOKEN", "in_variable")], Some("in_variable"));
        check(&[("HF_HOME", home_path), ("HF_TOKEN", "")], Some("in_home"));
        check(&[("HF_TOKEN", "in_variable"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], None);
        let error = settings(&[("HF_TOKEN", "in_\u{1}variable")]).expect_err("no token").to_string();
        assert!(error.contains("HF_TOKEN") && !error.contains("variable"), "{error}");
    }

    #[test]
    fn offline_is_said_in_many_ways() {
        for (name, value, expected) in [
            ("HF_HUB_OFFLINE", "1", true),
            ("HF_HUB_OFFLINE", "Yes", true),
            ("TRANSFORMERS_OFFLINE", "on", true),
            ("TRANSFORMERS_OFFLINE", "TRUE", true),
            ("HF_HUB_OFFLINE", "0", false),
            ("HF_HUB_OFFLINE", "", false),
        ] {
            assert_eq!(settings(&[NO_HOME, (name, value)]).expect(name).offline, expected, "{name}={value}");
        }
    }
}
