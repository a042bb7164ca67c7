//! Outcomes and reasons as data: text is made where they are shown. The first schema has texts.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "OutcomeJson")]
pub enum CandidateOutcome {
    /// Timed to the end.
    Measured,
    /// Timed until it was clear that it loses.
    DroppedEarly,
    /// Not timed: its results are wrong.
    Wrong {
        /// Largest error; none if it is no number.
        error: Option<f64>,
        tolerance: Option<f64>,
    },
    #[default]
    NotMeasured,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OutcomeJson {
    Text(String),
    Wrong { wrong: Errors },
}

#[derive(Deserialize)]
struct Errors {
    error: Option<f64>,
    tolerance: Option<f64>,
}

impl From<OutcomeJson> for CandidateOutcome {
    fn from(json: OutcomeJson) -> Self {
        match json {
            OutcomeJson::Wrong { wrong: Errors { error, tolerance } } => Self::Wrong { error, tolerance },
            OutcomeJson::Text(text) => match text.as_str() {
                "measured" => Self::Measured,
                "dropped early" | "dropped_early" => Self::DroppedEarly,
                // `wrong: error 1.0e-2, tolerance 1.0e-5` of the first schema.
                wrong if wrong.starts_with("wrong") => {
                    let number = |name: &str| {
                        let rest = wrong.split_once(name)?.1.trim_start();
                        rest.split([',', ' ']).next()?.parse::<f64>().ok()
                    };
                    Self::Wrong { error: number("error"), tolerance: number("tolerance") }
                }
                _ => Self::NotMeasured,
            },
        }
    }
}

impl fmt::Display for CandidateOutcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let number = |value: &Option<f64>| value.map_or("no number".into(), |value| format!("{value:.2e}"));
        match self {
            Self::Measured => f.write_str("measured"),
            Self::DroppedEarly => f.write_str("dropped early"),
            Self::Wrong { error, tolerance } => {
                write!(f, "wrong: error {}, tolerance {}", number(error), number(tolerance))
            }
            Self::NotMeasured => f.write_str("not measured"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepReason {
    Faster {
        /// By so many percent of its own time.
        percent: f64,
    },
    /// As the bounds on error and memory allow nothing faster.
    Slower {
        /// By so many percent of the fastest's time.
        percent: f64,
        /// The same in microseconds; none in plans of earlier versions.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        us: Option<f64>,
        /// Bytes of packed weights and scratch that the fastest takes and this does not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        saved_bytes: Option<i64>,
    },
    /// As the whole network was not slower by all of these choices than by those step by step.
    WholeNetwork {
        /// By so many percent of the fastest's time it is slower; none where it was not timed alone.
        percent: Option<f64>,
    },
    /// As fast as the runner-up: less memory decided, then less error, then the order of the table.
    Tie,
    Only,
    #[default]
    NotMeasured,
    /// The text of a plan of the first schema.
    #[serde(untagged)]
    Told(String),
}

impl StepReason {
    /// The reason of a step whose choice came with those of the whole network.
    pub fn with_whole_network(self) -> Self {
        match self {
            Self::Slower { percent, .. } => Self::WholeNetwork { percent: Some(percent) },
            Self::NotMeasured => Self::WholeNetwork { percent: None },
            other => other,
        }
    }
}

impl fmt::Display for StepReason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Faster { percent } => write!(f, "{percent:.1}% faster than the runner-up"),
            Self::Slower { percent, us, saved_bytes } => {
                write!(f, "{percent:.1}% slower than the fastest")?;
                us.map_or(Ok(()), |us| write!(f, ", by {us:.1} µs"))?;
                match saved_bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0) {
                    Some(bytes) => write!(f, ", to keep the bounds: it saves {} KiB", bytes.div_ceil(1024)),
                    None => f.write_str(", to keep the bounds on error and memory"),
                }
            }
            Self::WholeNetwork { percent } => {
                percent.map_or(Ok(()), |percent| write!(f, "{percent:.1}% slower than the fastest, but "))?;
                f.write_str("taken with all steps of a network that was not slower as a whole")
            }
            Self::Tie => f.write_str("a tie with the runner-up, settled by memory, then error, then order"),
            Self::Only => f.write_str("the only candidate"),
            Self::NotMeasured => f.write_str("not measured: the built-in choice"),
            Self::Told(text) => f.write_str(text),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariantReason {
    Saves {
        /// So many percent of the plain one's time.
        percent: f64,
    },
    Tie,
    Overruled,
    NotMeasured,
    /// The text of a plan of the first schema.
    #[serde(untagged)]
    Told(String),
}

impl fmt::Display for VariantReason {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Saves { percent } => write!(f, "saves {percent:.1}% of the plain variant's time"),
            Self::Tie => f.write_str("no other variant is faster by more than a tie"),
            Self::Overruled => f.write_str("the whole network is faster with plain blocks"),
            Self::NotMeasured => f.write_str("not measured"),
            Self::Told(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(json: &str) -> T {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    #[test]
    fn outcomes_are_read_as_written_and_as_texts_of_the_first_schema() {
        let wrong = CandidateOutcome::Wrong { error: Some(0.01), tolerance: Some(1e-5) };
        for (outcome, old) in [
            (CandidateOutcome::Measured, "measured"),
            (CandidateOutcome::DroppedEarly, "dropped early"),
            (wrong, "wrong: error 1.00e-2, tolerance 1.00e-5"),
        ] {
            assert_eq!(read::<CandidateOutcome>(&serde_json::to_string(&outcome).expect("JSON")), outcome);
            assert_eq!(read::<CandidateOutcome>(&format!("\"{old}\"")), outcome);
        }
        let infinite = CandidateOutcome::Wrong { error: None, tolerance: Some(1.0) };
        assert_eq!(read::<CandidateOutcome>(&serde_json::to_string(&infinite).expect("JSON")), infinite);
        assert_eq!(read::<CandidateOutcome>("\"wrong: error inf\"").to_string().split(',').count(), 2);
    }

    #[test]
    fn reasons_are_read_as_written_and_old_texts_stay() {
        let slower = StepReason::Slower { percent: 5.3, us: Some(9.1), saved_bytes: Some(2048) };
        let text = "5.3% slower than the fastest, by 9.1 µs, to keep the bounds: it saves 2 KiB";
        assert_eq!(slower.to_string(), text);
        let earlier = StepReason::Slower { percent: 1.0, us: None, saved_bytes: None };
        assert_eq!(read::<StepReason>("{\"slower\": {\"percent\": 1.0}}"), earlier);
        for reason in [StepReason::Faster { percent: 3.5 }, StepReason::Tie, StepReason::Only, slower.clone()]
        {
            assert_eq!(read::<StepReason>(&serde_json::to_string(&reason).expect("JSON")), reason);
        }
        assert_eq!(read::<StepReason>("\"3.5% faster\"").to_string(), "3.5% faster");
        let whole = slower.with_whole_network();
        assert!(whole.to_string().starts_with("5.3% slower than the fastest, but taken with all steps"));
        assert_eq!(StepReason::Tie.with_whole_network(), StepReason::Tie);
        let overruled = serde_json::to_string(&VariantReason::Overruled).expect("JSON");
        assert_eq!(read::<VariantReason>(&overruled), VariantReason::Overruled);
    }
}
