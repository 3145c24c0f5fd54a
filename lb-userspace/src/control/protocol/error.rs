//! Refusals: a stable code for programs, a sentence with the remedy for people.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why the agent refused a request. Stable: programs may test for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The agent speaks another version of the protocol.
    Version,
    /// The agent does not know the verb.
    UnknownVerb,
    /// The line is no request: too long, no JSON, or no object. The agent closes the stream.
    BadRequest,
    /// An argument is missing, unknown or out of range.
    BadArgument,
    /// No service has this name.
    UnknownService,
    /// No backend has this address.
    UnknownBackend,
    /// Several backends match; the request must name the service.
    Ambiguous,
    /// This director cannot do it in its present role.
    WrongRole,
    /// There is no connection sync in the config.
    NoSync,
    /// The peer does not have all conns, and the role was not to be given by force.
    NotSynced,
    /// Too many clients. The agent closes the stream.
    Busy,
    /// The agent failed to do what was asked.
    Internal,
    /// A code of a newer agent.
    #[serde(other)]
    Other,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The reason, for programs.
    pub code: ErrorCode,
    /// The reason and the remedy, for people.
    pub message: String,
}

impl ApiError {
    /// A refusal with a message for people.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The agent failed to do what was asked.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(ErrorCode::Internal, cause.to_string())
    }

    /// After this refusal the next line of the client cannot be trusted to start a request.
    pub(crate) fn ends_the_stream(&self) -> bool {
        matches!(self.code, ErrorCode::BadRequest | ErrorCode::Busy)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
