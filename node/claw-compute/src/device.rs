//! A device that computes: one of CubeCL's runtimes on one device.
//!
//! CubeCL 0.10 says by panics what goes wrong with a driver. They are caught here and
//! become errors; what cannot be caught is kept away by asking for the vendor's
//! library first. `cuda` and `hip` are untested on hardware.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cubecl::prelude::*;
use cubecl::server::{Handle, ServerError};
use cubecl::wgpu::{RuntimeOptions, Vulkan, WgpuDevice, WgpuRuntime};

use crate::kernels;
use crate::libraries;
use crate::report::{DeviceKind, DeviceReport, ErrorCode, ProbeError};
use crate::tensor::Tensor;

/// A device and the runtime on it.
pub enum ComputeDevice {
    /// Through Vulkan.
    Vulkan(ComputeClient<WgpuRuntime>),
    /// Through CUDA.
    #[cfg(feature = "cuda")]
    Cuda(ComputeClient<cubecl::cuda::CudaRuntime>),
    /// Through HIP.
    #[cfg(feature = "hip")]
    Hip(ComputeClient<cubecl::hip::HipRuntime>),
}

impl std::fmt::Debug for ComputeDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Vulkan(_) => "Vulkan",
            #[cfg(feature = "cuda")]
            Self::Cuda(_) => "Cuda",
            #[cfg(feature = "hip")]
            Self::Hip(_) => "Hip",
        })
    }
}

/// Calls a function on the client, whichever runtime it is of.
macro_rules! on {
    ($device:expr, $client:ident => $call:expr) => {
        match $device {
            ComputeDevice::Vulkan($client) => caught(|| $call),
            #[cfg(feature = "cuda")]
            ComputeDevice::Cuda($client) => caught(|| $call),
            #[cfg(feature = "hip")]
            ComputeDevice::Hip($client) => caught(|| $call),
        }
    };
}

impl ComputeDevice {
    /// Opens the device at `index` of what the Vulkan loader lists.
    ///
    /// # Errors
    /// [`ErrorCode::NoLoader`], [`ErrorCode::NoDevice`], [`ErrorCode::WrongDevice`] if the
    /// runtime's list is not the loader's, and [`ErrorCode::RuntimeFailed`].
    pub fn open_vulkan(devices: &[DeviceReport], index: usize) -> Result<Self, ProbeError> {
        let no_device = |message: String| ProbeError::new(ErrorCode::NoDevice, message);
        let wanted = devices.get(index).ok_or_else(|| no_device(format!("no device number {index}")))?;
        // The runtime counts the devices of each kind apart.
        let before = devices.iter().take(index).filter(|device| device.kind == wanted.kind).count();
        let device = match wanted.kind {
            DeviceKind::Discrete => WgpuDevice::DiscreteGpu(before),
            DeviceKind::Integrated => WgpuDevice::IntegratedGpu(before),
            DeviceKind::Virtual => WgpuDevice::VirtualGpu(before),
            DeviceKind::Cpu => WgpuDevice::Cpu,
            DeviceKind::Other => {
                return Err(no_device(format!("{} is of no kind that the runtime can choose", wanted.name)));
            }
        };
        libraries::open(&["libvulkan.so.1", "libvulkan.so"], ErrorCode::NoLoader)?;
        let opened = caught(|| Ok(cubecl::wgpu::init_setup::<Vulkan>(&device, RuntimeOptions::default())))?;
        let got = opened.adapter.get_info();
        let same_address = match (wanted.pci_address.as_deref(), got.device_pci_bus_id.as_str()) {
            (None, _) | (_, "") => true,
            (Some(wanted), got) => wanted == got,
        };
        let (named, wanted_named) =
            ((got.vendor, got.device, got.name.as_str()), (wanted.vendor_id, wanted.device_id, wanted.name.as_str()));
        if !same_address || named != wanted_named {
            let message =
                format!("{} was asked for, the runtime took {} {}", wanted.name, got.name, got.device_pci_bus_id);
            return Err(ProbeError::new(ErrorCode::WrongDevice, message));
        }
        Ok(Self::Vulkan(WgpuRuntime::client(&device)))
    }

