//! Requests: from a line of untrusted bytes to a [`Request`], with a code and a sentence for everything wrong.

use super::{ApiError, BackendView, ConnFilter, ErrorCode, ServiceView, VERSION};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::net::SocketAddrV4;

/// What an operator asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Request {
    /// One [`super::Status`].
    Status,
    /// A listing of [`super::ServiceView`].
    Services,
    /// A listing of [`super::ConnView`].
    Conns(ConnFilter),
    /// A listing of [`super::StatsView`].
    Stats,
    /// A listing of [`super::RateView`].
    Rate {
        /// The time between the two readings, [`Request::INTERVAL_MS`].
        interval_ms: u64,
    },
    /// A listing of [`super::DropView`].
    Drops,
    /// One [`super::BackendAnswer`].
    Backend(BackendCommand),
    /// One [`super::FailoverAnswer`].
    Failover {
        /// And back again.
        drill: bool,
        /// Even if the peer does not have all conns.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        force: bool,
    },
    /// One [`super::SyncView`].
    Peer,
    /// A listing of [`super::DiffView`].
    Diff {
        /// At most this many.
        limit: u64,
    },
}

/// A change of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendCommand {
    /// What to do.
    #[serde(flatten)]
    pub action: BackendAction,
    /// The service's name; may be left out if only one service has the backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The backend's address and port.
    pub address: SocketAddrV4,
}

