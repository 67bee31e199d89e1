//! Where agents may be said to be. The server goes there, so not everywhere (hazard S27).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of no host: of nobody, of many, or of whatever is plugged in next to this machine, such as the metadata
/// service of a cloud.
pub(super) fn is_nobodys(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            ip.is_unspecified() || ip.is_multicast() || ip.is_link_local() || ip == Ipv4Addr::BROADCAST
        }
        IpAddr::V6(ip) => {
            ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() || is_metadata(ip)
        }
    }
}

/// Where a large cloud has its metadata service beside the link-local address.
fn is_metadata(ip: Ipv6Addr) -> bool {
    ip == Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)
}

/// Checks `HOST:PORT` as an agent says that it is reached there. A name is not looked up here: whom it leads to must know the
/// fleet's secret anyway, and be the agent that is meant.
pub(super) fn check_agent_address(text: &str) -> Result<(), String> {
    let shown: String = text.chars().filter(|letter| !letter.is_control()).take(100).collect();
    let wrong = || format!("`{shown}` is not HOST:PORT");
    let authority: http::uri::Authority = text.parse().map_err(|_| wrong())?;
    // A user before the host would go to nobody, and hides from a reader which host it is.
    if authority.port_u16().is_none_or(|port| port == 0) || text.contains('@') || authority.host().is_empty()
    {
        return Err(wrong());
    }
    match authority.host().trim_matches(['[', ']']).parse() {
        Ok(ip) if is_nobodys(ip) => Err(format!("`{shown}` is the address of no host")),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hazard S27.
    #[test]
    fn the_server_does_not_go_everywhere() {
        for right in ["127.0.0.1:9441", "10.0.0.5:9441", "host-1.example:9441", "[fd00::7]:9441", "[::1]:1"] {
            assert_eq!(check_agent_address(right), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "host-1",
            "host-1:0",
            ":9441",
            "http://host-1:9441",
            "admin@host-1:9441",
            "host-1:9441/path",
            "0.0.0.0:9441",
            "[::]:9441",
            "169.254.169.254:80",
            "[::ffff:169.254.169.254]:80",
            "[fe80::1]:9441",
            "[fd00:ec2::254]:80",
            "224.0.0.1:9441",
            "255.255.255.255:9441",
            "[ff02::1]:9441",
        ] {
            assert!(check_agent_address(wrong).is_err(), "{wrong}");
        }
    }
}
