//! The loops over units, panels, blocks and steps.

use std::ops::Range;

use super::element::TilePixel;
use super::finish::finish;
use super::pixels::{Cut, Tile};
use super::prefetch::Prefetch;
use super::rows::Rows;
use super::{GROUP, PreparedAmx, SUMS_PITCH};
use crate::arch::amx::{Block, TILE, TileRegisters};
use crate::conv::{Buffer, Io, Prepared, Scratch, Signature};
use crate::gemm::panels::Panel;

/// Elements of the next step's weights that are prefetched: a quarter of a 2-MiB L2 cache.
const PREFETCH_CAPACITY: usize = (512 << 10) / size_of::<f32>();

impl<T: TilePixel> Prepared for PreparedAmx<T> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.panels.buffers.iter().collect()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        self.panels.buffers.iter_mut().collect()
    }

    /// All panels at once where the pixels stay. Else one panel: while it is used, the next one can
    /// be prefetched.
    fn worker_weights(&self, worker: usize, workers: usize, n: usize) -> &[f32] {
        let [_, panels] = self.worker_share(worker, workers, self.shares(n));
        self.panels.weights_of(if self.image_stays { panels } else { panels.start..panels.start + 1 })
    }

    fn prefetch_capacity(&self) -> usize {
        PREFETCH_CAPACITY
    }

    fn scratch(&self) -> usize {
        self.parts().end
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.panels.list.len() * self.shares(n)
    }

    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        // SAFETY: the caller's promises are passed on.
        pulp::Simd::vectorize(self.isa, Run { step: self, units, io, scratch })
    }
}

struct Run<'a, T> {
    step: &'a PreparedAmx<T>,
    units: Range<usize>,
    io: &'a Io<'a>,
    scratch: &'a Scratch,
}

impl<T: TilePixel> pulp::WithSimd for Run<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self { step, units, io, scratch } = self;
        let (src, n, worker) = (&io.src, io.images(), scratch.worker);
        let parts = step.parts();
        let copies = step.copies(src);
        let cut = Cut::new(&step.conv, n, step.flat, !copies);
        let offsets = worker.cast::<usize>();
        let [row, pixel] = match copies {
            true => [step.rows.row, step.conv.channels],
            false => [src.pitch.row, src.pitch.pixel],
        };
        for (index, one) in step.steps.iter().enumerate() {
            let offset = (one.tap[0] * row + one.tap[1] * pixel + one.element) * size_of::<T>();
            // SAFETY: the worker's scratch begins with an offset for each step.
            unsafe { offsets.add(index).write(offset) };
        }
        let shares = step.shares(n);
        let [mine, worker_panels] = step.worker_share(scratch.index, scratch.workers, shares);
        // The first panel is read at once.
        let prefetched =
            io.prefetched.max(step.panels.weights_of(worker_panels.start..worker_panels.start + 1).len());
        let blocks = Blocks {
            step,
            io,
            cut,
            tiles: TileRegisters::new(step.amx, cut.pixels()),
            prefetch: Prefetch::new(step.panels.weights_of(worker_panels), prefetched, io.prefetch_next),
            copies: copies.then(|| Rows::new(step, src, worker.wrapping_add(parts.rows).cast())),
            offsets,
            sums: worker.wrapping_add(parts.sums),
        };
        let (panels, all) = (step.panels.list.len(), cut.blocks());
        let from_share = |share: usize| all * share / shares;
        let mut unit = units.start;
        while unit < units.end {
            // Units that follow each other: the panels of a share, or the shares of a panel.
            let inner = if step.image_stays { panels } else { shares };
            let (outer, first) = (unit / inner, unit % inner);
            let last = inner.min(first + units.end - unit);
            let due =
                |from: usize, to: usize| blocks.prefetch.due(outer * inner + from..outer * inner + to, &mine);
            if step.image_stays {
                for panel in first..last {
                    let share = from_share(outer)..from_share(outer + 1);
                    // SAFETY: the blocks of the share and the panel are this caller's.
                    unsafe { blocks.run(panel, share, due(panel, panel + 1)) };
                }
            } else {
                // SAFETY: as above.
                unsafe { blocks.run(outer, from_share(first)..from_share(last), due(first, last)) };
            }
            unit += last - first;
        }
    }
}

