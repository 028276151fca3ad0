//! A user of Ceph for one boot volume, with the rights that the control plane gives such a user.

use bmi_drivers::store::ceph::caps::{self, Named};
use serde_json::Value;

use crate::ceph::Ceph;

impl Ceph {
    /// The id of an image of the pool, by `NAMESPACE/NAME`.
    #[must_use]
    pub fn image_id(&self, image: &str) -> String {
        let path = format!("{}/{image}", self.pool());
        let info: Value = serde_json::from_str(&self.rbd(&["info", &path, "--format", "json"])).unwrap();
        info["id"].as_str().unwrap().to_owned()
    }

    /// An image of the pool as rights name it, by `NAMESPACE/NAME`.
    fn named(&self, image: &str) -> Named {
        let (namespace, name) = image.split_once('/').unwrap();
        Named { namespace: namespace.to_owned(), name: name.to_owned(), id: self.image_id(image) }
    }

    /// Makes `client.USER` for one volume that is a clone of one golden image, both `NAMESPACE/NAME`; gives its key.
    pub fn volume_key(&self, user: &str, volume: &str, golden: &str) -> String {
        let osd = caps::osd(self.pool(), &self.named(volume), None, &[self.named(golden)]);
        let user = format!("client.{user}");
        let caps = ["mon", caps::MON, "mgr", caps::MGR, "osd", &osd];
        self.ceph(&[&["auth", "get-or-create-key", &user], caps.as_slice()].concat()).trim().to_owned()
    }
}
