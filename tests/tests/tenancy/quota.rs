//! Quotas.

use std::io::Write;
use std::thread;
use std::time::Duration;

use bmi_tests::until;
use serde_json::{Value, json};

use crate::world::{World, open_image};

/// How long a change of the store may take to be seen.
const SOON: Duration = Duration::from_secs(60);

#[test]
fn k3_a_hundred_parallel_creates_never_exceed_a_quota() {
    let world = World::new("[quota]\nimages = 7\n");
    let member = world.user("member");
    let created: usize = thread::scope(|scope| {
        let one = |number: usize| {
            let member = &member;
            move || member.post("/v1/projects/lab/images", &open_image(&format!("image-{number}")))
        };
        let all: Vec<_> = (0..100).map(|number| scope.spawn(one(number))).collect();
        let answers = all.into_iter().map(|thread| thread.join().unwrap());
        answers
            .map(|answer| match answer.status {
                201 => 1,
                _ => {
                    assert_eq!(answer.code(), "quota-exceeded");
                    0
                }
            })
            .sum()
    });
    assert_eq!(created, 7);
    assert_eq!(member.list("/v1/projects/lab/images").len(), 7);
    // The other project has its own.
    world.user("stranger").post("/v1/projects/other/images", &open_image("one")).expect(201);
}

#[test]
fn a_refusal_names_dimension_limit_and_use_and_lowering_breaks_nothing() {
    let world = World::new("[quota]\nvirtual_bytes = \"3M\"\n");
    world.fill();
    let api = &world.deployment.api;
    let (manager, member) = (world.user("manager"), world.user("member"));
    let path = "/v1/projects/lab/quota";
    let quota = manager.get(path).expect(200);
    assert_eq!(quota["images"], json!({"limit": null, "used": 2, "own": false}));
    assert_eq!(quota["nodes"]["used"], 1);
    assert_eq!(quota["virtual_bytes"], json!({"limit": 3 << 20, "used": 2 << 20, "own": false}));
    assert_eq!(manager.json("PATCH", path, &json!({"images": 9})).status, 403, "nobody sets one's own quota");
    let detail = |answer: bmi_tests::Answer| -> String {
        assert_eq!((answer.status, answer.code().as_str()), (409, "quota-exceeded"));
        answer.json()["detail"].as_str().unwrap().to_owned()
    };
    let big = json!({"name": "big", "virtual_size": 2 << 20});
    let told = detail(member.post("/v1/projects/lab/images", &big));
    assert!(told.contains("virtual_bytes: the limit is 3"), "{told}");
    assert!(told.contains("in use are 2") && told.contains("2.0 MiB more"), "{told}");

    let beyond = api.json("PATCH", path, &json!({"virtual_bytes": 1_u64 << 63, "images": -1, "nodes": 1}));
    assert_eq!(
        (beyond.status, beyond.faults()),
        (422, vec!["images".to_owned(), "virtual_bytes".to_owned()])
    );
    assert_eq!(api.get(path).expect(200)["version"], 0, "nothing of it was done");
    let set = api.json("PATCH", path, &json!({"images": 1, "nodes": 1, "instances": 0})).expect(200);
    assert_eq!((&set["images"], &set["version"]), (&json!({"limit": 1, "used": 2, "own": true}), &json!(1)));
    member.get("/v1/projects/lab/images/golden").expect(200);
    let told = detail(member.post("/v1/projects/lab/images", &open_image("third")));
    assert_eq!(told, "images: the limit is 1, in use are 2, asked for 1 more");
    api.node("node-2", "52:54:00:a2:00:02");
    let told = detail(api.post("/v1/nodes/node-2/assign", &json!({"project": "lab"})));
    assert_eq!(told, "nodes: the limit is 1, in use are 1, asked for 1 more");
    let instance = json!({"name": "web", "node": "node-1", "image": "golden", "network": "provisioning"});
    let told = detail(member.post("/v1/projects/lab/instances", &instance));
    assert!(told.starts_with("instances: the limit is 0, in use are 0"), "{told}");
    assert_eq!(api.get("/v1/nodes/node-1").expect(200)["state"], "assigned", "nothing was claimed");

    let back = api.json("PATCH", path, &json!({"images": null})).expect(200);
    assert_eq!(back["images"]["limit"], Value::Null);
    let stale = json!({"nodes": 2}).to_string();
    let headers = [("Content-Type", "application/json"), ("If-Match", "\"1\"")];
    assert_eq!(api.send("PATCH", path, &headers, Some(stale.as_bytes())).code(), "stale-version");
    for bad in [json!({"nodes": -1}), json!({"nodes": "many"}), json!({"cores": 1}), json!({"nodes": 1.5})] {
        assert_eq!(api.json("PATCH", path, &bad).status, 422, "{bad}");
    }
}

#[test]
fn bytes_used_are_measured_in_the_store_and_limited() {
    let world = World::new("[reconcile]\nevery_s = 1\n");
    world.fill();
    let (api, member) = (&world.deployment.api, world.user("member"));
    let path = "/v1/projects/lab/quota";
    let used = || member.get(path).expect(200)["used_bytes"]["used"].as_u64().unwrap();
    let before = until("the sealed image is measured", SOON, || Some(used()).filter(|used| *used > 0));
    // No agent: the boot volume is there, and waits for its target.
    let instance = json!({"name": "web", "node": "node-1", "image": "golden", "network": "provisioning"});
    member.post("/v1/projects/lab/instances", &instance).expect(202);
    let project = api.get("/v1/projects/lab").expect(200)["id"].as_str().unwrap().to_owned();
    let volumes = world.deployment.store().join("volumes").join(project);
    let size = member.get("/v1/projects/lab/images/golden").expect(200)["virtual_size"].as_u64().unwrap();
    let volume = until("the clone is there", SOON, || {
        let files = std::fs::read_dir(&volumes).ok()?.map(|file| file.unwrap().path());
        let mut whole = files.filter(|file| file.metadata().is_ok_and(|found| found.len() == size));
        whole.find(|file| file.extension().is_some_and(|extension| extension == "raw"))
    });
    // A clone takes what differs; then its node writes all of it.
    let written = vec![0x5a; usize::try_from(size).unwrap()];
    std::fs::OpenOptions::new().write(true).open(volume).unwrap().write_all(&written).unwrap();
    until("what was written is measured", SOON, || (used() >= before + size).then_some(()));
    api.json("PATCH", path, &json!({"used_bytes": before})).expect(200);
    let refused = member.post("/v1/projects/lab/images", &open_image("more"));
    assert_eq!((refused.status, refused.code().as_str()), (409, "quota-exceeded"));
    let detail = refused.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("used_bytes: the limit is"), "{detail}");
}

#[test]
fn an_upload_counts_from_its_beginning() {
    let world = World::new("[quota]\nused_bytes = \"3M\"\n");
    let member = world.user("member");
    let image = |name: &str| json!({"name": name, "virtual_size": 2 << 20});
    member.post("/v1/projects/lab/images", &image("one")).expect(201);
    let used = member.get("/v1/projects/lab/quota").expect(200)["used_bytes"]["used"].clone();
    assert_eq!(used, 2 << 20);
    let refused = member.post("/v1/projects/lab/images", &image("two"));
    assert_eq!((refused.status, refused.code().as_str()), (409, "quota-exceeded"));
}
