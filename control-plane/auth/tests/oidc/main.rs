//! Access tokens against a provider that does what a test wants: every way in which one can be wrong, keys that
//! change, and a provider that is down.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends by panicking")]

mod provider;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use bmi_auth::Subject;
use bmi_auth::oidc::{Providers, RETRY_PAUSE, TokenError};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};

use provider::{Key, Provider};

const AUDIENCE: &str = "https://bmi.example.org";

fn providers(provider: &Provider, more: &str) -> Providers {
    let text = format!(
        "name = 'corp'\nissuer = '{}'\nclient_id = 'bmi'\naudience = '{AUDIENCE}'\n{more}",
        provider.issuer()
    );
    let settings: bmi_auth::oidc::ProviderSettings = toml::from_str(&text).unwrap();
    settings.check().unwrap();
    Providers::new(vec![settings]).unwrap()
}

/// Good claims, changed.
fn claims(provider: &Provider, change: impl FnOnce(&mut Value)) -> Value {
    let now = get_current_timestamp();
    let mut claims = json!({
        "iss": provider.issuer(), "aud": AUDIENCE, "sub": "ada", "iat": now, "exp": now + 600,
        "groups": ["ops"], "name": "Ada",
    });
    change(&mut claims);
    claims
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL.encode(value.to_string());
    format!("{}.{}.", part(header), part(claims))
}

#[tokio::test]
async fn a_good_token_says_who_calls() {
    let key = Key::new("k1", 1);
    let provider = Provider::start(&[&key]);
    let providers = providers(&provider, "");
    for kind in ["at+jwt", "application/at+jwt", "AT+JWT"] {
        let token = key.sign(kind, &claims(&provider, |_| {}));
        let token = providers.access_token(&token).await.unwrap();
        assert_eq!(token.identity.subject, Subject::user("corp", "ada"));
        assert_eq!(token.identity.display, "Ada");
        assert_eq!(token.identity.groups, [Subject::group("corp", "ops")]);
    }
    let several = claims(&provider, |claims| claims["aud"] = json!(["other", AUDIENCE]));
    providers.access_token(&key.sign("at+jwt", &several)).await.unwrap();
    let skewed = claims(&provider, |claims| claims["nbf"] = json!(get_current_timestamp() + 20));
    providers.access_token(&key.sign("at+jwt", &skewed)).await.unwrap();
    assert_eq!(provider.key_requests(), 1);
}

#[tokio::test]
async fn every_token_that_proves_nothing_is_refused() {
    let (key, stranger) = (Key::new("k1", 1), Key::new("k1", 2));
    let provider = Provider::start(&[&key]);
    let providers = providers(&provider, "");
    let now = get_current_timestamp();
    let good = claims(&provider, |_| {});
    let whole = key.sign("at+jwt", &good);
    let (signed, signature) = whole.rsplit_once('.').unwrap();
    let sign = |change: &dyn Fn(&mut Value)| key.sign("at+jwt", &claims(&provider, change));
    let hmac = |algorithm, secret: &[u8]| {
        let header = Header { typ: Some("at+jwt".into()), kid: Some("k1".into()), ..Header::new(algorithm) };
        encode(&header, &good, &EncodingKey::from_secret(secret).unwrap()).unwrap()
    };
    let public = BASE64URL.encode(key.public());
    let wrong: Vec<(&str, String)> = vec![
        ("empty", String::new()),
        ("no token", "a.b.c".to_owned()),
        ("two parts", signed.to_owned()),
        ("unsigned", format!("{signed}.")),
        ("four parts", format!("{whole}.x")),
        ("alg none", unsigned(&json!({"alg": "none", "typ": "at+jwt"}), &good)),
        ("alg None", unsigned(&json!({"alg": "None", "typ": "at+jwt", "kid": "k1"}), &good)),
        ("HS256 with the public key", hmac(Algorithm::HS256, &key.public())),
        ("HS256 with its text", hmac(Algorithm::HS256, public.as_bytes())),
        ("HS512 with the public key", hmac(Algorithm::HS512, &key.public())),
        ("another's signature", stranger.sign("at+jwt", &good)),
        (
            "another token's signature",
            format!("{}.{signature}", sign(&|c| c["sub"] = json!("eve")).rsplit_once('.').unwrap().0),
        ),
        ("unknown key", Key::new("k2", 2).sign("at+jwt", &good)),
        ("wrong issuer", sign(&|c| c["iss"] = json!("https://id.example.com"))),
        ("list of issuers", sign(&|c| c["iss"] = json!([c["iss"], "https://id.example.com"]))),
        ("no issuer", sign(&|c| c["iss"] = Value::Null)),
        ("wrong audience", sign(&|c| c["aud"] = json!("https://other.example.org"))),
        ("the client as audience", sign(&|c| c["aud"] = json!("bmi"))),
        ("no audience", sign(&|c| c["aud"] = Value::Null)),
        ("not yet", sign(&|c| c["nbf"] = json!(now + 300))),
        ("issued in the future", sign(&|c| c["iat"] = json!(now + 300))),
        ("issued at no time", sign(&|c| c["iat"] = json!("soon"))),
        ("no expiry", sign(&|c| c["exp"] = Value::Null)),
        ("expiry is text", sign(&|c| c["exp"] = json!("never"))),
        ("no sub", sign(&|c| c["sub"] = Value::Null)),
        ("empty sub", sign(&|c| c["sub"] = json!(""))),
        ("sub is a number", sign(&|c| c["sub"] = json!(1))),
        ("sub with a line end", sign(&|c| c["sub"] = json!("ada\nroot"))),
        ("absurdly long", sign(&|c| c["x"] = json!("x".repeat(1 << 20)))),
        ("an ID token", key.sign("JWT", &claims(&provider, |c| c["nonce"] = json!("n")))),
        ("no type", key.sign("", &good)),
        ("a logout token", key.sign("logout+jwt", &good)),
    ];
    for (what, token) in &wrong {
        let refused = providers.access_token(token).await.unwrap_err();
        assert!(matches!(refused, TokenError::Refused(_)), "{what}: {refused:?}");
        assert!(!refused.to_string().contains("eyJ"), "{what}");
    }
    let expired = sign(&|c| c["exp"] = json!(now - 31));
    assert_eq!(providers.access_token(&expired).await.unwrap_err(), TokenError::Expired);
    // Only who had a good one is told that it has expired.
    let forged = stranger.sign("at+jwt", &claims(&provider, |c| c["exp"] = json!(now - 31)));
    assert!(matches!(providers.access_token(&forged).await.unwrap_err(), TokenError::Refused(_)));
    providers.access_token(&whole).await.unwrap();
}

