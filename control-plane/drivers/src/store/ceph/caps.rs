//! What a boot volume's cephx user may do: text that Ceph reads (`ceph-authtool(8)`, `rbd(8)`), written by hand.
//!
//! It may use the objects of its volume, by the volume's id; and read those of the images it was cloned from, by theirs,
//! and of its config volume. No right is given with `x` on anything shared, since that has class writes in it: with it,
//! `rbd.set_size` cuts a golden image short for everybody. No profile is used: each of Ceph's has the right to blocklist
//! any client, or to attach and detach clones. What is left to see is the OSD map and how full the pools are (`mon 'allow
//! r'`, without which no client works).
//!
//! Invariant: no id is the beginning of another in its namespace (`ids.rs`), so each of these means one image.

/// An image as caps name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its namespace.
    pub namespace: String,
    /// Its name; of ancestors it is not needed.
    pub name: String,
    /// What its objects are named by.
    pub id: String,
}

/// For the monitors.
pub const MON: &str = "allow r";

/// For the managers: nothing, which has to be said with words.
pub const MGR: &str = "allow command none";

/// For the OSDs: to use `volume`, and to read `config` and every image in `ancestors`.
#[must_use]
pub fn osd(pool: &str, volume: &Named, config: Option<&Named>, ancestors: &[Named]) -> String {
    let mut rights = vec![format!("allow class rbd metadata_list pool={pool} object_prefix rbd_info")];
    let Named { namespace, name, id } = volume;
    let at = format!("pool={pool} namespace={namespace} object_prefix");
    rights.extend([
        format!("allow rwx {at} rbd_data.{id}."),
        format!("allow rwx {at} rbd_header.{id}"),
        format!("allow rwx {at} rbd_object_map.{id}"),
        format!("allow r class-read {at} rbd_id.{name}"),
    ]);
    if let Some(Named { namespace, name, id }) = config {
        let at = format!("pool={pool} namespace={namespace} object_prefix");
        rights.extend([
            format!("allow r {at} rbd_data.{id}."),
            format!("allow r class-read {at} rbd_header.{id}"),
            format!("allow r class-read {at} rbd_object_map.{id}"),
            format!("allow r class-read {at} rbd_id.{name}"),
        ]);
    }
    let mut directories: Vec<&str> = Vec::new();
    for Named { namespace, id, .. } in ancestors {
        let at = format!("pool={pool} namespace={namespace} object_prefix");
        rights.extend([
            format!("allow r {at} rbd_data.{id}."),
            format!("allow r class-read {at} rbd_header.{id}"),
            format!("allow r class-read {at} rbd_object_map.{id}"),
        ]);
        if !directories.contains(&namespace.as_str()) {
            directories.push(namespace);
            rights.push(format!("allow class rbd dir_get_name {at} rbd_directory"));
        }
    }
    rights.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(namespace: &str, name: &str, id: &str) -> Named {
        Named { namespace: namespace.to_owned(), name: name.to_owned(), id: id.to_owned() }
    }

    #[test]
    fn a_users_rights_are_written_as_they_were_tried() {
        let caps = osd(
            "bmi",
            &named("a", "volume-1", "c1"),
            Some(&named("a", "volume-2", "d2")),
            &[named("g", "image-3", "e3"), named("g", "image-4", "f4")],
        );
        assert_eq!(
            caps.split(", ").collect::<Vec<_>>(),
            [
                "allow class rbd metadata_list pool=bmi object_prefix rbd_info",
                "allow rwx pool=bmi namespace=a object_prefix rbd_data.c1.",
                "allow rwx pool=bmi namespace=a object_prefix rbd_header.c1",
                "allow rwx pool=bmi namespace=a object_prefix rbd_object_map.c1",
                "allow r class-read pool=bmi namespace=a object_prefix rbd_id.volume-1",
                "allow r pool=bmi namespace=a object_prefix rbd_data.d2.",
                "allow r class-read pool=bmi namespace=a object_prefix rbd_header.d2",
                "allow r class-read pool=bmi namespace=a object_prefix rbd_object_map.d2",
                "allow r class-read pool=bmi namespace=a object_prefix rbd_id.volume-2",
                "allow r pool=bmi namespace=g object_prefix rbd_data.e3.",
                "allow r class-read pool=bmi namespace=g object_prefix rbd_header.e3",
                "allow r class-read pool=bmi namespace=g object_prefix rbd_object_map.e3",
                "allow class rbd dir_get_name pool=bmi namespace=g object_prefix rbd_directory",
                "allow r pool=bmi namespace=g object_prefix rbd_data.f4.",
                "allow r class-read pool=bmi namespace=g object_prefix rbd_header.f4",
                "allow r class-read pool=bmi namespace=g object_prefix rbd_object_map.f4",
            ]
        );
    }
}
