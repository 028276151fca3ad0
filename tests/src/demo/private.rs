//! Private networks: two tenants who do not trust each other, an agent host for each.

use super::Narrator;
use super::neighbour::{Neighbour, work_goes_on};
use super::provider::Provider;
use super::tenant::{Tenant, await_logins};
use super::witness::Witness;
use super::{attacks, flood, wire};
use crate::agent_host::AgentHost;
use crate::engine::Kind;
use crate::node::Firmware;

use serde_json::json;

/// A network's addresses.
pub(super) fn cidr(network: &str) -> &'static str {
    if network == "red" { "10.71.0.0/24" } else { "10.72.0.0/24" }
}

/// F3: two networks, two enrolled agents with containers, four nodes that boot; then every attempt to cross fails, and a node of
/// each tenant works on meanwhile.
pub fn private() {
    let narrator = Narrator::new();
    let Provider { management, ceph, identities: provider, deployment, postgres: _postgres } =
        Provider::start(&narrator);

    let tenants = [("red", "red", "rosa"), ("blue", "blue", "benno")];
    let mut hosts = Vec::new();
    for (number, ((project, network, _), kind)) in
        (11..).zip(tenants.into_iter().zip([Kind::Docker, Kind::Podman]))
    {
        narrator.say(&format!(
            "project and network {network}; its agent's host, with {kind:?}, joins by a token"
        ));
        let api = &deployment.api;
        api.project(project);
        let body = json!({"name": network, "cidr": cidr(network), "projects": [project]});
        api.post("/v1/networks", &body).expect(201);
        let mut host = AgentHost::new(&deployment, number, network, kind);
        host.token_give(&api.join_token(network));
        host.check();
        host.agent_start();
        hosts.push(host);
    }
    for (host, (_, network, _)) in hosts.iter().zip(tenants) {
        host.listens(&deployment, network);
    }
    let tenants = tenants.map(|tenant| {
        narrator.say(&format!(
            "{} signs in, uploads an image into {} and provisions two nodes",
            tenant.2, tenant.0
        ));
        let tenant = Tenant::new(&deployment, &provider, tenant, 3);
        tenant.upload(&deployment);
        tenant.provision(&[1, 2]);
        tenant
    });
    narrator.say("four nodes are switched on");
    let mut nodes = Vec::new();
    for (tenant, host) in tenants.iter().zip(&hosts) {
        nodes.extend(tenant.switch_on(host, &[1, 2], Firmware::Bios));
    }
    await_logins(&narrator, &mut nodes);

    narrator.say("attacks: each tenant on the other, by the API, an agent's certificate, and the wire");
    attacks::by_api(&deployment, &tenants);
    attacks::by_agent(&deployment, &hosts);
    drop(nodes);
    let witness = Witness::call(&narrator, &management, &hosts);
    // A thread starts in the network of the one that starts it.
    let neighbours = std::thread::scope(|scope| {
        let places = tenants.iter().zip(&hosts);
        let begun: Vec<_> =
            places.map(|(tenant, host)| scope.spawn(|| Neighbour::start(tenant, host))).collect();
        begun.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
    });
    narrator.say("the second node of each tenant is on again, and writes to its disk whatever the others do");
    work_goes_on(&neighbours, "the scans", || {
        std::thread::scope(|scope| {
            for (tenant, host) in tenants.iter().zip(&hosts) {
                scope.spawn(|| wire::reach(&narrator, tenant, host, &neighbours));
            }
        });
    });
    witness.heard_nothing();
    drop(witness);
    flood::disturb(&narrator, (&tenants[0], &hosts[0]), &hosts, &neighbours);
    for (neighbour, host) in neighbours.into_iter().zip(&hosts) {
        let network = neighbour.network;
        let written = neighbour.finish(host);
        narrator.say(&format!("the node of {network} has lost none of {written} blocks, and heard nobody"));
    }
    narrator.say("everything is released");
    for tenant in &tenants {
        tenant.release(&[1, 2]);
    }
    let users = ceph.users(&format!("{}-", deployment.ceph_user.as_ref().unwrap()));
    assert!(users.is_empty(), "keys are left in Ceph: {:?}", users.keys());
    for host in &hosts {
        let left = host.engine.containers();
        assert_eq!(left.len(), 1, "only the boot services are left: {left:?}");
    }
    drop(hosts);
    drop(deployment);
    drop(management);
    narrator.say("done: both tenants booted, and no attempt to cross came through");
}
