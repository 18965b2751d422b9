//! Every crash point: a call of a plugin is counted through once, then killed or failed at each system call by which it
//! changes something, then deleted once; then everything that may be left is looked for. `docs/reliability.md` has the
//! tables; `cargo run --profile tool -p sandwire-crash` makes the ones that compare.

mod calls;
pub mod compare;
mod scenario;
pub mod table;
mod trace;
mod trial;

pub use scenario::{Scenario, Whose};
pub use table::Table;
pub use trace::{Fault, Point, Run, run};
pub use trial::{ERRNOS, Plan, Report, Selection, Trial};
