//! Which device computes, what it can hold, and the profile within which results have the same bytes.

use std::ffi::{c_char, c_int};
use std::fs;
use std::sync::OnceLock;

use lsa_common::failure::FailureClass;
use lsa_common::model::Dtype;
use tch::{Cuda, Device, Kind, Tensor};

/// Raised whenever a change may alter a result in any bit.
pub const NUMERICS_VERSION: u32 = 2;
/// The release of libtorch that this binary was linked with.
pub const LIBTORCH_VERSION: &str = env!("LSA_LIBTORCH_VERSION");

/// The most tokens that go through the model at once on a CPU, whatever the budget of the spec.
///
/// Activations of this many tokens stay in the caches, and there are batches for every core; more tokens
/// make matrix products no faster.
const CPU_BATCH_TOKENS_MAX: u64 = 1024;

/// A device as asked for: `auto`, `cpu` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The first usable GPU, or the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// That GPU.
    Cuda(usize),
}

/// The device to use, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenDevice {
    /// The device.
    pub device: Device,
    /// One line for people: what was chosen and why.
    pub reason: String,
}

/// Bytes of memory of a device, or of this process's share of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What could be had now.
    pub free_bytes: u64,
}

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DeviceError {
    /// Not a device.
    #[error("device {0:?} is unknown; known: auto, cpu, cuda:0, cuda:1, …")]
    Unknown(String),
    /// There is no such GPU that works.
    #[error("device cuda:{index} is not usable: {reason}; use --device cpu or auto")]
    NoGpu {
        /// The GPU's number.
        index: usize,
        /// In the words of the driver or of libtorch.
        reason: String,
    },
}

impl DeviceError {
    /// Nothing that this process does will bring the device back.
    pub fn failure_class(&self) -> FailureClass {
        FailureClass::Fatal
    }
}

impl std::str::FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let index = text.strip_prefix("cuda:").and_then(|index| index.parse().ok());
                index.map(Self::Cuda).ok_or_else(|| DeviceError::Unknown(text.chars().take(80).collect()))
            }
        }
    }
}

static CUDA_LIBRARY: OnceLock<Result<(), String>> = OnceLock::new();

/// Makes libtorch ready; to be called once, before anything else touches it.
///
/// Loads the CUDA part of libtorch where it is installed: the first question about CUDA settles for the whole
/// process whether there is any, so the library must be there before it. And makes libtorch compute each
/// operation on one thread: parallel work is done on whole batches, so that no result depends on the number of
/// threads.
pub fn prepare_libtorch() {
    CUDA_LIBRARY.get_or_init(|| {
        use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};
        // SAFETY: the library's initialisers register kernels with libtorch and have no other preconditions.
        let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
        // It stays loaded for the life of the process.
        library.map(std::mem::forget).map_err(|error| error.to_string())
    });
    single_threaded();
}

/// Makes libtorch compute on the calling thread alone; every thread that computes calls this first.
pub fn single_threaded() {
    tch::set_num_threads(1);
}

/// Finds the device that was asked for and makes sure that it works.
pub fn open(choice: DeviceChoice) -> Result<ChosenDevice, DeviceError> {
    let cpu = |reason: String| ChosenDevice { device: Device::Cpu, reason };
    match choice {
        DeviceChoice::Cpu => Ok(cpu(format!("cpu ({})", instruction_set()))),
        DeviceChoice::Cuda(index) => {
            let name = probe_cuda(index).map_err(|reason| DeviceError::NoGpu { index, reason })?;
            Ok(ChosenDevice { device: Device::Cuda(index), reason: format!("cuda:{index} ({name})") })
        }
        DeviceChoice::Auto => Ok(match probe_cuda(0) {
            Ok(name) => {
                ChosenDevice { device: Device::Cuda(0), reason: format!("cuda:0 ({name}), chosen by auto") }
            }
            Err(reason) => {
                cpu(format!("cpu ({}), chosen by auto: no usable GPU ({reason})", instruction_set()))
            }
        }),
    }
}

/// The name of a GPU that works, or why it does not.
fn probe_cuda(index: usize) -> Result<String, String> {
    prepare_libtorch();
    // Without a driver it does not matter what libtorch brings.
    let driver = Driver::open()?;
    if let Some(Err(error)) = CUDA_LIBRARY.get() {
        return Err(format!("libtorch's CUDA library could not be loaded: {error}"));
    }
    let n_devices = usize::try_from(Cuda::device_count()).unwrap_or(0);
    if !Cuda::is_available() || n_devices == 0 {
        return Err("no NVIDIA GPU was found".to_owned());
    }
    if index >= n_devices {
        return Err(format!("there are only {n_devices} GPUs"));
    }
    let probe =
        Tensor::f_ones([1], (Kind::Float, Device::Cuda(index))).and_then(|one| one.f_double_value(&[0]));
    probe.map_err(|error| first_line(&error.to_string()))?;
    driver.device_name(index)
}

