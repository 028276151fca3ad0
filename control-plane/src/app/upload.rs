//! Uploads: the bytes of an open image, one writer at a time on all replicas.
//!
//! Whoever uploads holds the image's lease in the database, prolongs it with each piece and while a piece takes long, and
//! gives it back at the end. A replica that is killed, or cut off from the database, loses it by itself: then it writes
//! no more, and the client goes on through another one.
//!
//! Invariant: nothing is written to the store after the lease has ended by the writer's own clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bmi_api::{Code, Fault, Image};
use bmi_auth::{Action, Caller};
use bmi_db::upload::LEASE;
use bmi_db::{Db, DbError, InProject};
use bmi_types::{ByteSize, ImageFormat, ImageId, Timestamp};
use bytes::Bytes;
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::App;
use super::image::{find, place};
use crate::error::AppError;

/// How often a lease is prolonged: often enough that a loss does not end it.
const RENEWAL: Duration = Duration::from_secs(5);
/// How long one waits for an upload that just broke off to be over, and how often one looks.
const PATIENCE: u32 = 10;
const LOOK: Duration = Duration::from_millis(100);

/// The only upload to an image; the next one may begin when it is given back, or soon after this is dropped.
#[derive(Debug)]
struct OnlyUpload {
    db: Db,
    image: ImageId,
    holder: Uuid,
    /// Until when it is ours, in microseconds.
    until: Arc<AtomicI64>,
    renewal: JoinHandle<()>,
    given_back: bool,
}

impl OnlyUpload {
    async fn take(db: &Db, in_project: InProject, image: &Image) -> Result<Self, AppError> {
        let (id, holder) = (image.id, Uuid::now_v7());
        for _ in 0..PATIENCE {
            let now = Timestamp::now();
            let taken = db.system_write(move |tx| {
                Ok::<_, AppError>(bmi_db::upload::take(tx, in_project, id, holder, now)?)
            });
            if taken.await? {
                let until = Arc::new(AtomicI64::new(now.plus(LEASE).micros()));
                let renewal = tokio::spawn(renew(db.clone(), id, holder, Arc::clone(&until)));
                return Ok(Self { db: db.clone(), image: id, holder, until, renewal, given_back: false });
            }
            tokio::time::sleep(LOOK).await;
        }
        let detail = format!("another upload to image `{}` is running", image.name);
        Err(AppError::refused(Code::Busy, detail))
    }

    fn is_ours(&self) -> Result<(), AppError> {
        if Timestamp::now().micros() < self.until.load(Ordering::Relaxed) {
            return Ok(());
        }
        let reason = "an upload was not prolonged in time, and may be another replica's now";
        Err(DbError::Unavailable(reason.to_owned()).into())
    }

    async fn give_back(mut self) -> Result<(), AppError> {
        self.given_back = true;
        let (image, holder) = (self.image, self.holder);
        self.db.system_write(move |tx| Ok::<_, AppError>(bmi_db::upload::give_back(tx, image, holder)?)).await
    }
}

async fn renew(db: Db, image: ImageId, holder: Uuid, until: Arc<AtomicI64>) {
    loop {
        tokio::time::sleep(RENEWAL).await;
        let now = Timestamp::now();
        let renewed = db.system_write(move |tx| bmi_db::upload::renew(tx, image, holder, now)).await;
        match renewed {
            Ok(true) => until.store(now.plus(LEASE).micros(), Ordering::Relaxed),
            Ok(false) => return until.store(0, Ordering::Relaxed),
            Err(error) => {
                let error: DbError = error;
                tracing::warn!(image.id = %image, %error, "an upload could not be prolonged");
            }
        }
    }
}

impl Drop for OnlyUpload {
    fn drop(&mut self) {
        self.renewal.abort();
        if self.given_back {
            return;
        }
        // A client that hung up: nobody waits for this, and if it fails the lease ends by itself.
        let (db, image, holder) = (self.db.clone(), self.image, self.holder);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let given = db.system_write(move |tx| bmi_db::upload::give_back(tx, image, holder));
                given.await.unwrap_or_else(|error: DbError| {
                    tracing::warn!(image.id = %image, %error, "an upload that broke off ends by itself");
                });
            });
        }
    }
}

/// An upload that may go on at an offset.
#[derive(Debug)]
pub struct Uploading {
    image: Image,
    in_project: InProject,
    size: ByteSize,
    offset: u64,
    only: OnlyUpload,
}

