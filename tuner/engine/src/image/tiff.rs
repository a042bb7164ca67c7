//! TIFF: the first image; grey, palette, RGB and CMYK of up to 16 bits.

use std::io::Cursor;

use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::Tag;

use crate::image::pixels::{Pixels, Refusal, Samples, checked_size};

/// The image, and its orientation as EXIF numbers it.
pub fn decode(mut bytes: Vec<u8>) -> Result<(Pixels, u8), Refusal> {
    if has_endless_tag(&bytes) {
        return Err(Refusal::damaged("a TIFF with a tag that is longer than the file"));
    }
    let is_palette = palette_to_grey(&mut bytes);
    let mut decoder = Decoder::new(Cursor::new(&bytes)).map_err(Refusal::damaged)?;
    // The number of pixels bounds the rest.
    decoder = decoder.with_limits(Limits::unlimited());
    let (width, height) = decoder.dimensions().map_err(Refusal::damaged)?;
    let (width, height) = (width as usize, height as usize);
    checked_size(width, height)?;
    let kind = decoder.colortype().map_err(Refusal::damaged)?;
    let (channels, bits) = match kind {
        ColorType::Gray(bits) => (1, bits),
        ColorType::GrayA(bits) => (2, bits),
        ColorType::RGB(bits) => (3, bits),
        // The decoder of JPEG gives RGB; other samples would be taken for it.
        ColorType::YCbCr(bits) if is_jpeg(&mut decoder) => (3, bits),
        ColorType::YCbCr(_) => return Err(Refusal::damaged(format!("a TIFF of {kind:?} that is no JPEG"))),
        ColorType::RGBA(bits) | ColorType::CMYK(bits) => (4, bits),
        _ => return Err(Refusal::damaged(format!("a TIFF of {kind:?}"))),
    };
    let layout = decoder.image_buffer_layout().map_err(Refusal::damaged)?;
    let mut result = DecodingResult::U8(Vec::new());
    decoder.read_image_to_buffer(&mut result).map_err(Refusal::damaged)?;
    let orientation = decoder.find_tag_unsigned(Tag::Orientation).ok().flatten().unwrap_or(1);
    let planes = if layout.planes > 1 { channels } else { 1 };
    let count = width * height * channels;
    let samples = match result {
        DecodingResult::U8(samples) if bits < 8 && channels == 1 => {
            Samples::U8(unpacked(&samples, width, height, bits, is_palette)?)
        }
        DecodingResult::U8(samples) if bits == 8 => Samples::U8(interleaved(samples, planes, count)?),
        DecodingResult::U16(samples) if bits == 16 => Samples::U16(interleaved(samples, planes, count)?),
        _ => return Err(Refusal::damaged(format!("a TIFF of {kind:?}"))),
    };
    let samples = match (samples, kind) {
        (Samples::U8(samples), _) if is_palette => {
            let map = decoder.get_tag_u16_vec(Tag::ColorMap).map_err(Refusal::damaged)?;
            return Ok((colored(&samples, &map, width, height), orientation));
        }
        (Samples::U8(mut samples), ColorType::CMYK(_)) => {
            samples.chunks_exact_mut(4).for_each(cmyk_to_rgb);
            Samples::U8(samples)
        }
        (_, ColorType::CMYK(_)) => return Err(Refusal::damaged(format!("a TIFF of {kind:?}"))),
        (samples, _) => samples,
    };
    Ok((Pixels { width, height, channels, samples }, orientation))
}

/// Whether the samples are stored as JPEG.
fn is_jpeg(decoder: &mut Decoder<Cursor<&Vec<u8>>>) -> bool {
    const JPEG: u32 = 7;
    decoder.find_tag_unsigned(Tag::Compression).ok().flatten() == Some(JPEG)
}

/// Channels that are stored one after the other, pixel by pixel.
fn interleaved<T: Copy>(samples: Vec<T>, planes: usize, count: usize) -> Result<Vec<T>, Refusal> {
    if samples.len() < count {
        return Err(Refusal::damaged(format!("a TIFF of {} samples, not {count}", samples.len())));
    }
    if planes == 1 {
        return Ok(samples);
    }
    let pixels = count / planes;
    Ok((0..count).map(|at| samples[at % planes * pixels + at / planes]).collect())
}