/// The message of libtorch without its backtrace.
pub fn first_line(message: &str) -> String {
    let ends = ["Exception raised from", "frame #0: "].iter().filter_map(|sign| message.find(sign));
    let end = ends.min().unwrap_or(message.len());
    message[..end].trim().replace('\n', " ")
}

/// The tokens that go through the model at once, for a spec that allows `token_budget`.
pub fn batch_tokens(device: Device, token_budget: u64) -> u64 {
    if device.is_cuda() { token_budget } else { token_budget.min(CPU_BATCH_TOKENS_MAX) }
}

/// Whether float32 products on this CPU are left to oneDNN instead of libtorch's default, MKL.
///
/// MKL does not use AVX-512 on CPUs of other makers than Intel: on an AMD EPYC with it, oneDNN was twice as fast,
/// 205 to 230 GFLOP/s on one core against 105, the copies into its layout and back included.
pub fn float32_products_by_onednn() -> bool {
    static BY_ONEDNN: OnceLock<bool> = OnceLock::new();
    *BY_ONEDNN.get_or_init(|| {
        let cpu = instruction_set();
        let has = |part: &str| cpu.split('-').any(|found| found == part);
        tch::utils::has_mkldnn() && has("amd") && has("avx512")
    })
}

/// Which kernels the forward passes are made of.
fn kernel_set(device: Device, dtype: Dtype) -> &'static str {
    let onednn = device == Device::Cpu && dtype == Dtype::Float32 && float32_products_by_onednn();
    if onednn { "packed-sdpa-onednn" } else { "packed-sdpa" }
}

/// Within one profile the same spec gives the same bytes.
///
/// Numerics version, libtorch, GPU model if there is one, instruction set of the CPU, compute dtype, kernel set.
pub fn numeric_profile(device: Device, dtype: Dtype) -> String {
    let hardware = match device {
        Device::Cuda(index) => match Driver::open().and_then(|driver| driver.device_name(index)) {
            // The CPU beside it counts too: rows are centred and some metrics computed on it.
            Ok(name) => format!("cuda-{}-cpu-{}", dashed(&name), instruction_set()),
            Err(_) => format!("cuda-unnamed-cpu-{}", instruction_set()),
        },
        Device::Cpu | Device::Mps | Device::Vulkan => format!("cpu-{}", instruction_set()),
    };
    let kernels = kernel_set(device, dtype);
    format!("n{NUMERICS_VERSION}_libtorch-{LIBTORCH_VERSION}_{hardware}_{dtype}_{kernels}")
}

fn dashed(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Architecture, maker and vector extensions of the CPU: what libtorch and its libraries choose kernels by.
fn instruction_set() -> String {
    /// In the order in which they are listed; each switches kernels somewhere below libtorch.
    const EXTENSIONS: [(&str, &str); 10] = [
        ("avx2", "avx2"),
        ("avx512f", "avx512"),
        ("avx512_bf16", "avx512bf16"),
        ("avx512_fp16", "avx512fp16"),
        ("amx_bf16", "amxbf16"),
        ("amx_fp16", "amxfp16"),
        ("asimd", "neon"),
        ("bf16", "bf16"),
        ("sve", "sve"),
        ("i8mm", "i8mm"),
    ];
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    };
    let flags: Vec<&str> = field("flags").split(' ').chain(field("Features").split(' ')).collect();
    let maker = match field("vendor_id") {
        "GenuineIntel" => Some("intel"),
        "AuthenticAMD" => Some("amd"),
        _ => None,
    };
    let extensions = EXTENSIONS.iter().filter(|(flag, _)| flags.contains(flag)).map(|(_, name)| *name);
    let parts = [std::env::consts::ARCH].into_iter().chain(maker).chain(extensions);
    parts.collect::<Vec<_>>().join("-")
}

/// How much memory the device has; `None` where nothing says so.
pub fn memory(device: Device) -> Option<Memory> {
    match device {
        Device::Cuda(index) => Driver::open().and_then(|driver| driver.memory(index)).ok(),
        Device::Cpu | Device::Mps | Device::Vulkan => cpu_memory(),
    }
}

/// The machine's memory, or the limit of this process's control group where that is less.
fn cpu_memory() -> Option<Memory> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let kib = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let mut memory = Memory { total_bytes: kib("MemTotal")? << 10, free_bytes: kib("MemAvailable")? << 10 };
    let number = |path: String| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let group = |hierarchy: &str| -> Option<String> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let controllers = parts.next()?;
            let path = parts.next()?;
            controllers
                .split(',')
                .any(|name| name == hierarchy)
                .then(|| path.trim_end_matches('/').to_owned())
        })
    };
    // Inside a container the group is often mounted as the root; both places are looked at.
    let version_2 = group("").unwrap_or_default();
    let version_1 = group("memory").unwrap_or_default();
    let places = [
        (format!("/sys/fs/cgroup{version_2}"), "memory.max", "memory.current"),
        ("/sys/fs/cgroup".to_owned(), "memory.max", "memory.current"),
        (format!("/sys/fs/cgroup/memory{version_1}"), "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ("/sys/fs/cgroup/memory".to_owned(), "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ];
    for (folder, limit, used) in places {
        if let Some(limit) = number(format!("{folder}/{limit}")).filter(|limit| *limit < memory.total_bytes) {
            memory.total_bytes = limit;
            let used = number(format!("{folder}/{used}")).unwrap_or(0);
            memory.free_bytes = memory.free_bytes.min(limit.saturating_sub(used));
        }
    }
    Some(memory)
}

