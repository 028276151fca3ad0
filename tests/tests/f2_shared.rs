//! F2: two trusted projects on one network, from sign-in to login prompt.

#[test]
fn f2_two_projects_share_a_network() {
    bmi_tests::demo::shared();
}