#[tokio::test]
async fn without_types_an_id_token_still_is_no_access_token() {
    let key = Key::new("k1", 1);
    let provider = Provider::start(&[&key]);
    let providers = providers(&provider, "access_token_type = 'JWT'");
    providers.access_token(&key.sign("JWT", &claims(&provider, |_| {}))).await.unwrap();
    for claim in ["nonce", "at_hash", "c_hash"] {
        let token = key.sign("JWT", &claims(&provider, |c| c[claim] = json!("x")));
        assert_eq!(
            providers.access_token(&token).await.unwrap_err(),
            TokenError::Refused("it is an ID token"),
            "{claim}"
        );
    }
}

#[tokio::test]
async fn a_flood_of_unknown_keys_asks_once_and_a_new_key_is_found_at_once() {
    let (old, new) = (Key::new("old", 1), Key::new("new", 2));
    let provider = Provider::start(&[&old]);
    let providers = providers(&provider, "");
    let token = |key: &Key| key.sign("at+jwt", &claims(&provider, |_| {}));
    providers.access_token(&token(&old)).await.unwrap();
    provider.rotate(&[&new]);
    providers.access_token(&token(&new)).await.unwrap();
    assert_eq!(provider.key_requests(), 2, "once at first, and once for the new key");
    assert!(providers.access_token(&token(&old)).await.is_err(), "a key that was withdrawn");
    let flood: Vec<String> = (0..200).map(|n| token(&Key::new(&format!("made-up-{n}"), 3))).collect();
    let flood = flood.iter().map(|token| providers.access_token(token));
    for refused in futures::future::join_all(flood).await {
        assert!(matches!(refused, Err(TokenError::Refused(_))));
    }
    assert_eq!(provider.key_requests(), 2, "the flood asked nothing");
    providers.access_token(&token(&new)).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_down_is_told_and_found_again() {
    let (key, other) = (Key::new("k1", 1), Key::new("k2", 2));
    let provider = Provider::start(&[&key]);
    provider.set_down(true);
    let providers = providers(&provider, "");
    let token = key.sign("at+jwt", &claims(&provider, |_| {}));
    let asked = (0..50).map(|_| providers.access_token(&token));
    for answer in futures::future::join_all(asked).await {
        assert!(matches!(answer, Err(TokenError::Unavailable(_))), "{answer:?}");
    }
    provider.set_down(false);
    tokio::time::sleep(RETRY_PAUSE + Duration::from_millis(100)).await;
    providers.access_token(&token).await.unwrap();
    assert_eq!(provider.key_requests(), 1, "callers that waited together asked together");
    provider.set_down(true);
    providers.access_token(&token).await.unwrap();
    let unknown = other.sign("at+jwt", &claims(&provider, |_| {}));
    assert!(matches!(providers.access_token(&unknown).await, Err(TokenError::Refused(_))));
    providers.access_token(&token).await.unwrap();
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_is_not_believed() {
    let key = Key::new("k1", 1);
    let provider = Provider::start(&[&key]);
    let issuer = format!("http://localhost:{}", provider.address.port());
    let text = format!("name = 'corp'\nissuer = '{issuer}'\nclient_id = 'bmi'\naudience = '{AUDIENCE}'");
    let providers = Providers::new(vec![toml::from_str(&text).unwrap()]).unwrap();
    let token = key.sign("at+jwt", &claims(&provider, |c| c["iss"] = json!(issuer)));
    assert!(matches!(providers.access_token(&token).await, Err(TokenError::Unavailable(_))));
}
