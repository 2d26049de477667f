//! Settings: an adapter's table of the configuration file, and the problems in it.
//!
//! An adapter gets its table as a [`Value`], without any knowledge of the file. It reads the table into its own type with
//! [`read`], checks it, and returns each mistake as a [`ConfigProblem`] with the path of the value at fault. The program
//! that has the file turns paths into lines and carets.

mod defaults;
mod fields;
mod names;
mod problem;
mod read;
mod value;

pub use defaults::PoolDefaults;
pub use fields::fields;
pub use names::{closest, disabled_reason_fault, is_name, label_name_fault, label_value_fault};
pub use problem::{ConfigProblem, Segment};
pub use read::{Scope, read};
pub use value::Value;
