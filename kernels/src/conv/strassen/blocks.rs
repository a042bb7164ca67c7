//! The block of a run: sums of pixels, products, sums of products.

use std::ops::Range;

use crate::conv::{Buffer, Conv, Io, Isa, Prepared, Scratch, Signature, ViewMut, round_up};
use crate::gemm::multiply::Single;
use crate::gemm::panels::{Panel, Panels};
use crate::gemm::product::Products;
use crate::vector::{load, store};

pub(super) struct PreparedStrassen<I> {
    pub(super) isa: I,
    pub(super) signature: Signature,
    pub(super) conv: Conv,
    /// Of the parts of the segments; a panel holds its matrix `[K, width]` of each point in turn.
    /// The biases are those of the segments.
    pub(super) panels: Panels,
    pub(super) levels: usize,
    pub(super) pixels: usize,
    pub(super) block: usize,
}

impl<I: Isa> PreparedStrassen<I> {
    /// Rows of each matrix for a block of pixels.
    fn rows(&self, pixels: usize) -> usize {
        pixels.div_ceil(1 << self.levels)
    }

    fn depth(&self) -> usize {
        self.conv.depth() >> self.levels
    }

    /// Elements from a row of V to the next: rows must not share cache sets.
    fn v_pitch(&self) -> usize {
        round_up(self.depth()) + round_up(1)
    }

    fn m_pitch(&self) -> usize {
        round_up(self.panels.widest())
    }

    /// Bias of channel 0 of a segment.
    fn bias(&self, segment: usize) -> *const f32 {
        let first: usize = self.conv.segments[..segment].iter().map(|s| s.channels).sum();
        self.panels.buffers[1].as_slice()[first..].as_ptr()
    }
}

impl<I: Isa> Prepared for PreparedStrassen<I> {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn packed(&self) -> Vec<&Buffer> {
        self.panels.buffers.iter().collect()
    }

    fn packed_mut(&mut self) -> Vec<&mut Buffer> {
        self.panels.buffers.iter_mut().collect()
    }

    fn scratch(&self) -> usize {
        7usize.pow(self.levels as u32) * self.rows(self.block) * (self.v_pitch() + self.m_pitch())
    }

    fn units(&self, _: usize, n: usize) -> usize {
        self.conv.output_pixels(n).div_ceil(self.block)
    }

    unsafe fn run(&self, _: usize, units: Range<usize>, io: &Io, scratch: &mut Scratch) {
        self.isa.vectorize(Run { step: self, units, io, v: scratch.worker })
    }
}

/// # Safety of its functions
/// Nobody else writes the outputs of the block, and V and M have its rows in each point; the
/// source's halo holds the padding.
struct Run<'a, I> {
    step: &'a PreparedStrassen<I>,
    units: Range<usize>,
    io: &'a Io<'a>,
    /// The worker's scratch: V, then M.
    v: *mut f32,
}

impl<I: Isa> pulp::WithSimd for Run<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let step = self.step;
        let images = self.io.images();
        let (pixels, blocks) = (step.conv.output_pixels(images), step.units(0, images));
        for unit in self.units.clone() {
            let first = pixels * unit / blocks;
            let block = first..pixels * (unit + 1) / blocks;
            // SAFETY: the block's outputs are this unit's; V and M have room for it.
            unsafe {
                match step.levels {
                    1 => self.block::<2, 7>(block),
                    _ => self.block::<4, 49>(block),
                }
            }
        }
    }
}

/// Values of two pixels by two parts of channels.
type Square<V> = [[V; 2]; 2];

/// Left factors of a level: `x[q][h]` is pixel `q` of two, half `h` of its channels.
#[inline(always)]
fn left<I: Isa>(isa: I, [[a11, a12], [a21, a22]]: Square<I::f32s>) -> [I::f32s; 7] {
    [
        isa.add_f32s(a11, a22),
        isa.add_f32s(a21, a22),
        a11,
        a22,
        isa.add_f32s(a11, a12),
        isa.sub_f32s(a21, a11),
        isa.sub_f32s(a12, a22),
    ]
}

/// Outputs of the seven products of a level.
#[inline(always)]
fn join<I: Isa>(isa: I, [m1, m2, m3, m4, m5, m6, m7]: [I::f32s; 7]) -> Square<I::f32s> {
    let (add, sub) = (I::add_f32s, I::sub_f32s);
    let c11 = add(isa, sub(isa, add(isa, m1, m4), m5), m7);
    let c22 = add(isa, add(isa, sub(isa, m1, m2), m3), m6);
    [[c11, add(isa, m3, m5)], [add(isa, m2, m4), c22]]
}

