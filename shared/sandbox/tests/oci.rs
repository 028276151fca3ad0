//! The profiles as container engines read them, reviewed as files. `UPDATE_GOLDEN=1` writes them.

use std::path::Path;

use bmi_sandbox::{Profile, oci};

#[test]
fn profiles_for_containers_are_the_reviewed_ones() {
    for name in Profile::names() {
        let rendered = oci::render(&Profile::of(name).unwrap(), "x86_64");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.docker.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &rendered).unwrap();
        }
        let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(rendered, reviewed, "{}: UPDATE_GOLDEN=1 writes what is rendered now", path.display());
    }
}
