//! Pictures for the docs: a page has few colours, and a PNG that names each of them once is a third as long.

use std::collections::HashMap;
use std::io::Cursor;

use anyhow::{Context, Result, ensure};
use png::{BitDepth, ColorType, Compression, Decoder, Encoder, Filter, Transformations};

/// As many as one byte can name.
const COLOURS_MAX: usize = 256;

type Colour = [u8; 3];

/// The same picture with its 256 most frequent colours; each of the others, which are in the edges of letters, becomes the nearest
/// of these.
///
/// # Errors
/// When it is no PNG.
pub fn small(picture: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = Decoder::new(Cursor::new(picture));
    decoder.set_transformations(Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().context("reading a picture")?;
    let mut bytes = vec![0; reader.output_buffer_size().context("a picture without an end")?];
    let info = reader.next_frame(&mut bytes).context("reading a picture")?;
    ensure!([ColorType::Rgb, ColorType::Rgba].contains(&info.color_type), "a picture in {:?}", info.color_type);
    let pixels =
        bytes[..info.buffer_size()].chunks(info.color_type.samples()).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
    let pixels: Vec<Colour> = pixels.collect();
    let palette = palette(&pixels);
    let mut nearest = HashMap::new();
    let indexes: Vec<u8> =
        pixels.iter().map(|colour| *nearest.entry(*colour).or_insert_with(|| nearest_of(&palette, *colour))).collect();
    let mut small = Vec::new();
    let mut encoder = Encoder::new(&mut small, info.width, info.height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(palette.concat());
    encoder.set_compression(Compression::High);
    encoder.set_filter(Filter::NoFilter);
    encoder.write_header()?.write_image_data(&indexes).context("writing a picture")?;
    Ok(small)
}

/// The most frequent colours, in an order that does not depend on chance.
fn palette(pixels: &[Colour]) -> Vec<Colour> {
    let mut counts = HashMap::<Colour, usize>::new();
    pixels.iter().for_each(|colour| *counts.entry(*colour).or_default() += 1);
    let mut colours: Vec<(Colour, usize)> = counts.into_iter().collect();
    colours.sort_by_key(|(colour, count)| (usize::MAX - count, *colour));
    colours.into_iter().take(COLOURS_MAX).map(|(colour, _)| colour).collect()
}

fn nearest_of(palette: &[Colour], colour: Colour) -> u8 {
    let far = |other: &Colour| -> u32 { colour.iter().zip(other).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum() };
    let nearest = palette.iter().enumerate().min_by_key(|(_, other)| far(other));
    nearest.map_or(0, |(index, _)| index as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_colours_stay_as_they_are_and_rare_ones_become_their_nearest() {
        let mut pixels = vec![[10, 20, 30]; 9000];
        // 256 colours a thousand times less often, and one that is between two of them.
        pixels.extend((0..=255).flat_map(|blue| [[200, 100, blue]; 3]));
        pixels.push([201, 100, 255]);
        let mut whole = Vec::new();
        let mut encoder = Encoder::new(&mut whole, pixels.len() as u32, 1);
        encoder.set_color(ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(&pixels.concat()).unwrap();
        let small = small(&whole).unwrap();
        let mut reader = Decoder::new(Cursor::new(&small)).read_info().unwrap();
        let palette: Vec<u8> = reader.info().palette.as_deref().unwrap_or_default().to_vec();
        let mut indexes = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut indexes).unwrap();
        let colour = |at: usize| &palette[usize::from(indexes[at]) * 3..][..3];
        assert_eq!((colour(0), colour(9000)), (&[10, 20, 30][..], &[200, 100, 0][..]));
        // The rarest one, and one that there was no room for.
        assert_eq!(colour(pixels.len() - 1)[..2], [200, 100]);
    }
}
