//! Kernels on a device, compared with the CPU number by number.
//!
//! The numbers are chosen so that every right answer is exact: whole numbers small
//! enough for a 32-bit float, however the device orders or fuses its operations.

use std::time::Instant;

use crate::device::ComputeDevice;
use crate::kernels;
use crate::report::{CheckReport, CheckedDevice, DeviceReport, KernelReport, ProbeError};
use crate::tensor::Tensor;

/// Numbers of the sum and of the checksum.
const N_NUMBERS: usize = 1 << 20;
/// Rows and columns of the matrices.
const N_MATRIX: usize = 128;

/// Runs every kernel on a device.
///
/// # Errors
/// [`ProbeError`] if a kernel did not come to its end; wrong numbers are no error.
pub fn run(device: &ComputeDevice, runtime: &str, about: Option<&DeviceReport>) -> Result<CheckReport, ProbeError> {
    let from = Instant::now();
    let kernels = vec![vector_add(device)?, checksum(device)?, matmul(device)?];
    let mismatches = kernels.iter().map(|kernel| kernel.mismatches).sum();
    let checked = about.map(|device| CheckedDevice {
        name: device.name.clone(),
        uuid: device.uuid.clone(),
        pci_address: device.pci_address.clone(),
    });
    Ok(CheckReport {
        passed: mismatches == 0,
        mismatches,
        elapsed_ms: elapsed_ms(from),
        runtime: runtime.to_owned(),
        software: about.is_some_and(|device| device.software),
        device: checked.unwrap_or_default(),
        kernels,
    })
}

fn vector_add(device: &ComputeDevice) -> Result<KernelReport, ProbeError> {
    let (a, b) = (row(|n| n % 4_093), row(|n| (n * 7) % 8_191));
    let from = Instant::now();
    let sum = device.add(&a, &b)?;
    let elapsed_ms = elapsed_ms(from);
    let expected = a.add(&b).expect("two rows of one length");
    Ok(report("vector_add", N_NUMBERS, expected.mismatches(&sum), elapsed_ms))
}

fn matmul(device: &ComputeDevice) -> Result<KernelReport, ProbeError> {
    // At most 128 products of 8 and 8.
    let matrix = |factor: usize| Tensor::from_fn(N_MATRIX, N_MATRIX, |row, column| small((row * factor + column) % 17));
    let (a, b) = (matrix(3), matrix(5));
    let from = Instant::now();
    let product = device.matmul(&a, &b)?;
    let elapsed_ms = elapsed_ms(from);
    let expected = a.matmul(&b).expect("two square matrices of one size");
    Ok(report("matmul", N_MATRIX * N_MATRIX, expected.mismatches(&product), elapsed_ms))
}

fn checksum(device: &ComputeDevice) -> Result<KernelReport, ProbeError> {
    let numbers: Vec<u32> = (0_u32..).take(N_NUMBERS).map(|n| n.wrapping_mul(0x85eb_ca6b) ^ (n >> 3)).collect();
    let from = Instant::now();
    let sums = device.checksum(&numbers)?;
    let elapsed_ms = elapsed_ms(from);
    let expected = kernels::checksum_on_cpu(&numbers);
    let n_wrong = expected.iter().zip(&sums).filter(|(a, b)| a != b).count() + expected.len().abs_diff(sums.len());
    Ok(report("checksum", expected.len(), n_wrong as u64, elapsed_ms))
}

fn row(number: impl Fn(usize) -> usize) -> Tensor {
    Tensor::from_fn(1, N_NUMBERS, |_, column| whole(number(column)))
}

/// −8 to 8.
fn small(number: usize) -> f32 {
    whole(number) - 8.0
}

/// A small whole number, exactly.
fn whole(number: usize) -> f32 {
    f32::from(u16::try_from(number).unwrap_or(u16::MAX))
}

fn report(name: &str, n_compared: usize, mismatches: u64, elapsed_ms: f64) -> KernelReport {
    KernelReport { name: name.to_owned(), n_compared: n_compared as u64, mismatches, elapsed_ms }
}

fn elapsed_ms(from: Instant) -> f64 {
    // Whole microseconds.
    (from.elapsed().as_secs_f64() * 1e6).round() / 1e3
}