    /// Opens the CUDA device of a number.
    ///
    /// # Errors
    /// [`ErrorCode::NoRuntime`] without `libcuda.so.1`, [`ErrorCode::RuntimeFailed`].
    #[cfg(feature = "cuda")]
    pub fn open_cuda(index: usize) -> Result<Self, ProbeError> {
        libraries::open(&["libcuda.so.1", "libcuda.so"], ErrorCode::NoRuntime)?;
        caught(|| Ok(Self::Cuda(cubecl::cuda::CudaRuntime::client(&cubecl::cuda::CudaDevice { index }))))
    }

    /// Opens the HIP device of a number.
    ///
    /// # Errors
    /// [`ErrorCode::NoRuntime`] without `libamdhip64.so`, [`ErrorCode::RuntimeFailed`].
    #[cfg(feature = "hip")]
    pub fn open_hip(index: usize) -> Result<Self, ProbeError> {
        libraries::open(&["libamdhip64.so"], ErrorCode::NoRuntime)?;
        caught(|| Ok(Self::Hip(cubecl::hip::HipRuntime::client(&cubecl::hip::AmdDevice { index }))))
    }

    /// The sum of two matrices of one shape.
    ///
    /// # Errors
    /// [`ErrorCode::DeviceLost`], [`ErrorCode::RuntimeFailed`].
    pub fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, ProbeError> {
        if a.shape() != b.shape() {
            return Err(ProbeError::new(ErrorCode::RuntimeFailed, "matrices of different shapes have no sum"));
        }
        on!(self, client => add(client, a, b))
    }

    /// The product of two matrices whose shapes fit.
    ///
    /// # Errors
    /// As [`ComputeDevice::add`].
    pub fn matmul(&self, a: &Tensor, b: &Tensor) -> Result<Tensor, ProbeError> {
        if a.shape()[1] != b.shape()[0] {
            return Err(ProbeError::new(ErrorCode::RuntimeFailed, "matrices whose shapes do not fit have no product"));
        }
        on!(self, client => matmul(client, a, b))
    }

    /// Partial checksums of numbers; what [`crate::check`] compares with the CPU's.
    ///
    /// # Errors
    /// As [`ComputeDevice::add`].
    pub(crate) fn checksum(&self, numbers: &[u32]) -> Result<Vec<u32>, ProbeError> {
        on!(self, client => checksum(client, numbers))
    }
}

fn cubes(n_units: usize) -> CubeCount {
    let n_cubes = n_units.div_ceil(kernels::CUBE_UNITS as usize);
    CubeCount::Static(u32::try_from(n_cubes).unwrap_or(u32::MAX), 1, 1)
}

#[expect(unsafe_code, reason = "CubeCL takes buffers with lengths that it cannot check")]
fn array<R: Runtime>(handle: &Handle, n: usize) -> ArrayArg<R> {
    // SAFETY: every buffer of this module is made for exactly the numbers that it is said to hold.
    unsafe { ArrayArg::from_raw_parts(handle.clone(), n) }
}

fn add<R: Runtime>(client: &ComputeClient<R>, a: &Tensor, b: &Tensor) -> Result<Tensor, ProbeError> {
    let [n_rows, n_columns] = a.shape();
    let n = n_rows * n_columns;
    let [a, b] = [a, b].map(|tensor| client.create_from_slice(f32::as_bytes(tensor.values())));
    let sum = client.empty(n * size_of::<f32>());
    let dim = CubeDim::new_1d(kernels::CUBE_UNITS);
    kernels::add::launch::<R>(client, cubes(n), dim, array(&a, n), array(&b, n), array(&sum, n));
    tensor(client, sum, n_rows, n_columns)
}

