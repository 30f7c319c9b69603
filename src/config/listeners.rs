//! `listeners` and `advertised.listeners`: where the broker listens, and what it tells clients.
//!
//! Runs on the main thread at start. Never opens a socket.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use chronik_protocol::configs::keys::broker;

use super::ConfigError;

/// The listener when nothing is said: loopback only, for there is no authentication yet.
pub(super) const DEFAULT_LISTENERS: &str = match broker::LISTENERS.definition().default {
    Some(text) => text,
    None => "",
};

const ACCEPTED: &str = "NAME://HOST:PORT, as in PLAINTEXT://127.0.0.1:9092";

/// One entry of `listeners` or `advertised.listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Listener name, in capitals.
    name: String,
    /// Host name or address; empty means every interface.
    host: String,
    /// Port; 0 is never served.
    port: u16,
}

impl Endpoint {
    fn parse(key: &str, entry: &str) -> Result<Self, ConfigError> {
        let refuse = || ConfigError::invalid(key, entry, ACCEPTED);
        let (name, rest) = entry.trim().split_once("://").ok_or_else(refuse)?;
        let (host, port) = rest.rsplit_once(':').ok_or_else(refuse)?;
        let port = port.parse::<u16>().map_err(|_| refuse())?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        if name.is_empty() || host.contains(char::is_whitespace) || host.contains('/') {
            return Err(refuse());
        }
        Ok(Self {
            name: name.to_ascii_uppercase(),
            host: host.to_owned(),
            port,
        })
    }

    fn text(&self) -> String {
        if self.host.contains(':') {
            format!("{}://[{}]:{}", self.name, self.host, self.port)
        } else {
            format!("{}://{}:{}", self.name, self.host, self.port)
        }
    }

    /// The address to bind.
    fn address(&self, key: &str) -> Result<SocketAddr, ConfigError> {
        if self.host.is_empty() {
            return Ok(SocketAddr::new(
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                self.port,
            ));
        }
        (self.host.as_str(), self.port)
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .ok_or_else(|| {
                ConfigError::invalid(
                    key,
                    &self.text(),
                    "a host name or address this machine can resolve",
                )
            })
    }
}

/// One socket the broker listens on, with what it tells the clients that come through it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Listener name, in capitals.
    pub name: String,
    /// Where to bind.
    pub bind: SocketAddr,
    /// Host clients are told to connect to.
    pub advertised_host: String,
    /// Port clients are told to connect to.
    pub advertised_port: u16,
}

fn parse_list(key: &str, text: &str) -> Result<Vec<Endpoint>, ConfigError> {
    let entries = text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty());
    let endpoints = entries
        .map(|entry| Endpoint::parse(key, entry))
        .collect::<Result<Vec<_>, _>>()?;
    for (index, endpoint) in endpoints.iter().enumerate() {
        if endpoints
            .iter()
            .take(index)
            .any(|other| other.name == endpoint.name)
        {
            return Err(ConfigError::invalid(key, text, "each listener name once"));
        }
    }
    Ok(endpoints)
}

/// `listeners` with the port of its first entry replaced.
pub(super) fn with_port(listeners: Option<&str>, port: u16) -> Result<String, ConfigError> {
    let mut endpoints = parse_list(
        broker::LISTENERS.name(),
        listeners.unwrap_or(DEFAULT_LISTENERS),
    )?;
    match endpoints.first_mut() {
        Some(first) => first.port = port,
        None => return Err(ConfigError::invalid(broker::LISTENERS.name(), "", ACCEPTED)),
    }
    Ok(endpoints
        .iter()
        .map(Endpoint::text)
        .collect::<Vec<_>>()
        .join(","))
}

/// What the keys about listeners say, as text.
pub(super) struct ListenerKeys<'a> {
    pub(super) listeners: &'a str,
    pub(super) advertised: Option<&'a str>,
    pub(super) security_protocols: Option<&'a str>,
    pub(super) controller_names: Option<&'a str>,
}

