//! A browser: cookies by host and port, redirects, and the person who sits in front of it.
//!
//! Deliberately absent: scripts, and any mercy. What a browser would not send is not sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::api::{Answer, Api};

/// The most redirects in a row.
const REDIRECTS_MAX: usize = 20;

/// A browser.
#[derive(Debug, Clone)]
pub struct Browser {
    /// The person, as the identity providers of the tests know them.
    pub user: String,
    /// Cookies by where they are from and their name.
    pub cookies: BTreeMap<(SocketAddr, String), String>,
}

/// Splits an `http://` URL into its address and the rest.
fn parts(url: &str) -> (SocketAddr, &str) {
    let rest = url.strip_prefix("http://").unwrap_or_else(|| panic!("not an http:// URL: {url}"));
    let at = rest.find('/').unwrap_or(rest.len());
    let path = if at == rest.len() { "/" } else { &rest[at..] };
    (rest[..at].replace("localhost", "127.0.0.1").parse().unwrap(), path)
}

/// The value of a parameter in a URL.
#[must_use]
pub fn parameter(url: &str, name: &str) -> Option<String> {
    let query = url.split_once('?')?.1;
    query
        .split('&')
        .find_map(|pair| Some(pair.split_once('=')?).filter(|(key, _)| *key == name))
        .map(|(_, v)| v.to_owned())
}

/// The same URL with another value of a parameter.
#[must_use]
pub fn with_parameter(url: &str, name: &str, value: &str) -> String {
    let old = parameter(url, name).unwrap_or_else(|| panic!("{url} has no {name}"));
    url.replace(&format!("{name}={old}"), &format!("{name}={value}"))
}

/// The value of an attribute of the first tag with a text.
#[must_use]
pub fn attribute(html: &str, tag: &str, name: &str) -> Option<String> {
    let at = html.find(tag)?;
    let begin = html[..at].rfind('<')?;
    let whole = &html[begin..at + html[at..].find('>')?];
    let value = &whole[whole.find(&format!(" {name}=\""))? + name.len() + 3..];
    Some(value[..value.find('"')?].replace("&amp;", "&"))
}

impl Browser {
    /// A new browser of a person.
    #[must_use]
    pub fn of(user: &str) -> Self {
        Self { user: user.to_owned(), cookies: BTreeMap::new() }
    }

    /// Sends one request, and keeps the cookies of the answer.
    pub fn send(&mut self, method: &str, url: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let (address, path) = parts(url);
        let mine = self.cookies.iter().filter(|((from, _), _)| *from == address);
        let cookies: Vec<String> = mine.map(|((_, name), value)| format!("{name}={value}")).collect();
        let cookies = cookies.join("; ");
        let mut all = vec![("X-User", self.user.as_str()), ("Accept", "text/html,application/json")];
        if !cookies.is_empty() {
            all.push(("Cookie", &cookies));
        }
        all.extend_from_slice(headers);
        let api = Api::new(address, "").authorized(None);
        let answer = api.send(method, path, &all, body.map(str::as_bytes));
        for (_, cookie) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = cookie.split(';').next().unwrap().split_once('=').unwrap();
            let key = (address, name.to_owned());
            if value.is_empty() || cookie.contains("Max-Age=0") || cookie.contains("1970") {
                self.cookies.remove(&key);
            } else {
                self.cookies.insert(key, value.to_owned());
            }
        }
        answer
    }

    /// GET.
    pub fn get(&mut self, url: &str) -> Answer {
        self.send("GET", url, &[], None)
    }

    /// Sends a form.
    pub fn submit(&mut self, url: &str, fields: &[(&str, &str)]) -> Answer {
        let encoded = |text: &str| -> String {
            text.bytes()
                .map(|byte| match byte {
                    b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                        char::from(byte).to_string()
                    }
                    other => format!("%{other:02X}"),
                })
                .collect()
        };
        let pairs: Vec<String> =
            fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
        let headers = [("Content-Type", "application/x-www-form-urlencoded")];
        self.send("POST", url, &headers, Some(&pairs.join("&")))
    }

    /// Goes where an answer sends it, and on, until there is no redirect, or it leads to a URL that begins with
    /// `stop`. Gives the last URL and, unless stopped, what was there.
    pub fn follow(&mut self, url: &str, answer: Answer, stop: &str) -> (String, Answer) {
        let (mut url, mut answer) = (url.to_owned(), answer);
        for _ in 0..REDIRECTS_MAX {
            let Some(to) = answer.header("location").filter(|_| (300..400).contains(&answer.status)) else {
                return (url, answer);
            };
            url = if to.starts_with('/') { format!("http://{}{to}", parts(&url).0) } else { to.to_owned() };
            if url.starts_with(stop) {
                return (url, answer);
            }
            answer = self.get(&url);
        }
        panic!("too many redirects, at last to {url}");
    }

    /// Visits a URL and follows where it leads.
    pub fn visit(&mut self, url: &str, stop: &str) -> (String, Answer) {
        let answer = self.get(url);
        self.follow(url, answer, stop)
    }
}
