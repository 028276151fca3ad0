//! An agent's host that was taken over asks without end: others are heard as before.

use std::time::{Duration, Instant};

use bmi_tests::{Deployment, STORE_SMALL, until};

/// How long who waits does.
const WAIT: Duration = Duration::from_secs(4);

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

    // Six wait for what does not come: four may, and for the others it is over at once.
    let waited: Vec<(u16, bool)> = std::thread::scope(|scope| {
        let ask = || {
            let begun = Instant::now();
            let status = red.desired("red", generation, WAIT.as_secs()).unwrap().status;
            (status, begun.elapsed() < WAIT)
        };
        let asked: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert!(waited.iter().all(|(status, _)| *status == 304), "{waited:?}");
    assert_eq!(waited.iter().filter(|(_, short)| *short).count(), 2, "{waited:?}");

    let statuses: Vec<u16> = (0..40).map(|_| red.status("red").unwrap().status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
    assert_eq!(red.status("red").unwrap().code(429), "too-many-requests");
    assert_eq!(blue.status("blue").unwrap().status, 204, "another's goes on");
    until("it is heard again", Duration::from_secs(10), || {
        (red.status("red").unwrap().status == 204).then_some(())
    });
}

#[test]
fn an_agent_that_starts_again_and_again_is_not_kept_out_by_what_it_asked_before() {
    let mut deployment = Deployment::start(STORE_SMALL);
    deployment.agents_configure("127.0.0.1", 3600);
    deployment.api.network("red", "10.78.0.0/24");
    let (red, _, _) = deployment.member("red");
    let generation = red.desired("red", 0, 0).unwrap().expect(200)["generation"].as_u64().unwrap();
    let poll = format!("/agent/v1/networks/red/desired?generation={generation}&wait=30");
    for _ in 0..6 {
        red.get_and_go(&poll, Duration::from_millis(300));
    }
    assert_eq!(red.desired("red", generation, 1).unwrap().status, 304);
}
