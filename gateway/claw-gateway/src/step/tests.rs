//! Properties of decisions over random histories, and the stories that people rely on.

mod annotations;
mod fleet;
mod inside;
mod properties;
mod review;
mod stories;
