//! Everything by HTTPS: the API, the identity provider, and a browser that obeys what is said of cookies.

use std::path::{Path, PathBuf};

use bmi_tests::{Deployment, OidcProvider, STORE_SMALL, run};
use serde_json::Value;

/// Certificate and key of an authority of its own, for loopback.
fn certify(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let place = |extension: &str| directory.join(format!("{name}.{extension}"));
    std::fs::write(place("pem"), made.cert.pem()).unwrap();
    std::fs::write(place("key"), made.signing_key.serialize_pem()).unwrap();
    (place("pem"), place("key"))
}

#[test]
fn s2_a_sign_in_by_https_sets_cookies_that_no_other_host_can_set_or_read() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let (certificate, key) = certify(&deployment.data, "server");
    let (provider_certificate, provider_key) = certify(&deployment.data, "provider");
    let provider = OidcProvider::start_https(&deployment, &provider_certificate, &provider_key);
    let tls = format!(
        "[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n",
        certificate.display(),
        key.display()
    );
    let trusted = format!("client_id = \"bmi\"\nca_file = \"{}\"\n", provider_certificate.display());
    let settings = provider.settings(&deployment).replace("client_id = \"bmi\"\n", &trusted);
    deployment.sign_in_configure_by("https", &format!("{tls}{settings}"));

    let authorities = deployment.data.join("authorities.pem");
    let both = [&certificate, &provider_certificate].map(|file| std::fs::read_to_string(file).unwrap());
    std::fs::write(&authorities, both.concat()).unwrap();
    let jar = deployment.data.join("cookies");
    let (authorities, jar_name) = (authorities.to_str().unwrap(), jar.to_str().unwrap());
    // curl keeps the rules of `Secure` and of the prefix `__Host-` (RFC 6265bis).
    let browse = |path: &str, more: &[&str]| {
        let url = format!("https://{}{path}", deployment.api.address());
        let arguments =
            ["-sS", "-b", jar_name, "-c", jar_name, "--cacert", authorities, "-H", "X-User: ada", &url];
        run("curl", &[&arguments[..], more].concat())
    };
    let signed_in = browse("/v1/sign-in/corp/start?return_to=/v1/whoami", &["-L", "-i"]);
    assert!(signed_in.contains("\"subject\":\"user:corp:ada\""), "{signed_in}");
    let session =
        signed_in.lines().find(|line| line.to_lowercase().starts_with("set-cookie: __host-bmi-session="));
    let session = session.unwrap_or_else(|| panic!("no session: {signed_in}")).to_lowercase();
    for attribute in ["secure", "httponly", "samesite=lax", "path=/"] {
        assert!(session.contains(attribute), "{attribute}: {session}");
    }
    assert!(!session.contains("domain="), "{session}");
    let me: Value = serde_json::from_str(&browse("/v1/whoami", &[])).unwrap();
    assert_eq!(me["subject"], "user:corp:ada");
    // A change must come from a page of the server itself, whose address is by HTTPS now.
    let changed = |origin: &str| {
        let origin = format!("Origin: {origin}");
        let more =
            ["-X", "POST", "-H", &origin, "-H", "Content-Type: application/json", "-d", "{\"name\":\"lab\"}"];
        serde_json::from_str::<Value>(&browse("/v1/projects", &more)).unwrap()
    };
    let address = deployment.api.address();
    assert_eq!(changed(&format!("http://{address}"))["code"], "forbidden");
    assert_eq!(changed(&format!("https://{address}"))["name"], "lab");
}

#[test]
fn s2_a_provider_whose_certificate_nobody_vouches_for_is_not_asked() {
    let mut deployment = Deployment::start(STORE_SMALL);
    let (certificate, key) = certify(&deployment.data, "provider");
    let provider = OidcProvider::start_https(&deployment, &certificate, &key);
    deployment.sign_in_configure(&provider.settings(&deployment));
    let answer = deployment.api.authorized(None).get("/v1/sign-in/corp/start");
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
}