/// Stores the left factors of `S` pixels by `S` parts of their channels: of one level for two, of
/// two for four.
///
/// # Safety
/// A vector at `out` may be written for each product, `point` elements apart.
#[inline(always)]
unsafe fn store_left<I: Isa, const S: usize>(isa: I, x: [[I::f32s; S]; S], out: *mut f32, point: usize) {
    if S == 2 {
        let x = [[x[0][0], x[0][S - 1]], [x[S - 1][0], x[S - 1][S - 1]]];
        for (product, value) in left(isa, x).into_iter().enumerate() {
            // SAFETY: by the caller.
            unsafe { store::<I>(out.wrapping_add(product * point), value) };
        }
        return;
    }
    // The outer level on the four quadrants, then the inner one on each of its sums.
    let mut outer = [[isa.splat_f32s(0.0); 4]; 7];
    for inner in 0..4 {
        let [i, j] = [inner / 2 % S, inner % 2];
        let (a, b) = (x[i][j % S], x[i][(j + 2) % S]);
        let (c, d) = (x[(i + 2) % S][j % S], x[(i + 2) % S][(j + 2) % S]);
        for (outer, value) in outer.iter_mut().zip(left(isa, [[a, b], [c, d]])) {
            outer[inner] = value;
        }
    }
    for (i, [a, b, c, d]) in outer.into_iter().enumerate() {
        for (j, value) in left(isa, [[a, b], [c, d]]).into_iter().enumerate() {
            // SAFETY: by the caller.
            unsafe { store::<I>(out.wrapping_add((7 * i + j) * point), value) };
        }
    }
}

/// Seven products that follow each other.
///
/// # Safety
/// A vector at `m` may be read for each, `point` elements apart.
#[inline(always)]
unsafe fn seven<I: Isa>(isa: I, m: *const f32, point: usize) -> [I::f32s; 7] {
    let mut products = [isa.splat_f32s(0.0); 7];
    for (product, value) in products.iter_mut().enumerate() {
        // SAFETY: by the caller.
        *value = unsafe { load::<I>(m.wrapping_add(product * point)) };
    }
    products
}

/// The outputs of `S` pixels by `S` parts of their channels, as [`store_left`] has the inputs.
///
/// # Safety
/// A vector at `m` may be read for each product, `point` elements apart.
#[inline(always)]
unsafe fn load_joined<I: Isa, const S: usize>(isa: I, m: *const f32, point: usize) -> [[I::f32s; S]; S] {
    let zero = isa.splat_f32s(0.0);
    let mut y = [[zero; S]; S];
    if S == 2 {
        // SAFETY: by the caller.
        let [[a, b], [c, d]] = join(isa, unsafe { seven(isa, m, point) });
        [y[0][0], y[0][S - 1]] = [a, b];
        [y[S - 1][0], y[S - 1][S - 1]] = [c, d];
        return y;
    }
    let mut outer = [[zero; 7]; 4];
    for i in 0..7 {
        // SAFETY: by the caller.
        let [[a, b], [c, d]] = join(isa, unsafe { seven(isa, m.wrapping_add(7 * i * point), point) });
        for (outer, value) in outer.iter_mut().zip([a, b, c, d]) {
            outer[i] = value;
        }
    }
    for (inner, products) in outer.into_iter().enumerate() {
        let (i, j) = (inner / 2, inner % 2);
        let [[a, b], [c, d]] = join(isa, products);
        [y[i % S][j % S], y[i % S][(j + 2) % S]] = [a, b];
        [y[(i + 2) % S][j % S], y[(i + 2) % S][(j + 2) % S]] = [c, d];
    }
    y
}

