//! Plans of a list of convolutions, which have no network around them.
//!
//! Each distinct convolution is a step, and its shape the step's layer. [`PlanStep::repeats`] is
//! how often the list has it.
//!
//! [`PlanStep::repeats`]: crate::PlanStep::repeats

use std::path::Path;

use crate::network::Graph;
use crate::plan::error::{PlanError, field};
use crate::plan::schema::Plan;

/// What the model of such a plan begins with; the name of the list follows.
const PREFIX: &str = "shapes:";

/// The model that the plan of a list states.
pub fn model_of_list(name: &str) -> String {
    format!("{PREFIX}{name}")
}

impl Plan {
    /// Whether it is of a list of convolutions, and of no network.
    pub fn is_of_list(&self) -> bool {
        self.model.starts_with(PREFIX)
    }

    /// The convolutions of a list as steps, by which [`Plan::network`] checks the plan.
    ///
    /// # Errors
    /// If the problem of a step is no convolution.
    pub fn list_graph(&self, path: &Path) -> Result<Graph, PlanError> {
        let conv = |(index, problem): (usize, &String)| {
            let at = format!("steps[{index}].problem");
            problem.parse().map_err(|_| field(path, &at, problem, "a convolution like n1h17w17c768k192r1s7"))
        };
        let problems = self.steps.iter().map(|step| &step.problem).enumerate();
        Ok(Graph::separate(problems.map(conv).collect::<Result<_, _>>()?))
    }
}
