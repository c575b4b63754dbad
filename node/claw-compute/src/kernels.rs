//! The kernels, written once in CubeCL for every runtime.
//!
//! CubeCL's API changes with each version; nothing else in this crate knows it but
//! [`crate::device`].

use cubecl::prelude::*;

/// Units of a cube; every runtime allows as many.
pub(crate) const CUBE_UNITS: u32 = 256;
/// Units that work on a checksum, each on every so-many-th number.
pub(crate) const CHECKSUM_UNITS: u32 = 4096;
/// Multiplier of a checksum's steps: odd, so that no step loses a bit.
pub(crate) const CHECKSUM_FACTOR: u32 = 0x9e37_79b1;

/// `sum[i] = a[i] + b[i]`.
#[cube(launch)]
pub(crate) fn add(a: &Array<f32>, b: &Array<f32>, sum: &mut Array<f32>) {
    if ABSOLUTE_POS < sum.len() {
        sum[ABSOLUTE_POS] = a[ABSOLUTE_POS] + b[ABSOLUTE_POS];
    }
}

/// `product = a * b`, one unit for each number.
#[cube(launch)]
pub(crate) fn matmul(
    a: &Array<f32>,
    b: &Array<f32>,
    product: &mut Array<f32>,
    #[comptime] n_inner: usize,
    #[comptime] n_columns: usize,
) {
    if ABSOLUTE_POS < product.len() {
        let row = ABSOLUTE_POS / n_columns;
        let column = ABSOLUTE_POS % n_columns;
        let mut total = 0.0_f32;
        for k in 0..n_inner {
            total += a[row * n_inner + k] * b[k * n_columns + column];
        }
        product[ABSOLUTE_POS] = total;
    }
}

/// Each unit mixes every `n_units`-th number into one, in order.
#[cube(launch)]
pub(crate) fn checksum(numbers: &Array<u32>, sums: &mut Array<u32>, #[comptime] n_units: usize) {
    if ABSOLUTE_POS < sums.len() {
        let mut sum = 0_u32;
        let n_steps = numbers.len() / n_units;
        for step in 0..n_steps {
            sum = (sum ^ numbers[step * n_units + ABSOLUTE_POS]) * CHECKSUM_FACTOR;
            sum ^= sum >> 15;
        }
        sums[ABSOLUTE_POS] = sum;
    }
}

/// The same on the CPU.
pub(crate) fn checksum_on_cpu(numbers: &[u32]) -> Vec<u32> {
    let n_units = CHECKSUM_UNITS as usize;
    let mut sums = vec![0_u32; n_units];
    for row in numbers.chunks_exact(n_units) {
        for (sum, number) in sums.iter_mut().zip(row) {
            *sum = (*sum ^ number).wrapping_mul(CHECKSUM_FACTOR);
            *sum ^= *sum >> 15;
        }
    }
    sums
}
