//! What an invoker promises of images and snapshots of its instances.

use bytes::Bytes;
use sluicebox_core::frame::Kind;
use sluicebox_core::image::Image;
use sluicebox_core::partition::{Serves, Verdict};

use super::{Behaviour, Subject, layer, limits, returned, stream, trapped, turn};
use crate::invoker::{Invoker, NoImage};

/// An invoker whose stage traps on every seventh event, and the image of its stream 1 after it has
/// seen `seen`. Nothing if the kind has no images, which it must then say of any.
async fn imaged(subject: &dyn Subject, seen: u32) -> Option<(Box<dyn Invoker>, Image)> {
    let mut invoker = subject.invoker(Behaviour::Remember, &limits())?;
    assert_eq!(invoker.capture(&stream(1)).await, Err(NoImage::NoInstance));
    for at in 0..seen {
        let kind = if at == 0 { Kind::Open } else { Kind::Data };
        returned(&invoker.invoke(turn(layer(), 1, kind)).await);
    }
    assert!(invoker.holds(&stream(1)) && !invoker.holds(&stream(2)));
    match invoker.capture(&stream(1)).await {
        Ok(image) => Some((invoker, image)),
        Err(reason @ NoImage::Unsupported(_)) => {
            let refused = invoker.revive(stream(2), &Image::default()).await;
            assert!(matches!(refused, Err(NoImage::Unsupported(_))), "{reason}, but {refused:?}");
            None
        }
        Err(reason) => panic!("an idle stream has no image: {reason}"),
    }
}

/// Gives a stream events until one traps; how many it took.
async fn until_it_traps(invoker: &mut dyn Invoker, serial: u64) -> u32 {
    for took in 1..=20 {
        let outcome = invoker.invoke(turn(layer(), serial, Kind::Data)).await;
        if let Verdict::Trapped(text) = &outcome.verdict {
            assert!(!text.contains("instance is gone"), "{text}");
            return took;
        }
    }
    panic!("no event trapped");
}

pub(super) async fn a_stream_goes_on_from_its_image(subject: &dyn Subject) {
    for seen in 1..=6 {
        let Some((mut invoker, image)) = imaged(subject, seen).await else { return };
        // Taking it changed nothing, so that another is the same.
        assert_eq!(invoker.capture(&stream(1)).await.as_ref(), Ok(&image));
        assert_eq!(until_it_traps(&mut *invoker, 1).await, 7 - seen, "after {seen}");
        assert_eq!(invoker.live(), 0);
        // Here, under another serial, and where nothing ever ran: as often as one likes.
        let fresh = subject.invoker(Behaviour::Remember, &limits());
        let fresh = fresh.expect("there was one before");
        for (mut invoker, serial) in [(invoker, 2), (fresh, 1)] {
            for _ in 0..2 {
                assert_eq!(invoker.revive(stream(serial), &image).await, Ok(()));
                assert!(invoker.holds(&stream(serial)));
                invoker.trim();
                assert_eq!(invoker.live(), 1, "the memory of a stream is not a cache");
                assert_eq!(invoker.capture(&stream(serial)).await.as_ref(), Ok(&image));
                assert_eq!(until_it_traps(&mut *invoker, serial).await, 7 - seen, "after {seen}");
            }
        }
    }
}

pub(super) async fn an_image_replaces_what_is_there(subject: &dyn Subject) {
    let Some((mut invoker, image)) = imaged(subject, 2).await else { return };
    returned(&invoker.invoke(turn(layer(), 1, Kind::Data)).await);
    assert_eq!(invoker.revive(stream(1), &image).await, Ok(()));
    assert_eq!(invoker.live(), 1);
    assert_eq!(until_it_traps(&mut *invoker, 1).await, 5);
    // Dropped is gone, and only what was named.
    for serial in [1, 2] {
        assert_eq!(invoker.revive(stream(serial), &image).await, Ok(()));
    }
    invoker.drop_instance(&stream(1));
    invoker.drop_instance(&stream(3));
    assert!(!invoker.holds(&stream(1)) && invoker.holds(&stream(2)));
    assert_eq!(invoker.capture(&stream(1)).await, Err(NoImage::NoInstance));
    trapped(&invoker.invoke(turn(layer(), 1, Kind::Data)).await);
    // A last call ends what went on from an image like any other.
    returned(&invoker.invoke(turn(layer(), 2, Kind::End)).await);
    assert_eq!(invoker.live(), 0);
    // Whom anybody may use goes on from nothing.
    assert_eq!(invoker.revive(Serves::Any, &image).await, Err(NoImage::NoInstance));
    assert_eq!(invoker.live(), 0);
}