/// Samples of less than a byte, each row of which starts in a byte; grey ones are widened to 0..255.
fn unpacked(packed: &[u8], width: usize, height: usize, bits: u8, keep: bool) -> Result<Vec<u8>, Refusal> {
    let (row_bytes, most) = ((width * usize::from(bits)).div_ceil(8), (1u8 << bits) - 1);
    if ![1, 2, 4].contains(&bits) || packed.len() < row_bytes * height {
        return Err(Refusal::damaged(format!("a TIFF of {bits} bits a sample")));
    }
    let scale = if keep { 1 } else { 255 / most };
    let per_byte = 8 / usize::from(bits);
    let sample = |row: &[u8], x: usize| {
        let shift = 8 - usize::from(bits) * (x % per_byte + 1);
        ((row[x / per_byte] >> shift) & most) * scale
    };
    let rows = packed.chunks(row_bytes).take(height);
    Ok(rows.flat_map(|row| (0..width).map(move |x| sample(row, x))).collect())
}

/// A map has all reds, all greens, all blues, of 16 bits each.
fn colored(indices: &[u8], map: &[u16], width: usize, height: usize) -> Pixels {
    let colors = map.len() / 3;
    let level = |index: u8, channel: usize| {
        let at = usize::from(index);
        if at < colors { (map[channel * colors + at] >> 8) as u8 } else { 0 }
    };
    let samples = indices.iter().flat_map(|&index| [0, 1, 2].map(|channel| level(index, channel)));
    Pixels { width, height, channels: 3, samples: Samples::U8(samples.collect()) }
}

/// As Pillow does it, without a colour profile. What was black becomes an alpha, which is ignored.
fn cmyk_to_rgb(pixel: &mut [u8]) {
    let white = 255 - u32::from(pixel[3]);
    for ink in &mut pixel[..3] {
        *ink = (((255 - u32::from(*ink)) * white + 127) / 255) as u8;
    }
}

/// Declares an image of palette indices grey, since the decoder refuses palettes; whether it was one.
fn palette_to_grey(bytes: &mut [u8]) -> bool {
    photometric(bytes).is_some_and(|value| {
        let is_palette = bytes[value] | bytes[value + 1] == 3;
        if is_palette {
            let one = if bytes[0] == b'I' { [1, 0] } else { [0, 1] };
            bytes[value..value + 2].copy_from_slice(&one);
        }
        is_palette
    })
}

/// Where the photometric interpretation of the first image is.
fn photometric(bytes: &[u8]) -> Option<usize> {
    const PHOTOMETRIC_INTERPRETATION: u32 = 262;
    let entry = entries(bytes).into_iter().find(|&at| number(bytes, at, 2) == PHOTOMETRIC_INTERPRETATION);
    entry.map(|entry| entry + 8)
}

/// Whether a tag of the first image states more values than the file has bytes: the decoder would
/// ask for memory for all of them.
fn has_endless_tag(bytes: &[u8]) -> bool {
    entries(bytes).into_iter().any(|entry| number(bytes, entry + 4, 4) as usize > bytes.len())
}

/// Where the entries of the first image are; each has 12 bytes. None in a BigTIFF, version 43.
fn entries(bytes: &[u8]) -> Vec<usize> {
    if number(bytes, 2, 2) != 42 {
        return Vec::new();
    }
    let first = number(bytes, 4, 4) as usize;
    let all = (0..number(bytes, first, 2) as usize).map(|entry| first + 2 + 12 * entry);
    all.take_while(|entry| entry + 12 <= bytes.len()).collect()
}

/// A number of some bytes, in the order that the file states; 0 behind its end.
fn number(bytes: &[u8], at: usize, len: usize) -> u32 {
    let digits = bytes.get(at..).and_then(|rest| rest.get(..len)).unwrap_or_default();
    let push = |number: u32, digit: &u8| number << 8 | u32::from(*digit);
    if bytes.first() == Some(&b'I') { digits.iter().rev().fold(0, push) } else { digits.iter().fold(0, push) }
}
