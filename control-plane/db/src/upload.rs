//! Who uploads to an open image: one at a time, on whichever replica.

use std::time::Duration;

use bmi_api::ImageState;
use bmi_types::{ByteSize, ImageId, Timestamp};
use diesel::prelude::*;
use uuid::Uuid;

use crate::key::{Key, signed};
use crate::schema::images;
use crate::scope::{InProject, SystemTx};
use crate::{DbError, Tx};

/// How long an upload that says nothing keeps others out: longer than one piece takes to be written, and what a client
/// that goes on through another replica has to wait for.
pub const LEASE: Duration = Duration::from_secs(15);

/// Makes somebody the only one who uploads to an image; answers false while somebody else is.
pub fn take(
    tx: &mut Tx<'_>,
    project: InProject,
    id: ImageId,
    holder: Uuid,
    now: Timestamp,
) -> Result<bool, DbError> {
    let holder = holder.to_string();
    let changed = diesel::update(
        images::table
            .filter(images::id.eq(Key::from(id)))
            .filter(images::project_id.eq(project.key()))
            .filter(
                images::upload_holder
                    .is_null()
                    .or(images::upload_holder.eq(&holder))
                    .or(images::upload_until.le(now.micros())),
            ),
    )
    .set((images::upload_holder.eq(Some(&holder)), images::upload_until.eq(now.plus(LEASE).micros())))
    .execute(tx.sql())?;
    Ok(changed == 1)
}

/// Keeps an upload one's own while a piece takes long; answers false when it is somebody else's now.
pub fn renew(tx: &mut SystemTx<'_>, id: ImageId, holder: Uuid, now: Timestamp) -> Result<bool, DbError> {
    let mine = images::table
        .filter(images::id.eq(Key::from(id)))
        .filter(images::upload_holder.eq(Some(holder.to_string())));
    let until = images::upload_until.eq(now.plus(LEASE).micros());
    Ok(diesel::update(mine).set(until).execute(tx.sql())? == 1)
}

/// Lets others upload to an image.
pub fn give_back(tx: &mut SystemTx<'_>, id: ImageId, holder: Uuid) -> Result<(), DbError> {
    let mine = images::table
        .filter(images::id.eq(Key::from(id)))
        .filter(images::upload_holder.eq(Some(holder.to_string())));
    diesel::update(mine)
        .set((images::upload_holder.eq(None::<String>), images::upload_until.eq(0)))
        .execute(tx.sql())?;
    Ok(())
}

/// Lets others upload to every image: when nobody serves the database.
pub fn end_all(tx: &mut SystemTx<'_>) -> Result<(), DbError> {
    diesel::update(images::table.filter(images::upload_holder.is_not_null()))
        .set((images::upload_holder.eq(None::<String>), images::upload_until.eq(0)))
        .execute(tx.sql())?;
    Ok(())
}

/// Moves an upload on, and keeps it one's own; answers false when it is somebody else's now, was moved in between, or
/// the image is not open any more.
pub fn advance(
    tx: &mut Tx<'_>,
    project: InProject,
    id: ImageId,
    holder: Uuid,
    (from, to): (ByteSize, ByteSize),
    now: Timestamp,
) -> Result<bool, DbError> {
    let changed = diesel::update(
        images::table
            .filter(images::id.eq(Key::from(id)))
            .filter(images::project_id.eq(project.key()))
            .filter(images::state.eq(ImageState::Open.as_str()))
            .filter(images::upload_holder.eq(Some(holder.to_string())))
            .filter(images::upload_offset.eq(signed(from.bytes()))),
    )
    .set((
        images::upload_offset.eq(signed(to.bytes())),
        images::upload_until.eq(now.plus(LEASE).micros()),
        images::version.eq(images::version + 1),
    ))
    .execute(tx.sql())?;
    Ok(changed == 1)
}