/// What to do with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum BackendAction {
    /// It takes no new conns and keeps the ones it has.
    Drain {
        /// After this, the conns that are left are reset; absent: as the config says.
        #[serde(skip_serializing_if = "Option::is_none")]
        deadline_seconds: Option<u64>,
    },
    /// It takes new conns again, with the weight it had.
    Undrain,
    /// It is out of everything until it is enabled; its conns stay.
    Disable,
    /// It is back, drained or disabled as it was.
    Enable,
    /// Both ends of all its conns are reset.
    Kill,
    /// It gets another weight.
    Weight {
        /// The weight; 0 takes no new conns.
        weight: u16,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoArguments {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RateArguments {
    #[serde(default = "one_second")]
    interval_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailoverArguments {
    #[serde(default)]
    drill: bool,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DiffArguments {
    #[serde(default = "some_conns")]
    limit: u64,
}

fn some_conns() -> u64 {
    Request::DIFF_LIMIT
}

fn one_second() -> u64 {
    1000
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionName {
    Drain,
    Undrain,
    Disable,
    Enable,
    Kill,
    Weight,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendArguments {
    action: ActionName,
    service: Option<String>,
    address: SocketAddrV4,
    weight: Option<u16>,
    deadline_seconds: Option<u64>,
}

impl Request {
    /// What `interval_ms` of `rate` may be.
    pub const INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=60_000;

    /// How many conns `diff` lists, unless another number is given.
    pub const DIFF_LIMIT: u64 = 1000;

    const VERBS: [&str; 10] =
        ["status", "services", "conns", "stats", "rate", "drops", "backend", "failover", "peer", "diff"];

    /// The request as a line, without the newline.
    ///
    /// # Errors
    ///
    /// None in practice: every request can be written as JSON.
    pub fn encode(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Envelope<'a> {
            version: u32,
            #[serde(flatten)]
            request: &'a Request,
        }
        serde_json::to_vec(&Envelope { version: VERSION, request: self })
    }

    /// Reads a line of untrusted bytes, without the newline.
    ///
    /// The version is judged before the verb and the verb before the arguments, so that a client of another release
    /// learns what is really wrong.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::BadRequest`], [`ErrorCode::Version`], [`ErrorCode::UnknownVerb`] or [`ErrorCode::BadArgument`].
    pub fn decode(line: &[u8]) -> Result<Self, ApiError> {
        let mut map: Map<String, Value> = serde_json::from_slice(line).map_err(|cause| {
            ApiError::new(ErrorCode::BadRequest, format!("a request is one line with one JSON object: {cause}"))
        })?;
        match map.remove("version") {
            None => {
                return Err(ApiError::new(
                    ErrorCode::BadRequest,
                    format!("the request has no version: start it with {{\"version\":{VERSION},\"verb\":…"),
                ));
            }
            Some(version) if version.as_u64() == Some(u64::from(VERSION)) => {}
            Some(version) => {
                let message = format!(
                    "the request is of protocol version {version}, this agent speaks version {VERSION}: \
                     use the lbctl of the agent's release ({})",
                    env!("CARGO_PKG_VERSION")
                );
                return Err(ApiError::new(ErrorCode::Version, message));
            }
        }
        let Some(Value::String(verb)) = map.remove("verb") else {
            return Err(ApiError::new(ErrorCode::BadRequest, "the request has no verb"));
        };
        Ok(match verb.as_str() {
            "status" => arguments::<NoArguments>(&verb, map).map(|_| Self::Status)?,
            "services" => arguments::<NoArguments>(&verb, map).map(|_| Self::Services)?,
            "conns" => Self::Conns(arguments(&verb, map)?),
            "stats" => arguments::<NoArguments>(&verb, map).map(|_| Self::Stats)?,
            "rate" => Self::Rate { interval_ms: interval(arguments(&verb, map)?)? },
            "drops" => arguments::<NoArguments>(&verb, map).map(|_| Self::Drops)?,
            "backend" => Self::Backend(backend(arguments(&verb, map)?)?),
            "failover" => {
                let FailoverArguments { drill, force } = arguments(&verb, map)?;
                Self::Failover { drill, force }
            }
            "peer" => arguments::<NoArguments>(&verb, map).map(|_| Self::Peer)?,
            "diff" => arguments(&verb, map).map(|DiffArguments { limit }| Self::Diff { limit })?,
            other => {
                let message = format!(
                    "this agent does not know the verb '{other}'; it knows {}. Is lbctl of a newer release?",
                    Self::VERBS.join(", ")
                );
                return Err(ApiError::new(ErrorCode::UnknownVerb, message));
            }
        })
    }
}

fn arguments<T: DeserializeOwned>(verb: &str, map: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(map)).map_err(|cause| bad(format!("{verb}: {cause}")))
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadArgument, message)
}

fn interval(RateArguments { interval_ms }: RateArguments) -> Result<u64, ApiError> {
    if Request::INTERVAL_MS.contains(&interval_ms) {
        return Ok(interval_ms);
    }
    let range = Request::INTERVAL_MS;
    Err(bad(format!("rate: interval_ms is {interval_ms}, it must be {} to {}", range.start(), range.end())))
}

fn backend(arguments: BackendArguments) -> Result<BackendCommand, ApiError> {
    let BackendArguments { action, service, address, weight, deadline_seconds } = arguments;
    if deadline_seconds.is_some() && !matches!(action, ActionName::Drain) {
        return Err(bad("backend: only the action drain takes the argument deadline_seconds"));
    }
    let action = match (action, weight) {
        (ActionName::Drain, None) => BackendAction::Drain { deadline_seconds },
        (ActionName::Undrain, None) => BackendAction::Undrain,
        (ActionName::Disable, None) => BackendAction::Disable,
        (ActionName::Enable, None) => BackendAction::Enable,
        (ActionName::Kill, None) => BackendAction::Kill,
        (ActionName::Weight, Some(weight)) => BackendAction::Weight { weight },
        (ActionName::Weight, None) => return Err(bad("backend: the action weight needs the argument weight")),
        (_, Some(_)) => return Err(bad("backend: only the action weight takes the argument weight")),
    };
    Ok(BackendCommand { action, service, address })
}

impl BackendCommand {
    /// Finds the one backend that is meant.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::UnknownService`], [`ErrorCode::UnknownBackend`] or [`ErrorCode::Ambiguous`].
    pub fn find<'a>(&self, services: &'a [ServiceView]) -> Result<(&'a ServiceView, &'a BackendView), ApiError> {
        let names = |services: &mut dyn Iterator<Item = &'a ServiceView>| {
            services.map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        if let Some(name) = &self.service
            && !services.iter().any(|s| s.name == *name)
        {
            let message = format!("no service is called '{name}'; there are: {}", names(&mut services.iter()));
            return Err(ApiError::new(ErrorCode::UnknownService, message));
        }
        let wanted = services.iter().filter(|s| self.service.as_ref().is_none_or(|name| s.name == *name));
        let found: Vec<_> = wanted
            .flat_map(|s| s.backends.iter().map(move |b| (s, b)))
            .filter(|(_, b)| b.address == self.address)
            .collect();
        match found[..] {
            [only] => Ok(only),
            [] => {
                let message = match &self.service {
                    Some(name) => format!("the service '{name}' has no backend {}", self.address),
                    None => format!("no service has a backend {}", self.address),
                };
                Err(ApiError::new(ErrorCode::UnknownBackend, message + "; lbctl services lists them"))
            }
            _ => {
                let services = names(&mut found.iter().map(|(s, _)| *s));
                let message = format!("{} is a backend of several services, name one: {services}", self.address);
                Err(ApiError::new(ErrorCode::Ambiguous, message))
            }
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
