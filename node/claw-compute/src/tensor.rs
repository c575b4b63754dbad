//! Numbers in rows and columns, on the host.

/// A matrix of 32-bit floating point numbers, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    n_rows: usize,
    n_columns: usize,
    values: Vec<f32>,
}

impl Tensor {
    /// A matrix whose number at (row, column) is what `value` says.
    pub fn from_fn(n_rows: usize, n_columns: usize, mut value: impl FnMut(usize, usize) -> f32) -> Self {
        let values = (0..n_rows).flat_map(|row| (0..n_columns).map(move |column| (row, column)));
        let values = values.map(|(row, column)| value(row, column)).collect();
        Self { n_rows, n_columns, values }
    }

    /// A matrix of these numbers, if there are as many as it has places.
    pub fn from_values(n_rows: usize, n_columns: usize, values: Vec<f32>) -> Option<Self> {
        (n_rows.checked_mul(n_columns) == Some(values.len())).then_some(Self { n_rows, n_columns, values })
    }

    /// Rows and columns.
    pub fn shape(&self) -> [usize; 2] {
        [self.n_rows, self.n_columns]
    }

    /// The numbers, row by row.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// The sum, if the shapes are the same.
    pub fn add(&self, other: &Self) -> Option<Self> {
        let values = self.values.iter().zip(&other.values).map(|(a, b)| a + b).collect();
        (self.shape() == other.shape()).then_some(Self { values, ..*self })
    }

    /// The matrix product, if the shapes fit.
    pub fn matmul(&self, other: &Self) -> Option<Self> {
        if self.n_columns != other.n_rows {
            return None;
        }
        let (inner, n_columns) = (self.n_columns, other.n_columns);
        let product = |row: usize, column: usize| {
            let terms = (0..inner).map(|k| self.values[row * inner + k] * other.values[k * n_columns + column]);
            terms.sum()
        };
        Some(Self::from_fn(self.n_rows, n_columns, product))
    }

    /// Places at which the numbers are not the same, bit by bit.
    pub fn mismatches(&self, other: &Self) -> u64 {
        let differ = |(a, b): &(&f32, &f32)| a.to_bits() != b.to_bits();
        let missing = self.values.len().abs_diff(other.values.len());
        let n = self.values.iter().zip(&other.values).filter(differ).count() + missing;
        n.try_into().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_products_are_those_of_matrices() {
        let a = Tensor::from_values(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let b = Tensor::from_fn(3, 2, |row, column| if row == column { 1.0 } else { 10.0 });
        let product = a.matmul(&b).unwrap();
        assert_eq!((product.shape(), product.values()), ([2, 2], &[51.0, 42.0, 114.0, 105.0][..]));
        assert_eq!(a.add(&a).unwrap().values(), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
        assert_eq!((a.add(&b), a.matmul(&a), Tensor::from_values(2, 2, vec![0.0; 3])), (None, None, None));
        assert_eq!((a.mismatches(&a), a.mismatches(&b), a.mismatches(&product)), (0, 5, 6));
    }
}
