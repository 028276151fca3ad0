//! What things in the store are called. Names come from ids, and are read back only to find what nobody knows.

use bmi_types::{ProjectId, TagId, Timestamp, VolumeId};

use crate::store::{Item, ItemKind, Place};

/// The snapshot of a golden image.
pub(super) const GOLDEN: &str = "golden";

/// What begins the name of something that is not whole.
const NEW: &str = "new-";
const IMAGE: &str = "image-";
const UPLOAD: &str = "upload-";
const VOLUME: &str = "volume-";
const RETIRED: &str = "retired-";
const FORMER: &str = "former-";
const ASIDE: &str = "aside-";
/// What begins the name of the snapshot that a tag is.
const TAG: &str = "tag-";

pub(super) fn namespace(project: ProjectId) -> String {
    project.to_string()
}

pub(super) fn image(id: VolumeId) -> String {
    format!("{IMAGE}{id}")
}

pub(super) fn upload(id: VolumeId) -> String {
    format!("{UPLOAD}{id}")
}

pub(super) fn volume(id: VolumeId) -> String {
    format!("{VOLUME}{id}")
}

pub(super) fn retired(id: VolumeId) -> String {
    format!("{RETIRED}{id}")
}

/// What a volume's image is called when another was swapped in: by its id in Ceph, of which there is one.
pub(super) fn former(image: &str, volume: VolumeId) -> String {
    format!("{FORMER}{image}-{VOLUME}{volume}")
}

/// Whether a name is of an image that a volume was.
pub(super) fn is_former_of(name: &str, volume: VolumeId) -> bool {
    parse(name) == Some(Meaning::Former(volume))
}

pub(super) fn tag(id: TagId) -> String {
    format!("{TAG}{id}")
}

/// The tag that a snapshot is.
pub(super) fn tag_parse(snapshot: &str) -> Option<TagId> {
    snapshot.strip_prefix(TAG)?.parse().ok()
}

/// What a thing is called until it is whole.
pub(super) fn unfinished(name: &str) -> String {
    format!("{NEW}{name}")
}

pub(super) fn aside(now: Timestamp, name: &str) -> String {
    format!("{ASIDE}{}-{name}", now.micros() / 1_000_000)
}

/// What a name of ours says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// An image, an upload or a volume, whole or not.
    Item(ItemKind, VolumeId),
    /// A golden image that waits for its clones to go.
    Retired(VolumeId),
    /// What a volume was before it went back to a tag.
    Former(VolumeId),
    /// Set aside at that time.
    Aside(Timestamp),
}

/// What a name says; nothing when it is none of ours.
pub(super) fn parse(name: &str) -> Option<Meaning> {
    if let Some(rest) = name.strip_prefix(ASIDE) {
        let (seconds, _) = rest.split_once('-')?;
        let seconds: i64 = seconds.parse().ok()?;
        return Some(Meaning::Aside(Timestamp::from_micros(seconds.checked_mul(1_000_000)?)));
    }
    if let Some(id) = name.strip_prefix(RETIRED) {
        return Some(Meaning::Retired(id.parse().ok()?));
    }
    if let Some(rest) = name.strip_prefix(FORMER) {
        let (_, volume) = rest.split_once('-')?;
        return Some(Meaning::Former(volume.strip_prefix(VOLUME)?.parse().ok()?));
    }
    let name = name.strip_prefix(NEW).unwrap_or(name);
    let kinds = [(IMAGE, ItemKind::Image), (UPLOAD, ItemKind::Image), (VOLUME, ItemKind::Volume)];
    let (id, kind) = kinds.iter().find_map(|(prefix, kind)| Some((name.strip_prefix(prefix)?, *kind)))?;
    Some(Meaning::Item(kind, id.parse().ok()?))
}

/// The volume that a name is about, whole or not, set aside or not.
pub(super) fn volume_in(name: &str) -> Option<VolumeId> {
    name.rsplit_once(VOLUME)?.1.parse().ok()
}

/// The item a name belongs to.
pub(super) fn item(project: ProjectId, name: &str) -> Option<Item> {
    match parse(name)? {
        Meaning::Item(kind, volume) => Some(Item { kind, place: Place { project, volume } }),
        Meaning::Former(volume) => Some(Item { kind: ItemKind::Volume, place: Place { project, volume } }),
        Meaning::Retired(_) | Meaning::Aside(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_strangers_are_not() {
        let id = VolumeId::generate();
        let whole =
            [(image(id), ItemKind::Image), (upload(id), ItemKind::Image), (volume(id), ItemKind::Volume)];
        for (name, kind) in whole {
            assert_eq!(parse(&name), Some(Meaning::Item(kind, id)));
            assert_eq!(parse(&unfinished(&name)), Some(Meaning::Item(kind, id)));
            let at = Timestamp::from_micros(1_700_000_000_000_000);
            assert_eq!(parse(&aside(at, &name)), Some(Meaning::Aside(at)));
        }
        assert_eq!(parse(&retired(id)), Some(Meaning::Retired(id)));
        assert_eq!(parse(&former("10ab", id)), Some(Meaning::Former(id)));
        assert_eq!(volume_in(&former("10ab", id)), Some(id));
        let tagged = TagId::generate();
        assert_eq!((tag_parse(&tag(tagged)), tag_parse(GOLDEN)), (Some(tagged), None));
        for stranger in [
            "",
            "vm-disk",
            "image-",
            "image-7",
            "volume-x",
            "aside-",
            "aside-x-y",
            "new-",
            "retired-",
            "former-7",
            "former-7-volume-",
        ] {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
    }
}
