//! Who has a boot volume's key may write its own header: the control plane must not follow what it says there.
//!
//! The administrator writes here what that key could.

use std::io::Write as _;
use std::process::{Command, Stdio};

use bmi_drivers::store::ceph::CephRecords;
use bmi_drivers::store::{DataStore, Item, ItemKind, Place, StoreError};
use bmi_rbd::{Cluster, Identity, Settings, Timeouts};
use bmi_tests::{Ceph, OpenStore};
use bmi_types::{TagId, VolumeId};

use crate::fences::{Boot, boot, broker};
use crate::{open, suite};

/// A boot volume whose header somebody writes to.
struct Hostile<'a> {
    ceph: &'a Ceph,
    opened: OpenStore,
    boot: Place,
    config: Place,
    tag: TagId,
    id: String,
}

fn id_of(ceph: &Ceph, place: Place) -> String {
    ceph.image_id(&format!("{}/volume-{}", place.project, place.volume))
}

/// A text as Ceph keeps it.
fn text(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
}

impl<'a> Hostile<'a> {
    async fn new(ceph: &'a Ceph) -> Self {
        let opened = open(ceph).await;
        let Boot { boot, config, .. } = boot(&opened.store).await;
        let tag = TagId::generate();
        opened.store.tag_create(boot, config, tag).await.unwrap();
        Self { ceph, id: id_of(ceph, boot), opened, boot, config, tag }
    }

    fn header(&self) -> String {
        format!("rbd_header.{}", self.id)
    }

    fn rados(&self, arguments: &[&str]) -> String {
        let space = self.boot.project.to_string();
        self.ceph.rados(&[&["-p", "bmi", "-N", &space][..], arguments].concat())
    }

