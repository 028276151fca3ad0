//! Quotas: what a project may have at most, and what it has.

use bmi_api::ImageState;
use bmi_types::{ImageId, InstanceId, ProjectId};
use diesel::prelude::*;

use crate::key::{Key, signed, unsigned};
use crate::schema::{images, instances, nodes, quotas};
use crate::scope::{InProject, SystemTx};
use crate::{DbError, Tx};

#[derive(Queryable, Insertable, AsChangeset)]
#[diesel(table_name = quotas)]
#[diesel(treat_none_as_null = true)]
struct Row {
    project_id: Key,
    instances: Option<i64>,
    nodes: Option<i64>,
    images: Option<i64>,
    virtual_bytes: Option<i64>,
    used_bytes: Option<i64>,
    version: i64,
}

/// One number for each dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amounts<T> {
    /// Instances.
    pub instances: T,
    /// Nodes that are assigned.
    pub nodes: T,
    /// Images of its own.
    pub images: T,
    /// Bytes of its images and boot volumes, full to the last block.
    pub virtual_bytes: T,
    /// Bytes that they really take, as last measured.
    pub used_bytes: T,
}

/// The limits that were set for a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Where there is none, the default holds.
    pub amounts: Amounts<Option<u64>>,
    /// Grows with each change; 0 when nothing was ever set.
    pub version: i64,
}

/// The limits that were set for a project.
pub fn find(tx: &mut Tx<'_>, project: InProject) -> Result<Limits, DbError> {
    let row: Option<Row> =
        quotas::table.filter(quotas::project_id.eq(project.key())).first(tx.sql()).optional()?;
    Ok(row.map_or_else(Limits::default, |row| Limits {
        amounts: Amounts {
            instances: row.instances.map(unsigned),
            nodes: row.nodes.map(unsigned),
            images: row.images.map(unsigned),
            virtual_bytes: row.virtual_bytes.map(unsigned),
            used_bytes: row.used_bytes.map(unsigned),
        },
        version: row.version,
    }))
}

/// Writes limits under their next version; answers false when they had been changed in between.
pub fn update(tx: &mut Tx<'_>, project: InProject, limits: &Limits) -> Result<bool, DbError> {
    let signed = |value: Option<u64>| value.map(crate::key::signed);
    let row = Row {
        project_id: project.key(),
        instances: signed(limits.amounts.instances),
        nodes: signed(limits.amounts.nodes),
        images: signed(limits.amounts.images),
        virtual_bytes: signed(limits.amounts.virtual_bytes),
        used_bytes: signed(limits.amounts.used_bytes),
        version: limits.version + 1,
    };
    if limits.version == 0 {
        diesel::insert_into(quotas::table).values(&row).execute(tx.sql())?;
        return Ok(true);
    }
    let mine =
        quotas::table.filter(quotas::project_id.eq(project.key())).filter(quotas::version.eq(limits.version));
    Ok(diesel::update(mine).set(&row).execute(tx.sql())? == 1)
}

/// Writes how many bytes an image really takes.
pub fn image_used(tx: &mut SystemTx<'_>, id: ImageId, bytes: u64) -> Result<(), DbError> {
    diesel::update(images::table.filter(images::id.eq(Key::from(id))))
        .set(images::used_bytes.eq(signed(bytes)))
        .execute(tx.sql())?;
    Ok(())
}

/// Writes how many bytes the volumes of an instance really take.
pub fn instance_used(tx: &mut SystemTx<'_>, id: InstanceId, bytes: u64) -> Result<(), DbError> {
    diesel::update(instances::table.filter(instances::id.eq(Key::from(id))))
        .set(instances::used_bytes.eq(signed(bytes)))
        .execute(tx.sql())?;
    Ok(())
}

/// What a project has now, counted from its rows.
pub fn used(tx: &mut Tx<'_>, project: ProjectId) -> Result<Amounts<u64>, DbError> {
    let key = Key::from(project);
    let own_instances = instances::table.filter(instances::project_id.eq(key));
    let own_images = images::table.filter(images::project_id.eq(key));
    let count = |value: i64| unsigned(value);
    let instances: i64 = own_instances.count().get_result(tx.sql())?;
    let nodes: i64 = nodes::table.filter(nodes::project_id.eq(key)).count().get_result(tx.sql())?;
    let image_count: i64 = own_images.count().get_result(tx.sql())?;
    let mut sizes: Vec<(i64, i64)> =
        own_images.select((images::virtual_size, images::used_bytes)).load(tx.sql())?;
    // What an upload may still send counts from its beginning, whatever was measured of it.
    let uploads: Vec<(i64, i64)> = own_images
        .filter(images::state.eq(ImageState::Open.as_str()))
        .filter(images::file_size.gt(images::used_bytes))
        .select((images::file_size, images::used_bytes))
        .load(tx.sql())?;
    sizes.extend(uploads.into_iter().map(|(whole, measured)| (0, whole - measured)));
    let clones: Vec<(i64, i64)> = own_instances
        .inner_join(images::table.on(images::id.eq(instances::image_id)))
        .select((images::virtual_size, instances::used_bytes))
        .load(tx.sql())?;
    let (virtual_bytes, used_bytes) = sizes.iter().chain(&clones).fold((0_u64, 0_u64), |sums, one| {
        (sums.0.saturating_add(unsigned(one.0)), sums.1.saturating_add(unsigned(one.1)))
    });
    Ok(Amounts {
        instances: count(instances),
        nodes: count(nodes),
        images: count(image_count),
        virtual_bytes,
        used_bytes,
    })
}
