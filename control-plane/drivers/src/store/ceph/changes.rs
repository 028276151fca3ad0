//! What is done to an image as a whole: another size, no parent, its bytes for whoever exports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bmi_rbd::{Access, Image};
use bmi_types::ByteSize;
use bytes::Bytes;
use tokio::sync::watch;

use super::fault::of_ceph;
use super::{CephStore, names};
use crate::store::{ImageContent, Place, Progress, StoreError};

/// Asks a long call to stop when nobody waits for it any more.
struct Interest(Arc<AtomicBool>);

impl Drop for Interest {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Makes a long call that tells how far it is, and stops it when whoever waits loses interest.
async fn told<F>(progress: Progress<'_>, call: impl FnOnce(bmi_rbd::Progress) -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<(), bmi_rbd::RbdError>>,
{
    let wanted = Arc::new(AtomicBool::new(true));
    let interest = Interest(Arc::clone(&wanted));
    let (sender, mut said) = watch::channel((0, 0));
    let heard = move |done, total| {
        sender.send_replace((done, total));
        wanted.load(Ordering::Relaxed)
    };
    let work = call(Box::new(heard));
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            Ok(()) = said.changed() => {
                let (done, total) = *said.borrow_and_update();
                progress(done, total);
            }
        }
    };
    drop(interest);
    result.map_err(of_ceph)
}

/// Copies what an image shares with its parent. It goes on wherever it was cut off.
///
/// The image has no object map meanwhile. Who writes or copies an object notes there that it exists, and then makes it; killed in
/// between, it leaves a note of nothing. Reading does not mind, but a flatten leaves out what is noted, and then lets the parent go:
/// those objects would be zeroes. (Rebuilding the map does not help: it leaves such notes.)
pub(super) async fn flatten(image: &Image, progress: Progress<'_>) -> Result<(), StoreError> {
    if image.parent().await.map_err(of_ceph)?.is_some() {
        if image.object_map().await.map_err(of_ceph)?.0 {
            image.object_map_enable(false).await.map_err(of_ceph)?;
        }
        told(progress, |heard| image.flatten(heard)).await?;
    }
    let (has_map, is_used) = image.object_map().await.map_err(of_ceph)?;
    if !has_map {
        image.object_map_enable(true).await.map_err(of_ceph)?;
    }
    if !is_used {
        told(&|_, _| (), |heard| image.object_map_rebuild(heard)).await?;
    }
    Ok(())
}

impl CephStore {
    async fn opened(&self, place: Place, access: Access) -> Result<Image, StoreError> {
        let pool = self.namespace(place.project).await?;
        pool.image_open(&names::image(place.volume), access)
            .await
            .map_err(|error| if error.is_absent() { StoreError::Absent(place) } else { of_ceph(error) })
    }

    pub(super) async fn resized(&self, place: Place, size: ByteSize) -> Result<(), StoreError> {
        match self.observed(place).await? {
            ImageContent::Absent => return Err(StoreError::Absent(place)),
            ImageContent::Sealed { .. } => return Err(StoreError::WrongState { place, state: "sealed" }),
            ImageContent::Open { size: found } if found == size => return Ok(()),
            ImageContent::Open { .. } => {}
        }
        let image = self.opened(place, Access::ReadWrite).await?;
        let resized = image.resize(size.bytes(), Box::new(|_, _| true)).await.map_err(of_ceph);
        let closed = image.close().await.map_err(of_ceph);
        resized.and(closed)
    }

    pub(super) async fn read(&self, place: Place, offset: u64, length: u32) -> Result<Bytes, StoreError> {
        match self.observed(place).await? {
            ImageContent::Absent => return Err(StoreError::Absent(place)),
            ImageContent::Open { .. } => return Err(StoreError::WrongState { place, state: "not sealed" }),
            ImageContent::Sealed { .. } => {}
        }
        let image = self.opened(place, Access::ReadOnly).await?;
        image.snapshot_look_at(names::GOLDEN).await.map_err(of_ceph)?;
        let size = image.size().await.map_err(of_ceph)?;
        let length = usize::try_from(size.saturating_sub(offset).min(u64::from(length))).unwrap_or(0);
        if length == 0 {
            return Ok(Bytes::new());
        }
        Ok(image.read(offset, length).await.map_err(of_ceph)?.into())
    }

    pub(super) async fn flattened(&self, place: Place, progress: Progress<'_>) -> Result<(), StoreError> {
        let image = self.opened(place, Access::ReadWrite).await?;
        let size = image.size().await.map_err(of_ceph)?;
        if image.parent().await.map_err(of_ceph)?.is_none() {
            progress(size, size);
        }
        let flattened = flatten(&image, progress).await;
        let closed = image.close().await.map_err(of_ceph);
        flattened.and(closed)
    }
}
