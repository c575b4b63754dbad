//! Wire form and back.
