//! What a trial may use of a machine: threads, memory, disk. Results depend on none of it.

use std::path::PathBuf;

use clap::Args;
use lsa_common::metric::MetricSpec;
use tch::Device;

use crate::device;
use crate::metric::tensor;

/// The part of the available memory that is used unless told otherwise, in percent: other processes grow too.
const MEMORY_PERCENT: u64 = 80;

/// What a trial may use.
#[derive(Clone, Debug)]
pub struct Resources {
    /// CPU threads.
    pub threads: usize,
    /// Memory in bytes, beside what the process holds anyway.
    pub memory_bytes: u64,
    /// The folder for scratch files, which are made where the memory does not suffice.
    pub scratch: PathBuf,
    /// The device whose tensors compute the metrics that can be computed so; `None` computes all on the CPU, with less
    /// memory and disk where needed. The last bits differ between the two.
    pub tensors: Option<Device>,
}

impl Resources {
    /// As many threads, and of memory what nobody uses now.
    pub fn available(threads: usize) -> Self {
        let free = device::memory(Device::Cpu).map(|memory| memory.free_bytes / 100 * MEMORY_PERCENT);
        Self { threads, memory_bytes: free.unwrap_or(u64::MAX), scratch: std::env::temp_dir(), tensors: None }
    }

    /// The same with tensors on a device, if that is a GPU.
    pub fn on(self, device: Device) -> Self {
        Self { tensors: device.is_cuda().then_some(device), ..self }
    }

    /// The same without tensors on a device that has too little memory for so many layers of n rows.
    pub fn where_tensors_fit(&self, n: usize, n_layers: usize, metrics: &[MetricSpec]) -> Self {
        let (n, n_layers) = (n as u64, n_layers as u64);
        let tensors = self.tensors.filter(|device| tensor::fits(n, n_layers, metrics, *device));
        if tensors.is_none()
            && let Some(device) = self.tensors
        {
            tracing::info!(
                "{n_layers} layers of {n} rows do not fit into {device:?}; they are compared on the CPU"
            );
        }
        Self { tensors, ..self.clone() }
    }

    /// The same with half of the memory: for one of two sides that are held at the same time.
    pub fn half_the_memory(&self) -> Self {
        Self { memory_bytes: self.memory_bytes / 2, ..self.clone() }
    }

    /// The same with so many bytes of memory taken away.
    pub fn less_memory(&self, bytes: u64) -> Self {
        Self { memory_bytes: self.memory_bytes.saturating_sub(bytes), ..self.clone() }
    }
}

/// Memory and disk as they are set on the command line.
#[derive(Args, Clone, Debug)]
pub struct MemoryArgs {
    /// Memory for comparing layers, in GiB; what does not fit goes to --scratch [default: 80 % of what is available]
    #[arg(long, env = "LSA_MEMORY_GIB", value_name = "GIB", value_parser = positive)]
    pub memory_gib: Option<f64>,
    /// Processes that share what is available, where --memory-gib is not set: the workers of one machine
    #[arg(long, env = "LSA_MEMORY_SHARES", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub memory_shares: u32,
    /// Folder for what does not fit into memory [default: the system's for temporary files]
    #[arg(long, env = "LSA_SCRATCH", value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

impl Default for MemoryArgs {
    fn default() -> Self {
        Self { memory_gib: None, memory_shares: 1, scratch: None }
    }
}

impl MemoryArgs {
    /// With what is available in place of what is not set.
    pub fn resources(&self, threads: usize) -> Resources {
        let available = Resources::available(threads);
        let share = || available.memory_bytes / u64::from(self.memory_shares.max(1));
        let bytes = |gib: f64| (gib * f64::from(1u32 << 30)) as u64;
        Resources {
            threads,
            memory_bytes: self.memory_gib.map_or_else(share, bytes),
            scratch: self.scratch.clone().unwrap_or(available.scratch),
            tensors: None,
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("expected a number above 0".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_wins_over_what_is_available() {
        let set = MemoryArgs { memory_gib: Some(1.5), memory_shares: 8, scratch: Some("/somewhere".into()) };
        let resources = set.resources(3);
        assert_eq!((resources.threads, resources.memory_bytes), (3, 3 << 29));
        assert_eq!(resources.scratch, PathBuf::from("/somewhere"));
        assert!(MemoryArgs::default().resources(1).memory_bytes > 1 << 20);
        assert_eq!(resources.half_the_memory().less_memory(1 << 40).memory_bytes, 0);
        for text in ["0", "-1", "NaN", "inf", "8G"] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
