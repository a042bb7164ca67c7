use std::io::Cursor;

use ::image::{DynamicImage, ImageFormat};

use super::decode::decode;
use super::filter::Axis;
use super::pixels::{Pixels, Samples};
use super::resize::{THREADS, TILE_COLUMNS, Window, resize};
use super::{
    GeometryError, ImageError, Interpolation, Orientation, PixelView, Preprocessing, Resize, SampleView,
    from_bytes, from_pixels, load, orientation,
};
use crate::network::Model;

/// What becomes of a file of these bytes.
fn load_bytes(bytes: &[u8], model: &Model) -> Result<Vec<f32>, ImageError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.file");
    std::fs::write(&path, bytes).unwrap();
    load(path, model)
}

fn values(bytes: &[u8]) -> Vec<f32> {
    load_bytes(bytes, &Model::inception_v3()).unwrap()
}

fn refusal(bytes: &[u8], model: &Model) -> String {
    let message = load_bytes(bytes, model).expect_err("the file is wrong").to_string();
    assert!(message.contains("x.file: ") && !message.contains('\n'), "{message}");
    message
}

#[test]
fn a_part_of_a_network_takes_no_images() {
    let message = refusal(b"", &Model::block("mixed0").unwrap());
    assert!(message.contains("mixed0 takes [35, 35, 192], not images"), "{message}");
    let image = encoded(&gradient(), ImageFormat::Png);
    assert!(load_bytes(&image, &Model::block("stem").unwrap()).is_ok());
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// 598x299: two pixels become one.
fn gradient() -> DynamicImage {
    DynamicImage::ImageRgb8(::image::RgbImage::from_fn(598, 299, |x, y| {
        ::image::Rgb([(x / 4) as u8, (y / 2) as u8, 200])
    }))
}

#[test]
fn an_image_becomes_299x299_rgb_between_minus_one_and_one() {
    let values = values(&encoded(&gradient(), ImageFormat::Png));
    assert_eq!(values.len(), 299 * 299 * 3);
    for (y, x) in [(5, 7), (100, 250), (290, 291)] {
        let expected = [(2 * x) as f32 / 4.0, y as f32 / 2.0, 200.0].map(|v| v / 127.5 - 1.0);
        for (found, expected) in values[(y * 299 + x) * 3..][..3].iter().zip(expected) {
            assert!((found - expected).abs() < 0.01, "{y} {x}: {found} {expected}");
        }
    }
}

#[test]
fn every_kind_of_pixel_becomes_rgb() {
    let whole = values(&encoded(&gradient(), ImageFormat::Png));
    let close = |bytes: &[u8], tolerance: f32, what: &str| {
        let values = values(bytes);
        let worst = values.iter().zip(&whole).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < tolerance, "{what}: {worst}");
    };
    close(&encoded(&gradient().to_rgba8().into(), ImageFormat::Png), 1e-6, "alpha");
    close(&encoded(&gradient().to_rgb16().into(), ImageFormat::Png), 1e-5, "16 bits");
    close(&encoded(&gradient(), ImageFormat::Jpeg), 0.1, "JPEG");
    let grey = values(&encoded(&gradient().to_luma8().into(), ImageFormat::Png));
    assert!(grey.chunks(3).all(|rgb| rgb[0] == rgb[1] && rgb[1] == rgb[2]));
    let dot = DynamicImage::ImageRgb8(::image::RgbImage::from_pixel(1, 1, ::image::Rgb([255, 0, 51])));
    let values = values(&encoded(&dot, ImageFormat::Png));
    assert!(values.chunks(3).all(|rgb| rgb[0] == 1.0 && rgb[1] == -1.0 && (rgb[2] + 0.6).abs() < 1e-6));
}

#[test]
fn a_small_file_cannot_ask_for_a_large_image() {
    let mut bytes = encoded(&gradient(), ImageFormat::Png);
    bytes[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let crc = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&crc.to_be_bytes());
    let message = refusal(&bytes, &Model::inception_v3());
    assert!(message.contains("an image of 65536x65536 pixels, expected 1 to 200000000"), "{message}");
}

