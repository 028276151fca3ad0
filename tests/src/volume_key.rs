//! A user of Ceph for one boot volume, with rights written by hand: the control plane's own are compared with what these
//! allow, not taken from it.

use serde_json::Value;

use crate::ceph::Ceph;

/// What librbd asks of the header of a parent, each of it (16.2): all that the key may ask. `children_list` is not in it,
/// which tells the projects and volumes of everybody.
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

impl Ceph {
    /// The id of an image of the pool, by `NAMESPACE/NAME`.
    #[must_use]
    pub fn image_id(&self, image: &str) -> String {
        let path = format!("{}/{image}", self.pool());
        let info: Value = serde_json::from_str(&self.rbd(&["info", &path, "--format", "json"])).unwrap();
        info["id"].as_str().unwrap().to_owned()
    }

    /// Makes `client.USER` for one volume that is a clone of one golden image, both `NAMESPACE/NAME`; gives its key.
    ///
    /// A right to write names no pool: one that does lets its holder remove snapshots of the whole pool by their numbers.
    pub fn volume_key(&self, user: &str, volume: &str, golden: &str) -> String {
        let (own, parent) = (self.image_id(volume), self.image_id(golden));
        let (namespace, name) = volume.split_once('/').unwrap();
        let pool = self.pool();
        let golden = format!("pool={pool} namespace={} object_prefix", golden.split_once('/').unwrap().0);
        let mut grants = vec![
            format!("allow class rbd metadata_list pool={pool} namespace=\"\" object_prefix rbd_info"),
            format!("allow rwx namespace={namespace} object_prefix rbd_data.{own}."),
            format!("allow rwx namespace={namespace} object_prefix rbd_header.{own}"),
            format!("allow rwx namespace={namespace} object_prefix rbd_object_map.{own}"),
            format!("allow r class-read pool={pool} namespace={namespace} object_prefix rbd_id.{name}"),
            format!("allow r {golden} rbd_data.{parent}."),
            format!("allow class rbd object_map_load {golden} rbd_object_map.{parent}"),
            format!("allow class rbd dir_get_name {golden} rbd_directory"),
            format!("allow class lock get_info {golden} rbd_header.{parent}"),
        ];
        let of_header = |method| format!("allow class rbd {method} {golden} rbd_header.{parent}");
        grants.extend(HEADER.iter().map(of_header));
        let user = format!("client.{user}");
        let monitor = "allow service osd r, allow service mon r";
        let caps = ["mon", monitor, "mgr", "allow command none", "osd", &grants.join(", ")];
        self.ceph(&[&["auth", "get-or-create-key", &user], caps.as_slice()].concat()).trim().to_owned()
    }
}
