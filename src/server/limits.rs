//! How many connections there may be, as the settings say: `max.connections` and its relatives.
//!
//! Runs on the designated shard whenever settings of the broker change. Looking host names up is left to a
//! thread, for it can take seconds. Never counts connections; the door does.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread::Builder;

use chronik_io::net::{Door, DoorLimits, ListenerLimits};
use chronik_protocol::configs::address_limits;
use chronik_shards::catalog::Image;
use tracing::warn;

use crate::config::Listener;

/// Makes the door keep what `image` says.
pub(crate) fn apply(door: &Arc<Door>, listeners: &[Listener], image: &Image) {
    let (mut limits, names) = limits_of(listeners, image);
    if names.is_empty() {
        return door.change(limits);
    }
    door.change(limits.clone());
    let (door, settings) = (Arc::clone(door), door.generation());
    let look_up = move || {
        for (name, count) in names {
            match (name.as_str(), 0).to_socket_addrs() {
                Ok(found) => {
                    let addresses = found.map(|found| (found.ip().to_canonical(), count));
                    limits.overrides.extend(addresses);
                }
                Err(error) => {
                    warn!(%name, %error, "max.connections.per.ip.overrides names a host that is not known");
                }
            }
        }
        door.change_if(settings, limits);
    };
    let thread = Builder::new().name("look-up".to_owned()).spawn(look_up);
    if let Err(error) = thread {
        warn!(%error, "max.connections.per.ip.overrides: hosts cannot be looked up");
    }
}

/// The limits, and the hosts whose addresses are still to be found.
fn limits_of(listeners: &[Listener], image: &Image) -> (DoorLimits, Vec<(String, usize)>) {
    let (configs, node_id) = (&image.broker_configs, image.node_id);
    let number = |name: &str| configs.parsed::<usize>(node_id, name);
    let rate = |name: &str| {
        let set = configs.parsed::<u32>(node_id, name);
        set.filter(|rate| *rate < i32::MAX.unsigned_abs())
    };
    let text = configs.value(node_id, "max.connections.per.ip.overrides");
    let entries = text.as_deref().map(address_limits);
    let (mut overrides, mut names) = (HashMap::new(), Vec::new());
    for (host, count) in entries.and_then(Result::ok).unwrap_or_default() {
        match host.parse::<IpAddr>() {
            Ok(address) => drop(overrides.insert(address.to_canonical(), count)),
            Err(_) => names.push((host.to_owned(), count)),
        }
    }
    let of_listeners = listeners.iter().enumerate().map(|(number_of, listener)| {
        let prefix = format!("listener.name.{}", listener.name.to_ascii_lowercase());
        let own = ListenerLimits {
            connections_max: number(&format!("{prefix}.max.connections")).unwrap_or(usize::MAX),
            per_second_max: rate(&format!("{prefix}.max.connection.creation.rate")),
        };
        (number_of, own)
    });
    let limits = DoorLimits {
        connections_max: number("max.connections").unwrap_or(usize::MAX),
        per_address_max: number("max.connections.per.ip").unwrap_or(usize::MAX),
        overrides,
        per_second_max: rate("max.connection.creation.rate"),
        of_listeners: of_listeners.collect(),
    };
    (limits, names)
}
