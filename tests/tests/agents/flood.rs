//! An agent's host that was taken over asks without end: others are heard as before.

use std::time::Duration;

use bmi_tests::{Deployment, STORE_SMALL, until};

#[test]
fn an_agent_that_asks_without_end_is_stopped_and_another_networks_goes_on() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", 3600);
    let limits = "[rate_limit]\nagent_per_second = 2\nagent_burst = 20\n";
    deployment.rate_limit_configure(limits);
    deployment.api.network("red", "10.78.0.0/24");
    deployment.api.network("blue", "10.79.0.0/24");
    let (red, _, _) = deployment.member("red");
    let (blue, _, _) = deployment.member("blue");
    let generation = red.desired("red", 0, 0).unwrap().expect(200)["generation"].as_u64().unwrap();

    // Six wait for what does not come: four may, and it is said at once to the others.
    let waited: Vec<u16> = std::thread::scope(|scope| {
        let ask = || red.desired("red", generation, 3).unwrap().status;
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    let stopped = waited.iter().filter(|status| **status == 429).count();
    assert_eq!((stopped, waited.iter().filter(|status| **status == 304).count()), (2, 4), "{waited:?}");

    let statuses: Vec<u16> = (0..40).map(|_| red.status("red").unwrap().status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(red.status("red").unwrap().code(429), "too-many-requests");
    assert_eq!(blue.status("blue").unwrap().status, 204, "another's goes on");
    until("it is heard again", Duration::from_secs(10), || {
        (red.status("red").unwrap().status == 204).then_some(())
    });
}
