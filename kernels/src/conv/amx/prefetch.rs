//! What a worker brings to its second-level cache while it computes.

use std::ops::Range;

use crate::arch::prefetch::LINE;

/// The rest of its weights, then the first of those that it reads after this step.
#[derive(Clone, Copy, Debug)]
pub struct Prefetch<'a> {
    parts: [&'a [f32]; 2],
}

impl<'a> Prefetch<'a> {
    /// The first `prefetched` elements of the weights are there already.
    pub fn new(weights: &'a [f32], prefetched: usize, next: &'a [f32]) -> Self {
        Self { parts: [&weights[prefetched.min(weights.len())..], next] }
    }

    pub fn lines(&self) -> usize {
        self.parts.iter().map(|part| part.len().div_ceil(LINE)).sum()
    }

    /// The lines that are due while the units of `now` are computed, where all lines are due over
    /// the units of `mine`. No line is due over units of other workers.
    pub fn due(&self, now: Range<usize>, mine: &Range<usize>) -> Range<usize> {
        let at = |unit: usize| match mine.len() {
            0 => 0,
            all => self.lines() * (unit.clamp(mine.start, mine.end) - mine.start) / all,
        };
        at(now.start)..at(now.end)
    }

    /// Address of a line. Behind the last line nothing is prefetched, and any address will do.
    #[inline(always)]
    pub fn line(&self, line: usize) -> *const u8 {
        let [weights, next] = self.parts;
        let first = weights.len().div_ceil(LINE);
        let (part, line) = if line < first { (weights, line) } else { (next, line - first) };
        part.as_ptr().wrapping_add(line * LINE).cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_due_once() {
        let all = vec![0.0; 1000 * LINE];
        for (prefetched, next) in [(0, 0), (100, 30), (900, 200), (1200, 3)] {
            let prefetch = Prefetch::new(&all, prefetched * LINE, &all[..next * LINE]);
            assert_eq!(prefetch.lines(), 1000_usize.saturating_sub(prefetched) + next);
            let mine = 7..20;
            let mut expected = 0;
            for first in (0..30).step_by(3) {
                let due = prefetch.due(first..first + 3, &mine);
                assert_eq!(due.start, expected, "{prefetched} {next} {first}");
                expected = due.end;
            }
            assert_eq!(expected, prefetch.lines());
        }
    }

    #[test]
    fn the_next_weights_follow_the_rest() {
        let (weights, next) = (vec![0.0; 10 * LINE], vec![0.0; 5 * LINE]);
        let prefetch = Prefetch::new(&weights, 4 * LINE, &next);
        assert_eq!(prefetch.line(5), weights[9 * LINE..].as_ptr().cast());
        assert_eq!(prefetch.line(6), next.as_ptr().cast());
    }
}