/// The listeners to serve, and warnings about those clients may not be able to use.
///
/// # Errors
/// When an entry is no endpoint, needs TLS or SASL, has no port, or is advertised without existing.
pub(super) fn resolve(
    keys: &ListenerKeys<'_>,
) -> Result<(Vec<Listener>, Vec<String>), ConfigError> {
    let mut warnings = Vec::new();
    let advertised = parse_list(
        broker::ADVERTISED_LISTENERS.name(),
        keys.advertised.unwrap_or(""),
    )?;
    let controllers = names(keys.controller_names);
    let mut listeners = Vec::new();
    for endpoint in parse_list(broker::LISTENERS.name(), keys.listeners)? {
        if controllers.contains(&endpoint.name) {
            warnings.push(format!(
                "listener {} is for Kafka's controllers and is not opened: the controller is part of this process",
                endpoint.name
            ));
            continue;
        }
        require_plaintext(&endpoint, keys.security_protocols)?;
        if endpoint.port == 0 {
            return Err(ConfigError::invalid(
                broker::LISTENERS.name(),
                &endpoint.text(),
                "a port from 1 to 65535",
            ));
        }
        let told = advertised.iter().find(|told| told.name == endpoint.name);
        listeners.push(serve(&endpoint, told, &mut warnings)?);
    }
    if listeners.is_empty() {
        return Err(ConfigError::invalid(
            broker::LISTENERS.name(),
            keys.listeners,
            ACCEPTED,
        ));
    }
    for told in &advertised {
        let known = listeners.iter().any(|listener| listener.name == told.name);
        if !known && !controllers.contains(&told.name) {
            return Err(ConfigError::invalid(
                broker::ADVERTISED_LISTENERS.name(),
                &told.text(),
                "names that `listeners` has too",
            ));
        }
    }
    Ok((listeners, warnings))
}

fn serve(
    endpoint: &Endpoint,
    told: Option<&Endpoint>,
    warnings: &mut Vec<String>,
) -> Result<Listener, ConfigError> {
    let bind = endpoint.address(broker::LISTENERS.name())?;
    let (advertised_host, advertised_port) = match told {
        Some(told) => {
            let unreachable = told
                .host
                .parse::<IpAddr>()
                .is_ok_and(|ip| ip.is_unspecified());
            if unreachable || told.host.is_empty() || told.port == 0 {
                let accepted = "an address that clients can connect to, not every interface";
                return Err(ConfigError::invalid(
                    broker::ADVERTISED_LISTENERS.name(),
                    &told.text(),
                    accepted,
                ));
            }
            (told.host.clone(), told.port)
        }
        None => (reachable_host(endpoint, bind, warnings), endpoint.port),
    };
    let loopback = is_loopback(&advertised_host);
    if loopback && !bind.ip().is_loopback() {
        warnings.push(format!(
            "listener {} accepts clients of other machines but tells them to connect to {advertised_host}, \
             which is their own machine; set advertised.listeners",
            endpoint.name
        ));
    }
    Ok(Listener {
        name: endpoint.name.clone(),
        bind,
        advertised_host,
        advertised_port,
    })
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// What a client is told when `advertised.listeners` is silent: the bound host, or for "every
/// interface" the address this machine would use towards others.
fn reachable_host(endpoint: &Endpoint, bind: SocketAddr, warnings: &mut Vec<String>) -> String {
    if !bind.ip().is_unspecified() {
        return endpoint.host.clone();
    }
    let host =
        outbound_address(bind.ip()).map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string());
    if !is_loopback(&host) {
        warnings.push(format!(
            "listener {} is on every interface and advertised.listeners is not set: clients are told {host}",
            endpoint.name
        ));
    }
    host
}

