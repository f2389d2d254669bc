//! The flags that describe this machine: where things are kept, and how many workers there are.

use clap::Args;

use crate::grid::{Fault, Place};
use lsa_common::suggest;

/// Where everything is kept, and what computes; `run` and `plan` share these.
#[derive(Args, Clone, Debug, Default)]
pub struct MachineArgs {
    /// Folder or URL of the bucket that keeps texts, embeddings and results between runs
    /// [default: $XDG_CACHE_HOME/lsa]
    #[arg(long, value_name = "PATH_OR_URL")]
    pub store: Option<String>,

    /// Evict the least recently used finished extractions above this size, such as 50GiB
    #[arg(long, value_name = "SIZE")]
    pub store_limit: Option<String>,

    /// Worker processes per device [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub workers: Option<String>,

    /// CPU threads of a worker [default: the cores, shared out among the workers]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub threads: Option<String>,

    /// auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, value_name = "DEVICE")]
    pub device: Option<String>,
}

/// [`MachineArgs`], checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// As typed; none: the user's cache folder.
    pub store: Option<String>,
    /// In bytes; none: no limit.
    pub store_limit_bytes: Option<u64>,
    /// Worker processes per device, at least 1.
    pub workers: u32,
    /// CPU threads of a worker; none: the cores, shared out.
    pub threads: Option<u32>,
    /// `auto`, `cpu`, `cuda` or `cuda:N`.
    pub device: String,
}

impl MachineArgs {
    /// The flags, checked; what is wrong goes to `faults`.
    pub(super) fn check(self, faults: &mut Vec<Fault>) -> Machine {
        let mut refuse = |flag: &str, message: String| {
            faults.push(Fault { place: Some(Place::Flag(flag.to_owned())), message });
        };
        if self.store.as_deref() == Some("") {
            refuse("--store", "the value is empty; name a folder or a URL".to_owned());
        }
        let limit = self.store_limit.as_deref().map(|text| (text, parse_size(text)));
        if let Some((text, None)) = limit {
            refuse(
                "--store-limit",
                format!("{text:?} is no size; write a number and KiB, MiB, GiB or TiB, such as 50GiB"),
            );
        }
        // More processes or threads than this are a slip on any machine.
        const COUNT_MAX: u32 = 4096;
        let mut count = |flag: &str, text: Option<String>| {
            let text = text?;
            let count = text.parse().ok().filter(|count| (1..=COUNT_MAX).contains(count));
            if count.is_none() {
                refuse(flag, format!("{text:?} must be a whole number from 1 to {COUNT_MAX}"));
            }
            count
        };
        let workers = count("--workers", self.workers).unwrap_or(1);
        let threads = count("--threads", self.threads);
        let device = self.device.unwrap_or_else(|| "auto".to_owned());
        if !is_device(&device) {
            let hint = suggest::hint(&device, ["auto", "cpu", "cuda"]);
            refuse("--device", format!("{device:?} must be auto, cpu, cuda or cuda:N{hint}"));
        }
        let store_limit_bytes = limit.and_then(|(_, bytes)| bytes);
        Machine { store: self.store, store_limit_bytes, workers, threads, device }
    }
}

fn is_device(text: &str) -> bool {
    let index = |n: &str| n.len() <= 4 && !n.is_empty() && n.bytes().all(|byte| byte.is_ascii_digit());
    matches!(text, "auto" | "cpu" | "cuda") || text.strip_prefix("cuda:").is_some_and(index)
}

/// Bytes of `512`, `10KiB`, `5 MiB`, `50GiB`, `1TiB`; at least 1.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| assert_eq!(parse_size(text), expected, "{text}");
        check("512", Some(512));
        check("10KiB", Some(10_240));
        check("5 MiB", Some(5 << 20));
        check("50GiB", Some(50 << 30));
        check("2TiB", Some(2 << 40));
        check("0", None);
        check("GiB", None);
        check("1.5GiB", None);
        check("50GB", None);
        check("-1", None);
        check("99999999TiB", None);
    }

    #[test]
    fn every_fault_is_told() {
        let text = |text: &str| Some(text.to_owned());
        let args = MachineArgs {
            store: text(""),
            store_limit: text("much"),
            workers: text("0"),
            threads: text("-1"),
            device: text("gpu:0"),
        };
        let mut faults = Vec::new();
        args.check(&mut faults);
        assert_eq!(faults.len(), 5, "{faults:?}");
        let mut faults = Vec::new();
        let machine = MachineArgs { device: text("cuda:1"), workers: text("3"), ..MachineArgs::default() }
            .check(&mut faults);
        assert_eq!((machine.device.as_str(), machine.workers, faults.len()), ("cuda:1", 3, 0));
    }
}
