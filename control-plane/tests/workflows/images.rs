//! Import, seal and delete.

use bmi_api::{Code, OperationKind, OperationState};
use bmi_control_plane::app::image::{image_delete, image_seal};

use crate::scenario::{Begun, proven};
use crate::world::{Facts, PROJECT, World, admin};

fn sealed(id: &str) -> Facts {
    Facts::from([format!("image {id} is sealed"), format!("content of image {id} exists")])
}

/// A world with another image, which must stay as it is.
async fn world() -> World {
    let world = World::new().await;
    let other = world.import("other").await;
    world.succeed(&other).await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_survives_every_fault() {
    proven(OperationKind::ImageImport, || async {
        let world = world().await;
        let before = world.facts().await;
        let operation = world.import("golden").await;
        let success = &before | &sealed(&operation.subject.id);
        Begun { world, operation, success, failure: before }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_any_more_when_it_is_copied_fails_the_import_with_a_code() {
    let world = world().await;
    let before = world.facts().await;
    let operation = world.import("golden").await;
    world.import_dir_empty();
    let ended = world.settle(&operation).await;
    let code = Some(Code::ImportSourceAbsent);
    assert_eq!((ended.state, ended.code), (OperationState::Failed, code), "{ended:?}");
    assert_eq!(world.facts().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn import_with_conversion_survives_every_fault() {
    proven(OperationKind::ImageImport, || async {
        let world = world().await;
        let before = world.facts().await;
        let operation = world.import_qcow2("golden").await;
        let success = &before | &sealed(&operation.subject.id);
        Begun { world, operation, success, failure: before }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seal_of_an_upload_that_is_converted_survives_every_fault() {
    proven(OperationKind::ImageImport, || async {
        let world = world().await;
        let before = world.facts().await;
        let id = world.uploaded_qcow2("golden").await.to_string();
        let asked = image_seal(&world.app, &admin(), PROJECT.to_owned(), id.clone(), None).await;
        let success = &before | &sealed(&id);
        // What cannot be converted is removed: it would never become an image.
        Begun { world, operation: asked.unwrap(), success, failure: before }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_of_an_upload_that_would_be_converted_survives_every_fault() {
    proven(OperationKind::ImageDelete, || async {
        let world = world().await;
        let before = world.facts().await;
        world.uploaded_qcow2("golden").await;
        let asked = image_delete(&world.app, &admin(), PROJECT.to_owned(), "golden".to_owned(), None).await;
        Begun { world, operation: asked.unwrap(), success: before, failure: Facts::new() }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seal_survives_every_fault() {
    proven(OperationKind::ImageSeal, || async {
        let world = world().await;
        let before = world.facts().await;
        let id = world.uploaded("golden").await.to_string();
        let asked = image_seal(&world.app, &admin(), PROJECT.to_owned(), id.clone(), None).await;
        let success = &before | &sealed(&id);
        Begun { world, operation: asked.unwrap(), success, failure: Facts::new() }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_of_a_sealed_image_survives_every_fault() {
    proven(OperationKind::ImageDelete, || async {
        let world = world().await;
        let before = world.facts().await;
        let import = world.import("golden").await;
        world.succeed(&import).await;
        let asked = image_delete(&world.app, &admin(), PROJECT.to_owned(), "golden".to_owned(), None).await;
        Begun { world, operation: asked.unwrap(), success: before, failure: Facts::new() }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deletion_of_an_upload_survives_every_fault() {
    proven(OperationKind::ImageDelete, || async {
        let world = world().await;
        let before = world.facts().await;
        world.uploaded("golden").await;
        let asked = image_delete(&world.app, &admin(), PROJECT.to_owned(), "golden".to_owned(), None).await;
        Begun { world, operation: asked.unwrap(), success: before, failure: Facts::new() }
    })
    .await;
}
