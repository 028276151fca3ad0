//! Pages: `limit` and `cursor` in, items and the next cursor out.

use std::collections::BTreeMap;

use actix_web::web;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use bmi_api::{Code, Page};
use bmi_db::After;
use uuid::Uuid;

use super::answer::{Answer, ApiError, Outcome};
use super::request::Request;

/// Items on a page, unless asked otherwise.
const LIMIT: i64 = 100;
/// The most items on a page.
const LIMIT_MAX: i64 = 500;

/// A query string that was read: only what the route knows.
pub(super) struct Query {
    after: After,
    list: String,
    filters: BTreeMap<String, String>,
}

impl Query {
    /// Reads the query of a list; `known` are the filters it takes besides `limit` and `cursor`.
    pub(super) fn read(request: &Request, list: &str, known: &[&str]) -> Result<Self, ApiError> {
        let wrong = |detail: String| ApiError::new(Code::BadRequest, detail);
        let query = web::Query::<BTreeMap<String, String>>::from_query(request.http.query_string());
        let mut filters =
            query.map_err(|error| wrong(format!("the query cannot be read: {error}")))?.into_inner();
        let (limit, cursor) = (filters.remove("limit"), filters.remove("cursor"));
        if let Some(unknown) = filters.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(wrong(format!("`{unknown}` is not a query parameter of this list")));
        }
        if let Some((name, _)) = filters.iter().find(|(_, value)| value.contains('\0')) {
            return Err(wrong(format!("`{name}` has a NUL character")));
        }
        let limit = match limit {
            None => LIMIT,
            Some(text) => match text.parse() {
                Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => limit,
                _ => return Err(wrong(format!("limit must be 1 to {LIMIT_MAX}, not `{text}`"))),
            },
        };
        // A cursor holds its list, project and filters: with others it would go on in the middle of nowhere.
        let list = format!("{list} {}?{filters:?}", request.path("project"));
        let id = match cursor {
            None => Uuid::nil(),
            Some(text) => {
                decode(&text, &list).ok_or_else(|| wrong("the cursor is not one of this list".to_owned()))?
            }
        };
        Ok(Self { after: After { id, limit: limit + 1 }, list, filters })
    }

    /// Reads the query of something that is no list.
    pub(super) fn plain(request: &Request, known: &[&str]) -> Result<Self, ApiError> {
        let query = Self::read(request, "", known)?;
        let paged = query.after.limit != LIMIT + 1 || !query.after.id.is_nil();
        if paged {
            return Err(ApiError::new(Code::BadRequest, "this is no list: it has no limit and no cursor"));
        }
        Ok(query)
    }

    /// A filter's value.
    pub(super) fn filter(&self, name: &str) -> Option<String> {
        self.filters.get(name).cloned()
    }

    /// Where to read on; one item more than the page has, to know whether there is a next page.
    pub(super) const fn after(&self) -> After {
        self.after
    }

    /// Answers the page.
    pub(super) fn page<T: serde::Serialize>(self, mut items: Vec<T>, id: impl Fn(&T) -> Uuid) -> Outcome {
        let limit = usize::try_from(self.after.limit - 1).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|item| encode(id(item), &self.list));
        Answer::ok(Page { items, next })
    }
}

fn encode(id: Uuid, list: &str) -> String {
    BASE64URL.encode(format!("{} {list}", id.simple()))
}

fn decode(cursor: &str, list: &str) -> Option<Uuid> {
    let text = String::from_utf8(BASE64URL.decode(cursor).ok()?).ok()?;
    let (id, of) = text.split_once(' ')?;
    (of == list).then(|| Uuid::try_parse(id).ok()).flatten()
}
