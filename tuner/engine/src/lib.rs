//! Loads a network and its weights, takes a plan, and runs it on a CPU.
//!
//! ```no_run
//! use engine::{Model, Plan, Request, Session, Weights, image};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::inception_v3();
//! let weights = Weights::open("w.safetensors", &model)?;
//! let plan = Plan::find("bench-results", &Request::new(&model).threads(2))?;
//! let plan = plan.unwrap_or_else(|| Plan::untuned(&model));
//! let mut net = Session::builder(&model, &weights).plan(&plan).build()?;
//! let output = net.run(&image::load("cat.jpg", &model)?)?;
//! for (class, probability) in output.top(5) {
//!     println!("{probability:.4} class {class}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! - A [`Model`] is a network as layers. The weights state how many classes it has.
//! - [`Weights`] are read from a Keras or torchvision file, recognised by content, or are made up.
//! - A [`Plan`] gives each step of the network a kernel. The program `tuner` measures and writes
//!   plans; [`Plan::untuned`] is the choice that needs no measurements.
//! - A [`Session`] is the network ready to run, on its threads, for any number of images.
//!
//! Without a file of weights, the same with weights that are made up:
//!
//! ```
//! use engine::{Model, Request, Session, Weights};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = Model::inception_v3();
//! let weights = Weights::synthetic(&model, 1);
//! let plan = Request::new(&model).threads(1).batch(2).untuned();
//! let mut net = Session::builder(&model, &weights).plan(&plan).build()?;
//! let grey = vec![0.0; 3 * model.input().iter().product::<usize>()];
//! let output = net.run(&grey)?;
//! assert_eq!(output.images(), 3);
//! assert_eq!(output.top_of(2, 5).len(), 5);
//! assert_eq!(output.features().map(|features| features.len()), Some(3 * 2048));
//! # Ok(())
//! # }
//! ```
//!
//! The guides are in [`docs`].
//!
//! # What the tuner builds on
//!
//! The modules `network`, `weights`, `runtime`, `plan` and `util` are public for the crate `tuner`,
//! which measures kernels and networks step by step. They are hidden here and change without
//! notice. A module imports only those before it: `util`, `network`, `weights` and `image`,
//! `runtime`, `plan`, `session`. The low-level counterpart of [`Session`] is
//! `runtime::prepared::PreparedNetwork`: it runs on threads that the caller has, cannot fail and
//! does not allocate.

pub mod docs;
pub mod image;
#[doc(hidden)]
pub mod network;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod runtime;
mod session;
#[doc(hidden)]
pub mod util;
#[doc(hidden)]
pub mod weights;

pub use image::{ImageError, Preprocessing};
pub use network::model::{AveragePooling, Model, ModelInfo, ModelShape, Tap, TopInfo};
pub use network::models::ModelError;
pub use plan::error::PlanError;
pub use plan::request::{PlanChoice, PlanOrigin, Request};
pub use plan::{Plan, PlanStep, TimeUs};
pub use runtime::weight_cache::WeightCacheError;
pub use runtime::{Loaded, Machine, MemoryError, PrepareError, ThreadsError};
pub use session::{Batch, Output, RunError, Session, SessionBuilder, SessionError};
pub use util::files::InputError;
pub use weights::{Weights, WeightsError};