impl<I: Isa> Run<'_, I> {
    /// Computes a block of pixels; `S` parts of rows and of channels, `P` products.
    #[inline(always)]
    unsafe fn block<const S: usize, const P: usize>(&self, block: Range<usize>) {
        let step = self.step;
        let rows = step.rows(block.len());
        let v_point = rows * step.v_pitch();
        let m_point = rows * step.m_pitch();
        let m = self.v.wrapping_add(P * v_point);
        for row in 0..rows {
            // SAFETY: V has `rows` rows a point.
            unsafe { self.input::<S>(&block, rows, row, v_point) };
        }
        for panel in &step.panels.list {
            let products = Products::<I, Single> {
                scales: std::ptr::null(),
                isa: step.isa,
                points: P,
                rows,
                depth: step.depth(),
                a: self.v,
                a_pitch: [step.v_pitch(), v_point],
                panel: step.panels.weights(panel),
                vectors: panel.vectors,
                dst: m,
                dst_pitch: [step.m_pitch(), m_point],
                pixels: step.pixels,
            };
            // SAFETY: V holds `rows` rows a point, M has room for a panel.
            unsafe { products.run() };
            for row in 0..rows {
                let m = m.wrapping_add(row * step.m_pitch());
                let pixels = (block.start + row..block.end).step_by(rows);
                // SAFETY: M holds the products; the outputs are this block's.
                unsafe { self.output::<S>(pixels, panel, m, m_point) };
            }
        }
    }

    /// The first channel of an output pixel; without a halo, all pixels lie at one distance.
    #[inline(always)]
    fn out(&self, dst: &ViewMut, pixel: usize) -> *mut f32 {
        if dst.is_flat() {
            return dst.pixel::<f32>(0, 0, 0).wrapping_add(pixel * dst.pitch.pixel);
        }
        let [n, y, x] = self.step.conv.output_pixel(pixel);
        dst.pixel(n, y, x)
    }

    /// The left factors of one row of the matrices.
    #[inline(always)]
    unsafe fn input<const S: usize>(&self, block: &Range<usize>, rows: usize, row: usize, v_point: usize) {
        let step = self.step;
        let isa = step.isa;
        let Conv { channels, ref window, .. } = step.conv;
        let part = channels / S;
        let mut pixels = [std::ptr::null::<f32>(); S];
        for (q, pixel) in pixels.iter_mut().enumerate() {
            // A row past the block's last pixel repeats it; its output is dropped.
            let [n, y, x] = step.conv.output_pixel((block.start + q * rows + row).min(block.end - 1));
            let [top, left] = step.conv.first_tap(y, x);
            *pixel = self.io.src.pixel(n, top, left);
        }
        let v = self.v.wrapping_add(row * step.v_pitch());
        let pitch = self.io.src.pitch;
        for tap in 0..window.kernel[0] * window.kernel[1] {
            let (r, s) = (tap / window.kernel[1], tap % window.kernel[1]);
            let offset = r * pitch.row + s * pitch.pixel;
            for c in (0..part).step_by(I::F32_LANES) {
                let mut x = [[isa.splat_f32s(0.0); S]; S];
                for (pixel, x) in pixels.into_iter().zip(&mut x) {
                    for (h, x) in x.iter_mut().enumerate() {
                        // SAFETY: by the caller; parts of channels are whole vectors.
                        *x = unsafe { load::<I>(pixel.wrapping_add(offset + h * part + c)) };
                    }
                }
                // SAFETY: by the caller.
                unsafe { store_left(isa, x, v.wrapping_add(tap * part + c), v_point) };
            }
        }
    }

    /// The outputs of one row of the matrices: `S` pixels, `S` parts of the panel's segment. `m` is
    /// the row of M of the first point.
    #[inline(always)]
    unsafe fn output<const S: usize>(
        &self,
        pixels: impl Iterator<Item = usize>,
        panel: &Panel,
        m: *const f32,
        m_point: usize,
    ) {
        let (step, isa) = (self.step, self.step.isa);
        let dst = self.io.dst(panel.segment);
        let segment = step.conv.segments[panel.segment];
        let part = segment.channels / S;
        let floor = isa.splat_f32s(if segment.epilogue.relu { 0.0 } else { f32::NEG_INFINITY });
        let bias = step.bias(panel.segment).wrapping_add(panel.first);
        let mut inside = 0;
        let mut first = [std::ptr::null_mut::<f32>(); S];
        for (first, pixel) in first.iter_mut().zip(pixels) {
            *first = self.out(&dst, pixel).wrapping_add(panel.first);
            inside += 1;
        }
        for k in (0..panel.vectors * I::F32_LANES).step_by(I::F32_LANES) {
            // SAFETY: M has a row of the panel's vectors a point.
            let y = unsafe { load_joined::<I, S>(isa, m.wrapping_add(k), m_point) };
            for (y, pixel) in y.into_iter().zip(first).take(inside) {
                for (h, value) in y.into_iter().enumerate() {
                    let channel = h * part + k;
                    let mut sum = value;
                    if segment.epilogue.bias {
                        // SAFETY: a bias a channel, parts are whole vectors.
                        sum = isa.add_f32s(sum, unsafe { load::<I>(bias.wrapping_add(channel)) });
                    }
                    // SAFETY: by the caller.
                    unsafe { store::<I>(pixel.wrapping_add(channel), isa.at_least(floor, sum)) };
                }
            }
        }
    }
}