#[test]
fn a_tag_cannot_have_more_values_than_its_file_has_bytes() {
    let mut bytes = rgb_tiff(&gradient());
    let first = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    bytes[first + 6..first + 10].copy_from_slice(&u32::MAX.to_le_bytes());
    let message = refusal(&bytes, &Model::inception_v3());
    assert!(message.contains("found a TIFF with a tag that is longer than the file"), "{message}");
}

/// A file of every kind that the encoders here can write, the lossless ones first.
fn every_format() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("PNG", encoded(&gradient(), ImageFormat::Png)),
        ("BMP", encoded(&gradient(), ImageFormat::Bmp)),
        ("WebP", encoded(&gradient(), ImageFormat::WebP)),
        ("TIFF", rgb_tiff(&gradient())),
        ("GIF", grey_gif(&gradient())),
        ("JPEG", encoded(&gradient(), ImageFormat::Jpeg)),
    ]
}

fn rgb_tiff(image: &DynamicImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = ::tiff::encoder::TiffEncoder::new(&mut bytes).unwrap();
    let (width, height) = (image.width(), image.height());
    encoder
        .write_image::<::tiff::encoder::colortype::RGB8>(width, height, &image.to_rgb8().into_raw())
        .unwrap();
    bytes.into_inner()
}

fn grey_gif(image: &DynamicImage) -> Vec<u8> {
    let palette: Vec<u8> = (0..=255).flat_map(|level| [level; 3]).collect();
    let (width, height) = (image.width() as u16, image.height() as u16);
    let frame =
        ::gif::Frame { width, height, buffer: image.to_luma8().into_raw().into(), ..Default::default() };
    let mut bytes = Vec::new();
    let mut encoder = ::gif::Encoder::new(&mut bytes, width, height, &palette).unwrap();
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    bytes
}

#[test]
fn the_content_decides_what_a_file_is() {
    let files = every_format();
    let rgb = values(&files[0].1);
    let grey = values(&encoded(&gradient().to_luma8().into(), ImageFormat::Png));
    for (format, bytes) in &files {
        let expected = if *format == "GIF" { &grey } else { &rgb };
        let worst = values(bytes).iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < if *format == "JPEG" { 0.1 } else { 1e-6 }, "{format}: {worst}");
    }
}

#[test]
fn truncated_files_of_every_format_are_refused_in_one_line() {
    for (format, whole) in every_format() {
        for length in [0, 1, 4, 20, 40, 100, whole.len() / 2, whole.len() * 9 / 10, whole.len() - 40] {
            let message = refusal(&whole[..length], &Model::inception_v3());
            assert!(message.contains("expected a whole JPEG, PNG, WebP"), "{format} {length}: {message}");
            assert!(!message.contains("buffer") && message.len() < 300, "{format} {length}: {message}");
        }
        let is_jpeg_or_webp = format == "JPEG" || format == "WebP";
        assert!(!is_jpeg_or_webp || decode(whole[..whole.len() - 2].to_vec()).is_err(), "{format}");
    }
    let message = refusal(b"GIF89a..........", &Model::inception_v3());
    assert!(message.contains("expected a whole JPEG, PNG, WebP"), "{message}");
    let message = refusal(b"%PDF-1.4 and so on", &Model::inception_v3());
    assert!(message.contains("found a file that starts with 25 50 44 46"), "{message}");
}

#[test]
fn a_palette_that_ends_in_a_colour_is_refused() {
    let torn = include_bytes!("../../../../tests/fuzz/corpus/png/torn_palette");
    let message = refusal(torn, &Model::inception_v3());
    assert!(message.contains("a PNG whose palette ends in a colour"), "{message}");
}

#[test]
fn damaged_files_never_panic() {
    let small = gradient().crop_imm(0, 0, 61, 47);
    let files = [
        encoded(&small, ImageFormat::Png),
        encoded(&small, ImageFormat::Bmp),
        encoded(&small, ImageFormat::WebP),
        encoded(&small, ImageFormat::Jpeg),
        rgb_tiff(&small),
        grey_gif(&small),
    ];
    for whole in files {
        let headers = 0..whole.len().min(200);
        for at in headers.chain((200..whole.len()).step_by((whole.len() / 40).max(1))) {
            for change in [0x55, 0xff, 0x01] {
                let mut damaged = whole.clone();
                damaged[at] ^= change;
                let _ = decode(damaged);
            }
        }
    }
}

