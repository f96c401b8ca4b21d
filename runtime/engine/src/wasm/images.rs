//! Images and snapshots of the instances of a stage: which instance is asked, what becomes of it.
//!
//! - An instance that gave what it was asked for is kept, and so is one that said no. After an
//!   error of the engine nothing is known of it, and it goes.
//! - One whose image is a snapshot goes as well: else what follows from its next calls would be
//!   another thing after a restart.
//! - Whoever goes on from either takes the place of who was there, also if that does not work.

use bytes::Bytes;
use sluicebox_core::image::Image;
use sluicebox_core::partition::Serves;

use super::{NotStarted, SHUTTING_DOWN, Start, WasmStage, is_stream};
use crate::image::{self, Before};
use crate::instance::Instance;
use crate::invoker::{Invoker as _, NoImage};
use crate::snapshot;

impl WasmStage {
    pub(super) async fn take_image(&mut self, serves: &Serves) -> Result<Image, NoImage> {
        if let Some(away) = self.away.get(serves) {
            return Ok(away.image.clone());
        }
        if !self.own.holds(serves) {
            return Err(NoImage::NoInstance);
        }
        self.code.images().map_err(NoImage::Unsupported)?;
        let Some(_permit) = self.sandbox.call(&self.settings.tenant).await else {
            return Err(NoImage::NoRoom(SHUTTING_DOWN.to_owned()));
        };
        let mut instance = self.own.take(serves).ok_or(NoImage::NoInstance)?;
        let image = instance.capture().await;
        if image.as_ref().is_ok_and(snapshot::is_one) {
            return image;
        }
        self.keep_unless_failed(serves, instance, image)
    }

    pub(super) async fn take_snapshot(&mut self, serves: &Serves) -> Result<Bytes, NoImage> {
        if !self.code.snapshots() {
            return Err(NoImage::Unsupported(snapshot::NONE.to_owned()));
        }
        let Some(_permit) = self.sandbox.call(&self.settings.tenant).await else {
            return Err(NoImage::NoRoom(SHUTTING_DOWN.to_owned()));
        };
        let mut instance = self.own.take(serves).ok_or(NoImage::NoInstance)?;
        let taken = instance.snapshot().await;
        self.keep_unless_failed(serves, instance, taken)
    }

    fn keep_unless_failed<T>(
        &mut self,
        serves: &Serves,
        instance: Instance,
        answer: Result<T, NoImage>,
    ) -> Result<T, NoImage> {
        if !matches!(answer, Err(NoImage::Failed(_) | NoImage::NoRoom(_))) {
            self.keep(serves.clone(), instance);
        }
        answer
    }

    pub(super) async fn go_on_from(
        &mut self,
        serves: Serves,
        image: &Image,
    ) -> Result<(), NoImage> {
        if serves == Serves::Any {
            return Err(NoImage::NoInstance);
        }
        self.drop_instance(&serves);
        let code = self.code.clone();
        let before = image::read(&code, image)?;
        self.go_on(serves, before).await
    }

    pub(super) async fn go_on_from_snapshot(
        &mut self,
        serves: Serves,
        snapshot: Bytes,
    ) -> Result<(), NoImage> {
        if serves == Serves::Any {
            return Err(NoImage::NoInstance);
        }
        self.drop_instance(&serves);
        if !self.code.snapshots() {
            return Err(NoImage::Unsupported(snapshot::NONE.to_owned()));
        }
        self.go_on(serves, Before::Snapshot(snapshot)).await
    }

    async fn go_on(&mut self, serves: Serves, before: Before<'_>) -> Result<(), NoImage> {
        let Some(permit) = self.sandbox.call(&self.settings.tenant).await else {
            return Err(NoImage::NoRoom(SHUTTING_DOWN.to_owned()));
        };
        let of_stream = is_stream(&serves);
        let again = Start { from: Some(before), of_stream, whole: true };
        let instance = self.start(&permit, again).await;
        let instance = instance.map_err(|NotStarted(text, short)| match short {
            Some(_) => NoImage::NoRoom(text),
            None => NoImage::Failed(text),
        })?;
        self.keep(serves, instance);
        Ok(())
    }
}
