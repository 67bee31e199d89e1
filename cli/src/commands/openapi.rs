//! `belay openapi`.

use crate::{failure::Failure, output};

/// Prints the description of the REST API. It is the same in every form of output.
pub(crate) fn run() -> Result<(), Failure> {
    output::json(&belay_gateway::openapi())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_openapi() {
        let document = belay_gateway::openapi();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["paths"]["/compute/hosts/{hostId}"]["get"]["operationId"], "getHost");
    }
}