pub(super) async fn what_is_no_image_of_the_code_leaves_nobody(subject: &dyn Subject) {
    let Some((mut invoker, image)) = imaged(subject, 2).await else { return };
    let cut = image.head.slice(..image.head.len() - 1);
    let mut other = image.head.to_vec();
    other[5] ^= 1;
    let mut newer = image.head.to_vec();
    newer[0] += 1;
    for head in [Bytes::new(), cut, Bytes::from(other), Bytes::from(newer)] {
        assert_eq!(invoker.revive(stream(1), &image).await, Ok(()));
        let wrong = Image { head, pages: image.pages.clone() };
        let refused = invoker.revive(stream(1), &wrong).await;
        assert!(matches!(refused, Err(NoImage::Failed(_))), "{refused:?}");
        assert_eq!(invoker.live(), 0, "an image that does not fit leaves nothing");
    }
    for (number, bytes) in [(u32::MAX, 1), (0, 4097), (1 << 20, 1), (0xf_ffff, 1)] {
        let mut wrong = image.clone();
        wrong.pages.insert(number, Bytes::from(vec![1; bytes]));
        let refused = invoker.revive(stream(1), &wrong).await;
        assert!(matches!(refused, Err(NoImage::Failed(_))), "page {number}: {refused:?}");
        assert_eq!(invoker.live(), 0);
    }
}

pub(super) async fn a_stream_goes_on_from_a_snapshot(subject: &dyn Subject) {
    for seen in 1..=6 {
        let Some((mut invoker, image)) = imaged(subject, seen).await else { return };
        let nobody = stream(9);
        assert_eq!(invoker.snapshot(&nobody).await, Err(NoImage::NoInstance));
        let snapshot = invoker.snapshot(&stream(1)).await.expect("the stage has them");
        // Taking it changed nothing, so that another is the same.
        assert_eq!(invoker.snapshot(&stream(1)).await.as_ref(), Ok(&snapshot));
        assert_eq!(until_it_traps(&mut *invoker, 1).await, 7 - seen, "after {seen}");
        // Here and elsewhere, in place of who is there, and with an image of its own.
        let fresh = subject.invoker(Behaviour::Remember, &limits());
        for mut invoker in [invoker, fresh.expect("there was one before")] {
            assert_eq!(invoker.revive(stream(1), &image).await, Ok(()));
            assert_eq!(invoker.restore(stream(1), snapshot.clone()).await, Ok(()));
            assert_eq!(invoker.live(), 1);
            let image = invoker.capture(&stream(1)).await.expect("it has images");
            assert_eq!(until_it_traps(&mut *invoker, 1).await, 7 - seen, "after {seen}");
            assert_eq!(invoker.revive(stream(2), &image).await, Ok(()));
            assert_eq!(until_it_traps(&mut *invoker, 2).await, 7 - seen, "after {seen}");
            // What it does not understand leaves nobody, and anybody is no stream.
            assert_eq!(invoker.restore(stream(1), snapshot.clone()).await, Ok(()));
            let refused = invoker.restore(stream(1), Bytes::from_static(b"nonsense")).await;
            assert!(matches!(refused, Err(NoImage::Failed(_))), "{refused:?}");
            assert_eq!(invoker.live(), 0);
            let refused = invoker.restore(Serves::Any, snapshot.clone()).await;
            assert_eq!(refused, Err(NoImage::NoInstance));
        }
    }
}
