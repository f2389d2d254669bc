//! When a failed request is made again: exponential back-off with jitter, or when the hub says.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::{Duration, SystemTime};

use super::HubError;

/// Attempts in a row that reach nobody.
const UNREACHED_ATTEMPTS_MAX: u32 = 3;

/// How often, and how long between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in a row that bring nothing before it is given up.
    pub attempts_max: u32,
    /// Pause after the first failure; each further one doubles it.
    pub pause_first: Duration,
    /// No pause of our own choice is longer.
    pub pause_max: Duration,
    /// No pause that the hub asks for (`Retry-After`) is longer.
    pub retry_after_max: Duration,
}

impl Default for RetryPolicy {
    /// About a minute in all, unless the hub asks for more; its rate limits are windows of five minutes.
    fn default() -> Self {
        Self {
            attempts_max: 8,
            pause_first: Duration::from_millis(500),
            pause_max: Duration::from_secs(60),
            retry_after_max: Duration::from_secs(300),
        }
    }
}

/// Why one attempt failed.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Box<HubError>,
    /// Whether the same request may succeed later.
    pub(super) is_passing: bool,
    /// How long the hub asks to wait.
    pub(super) retry_after: Option<Duration>,
}

impl Failed {
    /// The network, or what the hub is in at the moment.
    pub(super) fn passing(error: HubError) -> Self {
        Self { error: Box::new(error), is_passing: true, retry_after: None }
    }
}

/// Everything else stays as it is.
impl From<HubError> for Failed {
    fn from(error: HubError) -> Self {
        Self { error: Box::new(error), is_passing: false, retry_after: None }
    }
}

/// The failures in a row of one request.
#[derive(Debug)]
pub(super) struct Attempts {
    policy: RetryPolicy,
    n_failed: u32,
}

impl Attempts {
    pub(super) fn new(policy: &RetryPolicy) -> Self {
        Self { policy: policy.clone(), n_failed: 0 }
    }

    /// What was asked for has come, or a good part of it.
    pub(super) fn succeeded(&mut self) {
        self.n_failed = 0;
    }

    /// Waits until the next attempt is due, or says that there is none.
    pub(super) fn wait_after(&mut self, failed: Failed) -> Result<(), HubError> {
        self.n_failed += 1;
        if !failed.is_passing {
            return Err(*failed.error);
        }
        let attempts_max = match &*failed.error {
            // Nobody is there, most likely for want of a network, and a person waits to hear it.
            HubError::Network { source, .. } if source.is_connect() => {
                self.policy.attempts_max.min(UNREACHED_ATTEMPTS_MAX)
            }
            _ => self.policy.attempts_max,
        };
        if self.n_failed >= attempts_max {
            return Err(HubError::GaveUp { attempts: self.n_failed, source: failed.error });
        }
        let pause = pause(&self.policy, self.n_failed, failed.retry_after, random());
        let error = crate::failure::chain(failed.error.as_ref());
        let (attempt, pause_ms) = (self.n_failed, u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        tracing::warn!(attempt, pause_ms, error, "the hub did not answer; trying again");
        std::thread::sleep(pause);
        Ok(())
    }
}

/// `random` is in [0, 1): half of our own pauses is left to chance, so that many workers do not come back at once.
fn pause(policy: &RetryPolicy, n_failed: u32, retry_after: Option<Duration>, random: f64) -> Duration {
    match retry_after {
        Some(asked) => asked.min(policy.retry_after_max),
        None => {
            let doubled = policy.pause_first.saturating_mul(1 << n_failed.saturating_sub(1).min(20));
            doubled.min(policy.pause_max).mul_f64(0.5 + random / 2.0)
        }
    }
}

/// The keys of the standard library's hash maps are random; nothing here needs better chance than that.
fn random() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

/// The value of a `Retry-After` header: seconds, or a date.
pub(super) fn parse_retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_limit() {
        let policy = RetryPolicy::default();
        let check = |n_failed: u32, expected_ms: u64| {
            let longest = pause(&policy, n_failed, None, 1.0);
            assert_eq!(longest, Duration::from_millis(expected_ms), "{n_failed}");
            assert_eq!(pause(&policy, n_failed, None, 0.0), longest / 2);
        };
        check(1, 500);
        check(2, 1_000);
        check(5, 8_000);
        check(8, 60_000);
        check(u32::MAX, 60_000);
        assert!((0..100).map(|_| random()).all(|random| (0.0..1.0).contains(&random)));
    }

    #[test]
    fn the_hub_says_when_to_come_back() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let check = |value: &str, expected: Option<u64>| {
            assert_eq!(parse_retry_after(value, now), expected.map(Duration::from_secs), "{value}");
        };
        check("7", Some(7));
        check(" 0 ", Some(0));
        check("Sun, 06 Nov 1994 08:50:07 GMT", Some(30));
        check("Sun, 06 Nov 1994 08:00:00 GMT", Some(0));
        check("soon", None);
        check("-1", None);
        let policy = RetryPolicy::default();
        assert_eq!(pause(&policy, 1, Some(Duration::from_secs(7)), 0.3), Duration::from_secs(7));
        assert_eq!(pause(&policy, 1, Some(Duration::from_secs(9_999)), 0.3), policy.retry_after_max);
    }

    #[test]
    fn only_what_passes_is_tried_again_and_not_for_ever() {
        let none = Duration::ZERO;
        let policy =
            RetryPolicy { attempts_max: 3, pause_first: none, pause_max: none, retry_after_max: none };
        let mut attempts = Attempts::new(&policy);
        let error = attempts.wait_after(HubError::Stopped.into()).expect_err("stays");
        assert!(matches!(error, HubError::Stopped));
        let mut attempts = Attempts::new(&policy);
        for _ in 0..2 {
            attempts.wait_after(Failed::passing(HubError::Stopped)).expect("passes");
        }
        attempts.succeeded();
        for _ in 0..2 {
            attempts.wait_after(Failed::passing(HubError::Stopped)).expect("passes");
        }
        let error = attempts.wait_after(Failed::passing(HubError::Stopped)).expect_err("third in a row");
        assert!(matches!(error, HubError::GaveUp { attempts: 3, .. }));
    }
}
