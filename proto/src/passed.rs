//! What travels between the gateway and the server beside the messages, and what a signature is told by.

/// What the `authorization` of a signed request begins with, as documented: `OCP-ACCESS-KEY-HMACSHA1 ID:SIGNATURE`.
pub const SIGNATURE_SCHEME: &str = "OCP-ACCESS-KEY-HMACSHA1";

/// What every scheme for signatures begins with, whatever its algorithm.
pub const SIGNATURE_FAMILY: &str = "OCP-ACCESS-KEY-";

/// The metadata key of the text that a request's signature is of: the gateway, which alone has seen the request, makes it.
pub const STRING_TO_SIGN: &str = "belay-string-to-sign-bin";

/// Bytes of that text at the most.
pub const LONGEST_STRING_TO_SIGN: usize = 8 * 1024;

/// The metadata key of the address from which a REST caller calls.
pub const CLIENT_ADDRESS: &str = "belay-client-address";

/// The metadata keys, and with REST the headers, that tell a user how many requests it has left: how many there may be in a
/// time, how many of them are left, and in how many seconds there are more.
pub const RATE_LIMIT: [&str; 3] = ["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"];
