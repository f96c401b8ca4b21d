//! Tests of cutting: what is cut, and that it does not depend on how the input came.

use proptest::collection::vec;
use proptest::prelude::*;

use super::jpeg::{BEGIN, BEGINNING, END, PIXELS, STUFFED};
use super::*;

/// What an input comes to that is read in pieces of these sizes, in turns.
fn cut_in(form: Form, input: &[u8], sizes: &[usize]) -> Result<Vec<Bytes>, CutError> {
    let mut cutter = Cutter::new(form);
    let mut units = Vec::new();
    let (mut rest, mut sizes) = (input, sizes.iter().cycle());
    while !rest.is_empty() {
        let size = (*sizes.next().expect("a cycle")).clamp(1, rest.len());
        cutter.buffer().extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        while let Some(unit) = cutter.next()? {
            units.push(unit);
        }
    }
    units.extend(cutter.rest()?);
    Ok(units)
}

/// The payloads of an input that is there at once.
fn cut(form: Form, input: &[u8]) -> Result<Vec<Vec<u8>>, CutError> {
    let prefixed = matches!(form, Form::Chunks(_) | Form::Prefixed | Form::Jpeg);
    let units = cut_in(form, input, &[usize::MAX])?.into_iter();
    let payload = |unit: Bytes| {
        if !prefixed {
            return unit.to_vec();
        }
        let (mut length, payload) = unit.split_at(PREFIX_BYTES);
        assert_eq!(length.get_u32_le() as usize, payload.len());
        payload.to_vec()
    };
    Ok(units.map(payload).collect())
}

fn prefixed(chunks: &[Vec<u8>]) -> Vec<u8> {
    chunks.iter().flat_map(|chunk| chunk_of(chunk).to_vec()).collect()
}

/// A packed frame, as far as the head says what it is.
fn frame(count: u32, rest: &[u8]) -> Vec<u8> {
    let length = (FRAME_HEAD_BYTES + rest.len()) as u32;
    let numbers = [count.to_le_bytes(), length.to_le_bytes()].concat();
    [FRAME_MAGIC, &[1, 0, 1, 0], &numbers, rest].concat()
}

/// A segment of a JPEG.
fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u16 + 2).to_be_bytes();
    [&[0xFF, marker], &length[..], content].concat()
}

/// A JPEG as far as markers go: segments with anything in them, and two scans of pixels.
fn jpeg(content: &[u8], pixels: &[u8]) -> Vec<u8> {
    let coded: Vec<u8> = pixels
        .iter()
        .flat_map(|byte| if *byte == 0xFF { vec![0xFF, STUFFED] } else { vec![*byte] })
        .collect();
    let restart = [0xFF, 0xD3];
    [
        &[0xFF, BEGIN],
        &segment(0xE1, content)[..],
        &[0xFF, 0xFF],
        &segment(0xDB, content)[1..],
        &segment(PIXELS, content),
        &coded,
        &restart,
        &coded,
        &segment(0xC4, content),
        &segment(PIXELS, content),
        &coded,
        &[0xFF, END],
    ]
    .concat()
}

