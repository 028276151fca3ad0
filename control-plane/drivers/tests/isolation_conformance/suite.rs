//! What every isolator must do.

use bmi_drivers::isolation::{Attachment, NetworkIsolation};
use bmi_types::{NetworkId, NodeId};

/// Two nodes and two networks. `first` has two NICs, `second` one.
#[derive(Debug, Clone, Copy)]
pub struct Cast {
    pub first: NodeId,
    pub second: NodeId,
    pub red: NetworkId,
    pub blue: NetworkId,
}

impl Cast {
    pub fn new() -> Self {
        Self {
            first: NodeId::generate(),
            second: NodeId::generate(),
            red: NetworkId::generate(),
            blue: NetworkId::generate(),
        }
    }
}

/// The networks that a node is really on, once for each NIC.
pub type Seen<'a> = dyn Fn(NodeId) -> Vec<NetworkId> + Sync + 'a;

/// Runs the suite. `seen` says where a node really is; the driver is not asked for that.
pub async fn run(driver: &dyn NetworkIsolation, cast: &Cast, seen: &Seen<'_>) {
    let Cast { first, second, red, blue } = *cast;
    if driver.observe(first, red).await.unwrap() == Attachment::Permanent {
        // Nothing isolates: whatever is asked for is so.
        driver.attach(first, red).await.unwrap();
        driver.detach(first, red).await.unwrap();
        assert_eq!(driver.observe(first, red).await.unwrap(), Attachment::Permanent);
        return;
    }
    for (node, network) in [(first, red), (first, blue), (second, red)] {
        assert_eq!(driver.observe(node, network).await.unwrap(), Attachment::Detached, "nobody asked");
        driver.detach(node, network).await.unwrap();
    }

    for _ in 0..2 {
        driver.attach(first, red).await.unwrap();
        assert_eq!(driver.observe(first, red).await.unwrap(), Attachment::Attached);
        assert_eq!(seen(first), [red, red], "both NICs");
    }
    assert_eq!(driver.observe(first, blue).await.unwrap(), Attachment::Elsewhere);
    assert_eq!(driver.observe(second, red).await.unwrap(), Attachment::Detached, "another node");

    // Who is on one network is not put on another, nor said to be in quarantine.
    driver.attach(first, blue).await.unwrap_err();
    driver.detach(first, blue).await.unwrap_err();
    assert_eq!(seen(first), [red, red]);

    driver.attach(second, red).await.unwrap();
    for _ in 0..2 {
        driver.detach(first, red).await.unwrap();
        assert_eq!(driver.observe(first, red).await.unwrap(), Attachment::Detached);
        assert_eq!(seen(first), []);
    }
    assert_eq!(driver.observe(second, red).await.unwrap(), Attachment::Attached, "another node");

    // To the next network, and back.
    driver.attach(first, blue).await.unwrap();
    assert_eq!(seen(first), [blue, blue]);
    driver.detach(first, blue).await.unwrap();

    // Cut off at any moment, it comes about when it is tried again.
    for moment in [0, 1, 3, 10, 30, 100, 300] {
        let moment = std::time::Duration::from_millis(moment);
        let _ = tokio::time::timeout(moment, driver.attach(first, red)).await;
        driver.attach(first, red).await.unwrap();
        assert_eq!(seen(first), [red, red], "{moment:?}");
        let _ = tokio::time::timeout(moment, driver.detach(first, red)).await;
        driver.detach(first, red).await.unwrap();
        assert_eq!((driver.observe(first, red).await.unwrap(), seen(first)), (Attachment::Detached, vec![]));
    }

    // What was asked for before and given up cannot still come after the node is said to be in quarantine.
    for moment in [1, 5, 20] {
        let moment = std::time::Duration::from_millis(moment);
        let _ = tokio::time::timeout(moment, driver.attach(first, red)).await;
        driver.detach(first, red).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        assert_eq!(seen(first), [], "{moment:?}");
    }
    driver.detach(second, red).await.unwrap();
}