/// Begins to take bytes at an offset: it must be where the upload is.
pub async fn upload_begin(
    app: &App,
    caller: &Caller,
    project: String,
    image: String,
    offset: u64,
) -> Result<Uploading, AppError> {
    let find_again = (project.clone(), image.clone());
    let (image, in_project) =
        app.reading(caller, move |access| find(access, &project, &image, Action::ImageWrite)).await?;
    let only = OnlyUpload::take(&app.db, in_project, &image).await?;
    match upload_look(app, caller, find_again, offset).await {
        Ok((image, in_project, size)) => Ok(Uploading { image, in_project, size, offset, only }),
        Err(error) => {
            only.give_back().await?;
            Err(error)
        }
    }
}

/// Reads the image again now that nobody else moves it, and makes its file.
async fn upload_look(
    app: &App,
    caller: &Caller,
    (project, image): (String, String),
    offset: u64,
) -> Result<(Image, InProject, ByteSize), AppError> {
    let (image, in_project) =
        app.reading(caller, move |access| find(access, &project, &image, Action::ImageWrite)).await?;
    let Some(upload) = image.upload.as_ref() else {
        let detail = format!("image `{}` is {} and takes no more bytes", image.name, image.state);
        return Err(AppError::refused(Code::WrongState, detail));
    };
    if upload.offset.bytes() != offset {
        return Err(wrong_offset(upload.offset, offset));
    }
    let (size, place) = (upload.size, place(image.id, image.project));
    match image.format {
        ImageFormat::Raw => app.store.image_create(place, size).await?,
        ImageFormat::Qcow2 => app.store.upload_create(place, size).await?,
    }
    Ok((image, in_project, size))
}

fn wrong_offset(at: ByteSize, sent: u64) -> AppError {
    let detail = format!("the upload is at byte {}, not {sent}; go on there", at.bytes());
    AppError::refused(Code::WrongOffset, detail)
}

impl Uploading {
    /// Where the next bytes go.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Asks again for the right to write to it: a long upload outlives what its caller may do.
    ///
    /// # Errors
    /// When the caller may not any more.
    pub async fn permitted(&self, app: &App, caller: &Caller) -> Result<(), AppError> {
        let (project, image) = (self.image.project.to_string(), self.image.id.to_string());
        app.reading(caller, move |access| find(access, &project, &image, Action::ImageWrite).map(drop)).await
    }

    /// Refuses more bytes than are missing, before one of them is written.
    ///
    /// # Errors
    /// When they reach beyond the disk.
    pub fn fits(&self, length: u64) -> Result<(), AppError> {
        let room = self.size.bytes().saturating_sub(self.offset);
        if length <= room {
            return Ok(());
        }
        let detail = format!("only {room} bytes are missing from the image's {}", self.size);
        Err(AppError::invalid(vec![Fault { field: String::new(), detail }]))
    }

    /// Writes bytes, makes them durable, and then moves the offset.
    ///
    /// # Errors
    /// When they reach beyond the disk, the store fails, or the upload is somebody else's now.
    pub async fn write(&mut self, app: &App, bytes: Bytes) -> Result<(), AppError> {
        let length = bytes.len() as u64;
        self.fits(length)?;
        self.only.is_ours()?;
        let place = place(self.image.id, self.image.project);
        match self.image.format {
            ImageFormat::Raw => app.store.image_write(place, self.offset, bytes).await?,
            ImageFormat::Qcow2 => app.store.upload_write(place, self.offset, bytes).await?,
        }
        let (in_project, image, holder) = (self.in_project, self.image.id, self.only.holder);
        let (range, now) =
            ((ByteSize::new(self.offset), ByteSize::new(self.offset + length)), Timestamp::now());
        // The right was asked for when the upload began; a chunk of it is no line in the audit log.
        let moved = app
            .db
            .system_write(move |tx| {
                let moved = bmi_db::upload::advance(tx, in_project, image, holder, range, now);
                Ok::<_, AppError>(moved?)
            })
            .await?;
        if !moved {
            return Err(AppError::refused(Code::WrongOffset, "another upload is moving the offset"));
        }
        self.offset += length;
        Ok(())
    }

    /// Ends it: the next one may begin at once.
    ///
    /// # Errors
    /// When the database fails; then it ends by itself.
    pub async fn end(self) -> Result<(), AppError> {
        self.only.give_back().await
    }
}
