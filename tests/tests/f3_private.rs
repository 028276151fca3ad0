//! F3: two tenants who do not trust each other, from sign-in to login prompt, and what they try on each other.

#[test]
fn f3_two_untrusted_tenants_boot_and_every_attempt_to_cross_fails() {
    bmi_tests::demo::private();
}