#[test]
fn lines_are_cut_at_their_ends_and_blank_ones_left_out() {
    let lines = cut(Form::Lines, b"1\n\n {\"a\":2}\r\n \t\n3").unwrap();
    assert_eq!(lines, [&b"1\n"[..], b" {\"a\":2}\r\n", b"3\n"]);
    assert_eq!(cut(Form::Lines, b"\n\n").unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn the_last_chunk_may_be_shorter() {
    let chunks = cut(Form::Chunks(4), b"abcdefghij").unwrap();
    assert_eq!(chunks, [&b"abcd"[..], b"efgh", b"ij"]);
    assert_eq!(cut(Form::Chunks(4), b"abcd").unwrap(), [b"abcd"]);
}

#[test]
fn a_length_in_front_may_be_zero_and_must_not_be_absurd() {
    let chunks = [b"one".to_vec(), Vec::new(), b"three".to_vec()];
    assert_eq!(cut(Form::Prefixed, &prefixed(&chunks)).unwrap(), chunks);
    assert_eq!(cut(Form::Prefixed, &[0xFF; 9]), Err(CutError::TooLong));
    for cut_off in [&prefixed(&chunks)[..14], &[0, 0]] {
        assert_eq!(cut(Form::Prefixed, cut_off), Err(CutError::Unfinished));
    }
}

#[test]
fn frames_are_cut_by_the_length_in_their_heads() {
    let frames = [frame(3, b"three"), frame(0, b""), frame(1, b"one")];
    let input = frames.concat();
    assert_eq!(cut(Form::Frames, &input).unwrap(), frames);
    assert_eq!(cut(Form::Frames, b"{\"a\":1}\n"), Err(CutError::NoFrame));
    assert_eq!(cut(Form::Frames, &input[..input.len() - 1]), Err(CutError::Unfinished));
    let mut wrong = frame(1, b"");
    wrong[12] = 3;
    assert_eq!(cut(Form::Frames, &wrong), Err(CutError::NoFrame));
}

#[test]
fn an_image_within_an_image_ends_nothing() {
    let inner = jpeg(b"x", &[0xFF, 1, 2]);
    let outer = jpeg(&inner, &[7, 0xFF, 0xFF, 8]);
    let input = [outer.clone(), inner.clone()].concat();
    assert_eq!(cut(Form::Jpeg, &input).unwrap(), [outer, inner]);
}

#[test]
fn what_lies_between_images_is_left_out() {
    let image = jpeg(b"", b"pixels");
    let head = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n";
    let input = [&head[..], &image, b"\r\n", head, &image, &[0xFF, BEGIN]].concat();
    assert_eq!(cut(Form::Jpeg, &input).unwrap(), [image.clone(), image]);
    assert_eq!(cut(Form::Jpeg, b"no image at all").unwrap(), Vec::<Vec<u8>>::new());
}

#[test]
fn an_image_that_stops_where_another_begins_is_cut_there() {
    let image = jpeg(b"abc", b"pixels");
    let stopped = &image[..image.len() - 4];
    let input = [stopped, &image].concat();
    assert_eq!(cut(Form::Jpeg, &input).unwrap(), [stopped, &image]);
    assert_eq!(cut(Form::Jpeg, stopped), Err(CutError::Unfinished));
}

#[test]
fn what_ffmpeg_wrote_is_cut_into_its_pictures() {
    let clip = include_bytes!("../../../../../examples/motion/clip.mjpeg");
    let images = cut(Form::Jpeg, clip).unwrap();
    assert_eq!(images.len(), 24);
    assert_eq!(images.concat(), clip);
    assert!(images.iter().all(|image| image.starts_with(&BEGINNING)));
}

#[test]
fn a_unit_without_an_end_is_refused_at_some_size() {
    let endless = vec![b'x'; UNIT_BYTES_MAX + 2];
    assert_eq!(cut(Form::Lines, &endless), Err(CutError::TooLong));
    let image = [&[0xFF, BEGIN], &segment(PIXELS, b"")[..], &endless].concat();
    assert_eq!(cut(Form::Jpeg, &image), Err(CutError::TooLong));
}

/// Bytes in which markers are more frequent than chance has them.
fn marked() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        3 => Just(0xFF_u8),
        3 => prop::sample::select(vec![BEGIN, END, PIXELS, STUFFED, 0xD0, 0xE0, 0x01, b'\n']),
        2 => any::<u8>(),
    ];
    vec(byte, 0..200)
}

proptest! {
    #[test]
    fn how_the_input_came_makes_no_difference(
        input in marked(),
        sizes in vec(1_usize..20, 1..20),
        length in 1_usize..30,
    ) {
        let forms =
            [Form::Lines, Form::Chunks(length), Form::Prefixed, Form::Jpeg, Form::Frames];
        for form in forms {
            let whole = cut_in(form, &input, &[usize::MAX]);
            prop_assert_eq!(cut_in(form, &input, &sizes), whole);
        }
    }

    #[test]
    fn images_come_out_as_they_went_in(
        images in vec((vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40)), 0..5),
        sizes in vec(1_usize..20, 1..20),
    ) {
        let images: Vec<Vec<u8>> =
            images.iter().map(|(content, pixels)| jpeg(content, pixels)).collect();
        let input = images.concat();
        let units = cut_in(Form::Jpeg, &input, &sizes).unwrap();
        let expected: Vec<Bytes> = images.iter().map(|image| chunk_of(image)).collect();
        prop_assert_eq!(units, expected);
    }

    #[test]
    fn frames_and_chunks_come_out_as_they_went_in(
        chunks in vec(vec(any::<u8>(), 0..40), 0..9),
        sizes in vec(1_usize..20, 1..20),
    ) {
        let input = prefixed(&chunks);
        let units = cut_in(Form::Prefixed, &input, &sizes).unwrap();
        let sent: Vec<u8> = units.iter().flat_map(|unit| unit.to_vec()).collect();
        prop_assert_eq!((units.len(), sent), (chunks.len(), input));
        let frames: Vec<Vec<u8>> = chunks.iter().map(|chunk| frame(2, chunk)).collect();
        let units = cut_in(Form::Frames, &frames.concat(), &sizes).unwrap();
        let sent: Vec<Vec<u8>> = units.iter().map(|unit| unit.to_vec()).collect();
        prop_assert_eq!(sent, frames);
    }
}
