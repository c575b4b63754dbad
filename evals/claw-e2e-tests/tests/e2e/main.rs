//! End-to-end tests: real gateway, real nodes, real wires that are cut.