/// An image of noise.
fn noise(width: usize, height: usize, channels: usize, wide: bool) -> Pixels {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let count = width * height * channels;
    let samples = match wide {
        true => Samples::U16((0..count).map(|_| next() as u16).collect()),
        false => Samples::U8((0..count).map(|_| next() as u8).collect()),
    };
    Pixels { width, height, channels, samples }
}

/// The resized value of a channel in f64, summed over the whole image.
fn naive(pixels: &Pixels, resized: [usize; 2], at: [usize; 2], channel: usize, how: Interpolation) -> f64 {
    let weights = |axis: usize| {
        let input = [pixels.height, pixels.width][axis];
        let ratio = input as f64 / resized[axis] as f64;
        let middle = (at[axis] as f64 + 0.5) * ratio - 0.5;
        let from_first = match how {
            Interpolation::BilinearNoAntialias => {
                Some(((at[axis] as f64 + 0.5) * f64::from(ratio as f32) - 0.5).max(0.0))
            }
            Interpolation::BilinearTensorFlow1 => Some(f64::from(at[axis] as f32 * ratio as f32)),
            _ => None,
        };
        if let Some(middle) = from_first {
            let (first, part) = (middle.floor() as usize, middle.fract());
            let mut weights = vec![0.0; input];
            weights[first.min(input - 1)] += 1.0 - part;
            weights[(first + 1).min(input - 1)] += part;
            return weights;
        }
        let curve = |x: f64| match (how, x.abs()) {
            (Interpolation::Bicubic, x) if x < 1.0 => 1.5 * x.powi(3) - 2.5 * x * x + 1.0,
            (Interpolation::Bicubic, x) if x < 2.0 => -0.5 * x.powi(3) + 2.5 * x * x - 4.0 * x + 2.0,
            (Interpolation::Bicubic, _) => 0.0,
            (_, x) => (1.0 - x).max(0.0),
        };
        let all: Vec<f64> = (0..input).map(|i| curve((i as f64 - middle) / ratio.max(1.0))).collect();
        let sum: f64 = all.iter().sum();
        all.iter().map(|weight| weight / sum).collect()
    };
    let (rows, columns) = (weights(0), weights(1));
    let sample = |y: usize, x: usize| {
        let at = (y * pixels.width + x) * pixels.channels + PixelView::from(pixels).rgb()[channel];
        match &pixels.samples {
            Samples::U8(samples) => f64::from(samples[at]),
            Samples::U16(samples) => f64::from(samples[at]),
        }
    };
    let row = |y: usize| columns.iter().enumerate().map(|(x, weight)| weight * sample(y, x)).sum::<f64>();
    let value: f64 = rows.iter().enumerate().filter(|(_, w)| **w != 0.0).map(|(y, w)| w * row(y)).sum();
    value.clamp(0.0, f64::from(PixelView::from(pixels).white()))
}

#[test]
fn every_filter_is_that_of_a_naive_sum_in_f64() {
    let cases = [
        ([97, 61], 3, false, [23, 31], [5, 2], [11, 17]),
        ([13, 9], 1, false, [40, 37], [0, 0], [40, 37]),
        ([64, 64], 4, true, [64, 64], [10, 20], [30, 8]),
        ([1, 300], 2, false, [7, 9], [0, 0], [7, 9]),
        ([5000, 3], 3, true, [6, 5], [1, 1], [4, 3]),
    ];
    for (_, how) in Interpolation::ALL {
        for ([width, height], channels, wide, resized, start, size) in cases {
            let pixels = noise(width, height, channels, wide);
            let found = resize(&pixels, &Window { resized, start, size }, how);
            assert_eq!(found.len(), size[0] * size[1] * 3);
            for (index, value) in found.iter().enumerate() {
                let at = [start[0] + index / 3 / size[1], start[1] + index / 3 % size[1]];
                let expected = naive(&pixels, resized, at, index % 3, how);
                let error =
                    (f64::from(*value) - expected).abs() / f64::from(PixelView::from(&pixels).white());
                assert!(error < 2e-6, "{how} {width}x{height} at {at:?}: {value} is not {expected}");
            }
        }
    }
}

