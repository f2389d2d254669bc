//! Profiles of the AWS command line: static keys, region, endpoint, from `~/.aws/credentials` and `~/.aws/config`.
//!
//! Read only where the environment holds no keys. A profile that gets its keys from elsewhere (a role, single sign-on,
//! a program) is refused by name with the command that turns it into keys.

use std::path::{Path, PathBuf};

use ini::{Ini, ParseOption};

/// What a profile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Keys, where it has static ones.
    pub keys: Option<Keys>,
    /// `region`.
    pub region: Option<String>,
    /// `endpoint_url`.
    pub endpoint: Option<String>,
    /// `ca_bundle`.
    pub ca_bundle: Option<PathBuf>,
}

/// Static keys.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// `aws_access_key_id`.
    pub id: String,
    /// `aws_secret_access_key`.
    pub secret: String,
    /// `aws_session_token`.
    pub token: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(…)")
    }
}

/// Where the files of profiles are, and which is meant.
#[derive(Clone, Debug, Default)]
pub struct ProfileFiles {
    /// `~/.aws/credentials`, or what the environment names.
    pub credentials: Option<PathBuf>,
    /// `~/.aws/config`, or what the environment names.
    pub config: Option<PathBuf>,
    /// `AWS_PROFILE`; none: `default`, where there is one.
    pub name: Option<String>,
}

impl ProfileFiles {
    /// As the environment says.
    pub fn from_environment() -> Self {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = named("HOME").map(|home| home.join(".aws"));
        let file = |variable, name| named(variable).or_else(|| home.as_ref().map(|home| home.join(name)));
        let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            credentials: file("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: file("AWS_CONFIG_FILE", "config"),
            name: text("AWS_PROFILE").or_else(|| text("AWS_DEFAULT_PROFILE")),
        }
    }

    /// Reads the profile; `need_keys` where nothing else gives any. An error says what is wrong and how to mend it.
    pub fn read(&self, need_keys: bool) -> Result<Profile, String> {
        let name = self.name.as_deref().unwrap_or("default");
        let credentials = self.credentials.as_deref().map_or(Ok(None), load)?;
        let config = self.config.as_deref().map_or(Ok(None), load)?;
        let config_section = if name == "default" { name.to_owned() } else { format!("profile {name}") };
        let from_credentials = credentials.as_ref().and_then(|file| file.section(Some(name)));
        let from_config = config.as_ref().and_then(|file| {
            let plain = || file.section(Some(name)).filter(|_| name == "default");
            file.section(Some(config_section.as_str())).or_else(plain)
        });
        if self.name.is_some() && from_credentials.is_none() && from_config.is_none() {
            return Err(format!(
                "there is no profile {name:?} (AWS_PROFILE) in {} or {}",
                shown(self.credentials.as_deref()),
                shown(self.config.as_deref())
            ));
        }
        let value = |key: &str| {
            let get = |section: Option<&ini::Properties>| {
                let value = section.and_then(|section| section.get(key)).map(|value| value.trim().to_owned());
                value.filter(|value| !value.is_empty())
            };
            get(from_credentials).or_else(|| get(from_config))
        };
        let keys = match (value("aws_access_key_id"), value("aws_secret_access_key")) {
            (Some(id), Some(secret)) => Some(Keys { id, secret, token: value("aws_session_token") }),
            (None, None) => None,
            _ => {
                return Err(format!(
                    "profile {name:?} has only one of aws_access_key_id and aws_secret_access_key"
                ));
            }
        };
        // Of an unnamed default profile nothing is expected: a machine's own role may do.
        if keys.is_none() && need_keys && self.name.is_some() {
            let elsewhere =
                ["role_arn", "sso_session", "sso_start_url", "credential_process", "login_session"];
            let how = elsewhere.into_iter().find(|key| value(key).is_some());
            return Err(match how {
                Some(key) => format!(
                    "profile {name:?} has no keys but {key}; put them into the environment with: eval \"$(aws configure \
                     export-credentials --profile {name} --format env)\""
                ),
                None => format!("profile {name:?} has no aws_access_key_id and aws_secret_access_key"),
            });
        }
        Ok(Profile {
            keys,
            region: value("region"),
            endpoint: value("endpoint_url"),
            ca_bundle: value("ca_bundle").map(PathBuf::from),
        })
    }
}

fn load(path: &Path) -> Result<Option<Ini>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
    };
    // A secret key may hold backslashes and quotes.
    let options = ParseOption {
        enabled_quote: false,
        enabled_escape: false,
        enabled_indented_mutiline_value: true,
        ..ParseOption::default()
    };
    // The parser's message may repeat the line, and with it a key.
    let failed = |error: ini::ParseError| {
        format!("{} cannot be read: line {}, column {}", path.display(), error.line, error.col)
    };
    Ini::load_from_str_opt(&text, options).map(Some).map_err(failed)
}

fn shown(path: Option<&Path>) -> String {
    path.map_or("(no file)".to_owned(), |path| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(credentials: &str, config: &str, name: Option<&str>, need_keys: bool) -> Result<Profile, String> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            Some(path)
        };
        let files = ProfileFiles {
            credentials: write("credentials", credentials),
            config: write("config", config),
            name: name.map(str::to_owned),
        };
        files.read(need_keys)
    }

    const KEYS: &str = "[default]\naws_access_key_id = A\naws_secret_access_key = s/+\\\"x\n\n[work]\n\
                        aws_access_key_id=B\naws_secret_access_key=t\naws_session_token=u\n";
    const CONFIG: &str = "[default]\nregion = eu-west-1\n[profile work]\nregion = us-east-2\ns3 =\n  max_concurrent = 3\n\
                          endpoint_url = http://127.0.0.1:9000\nca_bundle = /etc/ca.pem\n[profile role]\n\
                          role_arn = arn:aws:iam::1:role/x\nsource_profile = work\n";

    #[test]
    fn keys_region_and_endpoint() {
        let profile = read(KEYS, CONFIG, None, true).expect("a default profile");
        let keys = Keys { id: "A".to_owned(), secret: "s/+\\\"x".to_owned(), token: None };
        assert_eq!((profile.keys, profile.region.as_deref()), (Some(keys), Some("eu-west-1")));
        let profile = read(KEYS, CONFIG, Some("work"), true).expect("a named profile");
        let keys = Keys { id: "B".to_owned(), secret: "t".to_owned(), token: Some("u".to_owned()) };
        assert_eq!((profile.keys, profile.region.as_deref()), (Some(keys), Some("us-east-2")));
        assert_eq!(profile.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
        assert_eq!(profile.ca_bundle.as_deref(), Some(Path::new("/etc/ca.pem")));
    }

    #[test]
    fn what_gives_no_keys_is_told() {
        let check = |credentials: &str, config: &str, name: Option<&str>, expected: &str| {
            let message = read(credentials, config, name, true).expect_err(expected);
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        };
        check(KEYS, CONFIG, Some("role"), "aws configure export-credentials --profile role --format env");
        check(KEYS, CONFIG, Some("other"), "there is no profile \"other\"");
        check("[a]\nregion=x\n", "", Some("a"), "has no aws_access_key_id");
        check("[a]\naws_access_key_id=x\n", "", Some("a"), "only one of");
        check("[a\naws_secret_access_key=hunter2\n", "", Some("a"), "credentials cannot be read: line");
        assert_eq!(read(KEYS, CONFIG, Some("role"), false).expect("no keys are needed").keys, None);
        assert_eq!(read("", "", None, true).expect("a machine's own role may do"), Profile::default());
    }
}
