//! How long the policy takes to decide with 10 000 bindings, beside Casbin asked about all rules; and to be built again.
//!
//! Two worlds: the usual one, and the worst that the limits of roles allow.

use std::collections::{BTreeMap, BTreeSet};
use std::hint::black_box;
use std::time::Instant;

use bmi_auth::policy::built_in_roles;
use bmi_auth::{Action, Binding, Caller, Domain, Permission, Policy, Subject};
use bmi_types::ProjectId;
use casbin::{Adapter, CoreApi, DefaultModel, Enforcer, MemoryAdapter};
use uuid::Uuid;

use crate::{Figure, median, percentile};

const MODEL: &str = include_str!("../../policies/model.conf");
const BINDINGS: usize = 10_000;
/// The most custom roles there can be.
const ROLES_MAX: usize = 64;
/// Decisions of each kind that are timed, one by one.
const SAMPLES: usize = 50_000;
/// Of Casbin without an index, which may take long.
const PEER_SAMPLES: usize = 2_000;
/// How often the snapshot is built.
const BUILDS: usize = 9;

type Roles = BTreeMap<String, BTreeSet<Permission>>;

/// Everything a policy is made of, and questions about it.
struct World {
    name: &'static str,
    roles: Roles,
    bindings: Vec<Binding>,
    questions: Vec<(&'static str, Vec<Question>)>,
}

struct Question {
    caller: Caller,
    action: Action,
    domain: Domain,
    allowed: bool,
}

fn project(number: usize) -> Domain {
    let id = 0x0193_d3a0_0000_7000_8000_0000_0000_0000 | number as u128;
    Domain::Project(ProjectId::from(Uuid::from_u128(id)))
}

fn user(number: usize) -> Caller {
    Caller { subject: Subject::user("corp", &format!("{number:05}")), ..Caller::local_admin() }
}

fn question(who: usize, action: Action, domain: Domain, allowed: bool) -> Question {
    Question { caller: user(who), action, domain, allowed }
}

fn binding(who: usize, role: &str, domain: Domain) -> Binding {
    Binding { subject: user(who).subject, role: role.to_owned(), domain }
}

/// 1 000 projects with ten bindings each, eight custom roles of six permissions.
fn usual() -> World {
    const PROJECTS: usize = 1_000;
    const EACH: usize = BINDINGS / PROJECTS;
    let mut roles = built_in_roles();
    let words = ["image:read", "instance:*", "node:read", "network:read", "operation:read", "quota:read"];
    for number in 0..8 {
        roles.insert(format!("custom-{number}"), words.iter().map(|word| word.parse().unwrap()).collect());
    }
    let holders = |place: usize| (place * EACH..(place + 1) * EACH).map(|at| at % (BINDINGS / 5));
    let mut bindings = Vec::new();
    for place in 0..PROJECTS {
        for (position, who) in holders(place).enumerate() {
            let role = match position {
                0 => "project-admin".to_owned(),
                1..=4 => "project-member".to_owned(),
                5..=7 => "project-viewer".to_owned(),
                _ => format!("custom-{}", place % 8),
            };
            bindings.push(binding(who, &role, project(place)));
        }
    }
    // In place of the last ones: ten people of the provider.
    bindings.truncate(BINDINGS - 10);
    bindings.extend((0..10).map(|at| binding(20_000 + at, "platform-admin", Domain::Everywhere)));
    let each = |position: usize, action: Action, allowed: bool| {
        (0..PROJECTS - 1)
            .map(|place| question(holders(place).nth(position).unwrap(), action, project(place), allowed))
            .collect::<Vec<_>>()
    };
    let elsewhere = (0..PROJECTS - 1)
        .map(|place| {
            let who = holders((place + 1) % (PROJECTS - 1)).next().unwrap();
            question(who, Action::InstanceWrite, project(place), false)
        })
        .collect();
    let provider = (0..PROJECTS - 1)
        .map(|place| question(20_000 + place % 10, Action::InstanceWrite, project(place), true))
        .collect();
    World {
        name: "usual",
        roles,
        bindings,
        questions: vec![
            ("allowed by a built-in role", each(1, Action::InstanceWrite, true)),
            ("allowed by a custom role", each(9, Action::InstanceWrite, true)),
            ("refused, no binding there", elsewhere),
            ("refused, the role has it not", each(6, Action::InstanceWrite, false)),
            ("allowed by a binding everywhere", provider),
        ],
    }
}

/// The most custom roles, each of which names every action, and all bindings in one project.
fn worst() -> World {
    let mut roles = built_in_roles();
    let all = |without: Action| {
        let actions = Action::ALL.iter().filter(move |action| **action != without);
        actions.map(|action| Permission::of(action.object(), action.act())).collect::<BTreeSet<_>>()
    };
    for number in 0..ROLES_MAX {
        roles.insert(format!("custom-{number:02}"), all(Action::MetricsRead));
    }
    let role = |who: usize| format!("custom-{:02}", who % ROLES_MAX);
    let mut bindings: Vec<Binding> =
        (0..BINDINGS - 10).map(|who| binding(who, &role(who), project(0))).collect();
    bindings.extend((0..10).map(|at| binding(20_000 + at, "platform-admin", Domain::Everywhere)));
    let of = |who: &dyn Fn(usize) -> usize, action: Action, domain: Domain, allowed: bool| {
        (0..1_000).map(|at| question(who(at), action, domain, allowed)).collect::<Vec<_>>()
    };
    let spread = |at: usize| at * 9;
    World {
        name: "worst",
        roles,
        bindings,
        questions: vec![
            ("allowed by a custom role", of(&spread, Action::ServiceAccountWrite, project(0), true)),
            ("refused, no binding there", of(&spread, Action::InstanceWrite, project(1), false)),
            ("refused, the role has it not", of(&spread, Action::MetricsRead, project(0), false)),
            (
                "allowed by a binding everywhere",
                of(&|at| 20_000 + at % 10, Action::InstanceWrite, project(0), true),
            ),
        ],
    }
}

async fn adapter(world: &World) -> MemoryAdapter {
    let mut adapter = MemoryAdapter::default();
    for (role, permissions) in &world.roles {
        for one in permissions {
            let rule = vec![role.clone(), one.object().to_owned(), one.act().to_owned()];
            adapter.add_policy("p", "p", rule).await.unwrap();
        }
    }
    let rules = world.bindings.iter().map(Binding::rule).collect();
    adapter.add_policies("g", "g", rules).await.unwrap();
    adapter
}

/// Times each of a number of decisions, in µs.
fn times(questions: &[Question], samples: usize, decide: impl Fn(&Question) -> bool) -> Vec<f64> {
    for question in questions.iter().take(samples / 10) {
        assert_eq!(decide(question), question.allowed);
    }
    (0..samples)
        .map(|at| {
            let question = &questions[at * 7 % questions.len()];
            let begun = Instant::now();
            let allowed = black_box(decide(black_box(question)));
            let taken = begun.elapsed();
            assert_eq!(allowed, question.allowed);
            taken.as_secs_f64() * 1e6
        })
        .collect()
}

async fn run_world(world: &World) -> Vec<Figure> {
    assert_eq!(world.bindings.len(), BINDINGS);
    let policy = Policy::load(adapter(world).await).await.unwrap();
    let casbin =
        Enforcer::new(DefaultModel::from_str(MODEL).await.unwrap(), adapter(world).await).await.unwrap();
    let mut figures = Vec::new();
    for (what, questions) in &world.questions {
        let ours = times(questions, SAMPLES, |one| policy.allows(&one.caller, one.action, one.domain));
        let peer = times(questions, PEER_SAMPLES, |one| {
            let place = one.domain.word();
            let request =
                (one.caller.subject.as_str(), place.as_str(), one.action.object(), one.action.act());
            casbin.enforce(request).unwrap()
        });
        let figure = |share: &str, ours, peer| Figure {
            what: format!("decision, {}: {what}, {share}", world.name),
            ours,
            peer: Some(("casbin over all rules", peer)),
            unit: "µs",
        };
        figures.push(figure("median", median(ours.iter().copied()), median(peer.iter().copied())));
        figures.push(figure("p99", percentile(&ours, 99), percentile(&peer, 99)));
    }
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..BUILDS {
        let (for_us, for_casbin) = (adapter(world).await, adapter(world).await);
        let begun = Instant::now();
        let _policy = black_box(Policy::load(for_us).await.unwrap());
        ours.push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        let model = DefaultModel::from_str(MODEL).await.unwrap();
        let _enforcer = Enforcer::new(model, for_casbin).await.unwrap();
        peers.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    figures.push(Figure {
        what: format!("policy built again, {}", world.name),
        ours: median(ours),
        peer: Some(("casbin alone", median(peers))),
        unit: "ms",
    });
    figures
}

pub(crate) fn run(only: Option<&str>) -> Vec<Figure> {
    if only.is_some_and(|only| !"decision".contains(only)) {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut figures = run_world(&usual()).await;
        figures.extend(run_world(&worst()).await);
        figures
    })
}