/// Rows of sums and weights are all that a resize needs next to the image and the output.
#[test]
fn extra_memory_is_below_the_size_of_the_image_whatever_its_proportions() {
    let output = 299;
    for [width, height] in
        [[4_000_000, 16], [16, 4_000_000], [200_000_000, 1], [1, 200_000_000], [6000, 4000]]
    {
        let axis = |input| Axis { input, output, interpolation: Interpolation::Bicubic };
        let span = |axis: Axis| (0..output).map(|at| axis.span(at)[1] - axis.span(at)[0]).max().unwrap();
        let (row_taps, column_taps) = (span(axis(height)), span(axis(width)));
        // A tile has the columns of one output at least, and columns of neighbours overlap.
        let columns = column_taps.max(TILE_COLUMNS);
        let tile_weights = 4 * columns + column_taps;
        let extra = THREADS * 4 * (row_taps + tile_weights + 3 * columns);
        let image = 3 * width * height;
        assert!(extra < image / 2, "{width}x{height}: {extra} bytes next to {image}");
    }
}

#[test]
fn parts_of_a_large_image_are_those_of_the_whole() {
    let image = noise(4200, 4000, 1, false);
    let window = |first, rows| Window { resized: [301, 299], start: [first, 0], size: [rows, 299] };
    let whole = resize(&image, &window(0, 301), Interpolation::Bilinear);
    for (first, rows) in [(0, 1), (100, 101), (150, 151)] {
        let part = resize(&image, &window(first, rows), Interpolation::Bilinear);
        assert_eq!(part, whole[first * 299 * 3..][..rows * 299 * 3]);
    }
}

#[test]
fn presets_have_the_sizes_of_their_frameworks() {
    let [image, input] = [[480, 640], [299, 299]];
    for (name, resized, start) in [
        ("keras", [299, 299], [0, 0]),
        // 21.5 pixels are left above: torchvision rounds to the even side.
        ("torchvision", [342, 456], [22, 78]),
        ("torchvision-transform-input", [342, 456], [22, 78]),
        ("timm", [341, 454], [21, 78]),
        ("fid", [299, 299], [0, 0]),
        ("fid-clean", [299, 299], [0, 0]),
        ("fid-torch-fidelity", [299, 299], [0, 0]),
    ] {
        let preset = Preprocessing::preset(name).unwrap();
        assert_eq!(preset.name(), Some(name));
        assert_eq!(preset.window(image, input), Ok(Window { resized, start, size: input }), "{name}");
    }
    let keras = Preprocessing::default();
    let [black, white] = Model::inception_v3().info.pixel_range;
    let value = |level: f32| (level - keras.mean[0]) / keras.std[0];
    assert_eq!([value(0.0), value(1.0)], [black, white]);
    let text = Preprocessing::preset("torchvision").unwrap().describe(input);
    let expected = "short side to 342, bilinear, centre crop 299x299, mean 0.485,0.456,0.406, \
                    standard deviation 0.229,0.224,0.225";
    assert_eq!(text, expected);
}

#[test]
fn sizes_that_do_not_fit_the_model_are_refused() {
    let with = |resize, crop| Preprocessing { resize, crop, ..Preprocessing::default() };
    let window = |resize, crop| with(resize, crop).window([480, 640], [299, 299]);
    assert!(window(Resize::To([299, 299]), None).is_ok());
    assert!(window(Resize::To([320, 300]), Some(299)).is_ok());
    assert!(window(Resize::ShortSide(299), None).is_ok());
    let expected = GeometryError::Crop { crop: [299, 299], resized: [200, 266] };
    assert_eq!(window(Resize::ShortSide(200), None), Err(expected));
    let expected = GeometryError::Size { found: [224, 224], expected: [299, 299] };
    assert_eq!(window(Resize::ShortSide(256), Some(224)), Err(expected));
    let expected = GeometryError::Size { found: [150, 150], expected: [299, 299] };
    assert_eq!(window(Resize::To([150, 150]), None), Err(expected));
}

