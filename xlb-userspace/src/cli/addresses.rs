//! Where the running agent can be asked.

use std::net::SocketAddr;
use std::str::FromStr;

use clap::Args;

use crate::health::PortChoice;

/// The servers of the agent. The ports are kube-proxy's and 100, as both usually run on a node.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Where /healthz, /livez and /readyz are answered, or off
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:10356")]
    pub health_address: ServerAddress,
    /// Where /metrics, and a page for people at /, are answered, or off
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:10349")]
    pub metrics_address: ServerAddress,
    /// Whether to answer at the healthCheckNodePort of Services: auto does where nothing else has the port; say off where
    /// kube-proxy answers
    #[arg(long, value_enum, default_value = "auto")]
    pub health_check_node_ports: PortChoice,
}

/// An address, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerAddress(pub Option<SocketAddr>);

impl FromStr for ServerAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self(None));
        }
        let address = text.parse().map_err(|_| {
            format!("found {text:?}, expected off, or an address and a port such as 127.0.0.1:10349 or [::]:10356")
        })?;
        Ok(Self(Some(address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_or_is_off() {
        let parsed = |text: &str| text.parse::<ServerAddress>().ok().map(|address| address.0.map(|at| at.to_string()));
        assert_eq!(parsed("off"), Some(None));
        assert_eq!(parsed("0.0.0.0:10356"), Some(Some("0.0.0.0:10356".into())));
        assert_eq!(parsed("[::]:1"), Some(Some("[::]:1".into())));
        assert_eq!([parsed("10356"), parsed("localhost:1"), parsed("")], [None, None, None]);
    }
}