/// What is the same for all blocks of a run.
///
/// # Safety of its functions
/// The outputs of the blocks are this caller's alone, and there are sums for a group of them.
struct Blocks<'a, T> {
    step: &'a PreparedAmx<T>,
    io: &'a Io<'a>,
    cut: Cut,
    tiles: TileRegisters,
    prefetch: Prefetch<'a>,
    copies: Option<Rows<'a, T>>,
    offsets: *const usize,
    sums: *mut f32,
}

impl<T: TilePixel> Blocks<'_, T> {
    /// Computes a panel of some blocks, and prefetches the lines that are due meanwhile.
    #[inline(always)]
    unsafe fn run(&self, panel: usize, blocks: Range<usize>, mut due: Range<usize>) {
        let step = self.step;
        let panel = &step.panels.list[panel];
        let all = step.steps.len();
        let lines = due.len().div_ceil((all * blocks.len()).max(1));
        let group = if step.in_parts() { GROUP } else { 1 };
        for begin in blocks.clone().step_by(group) {
            let end = blocks.end.min(begin + group);
            for from in (0..all).step_by(step.part) {
                let to = all.min(from + step.part);
                for block in begin..end {
                    let sums = self.sums.wrapping_add((block - begin) * SUMS_PITCH);
                    // SAFETY: by the caller; there are sums for a group.
                    unsafe { self.part(panel, self.cut.block(block), from..to, sums, &due, lines) };
                    due.start = due.end.min(due.start + (to - from) * lines);
                }
            }
        }
    }

    /// Adds some steps of a block's sums, and ends the sums behind the last.
    #[inline(always)]
    unsafe fn part(
        &self,
        panel: &Panel,
        pair: [Option<Tile>; 2],
        steps: Range<usize>,
        sums: *mut f32,
        due: &Range<usize>,
        lines: usize,
    ) {
        let step = self.step;
        let mut a = [std::ptr::null(); 2];
        let mut pitch = 0;
        for (tile, a) in pair.iter().zip(&mut a) {
            let Some(tile) = tile else { continue };
            (*a, pitch) = match &self.copies {
                // SAFETY: the taps of the row's pixels may be read; the scratch has room.
                Some(rows) => unsafe { rows.at(self.cut.place(tile, 0)) },
                None => self.cut.src(tile, &step.conv, &self.io.src),
            };
        }
        let block = Block {
            a,
            pitch,
            offsets: self.offsets.wrapping_add(steps.start),
            steps: steps.len(),
            b: step.panels.weights(panel).wrapping_add(steps.start * panel.vectors * TILE).cast(),
            vectors: panel.vectors,
            streamed: step.streamed,
            sums,
            accumulate: steps.start > 0,
            next: self.prefetch.line(due.start),
            lines: if due.is_empty() { 0 } else { lines },
        };
        // SAFETY: all taps of the tiles' pixels may be read, a tile's row from each step's first
        // element; the panel has the tiles of all steps.
        unsafe { self.tiles.multiply::<T>(&block) };
        if steps.end < step.steps.len() {
            return;
        }
        let dst = self.io.dst(panel.segment);
        for (index, tile) in pair.iter().enumerate() {
            let Some(tile) = tile else { continue };
            let sums = sums.wrapping_add(2 * index * TILE);
            // SAFETY: the sums of the tile's pixels are there, whose outputs that no tile before
            // has are this unit's.
            unsafe { finish(step, panel, &dst, sums, &self.cut, tile) };
        }
    }
}
