use std::io::Cursor;

use ::image::{DynamicImage, ImageFormat};

use super::{ImageError, load};
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
    assert!(message.contains("an image of 65536x65536"), "{message}");
}

#[test]
fn damaged_images_are_refused_in_one_line() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let whole = encoded(&gradient(), format);
        for length in [0, 1, 4, 20, 40, 100, whole.len() / 2, whole.len() * 9 / 10] {
            let message = refusal(&whole[..length], &Model::inception_v3());
            assert!(message.contains("expected a whole JPEG or PNG image"), "{message}");
        }
        for at in (0..whole.len()).step_by(whole.len() / 40) {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x55;
            let _ = load_bytes(&damaged, &Model::inception_v3());
        }
    }
    let message = refusal(b"GIF89a..........", &Model::inception_v3());
    assert!(message.contains("expected a whole JPEG or PNG image"), "{message}");
}
