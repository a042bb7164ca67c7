//! The commit that this program was built from.

/// Its name, with `-dirty` behind it where sources were changed since; none where it was built
/// without git: `build.rs` looks for it.
pub fn commit() -> Option<String> {
    option_env!("TUNER_COMMIT").map(str::to_string)
}
