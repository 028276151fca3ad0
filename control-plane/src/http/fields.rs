//! Reads a JSON body field by field, so that every fault of a request is told at once.

use std::fmt::Display;

use bmi_api::{Code, Fault};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::answer::ApiError;
use crate::error::AppError;

/// The most faults that are told: more help nobody.
const FAULTS_MAX: usize = 64;

/// The fields of a body that are not read yet, and what was wrong so far.
#[derive(Debug)]
pub(super) struct Fields {
    map: Map<String, Value>,
    faults: Vec<Fault>,
}

/// Whether a text anywhere in a value has a NUL character.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

impl Fields {
    /// Reads a body; an empty one has no fields.
    pub(super) fn read(body: &[u8]) -> Result<Self, ApiError> {
        if body.is_empty() {
            return Ok(Self { map: Map::new(), faults: Vec::new() });
        }
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::new(Code::NotJson, format!("the body is not JSON: {error}")))?;
        match value {
            Value::Object(map) => Ok(Self { map, faults: Vec::new() }),
            other => {
                let detail = format!("the body must be a JSON object, not {}", kind(&other));
                Err(AppError::invalid(vec![Fault { field: String::new(), detail }]).into())
            }
        }
    }

    /// Whether a field was sent.
    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// A field that must be there.
    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        match self.map.remove(name) {
            None | Some(Value::Null) => {
                self.fault(name, "is missing");
                None
            }
            Some(value) => self.parse(name, value),
        }
    }

    /// A field that may be there; `null` counts as absent.
    pub(super) fn optional<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(value) => self.parse(name, value),
        }
    }

    /// A list that may be there; each element's fault is told with its position, and then there is no list.
    pub(super) fn list<T: DeserializeOwned>(&mut self, name: &str) -> Option<Vec<T>> {
        match self.map.remove(name) {
            None | Some(Value::Null) => None,
            Some(Value::Array(values)) => {
                let count = values.len();
                let read: Vec<T> = values
                    .into_iter()
                    .enumerate()
                    .filter_map(|(position, value)| self.parse(&format!("{name}[{position}]"), value))
                    .collect();
                (read.len() == count).then_some(read)
            }
            Some(other) => {
                self.fault(name, format!("must be a list, not {}", kind(&other)));
                None
            }
        }
    }

    /// A text of at most `longest` characters that may be there.
    pub(super) fn text(&mut self, name: &str, longest: usize) -> Option<String> {
        let text: String = self.optional(name)?;
        if text.chars().count() > longest {
            self.fault(name, format!("has more than {longest} characters"));
        }
        Some(text)
    }

    fn parse<T: DeserializeOwned>(&mut self, name: &str, value: Value) -> Option<T> {
        // JSON can say it, and PostgreSQL cannot keep it.
        if has_nul(&value) {
            self.fault(name, "has a NUL character");
            return None;
        }
        match serde_json::from_value(value) {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.fault(name, error);
                None
            }
        }
    }

    /// Adds a fault.
    pub(super) fn fault(&mut self, field: &str, detail: impl Display) {
        self.faults.push(Fault { field: field.to_owned(), detail: detail.to_string() });
    }

    /// Adds faults that the application found in what was read.
    pub(super) fn faults(&mut self, faults: Vec<Fault>) {
        self.faults.extend(faults);
    }

    /// Every fault so far, for a request whose further checks need the database; every unread field is one.
    pub(super) fn into_faults(mut self) -> Vec<Fault> {
        let unread: Vec<String> = std::mem::take(&mut self.map).into_iter().map(|(name, _)| name).collect();
        for name in unread {
            let name: String = name.chars().take(64).collect();
            self.fault(&name, "is not a field of this request");
        }
        self.faults.truncate(FAULTS_MAX);
        self.faults
    }

    /// Builds the request, when it has no fault.
    pub(super) fn finish<T>(self, build: impl FnOnce() -> Option<T>) -> Result<T, ApiError> {
        let faults = self.into_faults();
        if faults.is_empty() {
            return build()
                .ok_or_else(|| AppError::Defect("a field without a fault is missing".to_owned()).into());
        }
        Err(AppError::invalid(faults).into())
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_told_at_once() {
        let mut fields =
            Fields::read(br#"{"name": "Bad Name", "count": "x", "extra": 1, "list": [1, "a"]}"#).unwrap();
        let name: Option<bmi_types::Name> = fields.required("name");
        let count: Option<u32> = fields.required("count");
        let list: Option<Vec<u32>> = fields.list("list");
        let gone: Option<String> = fields.required("gone");
        let error = fields.finish(|| Some((name?, count?, list?, gone?))).unwrap_err();
        let told: Vec<&str> = error.problem.errors.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(told, ["name", "count", "list[1]", "gone", "extra"]);
        assert_eq!(error.problem.code, Code::Invalid);
    }

    #[test]
    fn what_is_not_json_is_not_merely_invalid() {
        assert_eq!(Fields::read(b"{").unwrap_err().problem.code, Code::NotJson);
        assert_eq!(Fields::read(b"[]").unwrap_err().problem.code, Code::Invalid);
    }
}