/// The NVIDIA driver, asked for what libtorch's C interface does not tell: names and memory.
struct Driver(libloading::Library);

impl Driver {
    fn open() -> Result<Self, String> {
        // SAFETY: the driver's library has no preconditions for being loaded.
        let library = unsafe { libloading::Library::new("libcuda.so.1") };
        let driver = Self(library.map_err(|_| "there is no NVIDIA driver (libcuda.so.1)".to_owned())?);
        // SAFETY: CUresult cuInit(unsigned int flags), as in cuda.h.
        driver.call("cuInit", |f: &unsafe extern "C" fn(u32) -> c_int| unsafe { f(0) })?;
        Ok(driver)
    }

    /// Calls a function of the driver; `F` must be its type in cuda.h.
    fn call<F>(&self, name: &str, run: impl FnOnce(&F) -> c_int) -> Result<(), String> {
        // SAFETY: each caller names the type that cuda.h gives for this function.
        let function = unsafe { self.0.get::<F>(name.as_bytes()) };
        let function = function.map_err(|_| format!("the NVIDIA driver lacks {name}"))?;
        match run(&function) {
            0 => Ok(()),
            code => Err(format!("{name} of the NVIDIA driver failed with code {code}")),
        }
    }

    fn device(&self, index: usize) -> Result<c_int, String> {
        let ordinal = c_int::try_from(index).map_err(|_| format!("there is no GPU {index}"))?;
        let mut device: c_int = 0;
        // SAFETY: CUresult cuDeviceGet(CUdevice *device, int ordinal); `device` outlives the call.
        self.call("cuDeviceGet", |f: &unsafe extern "C" fn(*mut c_int, c_int) -> c_int| unsafe {
            f(&raw mut device, ordinal)
        })?;
        Ok(device)
    }

    fn device_name(&self, index: usize) -> Result<String, String> {
        let device = self.device(index)?;
        let mut name = [0u8; 256];
        // SAFETY: CUresult cuDeviceGetName(char *name, int len, CUdevice dev) writes at most `len` bytes.
        self.call(
            "cuDeviceGetName",
            |f: &unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int| unsafe {
                f(name.as_mut_ptr().cast(), 256, device)
            },
        )?;
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        Ok(String::from_utf8_lossy(&name[..end]).into_owned())
    }

    fn memory(&self, index: usize) -> Result<Memory, String> {
        // The driver answers for the current context; touching the device makes libtorch's the current one.
        let touched = Tensor::f_zeros([1], (Kind::Float, Device::Cuda(index)));
        drop(touched.map_err(|error| first_line(&error.to_string()))?);
        let (mut free, mut total) = (0usize, 0usize);
        // SAFETY: CUresult cuMemGetInfo_v2(size_t *free, size_t *total); both outlive the call.
        self.call("cuMemGetInfo_v2", |f: &unsafe extern "C" fn(*mut usize, *mut usize) -> c_int| unsafe {
            f(&raw mut free, &raw mut total)
        })?;
        Ok(Memory { total_bytes: total as u64, free_bytes: free as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_parse() {
        let check = |text: &str, expected: Option<DeviceChoice>| {
            assert_eq!(text.parse().ok(), expected, "{text:?}");
        };
        check("auto", Some(DeviceChoice::Auto));
        check("cpu", Some(DeviceChoice::Cpu));
        check("cuda:3", Some(DeviceChoice::Cuda(3)));
        check("cuda:", None);
        check("cuda:-1", None);
        check("tpu", None);
    }

    #[test]
    fn the_cpu_always_works_and_has_a_profile() {
        prepare_libtorch();
        assert_eq!(open(DeviceChoice::Cpu).expect("cpu").device, Device::Cpu);
        let profile = numeric_profile(Device::Cpu, Dtype::BFloat16);
        assert!(profile.contains(LIBTORCH_VERSION) && profile.contains("bfloat16"), "{profile}");
        assert!(profile.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b)), "{profile}");
        let memory = memory(Device::Cpu).expect("Linux says");
        assert!(memory.total_bytes > 1 << 20 && memory.free_bytes <= memory.total_bytes);
    }

    #[test]
    fn a_gpu_far_out_of_range_is_a_clear_error() {
        let error = open(DeviceChoice::Cuda(1000)).expect_err("no such GPU").to_string();
        assert!(error.starts_with("device cuda:1000 is not usable: "), "{error}");
    }

    #[test]
    fn backtraces_are_cut() {
        assert_eq!(first_line("no\nroom\nException raised from x\nframe 1"), "no room");
        assert_eq!(first_line("no room (code 12)\nframe #0: c10::x + 1\nframe #1: y"), "no room (code 12)");
    }
}
