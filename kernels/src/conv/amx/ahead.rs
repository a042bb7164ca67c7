//! What a worker brings to its second-level cache while it computes.

use std::ops::Range;

use crate::arch::prefetch::LINE;

/// The rest of its own weights, then the first of those that it reads after this step.
#[derive(Clone, Copy, Debug)]
pub struct Ahead<'a> {
    parts: [&'a [f32]; 2],
}

impl<'a> Ahead<'a> {
    /// Of its weights, the first `near` are there already.
    pub fn new(own: &'a [f32], near: usize, next: &'a [f32]) -> Self {
        Self { parts: [&own[near.min(own.len())..], next] }
    }

    /// Lines of both parts.
    pub fn lines(&self) -> usize {
        self.parts.iter().map(|part| part.len().div_ceil(LINE)).sum()
    }

    /// The lines that are due while units from the first to the last of `now` are computed, if all are due over the
    /// units of `mine`; none for those of others.
    pub fn due(&self, now: Range<usize>, mine: &Range<usize>) -> Range<usize> {
        let at = |unit: usize| match mine.len() {
            0 => 0,
            all => self.lines() * (unit.clamp(mine.start, mine.end) - mine.start) / all,
        };
        at(now.start)..at(now.end)
    }

    /// Where a line is. Behind the last there is nothing to bring, but any address will do.
    #[inline(always)]
    pub fn line(&self, line: usize) -> *const u8 {
        let [own, next] = self.parts;
        let first = own.len().div_ceil(LINE);
        let (part, line) = if line < first { (own, line) } else { (next, line - first) };
        part.as_ptr().wrapping_add(line * LINE).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_due_once() {
        let weights = vec![0.0; 1000 * LINE];
        for (near, next) in [(0, 0), (100, 30), (900, 200), (1200, 3)] {
            let ahead = Ahead::new(&weights[..1000 * LINE], near * LINE, &weights[..next * LINE]);
            assert_eq!(ahead.lines(), 1000_usize.saturating_sub(near) + next);
            let mine = 7..20;
            let mut expected = 0;
            for first in (0..30).step_by(3) {
                let due = ahead.due(first..first + 3, &mine);
                assert_eq!(due.start, expected, "{near} {next} {first}");
                expected = due.end;
            }
            assert_eq!(expected, ahead.lines());
        }
    }

    #[test]
    fn the_next_weights_follow_the_rest_of_the_own() {
        let (own, next) = (vec![0.0; 10 * LINE], vec![0.0; 5 * LINE]);
        let ahead = Ahead::new(&own, 4 * LINE, &next);
        assert_eq!(ahead.line(5), own[9 * LINE..].as_ptr().cast());
        assert_eq!(ahead.line(6), next.as_ptr().cast());
    }
}