    /// Writes something of its header.
    fn write(&self, key: &str, value: &[u8]) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), value).unwrap();
        let path = file.path().to_str().unwrap();
        self.rados(&["setomapval", &self.header(), key, "--input-file", path]);
    }

    /// The newest snapshot's number, as the header has it.
    fn newest_snapshot(&self) -> Vec<u8> {
        let file = tempfile::NamedTempFile::new().unwrap();
        self.rados(&["getomapval", &self.header(), "snap_seq", file.path().to_str().unwrap()]);
        std::fs::read(file.path()).unwrap()
    }

    /// Writes its lock. The value comes by standard input, where `rados` takes bytes.
    fn lock(&self, addresses: &[[u8; 20]]) {
        self.lock_as("auto 1", addresses);
    }

    /// The same by owners who call their lock something else than librbd does.
    fn lock_as(&self, cookie: &str, addresses: &[[u8; 20]]) {
        let mut rados = Command::new("rados")
            .env("CEPH_CONF", self.ceph.conf())
            .stdin(Stdio::piped())
            .args([
                "-p",
                "bmi",
                "-N",
                &self.boot.project.to_string(),
                "setxattr",
                &self.header(),
                "lock.rbd_lock",
            ])
            .spawn()
            .unwrap();
        rados.stdin.take().unwrap().write_all(&lock(cookie, addresses)).unwrap();
        assert!(rados.wait().unwrap().success());
    }

    /// Everything that would open it refuses, and takes its key away.
    async fn is_refused(&self) {
        let (store, item) = (&self.opened.store, Item { kind: ItemKind::Volume, place: self.boot });
        let (boot, config, tag) = (self.boot, self.config, self.tag);
        let refused = [
            store.tag_create(boot, config, TagId::generate()).await.unwrap_err(),
            store.tags(boot).await.unwrap_err(),
            store.tag_remove(boot, config, tag).await.unwrap_err(),
            store.roll_back(boot, config, tag, &suite::quiet).await.unwrap_err(),
            store.image_snapshot(boot, config, tag, suite::place(), &suite::quiet).await.unwrap_err(),
            store.volume_remove(self.boot).await.unwrap_err(),
            store.fence(self.boot, self.config).await.unwrap_err(),
            store.item_used(item).await.unwrap_err(),
            store.set_aside(item).await.unwrap_err(),
        ];
        assert!(refused.iter().all(|error| error.to_string().contains("was changed")), "{refused:?}");
        let users = self.ceph.ceph(&["auth", "ls"]);
        assert!(!users.contains(&self.boot.volume.to_string()), "its key is worth nothing");
    }

    /// As it was, it can be removed.
    async fn can_be_removed(self) {
        for volume in [self.boot, self.config] {
            self.opened.store.volume_remove(volume).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s4_a_volume_whose_header_was_changed_is_not_opened() {
    let hostile = Hostile::new(Ceph::shared()).await;
    let store = &hostile.opened.store;
    let sibling = Place { project: hostile.boot.project, volume: VolumeId::generate() };
    store.volume_put(sibling, vec![5; 1 << 20].into()).await.unwrap();
    let other = id_of(hostile.ceph, sibling);
    hostile.write("object_prefix", &text(&format!("rbd_data.{other}")));
    hostile.is_refused().await;
    let there = hostile.rados(&["ls"]);
    assert!(there.contains(&format!("rbd_data.{other}.")), "the other's data were removed: {there}");
    // Without it an image cannot be opened, as if it were gone.
    hostile.rados(&["rmomapkey", &hostile.header(), "object_prefix"]);
    hostile.is_refused().await;
    hostile.write("object_prefix", &text(&format!("rbd_data.{}", hostile.id)));
    store.volume_remove(sibling).await.unwrap();
    hostile.can_be_removed().await;
}

/// A snapshot's number is the pool's: to remove it from one image takes it from all.
#[tokio::test(flavor = "multi_thread")]
async fn s4_a_snapshot_in_a_changed_header_is_not_removed() {
    let hostile = Hostile::new(Ceph::shared()).await;
    let ceph = hostile.ceph;
    // Of another project, written to since.
    let victim = "bmi/snapshot-victim";
    ceph.rbd(&["create", victim, "--size", "4M"]);
    let fill = || ceph.rbd(&["bench", "--io-type", "write", "--io-size", "4K", "--io-total", "4K", victim]);
    fill();
    ceph.rbd(&["snap", "create", &format!("{victim}@kept")]);
    let info = ceph.rbd(&["snap", "ls", victim, "--format", "json"]);
    let number = serde_json::from_str::<serde_json::Value>(&info).unwrap()[0]["id"].as_u64().unwrap();
    let before = ceph.rbd(&["export", &format!("{victim}@kept"), "-"]);
    fill();
    let info = ceph.rbd(&["info", victim, "--format", "json"]);
    let header = serde_json::from_str::<serde_json::Value>(&info).unwrap()["id"].as_str().unwrap().to_owned();
    let (file, key) = (tempfile::NamedTempFile::new().unwrap(), format!("snapshot_{number:016x}"));
    let path = file.path().to_str().unwrap();
    ceph.rados(&["-p", "bmi", "getomapval", &format!("rbd_header.{header}"), &key, path]);
    hostile.write(&key, &std::fs::read(file.path()).unwrap());
    let newest = hostile.newest_snapshot();
    hostile.write("snap_seq", &number.to_le_bytes());
    hostile.is_refused().await;
    assert_eq!(ceph.rbd(&["export", &format!("{victim}@kept"), "-"]), before, "the other's snapshot is gone");
    hostile.rados(&["rmomapkey", &hostile.header(), &key]);
    hostile.write("snap_seq", &newest);
    ceph.rbd(&["snap", "purge", victim]);
    ceph.rbd(&["rm", victim]);
    hostile.can_be_removed().await;
}

/// Metadata called `conf_…` are options of whoever opens the image: here one with which it looks as if it were not there.
#[tokio::test(flavor = "multi_thread")]
async fn s4_options_in_a_changed_header_are_not_followed() {
    let hostile = Hostile::new(Ceph::shared()).await;
    hostile.write("metadata_conf_rbd_plugins", &text("absent"));
    hostile.is_refused().await;
    hostile.rados(&["rmomapkey", &hostile.header(), "metadata_conf_rbd_plugins"]);
    hostile.can_be_removed().await;
}

/// The lock as the class `lock` keeps it, with an owner at each address.
fn lock(cookie: &str, addresses: &[[u8; 20]]) -> Vec<u8> {
    let versioned =
        |body: Vec<u8>| [&[1, 1][..], &u32::try_from(body.len()).unwrap().to_le_bytes(), &body].concat();
    let mut owners = u32::try_from(addresses.len()).unwrap().to_le_bytes().to_vec();
    for (number, address) in addresses.iter().enumerate() {
        let client = [&[8][..], &(number as u64 + 1).to_le_bytes()].concat();
        owners.extend(versioned([client, text(cookie)].concat()));
        let (nonce, place) = address.split_at(4);
        let body = [&1_u32.to_le_bytes()[..], nonce, &16_u32.to_le_bytes(), place].concat();
        let address = [&[1][..], &versioned(body)].concat();
        owners.extend(versioned([vec![0; 8], address, text("")].concat()));
    }
    versioned([owners, vec![1], text("internal")].concat())
}

/// A number and an IPv4 address with a port, as in an address of Ceph's.
fn address(host: [u8; 4], port: u16, number: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4] = 2;
    bytes[6..8].copy_from_slice(&port.to_be_bytes());
    bytes[8..12].copy_from_slice(&host);
    bytes
}

/// Whoever is said to own the lock is fenced: it must not be everybody of a host, or the control plane itself.
#[tokio::test(flavor = "multi_thread")]
async fn s4_a_made_up_owner_has_nobody_else_fenced() {
    let ceph = Ceph::start();
    let hostile = Hostile::new(&ceph).await;
    let store = &hostile.opened.store;
    let access = store.access(&[hostile.boot]).await.unwrap();
    let disk = broker(&access, store, hostile.boot).await;
    disk.write(0, vec![1; 512].into()).await.unwrap();
    // As the control plane's own user: the log of the monitors may say where it is.
    let bystander = Cluster::connect(Settings {
        conf: Some(ceph.conf()),
        mon_host: None,
        user: "bmi".to_owned(),
        identity: Some(Identity::Keyring(ceph.control_plane_keyring("bmi"))),
        timeouts: Timeouts::MANAGEMENT,
        options: Vec::new(),
    });
    let pool = bystander.await.unwrap().pool("bmi", "").await.unwrap();
    let made_up = [address([127, 0, 0, 1], 0, 0), address([127, 0, 0, 1], 6800, 7)];
    hostile.lock(&made_up);
    store.volume_remove(hostile.boot).await.unwrap();
    pool.namespaces().await.expect("a client of the same host works as before");
    assert!(
        disk.write(0, vec![1; 512].into()).await.is_err(),
        "who watches the header was fenced all the same"
    );
    let fences = hostile.opened.records.fences().await.unwrap();
    assert_eq!(fences.len(), 1, "{fences:?}");
}

/// Whatever it calls its lock: an owner that is not seen is not fenced, and keeps everybody else out for ever.
#[tokio::test(flavor = "multi_thread")]
async fn s4_an_owner_whose_lock_has_no_name_is_fenced_too() {
    let hostile = Hostile::new(Ceph::shared()).await;
    hostile.lock_as("", &[address([192, 0, 2, 1], 0, 5)]);
    let access = hostile.opened.store.fence(hostile.boot, hostile.config).await;
    access.unwrap();
    let fences = hostile.opened.records.fences().await.unwrap();
    assert!(fences.iter().any(|fence| fence.address == "192.0.2.1:0/5"), "{fences:?}");
    hostile.can_be_removed().await;
}

/// More owners than anybody has: nobody is fenced for it.
#[tokio::test(flavor = "multi_thread")]
async fn s4_a_crowd_of_made_up_owners_is_refused() {
    let hostile = Hostile::new(Ceph::shared()).await;
    let crowd: Vec<_> = (1..=100).map(|number| address([192, 0, 2, 1], 0, number)).collect();
    hostile.lock(&crowd);
    let refused = hostile.opened.store.volume_remove(hostile.boot).await.unwrap_err();
    assert!(matches!(refused, StoreError::Foreign(_)), "{refused:?}");
    assert!(hostile.opened.records.is_fenceless(), "none of them was noted");
    hostile.rados(&["rmxattr", &hostile.header(), "lock.rbd_lock"]);
    hostile.can_be_removed().await;
}
