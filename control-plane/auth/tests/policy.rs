//! Properties of the policy: nobody gets from one project into another, and Casbin decides as a plain reading of the
//! rules does.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use bmi_auth::policy::built_in_roles;
use bmi_auth::{Action, Binding, Caller, Decision, Domain, Limits, Permission, Policy, Scope, Subject};
use bmi_types::ProjectId;
use casbin::{Adapter, CoreApi, DefaultModel, Enforcer, MemoryAdapter};
use proptest::prelude::*;
use uuid::Uuid;

type Roles = BTreeMap<String, BTreeSet<Permission>>;

fn project(number: u8) -> ProjectId {
    ProjectId::from(Uuid::from_u128(0x0193_d3a0_0000_7000_8000_0000_0000_0000 | u128::from(number)))
}

fn caller(name: &str, groups: &[String]) -> Caller {
    Caller {
        subject: Subject::user("corp", name),
        groups: groups.iter().map(|group| Subject::group("corp", group)).collect(),
        ..Caller::local_admin()
    }
}

async fn adapter(roles: &Roles, bindings: &[Binding]) -> MemoryAdapter {
    let mut adapter = MemoryAdapter::default();
    for (role, permissions) in roles {
        for one in permissions {
            let rule = vec![role.clone(), one.object().to_owned(), one.act().to_owned()];
            adapter.add_policy("p", "p", rule).await.unwrap();
        }
    }
    for binding in bindings {
        adapter.add_policy("g", "g", binding.rule()).await.unwrap();
    }
    adapter
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn load(roles: &Roles, bindings: &[Binding]) -> Policy {
    wait(async { Policy::load(adapter(roles, bindings).await).await.unwrap() })
}

/// Casbin with all rules in one policy.
fn casbin(roles: &Roles, bindings: &[Binding]) -> Enforcer {
    wait(async {
        let model = DefaultModel::from_str(include_str!("../../../policies/model.conf")).await.unwrap();
        Enforcer::new(model, adapter(roles, bindings).await).await.unwrap()
    })
}

/// What the rules say, read without Casbin.
fn plainly(roles: &Roles, bindings: &[Binding], caller: &Caller, action: Action, domain: Domain) -> bool {
    bindings.iter().any(|binding| {
        caller.subjects().any(|subject| *subject == binding.subject)
            && (binding.domain == domain || binding.domain == Domain::Everywhere)
            && roles.get(&binding.role).is_some_and(|it| it.iter().any(|one| one.allows(action)))
    })
}

fn subjects() -> impl Strategy<Value = Subject> {
    prop_oneof![
        "[a-c]".prop_map(|name| Subject::user("corp", &name)),
        "[x-z]".prop_map(|name| Subject::group("corp", &name)),
    ]
}

fn custom() -> impl Strategy<Value = Roles> {
    let permission = (0..Action::ALL.len(), any::<bool>()).prop_map(|(action, whole)| {
        let action = Action::ALL[action];
        Permission::of(action.object(), if whole { "*" } else { action.act() })
    });
    prop::collection::btree_map("custom-[a-c]", prop::collection::btree_set(permission, 1..4), 0..3)
}

fn world() -> impl Strategy<Value = (Roles, Vec<Binding>)> {
    custom().prop_flat_map(|custom| {
        let mut roles = built_in_roles();
        roles.extend(custom);
        let names: Vec<String> = roles.keys().cloned().collect();
        let domain = prop_oneof![1 => Just(Domain::Everywhere), 6 => (0..3_u8).prop_map(|it| Domain::Project(project(it)))];
        let binding = (subjects(), prop::sample::select(names), domain)
            .prop_map(|(subject, role, domain)| Binding { subject, role, domain });
        (Just(roles), prop::collection::vec(binding, 0..12))
    })
}

fn domains() -> Vec<Domain> {
    let projects = (0..4).map(|number| Domain::Project(project(number)));
    std::iter::once(Domain::Everywhere).chain(projects).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn casbin_decides_as_the_rules_read((roles, bindings) in world(), groups in prop::collection::vec("[x-z]", 0..3)) {
        let policy = load(&roles, &bindings);
        let caller = caller("a", &groups);
        for domain in domains() {
            for &action in Action::ALL {
                let decision = policy.decide(&caller, action, domain);
                let expected = plainly(&roles, &bindings, &caller, action, domain);
                prop_assert_eq!(matches!(decision, Decision::Allowed(_)), expected, "{} {:?}", action, domain);
                if let Decision::Allowed(rule) = decision {
                    // What is told as the reason is one.
                    let told = Binding { subject: rule.subject, role: rule.role.clone(), domain: rule.domain };
                    prop_assert!(bindings.contains(&told) && rule.permission.allows(action));
                    prop_assert!(roles[&rule.role].contains(&rule.permission));
                }
            }
        }
    }

    #[test]
    fn what_is_decided_is_what_casbin_decides_with_all_rules((roles, bindings) in world(), groups in prop::collection::vec("[x-z]", 0..3)) {
        let (policy, casbin) = (load(&roles, &bindings), casbin(&roles, &bindings));
        let caller = caller("a", &groups);
        for domain in domains() {
            for &action in Action::ALL {
                let place = domain.word();
                let allowed = caller.subjects().any(|subject| {
                    casbin.enforce((subject.as_str(), place.as_str(), action.object(), action.act())).unwrap()
                });
                prop_assert_eq!(policy.allows(&caller, action, domain), allowed, "{} {:?}", action, domain);
            }
        }
    }

    #[test]
    fn no_role_of_one_project_allows_anything_in_another((roles, bindings) in world(), groups in prop::collection::vec("[x-z]", 0..3)) {
        let here: Vec<Binding> =
            bindings.into_iter().filter(|it| it.domain == Domain::Project(project(0))).collect();
        let policy = load(&roles, &here);
        let caller = caller("a", &groups);
        for domain in domains().into_iter().filter(|domain| *domain != Domain::Project(project(0))) {
            for &action in Action::ALL {
                prop_assert!(!policy.allows(&caller, action, domain), "{} {:?}", action, domain);
            }
        }
        match policy.scope(&caller) {
            Scope::Everything => prop_assert!(false, "sees everything"),
            Scope::Projects(seen) => prop_assert!(seen.iter().all(|id| *id == project(0))),
        }
    }

    #[test]
    fn a_service_account_stays_in_its_project_and_its_scopes(
        (roles, bindings) in world(),
        scopes in prop::collection::vec(prop::sample::select(vec!["*", "image:*", "image:read", "node:read"]), 0..3),
    ) {
        let policy = load(&roles, &bindings);
        let limits = Limits {
            project: project(0),
            scopes: scopes.iter().map(|&scope| scope.to_owned()).collect(),
        };
        let robot = Caller { limits: Some(limits), ..caller("a", &[]) };
        for domain in domains() {
            for &action in Action::ALL {
                if policy.allows(&robot, action, domain) {
                    prop_assert_eq!(domain, Domain::Project(project(0)));
                    prop_assert!(scopes.iter().any(|scope| scope.parse::<Permission>().unwrap().allows(action)));
                }
            }
        }
    }
}

#[test]
fn a_subject_that_is_called_like_a_role_has_not_got_it() {
    let bindings = [Binding {
        subject: Subject::user("corp", "a"),
        role: "project-viewer".to_owned(),
        domain: domains()[1],
    }];
    let policy = load(&built_in_roles(), &bindings);
    for name in ["platform-admin", "project-admin", "*", ""] {
        let impostor = Caller { subject: Subject::known(name.to_owned()), ..caller("", &[]) };
        assert!(Action::ALL.iter().all(|action| !policy.allows(&impostor, *action, domains()[1])), "{name}");
    }
}

#[test]
fn the_built_in_roles_contain_each_other() {
    let roles = built_in_roles();
    let may = |role: &str| -> BTreeSet<Action> { roles[role].iter().flat_map(Permission::actions).collect() };
    assert!(may("project-viewer").is_subset(&may("project-member")));
    assert!(may("project-member").is_subset(&may("project-admin")));
    assert!(may("project-admin").is_subset(&may("platform-admin")));
    assert_eq!(may("platform-admin").len(), Action::ALL.len());
    assert!(may("platform-auditor").iter().all(|action| action.act() == "read"));
    for beyond in [
        Action::QuotaWrite,
        Action::NodeAssign,
        Action::NetworkWrite,
        Action::ProjectRename,
        Action::ImageImport,
    ] {
        assert!(!may("project-admin").contains(&beyond), "{beyond}");
    }
}
