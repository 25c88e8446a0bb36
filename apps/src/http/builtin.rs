//! The routes that khamsin brings, and its welcome page.

use super::date;
use super::parse::Method;
use super::request::Request;
use super::response::Response;
use serde_json::{Map, Value};

/// Served at `/` when there is no root.
pub(crate) const WELCOME: &str = include_str!("welcome.html");

/// `/query`: the parameters as a JSON object; a name that comes more than once has an array.
pub(crate) fn query(request: &Request<'_>) -> Response {
    match request.method() {
        Method::Get | Method::Head => {}
        Method::Options => return Response::new(204).header("Allow", "GET, HEAD, OPTIONS"),
        _ => return Response::method_not_allowed("GET, HEAD, OPTIONS"),
    }
    let mut object = Map::new();
    for (name, value) in request.parameters() {
        let value = Value::String(value);
        match object.get_mut(&name) {
            None => {
                object.insert(name, value);
            }
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Response::json(&Value::Object(object))
}

/// One event of `/events`.
pub(crate) fn event(count: u64, unix_seconds: u64) -> String {
    format!("id: {count}\ndata: {{\"count\":{count},\"time\":\"{}\"}}\n\n", date::http_date(unix_seconds))
}