#[test]
fn turning_and_resizing_can_be_exchanged() {
    let stored = noise(37, 23, 3, false);
    let Samples::U8(samples) = &stored.samples else { panic!("8 bits") };
    for number in 1..=8 {
        let orientation = Orientation::from_exif(number).unwrap();
        let image = ::image::RgbImage::from_raw(37, 23, samples.clone()).unwrap();
        let mut turned = DynamicImage::ImageRgb8(image);
        turned.apply_orientation(orientation);
        let (width, height) = (turned.width() as usize, turned.height() as usize);
        let samples = Samples::U8(turned.to_rgb8().into_raw());
        let turned = Pixels { width, height, channels: 3, samples };
        let window = Window { resized: [19, 17], start: [3, 4], size: [11, 9] };
        let expected = resize(&turned, &window, Interpolation::Bilinear);
        let lying = orientation::stored_window(&window, orientation);
        let found = resize(&stored, &lying, Interpolation::Bilinear);
        let found = orientation::upright(found, lying.size, orientation);
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-3, "orientation {number}: {worst}");
        assert_eq!(orientation::upright_size([23, 37], orientation), [height, width]);
    }
}

#[test]
fn bytes_that_are_no_image_are_refused_by_their_name() {
    let (model, preset) = (Model::inception_v3(), Preprocessing::default());
    for bytes in [&b""[..], b"no image", &encoded(&gradient(), ImageFormat::Png)[..999]] {
        let error =
            from_bytes("images[3]", bytes.to_vec(), &model, &preset).expect_err("no image").to_string();
        assert!(error.starts_with("images[3]: found ") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn pixels_in_memory_become_what_those_of_a_file_become_and_need_their_size() {
    let (model, image) = (Model::inception_v3(), gradient());
    let preset = Preprocessing::preset("torchvision").expect("a preset");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.png");
    for image in [
        image.clone(),
        DynamicImage::ImageRgb16(image.to_rgb16()),
        DynamicImage::ImageLuma8(image.to_luma8()),
    ] {
        std::fs::write(&path, encoded(&image, ImageFormat::Png)).unwrap();
        let (width, height) = (image.width() as usize, image.height() as usize);
        let channels = usize::from(image.color().channel_count());
        let samples = match (image.as_bytes(), &image) {
            (_, DynamicImage::ImageRgb16(wide)) => SampleView::U16(wide),
            (bytes, _) => SampleView::U8(bytes),
        };
        let pixels = PixelView { width, height, channels, samples };
        let found = from_pixels("x", pixels, &model, &preset).unwrap();
        assert_eq!(found, super::load_with(&path, &model, &preset).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(from_bytes("x", bytes, &model, &preset).unwrap(), found);
        for (width, channels) in [(width - 1, channels), (0, channels), (width, 0), (width, channels + 1)] {
            let wrong = PixelView { width, channels, ..pixels };
            let error =
                from_pixels("images[3]", wrong, &model, &preset).expect_err("another size").to_string();
            assert!(error.starts_with("images[3]: found ") && !error.contains('\n'), "{error}");
        }
    }
}

#[test]
fn pixels_from_0_to_1_are_those_of_8_bits_but_for_rounding() {
    let model = Model::inception_v3();
    let (width, height, channels) = (40, 30, 3);
    let bytes: Vec<u8> = (0..width * height * channels).map(|n| (n * 97 % 256) as u8).collect();
    let unit: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte) / 255.0).collect();
    for preset in super::PRESETS {
        let of = |samples| {
            let pixels = PixelView { width, height, channels, samples };
            from_pixels("x", pixels, &model, &preset.preprocessing).unwrap().values
        };
        let pairs = of(SampleView::U8(&bytes)).into_iter().zip(of(SampleView::F32(&unit)));
        let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(most < 1e-5, "{}: {most:e}", preset.name);
    }
}
