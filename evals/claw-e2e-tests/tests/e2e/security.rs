//! Whoever may not is refused: on every port, with every operation.

mod http;
mod matrix;
mod node_port;
