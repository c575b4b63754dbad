//! The whole way of a request, when nothing breaks.

mod command_line;
mod kernel;
mod processes;
mod simulated;
