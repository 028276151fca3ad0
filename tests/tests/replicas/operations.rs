//! Operations that are queued through both replicas.

use std::collections::BTreeSet;
use std::sync::Barrier;

use bmi_tests::{Answer, operation_end};
use serde_json::Value;

use crate::world::{IMAGES, INSTANCES, Pair, import, instance};

/// A hundred operations: so many of each kind.
const PROVISIONS: usize = 10;
const IMPORTS: usize = 90;
/// Callers at once.
const CALLERS: usize = 20;

#[test]
fn k3_a_hundred_operations_of_both_are_each_done_once_and_both_work() {
    let mut pair = Pair::start();
    pair.fill(PROVISIONS);
    let golden = pair.first.api.get(&format!("{IMAGES}/golden")).expect(200);
    let (apis, gate) = (pair.apis(), Barrier::new(CALLERS));
    let queue = |number: usize| -> Answer {
        let api = apis[number / CALLERS % 2];
        match number.checked_sub(PROVISIONS) {
            None => api.post(INSTANCES, &instance(&format!("instance-{number}"), number)),
            Some(_) => api.post(IMAGES, &import(&format!("image-{number}"))),
        }
    };
    let queued: Vec<Value> = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (gate, queue) = (&gate, &queue);
                scope.spawn(move || {
                    gate.wait();
                    let mine = (caller..PROVISIONS + IMPORTS).step_by(CALLERS);
                    mine.map(|number| queue(number).expect(202)).collect::<Vec<Value>>()
                })
            })
            .collect();
        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
    });

    let ids: BTreeSet<String> = queued.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), PROVISIONS + IMPORTS);
    for (number, operation) in queued.iter().enumerate() {
        let ended = operation_end(apis[number % 2], operation);
        assert_eq!(ended["state"], "succeeded", "{ended:#}");
    }
    // With the image that they were provisioned from.
    assert_eq!(pair.assert_each_done_once(), PROVISIONS + IMPORTS + 1);
    pair.assert_there(IMPORTS + 1, PROVISIONS);
    let images = apis[1].list(IMAGES);
    assert!(images.iter().all(|image| image["state"] == "sealed" && image["sha256"] == golden["sha256"]));

    let [first, second] = pair.finished();
    println!("the first finished {}, the second {}", first.len(), second.len());
    assert!(first.is_disjoint(&second));
    assert!(first.union(&second).filter(|id| ids.contains(*id)).eq(&ids));
    for finished in [first, second] {
        assert!(finished.intersection(&ids).count() > 0, "both have worked");
    }
}