fn matmul<R: Runtime>(client: &ComputeClient<R>, a: &Tensor, b: &Tensor) -> Result<Tensor, ProbeError> {
    let ([n_rows, n_inner], [_, n_columns]) = (a.shape(), b.shape());
    let (n_a, n_b, n) = (n_rows * n_inner, n_inner * n_columns, n_rows * n_columns);
    let [a, b] = [a, b].map(|tensor| client.create_from_slice(f32::as_bytes(tensor.values())));
    let product = client.empty(n * size_of::<f32>());
    let (dim, out) = (CubeDim::new_1d(kernels::CUBE_UNITS), array(&product, n));
    kernels::matmul::launch::<R>(client, cubes(n), dim, array(&a, n_a), array(&b, n_b), out, n_inner, n_columns);
    tensor(client, product, n_rows, n_columns)
}

fn checksum<R: Runtime>(client: &ComputeClient<R>, numbers: &[u32]) -> Result<Vec<u32>, ProbeError> {
    let n_units = kernels::CHECKSUM_UNITS as usize;
    let buffer = client.create_from_slice(u32::as_bytes(numbers));
    let sums = client.empty(n_units * size_of::<u32>());
    let dim = CubeDim::new_1d(kernels::CUBE_UNITS);
    let (from, into) = (array(&buffer, numbers.len()), array(&sums, n_units));
    kernels::checksum::launch::<R>(client, cubes(n_units), dim, from, into, n_units);
    let bytes = client.read_one(sums).map_err(server_error)?;
    Ok(u32::from_bytes(&bytes).to_vec())
}

fn tensor<R: Runtime>(
    client: &ComputeClient<R>,
    handle: Handle,
    n_rows: usize,
    n_columns: usize,
) -> Result<Tensor, ProbeError> {
    let bytes = client.read_one(handle).map_err(server_error)?;
    let values = f32::from_bytes(&bytes).to_vec();
    let n = values.len();
    Tensor::from_values(n_rows, n_columns, values).ok_or_else(|| {
        let message = format!("the device gave {n} numbers back, not {n_rows} × {n_columns}");
        ProbeError::new(ErrorCode::RuntimeFailed, message)
    })
}

fn server_error(error: ServerError) -> ProbeError {
    runtime_error(&error.to_string())
}

/// What a runtime said, without the backtraces that it puts into its words.
fn runtime_error(said: &str) -> ProbeError {
    let lower = said.to_lowercase();
    let lost = ["device is lost", "device lost", "device_lost", "devicelost", "device was lost"];
    let is_lost = lost.iter().any(|words| lower.contains(words));
    let code = if is_lost { ErrorCode::DeviceLost } else { ErrorCode::RuntimeFailed };
    let lines = said.lines().take_while(|line| !line.trim_start().to_lowercase().starts_with("backtrace"));
    let message = lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ");
    ProbeError::new(code, message)
}

/// Turns a panic of the runtime into an error.
fn caught<T>(work: impl FnOnce() -> Result<T, ProbeError>) -> Result<T, ProbeError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<&str>().map(|said| (*said).to_owned());
        let said = said.or_else(|| panic.downcast_ref::<String>().cloned());
        Err(runtime_error(&said.unwrap_or_else(|| "the runtime panicked without a message".to_owned())))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors_without_backtraces() {
        let panicked = caught::<()>(|| panic!("no {}", "adapter")).unwrap_err();
        assert_eq!(panicked, ProbeError::new(ErrorCode::RuntimeFailed, "no adapter"));
        let said = "An error happened\nCaused by:\n  Parent device is lost\nBacktrace:\n  0: main";
        let lost = ProbeError::new(ErrorCode::DeviceLost, "An error happened; Caused by:; Parent device is lost");
        assert_eq!(runtime_error(said), lost);
    }
}
