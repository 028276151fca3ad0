//! What a boot volume's cephx user may do: text that Ceph reads (`ceph-authtool(8)`, `rbd(8)`), written by hand.
//!
//! It may use the objects of its volume, by the volume's id; and read those of the images it was cloned from, by theirs, and
//! of its config volume. Of what is shared it has no `x`, which has class writes in it (with it, `rbd.set_size` cuts a golden
//! image short for everybody), and no `class-read`, which has `rbd.children_list` in it (that tells every project's volumes):
//! only the methods that librbd calls. No profile is used: each of Ceph's may blocklist any client, or attach and detach
//! clones. A right to write names no pool, since one that does is a right to remove the pool's snapshots.
//!
//! What the key may and may not do is tried operation by operation (`tests/golden/s4_volume_key.txt`).
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

/// For the monitors: where the OSDs and the monitors are.
pub const MON: &str = "allow service osd r, allow service mon r";

/// For the managers: nothing, which has to be said with words.
pub const MGR: &str = "allow command none";

/// What librbd 16.2 asks of the header of an image that it only reads.
const HEADER: &[&str] = &[
    "get_size",
    "get_features",
    "get_object_prefix",
    "get_snapcontext",
    "parent_get",
    "parent_overlap_get",
    "snapshot_get",
    "get_flags",
    "get_data_pool",
    "op_features_get",
    "get_protection_status",
    "metadata_list",
    "image_group_get",
    "get_create_timestamp",
    "get_access_timestamp",
    "get_modify_timestamp",
];

/// For the OSDs: to use `volume`, and to read `config` and every image in `ancestors`.
#[must_use]
pub fn osd(pool: &str, volume: &Named, config: Option<&Named>, ancestors: &[Named]) -> String {
    let Named { namespace, name, id } = volume;
    let mut rights = vec![
        format!("allow class rbd metadata_list pool={pool} namespace=\"\" object_prefix rbd_info"),
        format!("allow rwx namespace={namespace} object_prefix rbd_data.{id}."),
        format!("allow rwx namespace={namespace} object_prefix rbd_header.{id}"),
        format!("allow rwx namespace={namespace} object_prefix rbd_object_map.{id}"),
        format!("allow r class-read pool={pool} namespace={namespace} object_prefix rbd_id.{name}"),
    ];
    if let Some(config) = config {
        let Named { namespace, name, .. } = config;
        rights.push(format!(
            "allow r class-read pool={pool} namespace={namespace} object_prefix rbd_id.{name}"
        ));
        rights.extend(reading(pool, config));
    }
    let mut directories: Vec<&str> = Vec::new();
    for ancestor in ancestors {
        let namespace = ancestor.namespace.as_str();
        rights.extend(reading(pool, ancestor));
        if !directories.contains(&namespace) {
            directories.push(namespace);
            let at = format!("pool={pool} namespace={namespace} object_prefix");
            rights.push(format!("allow class rbd dir_get_name {at} rbd_directory"));
        }
    }
    rights.join(", ")
}

/// To read an image by its id.
fn reading(pool: &str, image: &Named) -> Vec<String> {
    let Named { namespace, id, .. } = image;
    let at = format!("pool={pool} namespace={namespace} object_prefix");
    let mut rights = vec![
        format!("allow r {at} rbd_data.{id}."),
        format!("allow class rbd object_map_load {at} rbd_object_map.{id}"),
        format!("allow class lock get_info {at} rbd_header.{id}"),
    ];
    rights.extend(HEADER.iter().map(|method| format!("allow class rbd {method} {at} rbd_header.{id}")));
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(namespace: &str, name: &str, id: &str) -> Named {
        Named { namespace: namespace.to_owned(), name: name.to_owned(), id: id.to_owned() }
    }

    #[test]
    fn only_the_own_volume_is_written_and_nothing_shared_is_executed() {
        let ancestors = [named("g", "image-3", "e3"), named("g", "image-4", "f4")];
        let caps = osd("bmi", &named("a", "volume-1", "c1"), Some(&named("a", "volume-2", "d2")), &ancestors);
        let rights: Vec<&str> = caps.split(", ").collect();
        let writes = rights.iter().filter(|right| right.starts_with("allow rwx"));
        assert_eq!(
            writes.copied().collect::<Vec<_>>(),
            [
                "allow rwx namespace=a object_prefix rbd_data.c1.",
                "allow rwx namespace=a object_prefix rbd_header.c1",
                "allow rwx namespace=a object_prefix rbd_object_map.c1",
            ]
        );
        for (right, count) in
            [("rbd_data.d2.", 1), ("rbd_data.e3.", 1), ("rbd_data.f4.", 1), ("dir_get_name", 1)]
        {
            assert_eq!(rights.iter().filter(|found| found.contains(right)).count(), count, "{right}");
        }
        let known = |right: &str| {
            right.starts_with("allow r pool=bmi namespace=")
                || right.starts_with("allow r class-read pool=bmi namespace=a object_prefix rbd_id.volume-")
                || right.starts_with("allow class rbd ")
                || right.starts_with("allow class lock get_info ")
        };
        assert!(
            rights.iter().filter(|right| !right.starts_with("allow rwx")).all(|right| known(right)),
            "{caps}"
        );
    }
}
