//! The golden Debian image: built once a machine, and shared with the quickstart.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::deployment::Deployment;
use crate::host::{repository, run};
use crate::setup::operation_end;

/// Where the image is kept.
const PATH: &str = "/var/lib/bmi-quickstart/images/debian-12.raw";

/// The golden image, built when there is none, or one of another recipe.
#[must_use]
pub fn golden_image() -> PathBuf {
    let path = PathBuf::from(PATH);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    run(repository().join("infra/golden/build"), &["--if-needed", PATH]);
    path
}

/// Puts the golden image at another place, without copying it where that can be.
pub fn image_place(to: &Path) {
    let from = golden_image();
    // The quickstart looks at it, and would make its own.
    let recipe = |image: &Path| format!("{}.recipe", image.display());
    std::fs::copy(recipe(&from), recipe(to)).unwrap();
    if std::fs::hard_link(&from, to).is_err() {
        run("cp", &["--reflink=auto", "--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()]);
    }
}

impl Deployment {
    /// Imports the golden image as `debian-12` into a project, and gives the sealed image.
    #[must_use]
    pub fn golden_import(&self, project: &str) -> Value {
        image_place(&self.data.join("images/debian-12.raw"));
        let images = format!("/v1/projects/{project}/images");
        let body = serde_json::json!({"name": "debian-12", "import_file": "debian-12.raw"});
        let ended = operation_end(&self.api, &self.api.post(&images, &body).expect(202));
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
        self.api.get(&format!("{images}/debian-12")).expect(200)
    }
}