/// The source address of a route to the outside; connecting a datagram socket sends nothing.
fn outbound_address(family: IpAddr) -> Option<IpAddr> {
    let (local, remote) = match family {
        IpAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        IpAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let socket = UdpSocket::bind(local).ok()?;
    socket.connect(remote).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}

fn names(list: Option<&str>) -> Vec<String> {
    let entries = list
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    entries.map(str::to_ascii_uppercase).collect()
}

/// Only unencrypted, unauthenticated listeners exist; anything else is refused rather than weakened.
fn require_plaintext(endpoint: &Endpoint, map: Option<&str>) -> Result<(), ConfigError> {
    let mapped = map.unwrap_or("").split(',').find_map(|entry| {
        let (name, protocol) = entry.split_once(':')?;
        name.trim()
            .eq_ignore_ascii_case(&endpoint.name)
            .then(|| protocol.trim().to_ascii_uppercase())
    });
    let protocol = mapped.unwrap_or_else(|| endpoint.name.clone());
    if protocol == "PLAINTEXT" {
        return Ok(());
    }
    let accepted =
        "listeners whose security protocol is PLAINTEXT (TLS and SASL are not there yet)";
    Err(ConfigError::invalid(
        broker::LISTENERS.name(),
        &endpoint.text(),
        accepted,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(listeners: &str) -> ListenerKeys<'_> {
        ListenerKeys {
            listeners,
            advertised: None,
            security_protocols: None,
            controller_names: None,
        }
    }

    #[test]
    fn loopback_is_advertised_as_it_is_bound() {
        let (listeners, warnings) = resolve(&keys(DEFAULT_LISTENERS)).expect("valid");
        assert_eq!(
            listeners[0].bind,
            "127.0.0.1:9092".parse::<SocketAddr>().expect("address")
        );
        assert_eq!(listeners[0].advertised_host, "127.0.0.1");
        assert_eq!(listeners[0].advertised_port, 9092);
        assert!(warnings.is_empty());
    }

    #[test]
    fn every_interface_is_never_advertised_and_warns() {
        let (listeners, warnings) = resolve(&keys("PLAINTEXT://:9092")).expect("valid");
        assert!(listeners[0].bind.ip().is_unspecified());
        let told: IpAddr = listeners[0].advertised_host.parse().expect("an address");
        assert!(!told.is_unspecified());
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn a_loopback_address_told_to_the_world_warns() {
        let told = ListenerKeys {
            advertised: Some("PLAINTEXT://localhost:9092"),
            ..keys("PLAINTEXT://0.0.0.0:9092")
        };
        let (listeners, warnings) = resolve(&told).expect("valid");
        assert_eq!(listeners[0].advertised_host, "localhost");
        assert!(warnings[0].contains("advertised.listeners"), "{warnings:?}");
    }

    #[test]
    fn kafkas_own_example_file_is_served_without_its_controller() {
        let file = ListenerKeys {
            listeners: "PLAINTEXT://127.0.0.1:9092,CONTROLLER://:9093",
            advertised: Some("PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093"),
            security_protocols: Some("CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
            controller_names: Some("CONTROLLER"),
        };
        let (listeners, warnings) = resolve(&file).expect("valid");
        assert_eq!(listeners.len(), 1);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn named_listeners_follow_the_protocol_map() {
        let mapped = ListenerKeys {
            security_protocols: Some("LOCAL:PLAINTEXT"),
            ..keys("local://[::1]:7000")
        };
        let (listeners, _) = resolve(&mapped).expect("valid");
        assert_eq!(
            (listeners[0].name.as_str(), listeners[0].bind.port()),
            ("LOCAL", 7000)
        );
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for bad in [
            "",
            "9092",
            "PLAINTEXT://host",
            "PLAINTEXT://127.0.0.1:0",
            "PLAINTEXT://127.0.0.1:99999",
            "SSL://127.0.0.1:9092",
            "PLAINTEXT://127.0.0.1:1,PLAINTEXT://127.0.0.1:2",
            "://127.0.0.1:1",
        ] {
            assert!(resolve(&keys(bad)).is_err(), "{bad}");
        }
        let unknown = ListenerKeys {
            advertised: Some("OTHER://h:1"),
            ..keys(DEFAULT_LISTENERS)
        };
        assert!(resolve(&unknown).is_err());
        let nowhere = ListenerKeys {
            advertised: Some("PLAINTEXT://0.0.0.0:1"),
            ..keys(DEFAULT_LISTENERS)
        };
        assert!(resolve(&nowhere).is_err());
    }

    #[test]
    fn a_port_replaces_the_first_listeners_port() {
        assert_eq!(
            with_port(None, 1).expect("valid"),
            "PLAINTEXT://127.0.0.1:1"
        );
        assert_eq!(
            with_port(Some("A://[::1]:2,B://h:3"), 4).expect("valid"),
            "A://[::1]:4,B://h:3"
        );
    }
}
