//! A shared network: two tenants who trust each other.

use serde_json::json;

use super::Narrator;
use super::provider::Provider;
use super::tenant::{Tenant, await_logins};
use crate::agent_host::AgentHost;
use crate::engine::Kind;
use crate::node::Firmware;

/// F2, without what images and tags do later: two projects on one network, each with an image of its own and a node.
pub fn shared() {
    let narrator = Narrator::new();
    let Provider { management, ceph, identities: provider, deployment, postgres: _postgres } =
        Provider::start(&narrator);
    narrator.say("projects physics and biology, one network for both, and its agent");
    let api = &deployment.api;
    for project in ["physics", "biology"] {
        api.project(project);
    }
    let body = json!({"name": "common", "cidr": "10.77.0.0/24", "projects": ["physics", "biology"]});
    api.post("/v1/networks", &body).expect(201);
    let mut host = AgentHost::new(&deployment, 11, "common", Kind::Docker);
    host.token_give(&api.join_token("common"));
    host.check();
    host.agent_start();
    host.listens(&deployment, "common");

    let tenants = [("physics", "common", "rosa"), ("biology", "common", "benno")].map(|tenant| {
        narrator
            .say(&format!("{} signs in, uploads an image into {} and provisions a node", tenant.2, tenant.0));
        let tenant = Tenant::new(&deployment, &provider, tenant, 1);
        tenant.upload(&deployment);
        tenant.provision(&[1]);
        tenant
    });
    let mut nodes = Vec::new();
    for tenant in &tenants {
        nodes.extend(tenant.switch_on(&host, &[1], Firmware::Uefi));
    }
    await_logins(&narrator, &mut nodes);
    drop(nodes);
    narrator.say("everything is released");
    for tenant in &tenants {
        tenant.release(&[1]);
    }
    let users = ceph.users(&format!("{}-", deployment.ceph_user.as_ref().unwrap()));
    assert!(users.is_empty(), "keys are left in Ceph: {:?}", users.keys());
    drop(host);
    drop(deployment);
    drop(management);
    narrator.say("done");
}
